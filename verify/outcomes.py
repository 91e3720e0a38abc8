"""Follows a push's job: what became of it on each node, and whether both of SSM's events have told the stack of it."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from verify.aws import Account
from verify.interrupts import until
from verify.jobs import Jobs, Refused
from verify.nodes import LIMIT, MAX_LISTED, Node
from verify.results import Results, counted, said
from verify.stack import Stack

EVENT_SECONDS = 45
"""Says how long an event of SSM's may take once its command has ended; it takes some seconds."""
REMEMBERED_SECONDS = 45
"""Says how long GET /nodes may know nothing of a new repository: the function asks ECR at most every 30 seconds."""
WARM = ("pulled", "cached")
NOT_APPLICABLE = ("platform", "invalid-platform", "hybrid-node")
"""Says why a node is none that could hold the image."""
ADVICE = {
    "access-denied": "SSM refuses the node: does it carry the cluster's tag?",
    "denied": "the node's role needs AmazonEC2ContainerRegistryPullOnly",
    "no-space": "its disk is full as far as ImageGCHighThresholdPercent",
    "not-found": "the registry knows no such image: was the repository removed meanwhile?",
    "registry": "does it reach ECR, and S3, where the layers are?",
    "snapshotter": "the snapshotter that CRI is set to use does not run, or cannot be asked",
    "timeout": "does it reach ECR, and S3, where the layers are?",
    "unreported": "aws ssm get-command-invocation has what it printed",
    "unsupported": "the document does not run there; on Bottlerocket enable the host container prefetch or admin",
}


class Job:
    """A job of one rule, watched until nothing more is to be expected."""

    def __init__(self, account: Account, stack: Stack, api: Jobs, rule: str, id_: str, nodes: Sequence[Node]):
        self.rule = rule
        self.id = id_
        self.nodes = nodes
        """The nodes that the rule takes."""
        self.told: dict[str, Any] = {}
        self.outcomes: list[dict[str, Any]] = []
        self.targets: int | None = None
        """Says how many nodes SSM found, as the event of the command's end has told the stack."""
        self.unread = ""
        """Says why the stack's table could not be asked."""
        self._account = account
        self._stack = stack
        self._api = api

    @property
    def is_done(self) -> bool:
        """Tells whether the stack expects no more of it."""
        return self.told.get("state", "running") != "running"

    @property
    def missing(self) -> list[Node]:
        """Returns the nodes that SSM reaches and nobody has heard of."""
        heard = {outcome["node"] for outcome in self.outcomes if not outcome["retrying"]}
        return [node for node in self.nodes if node.is_online and node.id not in heard]

    @property
    def lost(self) -> list[Node]:
        """Returns the nodes that SSM waits for and does not reach."""
        return [node for node in self.nodes if node.is_targeted and not node.is_online]

    def watch(self, deadline: float) -> None:
        """Waits until the job is done, or only lost nodes are missing; then for the event of the command's end."""
        until(lambda: self._ask() or (self.lost and not self.missing), deadline)
        if self.is_done:
            until(self._is_counted, min(deadline, time.monotonic() + EVENT_SECONDS))

    def invocations(self) -> dict[str, str]:
        """Returns what SSM itself says of the job on its nodes; nothing where it may not be asked."""
        try:
            pages = self._account.client("ssm").get_paginator("list_command_invocations").paginate(CommandId=self.id)
            return {row["InstanceId"]: row["StatusDetails"] for page in pages for row in page["CommandInvocations"]}
        except (BotoCoreError, ClientError):
            return {}

    def _ask(self) -> bool:
        pages = list(self._api.pages(f"/jobs/{self.id}", limit=1000))
        self.told = pages[0]
        self.outcomes = [outcome for page in pages for outcome in page["outcomes"]]
        return self.is_done

    def _is_counted(self) -> bool:
        key = {"pk": {"S": f"job#{self.id}"}, "sk": {"S": "job"}}
        try:
            table = self._stack.outputs["OutcomesTable"]
            row = self._account.client("dynamodb").get_item(TableName=table, Key=key).get("Item", {})
        except (BotoCoreError, ClientError) as error:
            self.unread = said(error)
            return True
        if "targets" in row:
            self.targets = int(row["targets"]["N"])
        return self.targets is not None


def check(job: Job, deadline: float, results: Results) -> list[str]:
    """Waits for a job and says what became of it; returns the ids of the nodes that hold the image."""
    try:
        job.watch(deadline)
    except Refused as error:
        results.broken(f"job {job.id}", str(error))
        return []
    _tell_command(job, results)
    _tell_invocations(job, results)
    warm = [outcome["node"] for outcome in job.outcomes if outcome["status"] in WARM]
    _tell_nodes(job, results)
    return warm


def check_warm(api: Jobs, digest: str, warm: Iterable[str], results: Results) -> None:
    """Checks that `GET /nodes` shows the image as warm on the nodes that have it."""
    what, wanted = "GET /nodes shows the image as warm", set(warm)
    if not wanted:
        results.unchecked(what, "no node has it")
        return
    states: dict[str, str] = {}

    def shown() -> bool:
        for page in api.pages("/nodes", limit=LIMIT):
            nodes = (Node(told["id"], told) for told in page["nodes"] if told["id"] in wanted)
            images = {node.id: node.image(digest) for node in nodes}
            states.update({id_: image["state"] if image else "not shown" for id_, image in images.items()})
            if states.keys() == wanted:
                break
        return bool(states) and set(states.values()) == {"warm"}

    try:
        until(shown, time.monotonic() + REMEMBERED_SECONDS)
    except Refused as error:
        results.broken(what, str(error))
        return
    cold = [f"{id_}: {state}" for id_, state in sorted(states.items()) if state != "warm"]
    if cold or not states:
        results.broken(what, f"{', '.join(cold[:MAX_LISTED]) or 'it lists none of them'}: the log of jobs may say why")
    else:
        results.held(what, f"on {len(states)}")


def _tell_command(job: Job, results: Results) -> None:
    what = f"SSM's event: rule {job.rule}'s command has ended"
    if job.targets is not None:
        results.held(what, f"the job's row says {counted(job.targets, 'node')}")
    elif job.unread:
        results.unchecked(what, job.unread)
    elif job.is_done:
        results.broken(what, f"the job's row has no targets after {EVENT_SECONDS} seconds: {_path()}")
    else:
        names = ", ".join(node.label for node in (job.lost or job.missing)[:MAX_LISTED])
        results.unchecked(what, f"it has not ended: SSM waits for {names or 'a node'}")


def _tell_invocations(job: Job, results: Results) -> None:
    what = f"SSM's events: rule {job.rule}'s command has ended on a node"
    missing = job.missing
    if not missing:
        if job.outcomes:
            results.held(what, counted(len(job.outcomes), "outcome"))
        else:
            results.unchecked(what, "SSM reaches no node that the rule takes")
        return
    says = job.invocations()
    ended = [node for node in missing if says.get(node.id, "Pending") not in ("Pending", "InProgress", "Delayed")]
    if ended:
        names = ", ".join(f"{node.label} ({says[node.id]})" for node in ended[:MAX_LISTED])
        results.broken(what, f"SSM says that it has ended on {names}, and the stack has not heard of it: {_path()}")
    for node in missing[:MAX_LISTED]:
        if node not in ended:
            status = says.get(node.id, "nothing of it")
            results.broken(f"image on node {node.label}", f"it has not ended in time; SSM says {status}")


def _path() -> str:
    return "is the rule NodeReported on, the result queue read, and what does the log of node-result say?"


def _tell_nodes(job: Job, results: Results) -> None:
    """Adds a row for each node where they are few, and else for each that does not hold the image."""
    labels = {node.id: node.label for node in job.nodes}
    foreign = [outcome for outcome in job.outcomes if is_foreign(outcome)]
    cold = [outcome for outcome in job.outcomes if outcome["status"] not in WARM and outcome not in foreign]
    warm = [outcome for outcome in job.outcomes if outcome["status"] in WARM]
    if len(warm) > MAX_LISTED:
        results.held("image on nodes", f"{len(warm)} hold it")
        warm = []
    for outcome in warm + cold[:MAX_LISTED]:
        what = f"image on node {labels.get(outcome['node'], outcome['node'])}"
        (results.held if outcome["status"] in WARM else results.broken)(what, outcome_in_words(outcome))
    if len(cold) > MAX_LISTED:
        results.broken("image on nodes", f"{len(cold) - MAX_LISTED} more do not hold it: GET /jobs/{job.id} lists them")
    for outcome in foreign[:MAX_LISTED]:
        what = f"image on node {labels.get(outcome['node'], outcome['node'])}"
        results.unchecked(what, f"it cannot hold it: {outcome['images'][0]['reason']}")
    for node in job.lost[:MAX_LISTED]:
        results.unchecked(f"image on node {node.label}", "SSM does not reach it; the command to it is cancelled")


def is_foreign(outcome: Mapping[str, Any]) -> bool:
    """Tells whether the node is none that could hold the image."""
    images = outcome["images"]
    reasons = {image["reason"] for image in images}
    return outcome["status"] == "skipped" and bool(images) and reasons <= set(NOT_APPLICABLE)


def outcome_in_words(outcome: Mapping[str, Any]) -> str:
    """Returns what became of the image on a node, why, and what to do."""
    [image] = outcome["images"] or [{"reason": "", "seconds": 0}]
    if outcome["status"] in WARM:
        return f"{outcome['status']} in {image['seconds']:.1f} s"
    reason = image["reason"]
    advice = ADVICE.get(reason, "the reasons in docs/operate.md say what to do")
    again = ", and is tried again" if outcome.get("retrying") else ""
    return f"{outcome['status']}{again}: {reason}; {advice}"
