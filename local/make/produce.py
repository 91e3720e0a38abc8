"""Sends events of a kind to a deployed stack, at a rate and with a share of duplicates, for load and for the dashboard.

Each event tells of something that is there, in turn: an image in ECR, a node of the cluster, a command that was sent.
It is delivered where EventBridge would deliver it, in the same form: a push to the function ImagePush by asynchronous
invocation, a launch to the queue of node-launch, a report to the queue of node-result. It does not go through
EventBridge itself: PutEvents refuses AWS's own sources, aws.ecr among them, in every account. So the rules' patterns
are not exercised, and the same command works on AWS and on a local cloud, whichever AWS_ENDPOINT_URL says. Whoever
calls needs lambda:InvokeFunction or sqs:SendMessage there, and may list what the events tell of.

A push or a launch has the stack send commands to nodes, as a real one would; a stack with Mode observe sends none.
"""

import argparse
import contextlib
import copy
import itertools
import json
import random
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from verify import stack as stacks
from verify.aws import Account
from verify.results import said
from verify.stack import Stack

EVENTS = Path(__file__).parents[2] / "events"
MAX_EVENTS = 1_000_000
MAX_PER_SECOND = 1_000
AT_ONCE = 10
"""Says how many events are under way at a time, as many as a client of botocore has connections."""
MAX_SOURCES = 1_000
"""Says how many images, nodes or commands events tell of."""
RECENT = 100
"""A duplicate is one of the last so many events: EventBridge repeats what it delivered a moment ago."""
RUN, STARTED = uuid.uuid4(), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
"""Says what the ids of all events of this run are made from, and the time that all say."""
ALMOST = 0.9
"""The part of the wanted rate below which the end says that it was not reached."""


class Refused(Exception):
    """Says why nothing is sent, in one sentence."""


@dataclass
class Sent:
    """Says what was sent so far."""

    different: int = 0
    duplicates: int = 0
    began: float = field(default_factory=time.monotonic)
    failure: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, again: bool) -> None:
        """Counts an event that was sent."""
        with self._lock:
            self.duplicates += again
            self.different += not again

    @property
    def total(self) -> int:
        """Returns how many events were sent."""
        return self.different + self.duplicates

    def line(self, per_second: float) -> str:
        """Returns how many events were sent, and how fast, in one line."""
        seconds = time.monotonic() - self.began
        rate = self.total / max(seconds, 1 / per_second)
        slow = f"; {per_second:g} were wanted" if self.total > per_second and rate < ALMOST * per_second else ""
        return (
            f"{self.total} events sent, {self.duplicates} of them duplicates, in {seconds:.1f} s:"
            f" {rate:.1f} a second{slow}"
        )


def main(arguments: Sequence[str]) -> int:
    """Prints what was sent; returns 0, or 1 where not all was, and 2 where nothing was, as it was called wrongly."""
    options = _parser().parse_args(arguments)
    try:
        account = Account()
        stack = stacks.find(account, options.stack)
        deliver, make = KINDS[options.kind](account, stack, options.repository)
    except (Refused, stacks.Unknown) as error:
        return _wrong(str(error))
    except (BotoCoreError, ClientError) as error:
        return _wrong(f"Nothing is sent: {said(error)}")
    print(f"Sending {options.events} events of the kind {options.kind} to {stack.name} …", file=sys.stderr)
    order = numbers(options.events, options.duplicates, random.Random())
    sent = Sent()
    with contextlib.suppress(KeyboardInterrupt):
        produce(order, options.per_second, lambda number: deliver(make(number)), sent)
    print(sent.line(options.per_second))
    if sent.failure:
        print(sent.failure, file=sys.stderr)
    return int(sent.total < options.events)


def numbers(count: int, share: float, chance: random.Random) -> list[int]:
    """Returns the events in the order in which they are sent, by number; one that comes again is a duplicate."""
    again = round(count * share)
    places = set(chance.sample(range(1, count), min(again, count - 1)))
    order: list[int] = []
    for place in range(count):
        order.append(chance.choice(order[-RECENT:]) if place in places else place)
    return order


def produce(order: Iterable[int], per_second: float, send: Callable[[int], None], sent: Sent) -> None:
    """Sends events at a rate; one that cannot be sent ends it, and what is under way is waited for."""
    known: set[int] = set()
    pending: set[Future] = set()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for place, number in enumerate(order):
            time.sleep(max(0.0, sent.began + place / per_second - time.monotonic()))
            if len(pending) >= AT_ONCE:
                _, pending = wait(pending, return_when=FIRST_COMPLETED)
            if sent.failure:
                break
            pending.add(pool.submit(_send, send, number, number in known, sent))
            known.add(number)


def _send(send: Callable[[int], None], number: int, again: bool, sent: Sent) -> None:
    try:
        send(number)
    except (BotoCoreError, ClientError) as error:
        sent.failure = f"Stopped at an event that could not be sent: {said(error)}"
    else:
        sent.count(again)


# ── The kinds: how an event is delivered, and the event of a number ─────────────────────────────────────────────────

Kind = tuple[Callable[[str], Any], Callable[[int], str]]


def pushes(account: Account, stack: Stack, repository: str | None) -> Kind:
    """Delivers to ImagePush that an image of ECR was pushed."""
    images = list(itertools.islice(_images(account, stack, repository), MAX_SOURCES))
    if not images:
        where = f"the repository {repository}" if repository else "ECR"
        raise Refused(f"Nothing is sent: there is no tagged image in {where} that a push could tell of.")
    base, client = _event("image-push.tagged", stack), account.client("lambda")
    function = _physical(stack, "ImagePush")

    def make(number: int) -> str:
        image = images[number % len(images)]
        facts = {"repository-name": image["repositoryName"], "image-digest": image["imageDigest"]}
        return _numbered(base, number, {**facts, "image-tag": image["imageTags"][0]})

    return lambda text: client.invoke(FunctionName=function, InvocationType="Event", Payload=text.encode()), make


def launches(account: Account, stack: Stack, _: str | None) -> Kind:
    """Delivers to node-launch's queue that a node of the cluster runs."""
    filters = [
        {"Name": f"tag:{stack.cluster_tag}", "Values": [stack.cluster]},
        {"Name": "instance-state-name", "Values": ["running"]},
    ]
    pages = account.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
    rows = (row["InstanceId"] for page in pages for found in page["Reservations"] for row in found["Instances"])
    nodes = list(itertools.islice(rows, MAX_SOURCES))
    if not nodes:
        raise Refused(f"Nothing is sent: no node of the cluster {stack.cluster} runs that a launch could tell of.")
    base = _event("node-launch.running", stack)

    def make(number: int) -> str:
        return _numbered(base, number, {"instance-id": nodes[number % len(nodes)]})

    return _queue(account, stack, "NodeQueue"), make


def reports(account: Account, stack: Stack, _: str | None) -> Kind:
    """Delivers to node-result's queue that a command of the stack has ended on a node."""
    document = stack.physical("PrefetchImages")
    pages = account.client("ssm").get_paginator("list_command_invocations").paginate()
    rows = (row for page in pages for row in page["CommandInvocations"] if row["DocumentName"] == document)
    ended = list(itertools.islice((row for row in rows if row["Status"] == "Success"), MAX_SOURCES))
    if not ended:
        raise Refused("Nothing is sent: no command of the stack has succeeded yet that a report could tell of.")
    base = _event("node-result.success", stack)

    def make(number: int) -> str:
        row = ended[number % len(ended)]
        facts = {"command-id": row["CommandId"], "instance-id": row["InstanceId"], "document-name": document}
        return _numbered(base, number, facts)

    return _queue(account, stack, "ResultQueue"), make


KINDS: dict[str, Callable[[Account, Stack, str | None], Kind]] = {
    "push": pushes,
    "launch": launches,
    "report": reports,
}


def _images(account: Account, stack: Stack, repository: str | None) -> Iterator[dict]:
    """Yields the tagged images of a repository, or of all but the stack's own."""
    ecr = account.client("ecr")
    own = stack.physical("NodePrograms")
    found = ecr.get_paginator("describe_repositories").paginate()
    names = [repository] if repository else [row["repositoryName"] for page in found for row in page["repositories"]]
    for name in names:
        if name != own:
            pages = ecr.get_paginator("describe_images").paginate(repositoryName=name, filter={"tagStatus": "TAGGED"})
            yield from (image for page in pages for image in page["imageDetails"])


def _event(name: str, stack: Stack) -> dict:
    """Returns an event of events/, of the stack's account and Region."""
    _, _, _, region, account, _ = stack.arn.split(":", 5)
    return {**json.loads((EVENTS / f"{name}.json").read_text()), "account": account, "region": region}


def _numbered(base: dict, number: int, detail: dict) -> str:
    """Returns the event of a number: the same number is the same event, to the byte."""
    event = copy.deepcopy(base)
    event["id"] = str(uuid.uuid5(RUN, str(number)))
    event["time"] = STARTED
    if "instance-id" in detail:
        event["resources"] = [f"arn:aws:ec2:{base['region']}:{base['account']}:instance/{detail['instance-id']}"]
    event["detail"] |= detail
    return json.dumps(event)


def _queue(account: Account, stack: Stack, logical: str) -> Callable[[str], Any]:
    client, url = account.client("sqs"), _physical(stack, logical)
    return lambda text: client.send_message(QueueUrl=url, MessageBody=text)


def _physical(stack: Stack, logical: str) -> str:
    if name := stack.physical(logical):
        return name
    raise Refused(f"Nothing is sent: the stack {stack.name} has no {logical}.")


# ── The command line ────────────────────────────────────────────────────────────────────────────────────────────────


def _parser() -> argparse.ArgumentParser:
    what, _, more = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="make produce",
        usage="make produce STACK=name [KIND=push|launch|report] [EVENTS=n] [PER_SECOND=n] [DUPLICATES=n%%]"
        " [REPOSITORY=name]",
        description=what,
        epilog=more.strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("stack", metavar="STACK", help="the stack's name, as sam deploy has it")
    parser.add_argument("--kind", choices=KINDS, default="push", help="what the events tell of (KIND, push)")
    parser.add_argument("--events", type=_events, default=100, help="how many are sent, duplicates too (EVENTS, 100)")
    parser.add_argument("--per-second", type=_rate, default=5.0, help="how many a second (PER_SECOND, 5)")
    parser.add_argument("--duplicates", type=_share, default=0.0, help="how many are repeated (DUPLICATES, 0%%)")
    parser.add_argument("--repository", help="the repository whose images pushes tell of (REPOSITORY, all)")
    return parser


def _events(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MAX_EVENTS:
        return int(text)
    raise argparse.ArgumentTypeError(f"EVENTS={text} is not accepted: it takes a whole number from 1 to {MAX_EVENTS}.")


def _rate(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= MAX_PER_SECOND:
            return float(text)
    message = f"PER_SECOND={text} is not accepted: it takes a number above 0, to {MAX_PER_SECOND}."
    raise argparse.ArgumentTypeError(message)


def _share(text: str) -> float:
    with contextlib.suppress(ValueError):
        if text.endswith("%") and 0 <= float(text[:-1]) < 100:
            return float(text[:-1]) / 100
    raise argparse.ArgumentTypeError(f"DUPLICATES={text} is not accepted: it takes a share such as 5%, below 100%.")


def _wrong(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
