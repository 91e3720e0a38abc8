"""Runs everything, in the order in which its rows are told."""

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from botocore.exceptions import BotoCoreError, ClientError

from local import images
from verify import dry_run, inventory, nodes, outcomes, permissions, push, repository, rules
from verify.aws import Account
from verify.interrupts import undisturbed
from verify.jobs import Jobs
from verify.nodes import Node
from verify.results import Results, counted, progress, said
from verify.rules import Rule
from verify.stack import Stack

PUSHED = "a push"
ARRIVES = "ImagePushImageArrived"
"""The rule by which ECR's events reach image-push."""


@dataclass(frozen=True)
class Options:
    """Says what a run was told."""

    repository: str | None
    wait_seconds: int


def run(account: Account, stack: Stack, options: Options, results: Results) -> None:
    """Checks everything, and removes what that made."""
    progress(f"Looking at the parts of {stack.name} …")
    functions = inventory.check(account, stack, results)
    permissions.check(account, stack, functions, results)
    api = Jobs(account, stack.outputs.get("JobsUrl", ""))
    progress(f"Asking after the nodes of {stack.cluster} …")
    found = nodes.check(api, stack, results)
    wanted = _rules(functions, results)
    if not wanted:
        return
    image = images.multi_platform(f"verify {stack.name} {uuid.uuid4()}")
    if against := obstacle(account, stack, found):
        results.unchecked(PUSHED, against)
    elif _push(account, stack, api, _by_reach(wanted, found), found or [], image, options, results):
        return
    dry_run.check(api, None, image.digest, wanted[0].name, results)


def _push(
    account: Account,
    stack: Stack,
    api: Jobs,
    wanted: Sequence[Rule],
    found: Sequence[Node],
    image: images.Artifact,
    options: Options,
    results: Results,
) -> bool:
    """Follows a push from the image to the nodes, and a dry run of it; returns whether there was one."""
    try:
        with repository.place(account, wanted, stack, options.repository, image, results) as place:
            takers = [rule for rule in wanted if rule.wants(place.repository, place.tag)]
            pushed = push.Push(account, stack, api, place, image, takers, time.monotonic() + options.wait_seconds)
            if not push.upload(pushed, results):
                return False
            _follow(pushed, found, results)
            return True
    except repository.NoRepository as error:
        results.unchecked(PUSHED, str(error))
    except (BotoCoreError, ClientError) as error:
        results.unchecked(PUSHED, said(error))
    return False


def _follow(pushed: push.Push, found: Sequence[Node], results: Results) -> None:
    """Waits for the jobs of a push, and for what becomes of them; none goes on afterwards."""
    warm: list[str] = []
    try:
        ids = push.jobs(pushed, results)
        for rule, id_ in ids.items():
            taken = [node for node in found if rule in node.rules]
            progress(f"Waiting for {counted(len(taken), 'node')} …")
            job = outcomes.Job(pushed.account, pushed.stack, pushed.jobs, rule, id_, taken)
            warm += outcomes.check(job, pushed.deadline, results)
    finally:
        with undisturbed():
            push.cancel(pushed, results)
    image = f"{pushed.place.repository}:{pushed.place.tag}"
    dry_run.check(pushed.jobs, image, pushed.image.digest, pushed.rules[0].name, results, pushed.sent)
    if ids:
        outcomes.check_warm(pushed.jobs, pushed.image.digest, warm, results)


def _rules(functions: dict[str, dict], results: Results) -> list[Rule]:
    """Returns the rules that image-push goes by."""
    if "ImagePush" not in functions:
        results.unchecked(PUSHED, "image-push, which has the rules, is missing")
        return []
    try:
        return rules.read(functions["ImagePush"])
    except ValueError as error:
        results.broken("rules", f"{error}: deploy the stack again with rules that can be read")
        return []


def _by_reach(wanted: Sequence[Rule], found: Sequence[Node] | None) -> list[Rule]:
    """Returns the rules, those first that take nodes which SSM reaches."""
    online = {name for node in found or [] if node.is_online for name in node.rules}
    targeted = {name for node in found or [] if node.is_targeted for name in node.rules}
    return sorted(wanted, key=lambda rule: (rule.name not in online, rule.name not in targeted))


def obstacle(account: Account, stack: Stack, found: Sequence[Node] | None) -> str:
    """Returns why nothing is pushed; an empty text where nothing stands against it."""
    if found is None:
        return "the jobs API, which would tell what became of it, cannot be asked"
    if not stack.observes and stack.parameters.get("BakeAfterPushMinutes", "0") != "0":
        return "it would begin a bake, which launches builders: set BakeAfterPushMinutes to 0 for a run"
    if row := stack.resources.get(ARRIVES):
        results = Results()
        with results.checking(ARRIVES):
            if fault := inventory.fault_of_rule(account, stack, row):
                return f"no event of ECR's reaches image-push: rule {fault}"
    if not stack.observes and not any(node.is_targeted and node.rules for node in found):
        return "no node that SSM knows is taken by a rule: its command would match none, and raise an alarm"
    return ""
