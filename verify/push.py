"""Pushes an image, and follows it to what the stack says of it: its jobs, SSM's events, and each node."""

import itertools
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

from local import images
from verify import inventory
from verify.aws import Account
from verify.interrupts import until
from verify.jobs import Jobs, Refused
from verify.registry import PushRefused, Registry
from verify.repository import Place
from verify.results import Results, one_line, progress, said
from verify.rules import Rule
from verify.stack import Stack

APPEARS_SECONDS = 120
"""Says how long a push's job may take to appear: some seconds, and the function's first retry comes after 60."""
CLOCK_SKEW_SECONDS = 5
NOT_USED = "runs an image of"
"""Is what image-push says of a push that no node of its rules would run."""
MAX_PAGES = 3
"""Says how many pages of the newest jobs, or of a log, are looked through."""


@dataclass
class Push:
    """An image that was pushed, and who is to get it."""

    account: Account
    stack: Stack
    jobs: Jobs
    place: Place
    image: images.Artifact
    rules: Sequence[Rule]
    """The rules that want it."""
    deadline: float
    began: float = field(default_factory=time.time)
    sent: list[str] = field(default_factory=list)
    """The jobs by which the run itself had the image brought."""

    @property
    def what(self) -> str:
        """Returns what the push is called."""
        return f"push of {self.place.repository}:{self.place.tag}"


def upload(push: Push, results: Results) -> bool:
    """Pushes the image; returns whether the registry has taken it."""
    try:
        Registry(push.account).push(push.place.repository, push.place.tag, push.image)
    except PushRefused as error:
        results.broken(push.what, str(error))
    except (BotoCoreError, ClientError) as error:
        results.unchecked(push.what, said(error))
    else:
        results.held(push.what, f"{push.image.digest[:19]}…, {len(push.image.children)} platforms")
        return True
    return False


def jobs(push: Push, results: Results) -> dict[str, str]:
    """Waits for the job of each rule that wants the image; returns the ids of those that send something, by rule."""
    progress(f"Pushed {push.place.repository}:{push.place.tag}; waiting for its job …")
    sending = {}
    try:
        found = _appeared(push)
    except Refused as error:
        results.broken("job of the push", str(error))
        return {}
    for rule in push.rules:
        what, job = f"job of the push by rule {rule.name}", found.get(rule.name)
        if job is None and rule.used and _is_unused(push, bool(found)):
            results.held(what, "none, for no node of the rule uses the repository: a job brings the image instead")
            if id_ := _by_job(push, rule, results):
                sending[rule.name] = id_
        elif job is None:
            results.broken(what, _missing(push, bool(found)))
        elif job["state"] == "observed":
            results.held(what, "observed only: with Mode observe it is recorded, and nothing is sent")
        else:
            results.held(what, job["id"])
            sending[rule.name] = job["id"]
    return sending


def _is_unused(push: Push, others: bool) -> bool:
    """Tells whether a rule has no job because no node of it uses the repository: it says so, or only others have."""
    lines = _log(push)
    return any(NOT_USED in line for line in lines) or (others and not lines)


def _by_job(push: Push, rule: Rule, results: Results) -> str | None:
    """Has a job bring the image by a rule whose nodes do not use the repository; returns the job's id."""
    image = f"{push.place.repository}:{push.place.tag}"
    try:
        [job] = push.jobs.post("/jobs", {"images": [image], "rule": rule.name})["jobs"]
    except Refused as error:
        results.broken(f"a job brings the image by rule {rule.name}", str(error))
        return None
    push.sent.append(job["id"])
    return job["id"]


def cancel(push: Push, results: Results) -> None:
    """Cancels what of the push's jobs has not begun: the image is about to be removed."""
    try:
        for trigger in ("push", "job") if push.sent else ("push",):
            for job in listed(push.jobs, push.image.digest, trigger):
                if job["state"] == "running":
                    push.jobs.delete(f"/jobs/{job['id']}")
    except Refused as error:
        results.broken("the push's jobs are cancelled", f"{error}; a node may still look for the image")


def _appeared(push: Push) -> dict[str, dict]:
    """Waits until every rule that wants the image has its job, or what keeps it from it is known; by rule."""
    limit = min(push.deadline, time.monotonic() + APPEARS_SECONDS)
    found: dict[str, dict] = {}
    required = {rule.name for rule in push.rules if not rule.used}

    def complete() -> bool:
        found.update({job["rule"]: job for job in listed(push.jobs, push.image.digest, "push")})
        return bool(found and required <= found.keys()) or any(is_final(line) for line in _log(push))

    until(complete, limit)
    return found


def listed(api: Jobs, digest: str, trigger: str) -> list[dict]:
    """Returns the newest jobs of a trigger that carry an image."""
    found = []
    for number, page in enumerate(api.pages("/jobs", limit=50), start=1):
        jobs = (job for job in page["jobs"] if job["trigger"] == trigger)
        found += [job for job in jobs if any(digest in image for image in job.get("images", []))]
        if found or number == MAX_PAGES:
            break
    return found


def is_final(line: str) -> bool:
    """Tells whether a line of the function's log says that no retry will fare better."""
    return "not authorized" in line or "AccessDenied" in line or "is ignored" in line


def _missing(push: Push, others: bool) -> str:
    """Returns why a push may have no job, as far as AWS tells."""
    row = push.stack.resources["ImagePush"]
    if against := [*_log(push), *_letters(push)]:
        mend = "; deploy the stack again: its policy send-prefetch-images allows it"
        return f"image-push says: {against[-1]}{mend if 'not authorized' in against[-1] else ''}"
    if others:
        return "another rule's job is there, and image-push says nothing of this one: its log has what it decided"
    group = push.stack.outputs.get("ImagePushLogGroup", row.physical)
    return (
        f"after {time.time() - push.began:.0f} seconds there is none, and image-push says nothing of the image:"
        f" ECR's event has not reached it. AWS delivers such events at best effort: run this again, or look into"
        f" {group}"
    )


def _log(push: Push) -> list[str]:
    """Returns what image-push has said against the image since it was pushed."""
    group = push.stack.outputs.get("ImagePushLogGroup", "")
    try:
        paginator = push.account.client("logs").get_paginator("filter_log_events")
        since, about = int((push.began - CLOCK_SKEW_SECONDS) * 1000), f'"{push.place.repository}"'
        pages = paginator.paginate(logGroupName=group, startTime=since, filterPattern=about)
        lines = [event["message"] for page in itertools.islice(pages, MAX_PAGES) for event in page["events"]]
    except (BotoCoreError, ClientError):
        return []
    return [message(line) for line in lines if '"ERROR"' in line or "is ignored" in line]


def message(line: str) -> str:
    """Returns the message of a line of a function's log."""
    try:
        told = json.loads(line)
    except ValueError:
        return one_line(line)[:500]
    fields = told.get("fields", told) if isinstance(told, dict) else {}
    return one_line(fields.get("message", line))[:500]


def _letters(push: Push) -> list[str]:
    return inventory.causes(push.account, push.stack.resources["ImagePushDeadLetters"], push.image.digest)
