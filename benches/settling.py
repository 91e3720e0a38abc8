"""Measures settling: how many reports one function takes in, and what it asks of AWS and needs for each."""

import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from benches.aws_endpoint import INVOCATION, AwsEndpoint
from benches.rivals import PYTHON_RIVAL
from benches.runtime_api import Function, environment
from benches.table import Above, Below, PartOfRival, Row

BATCHES = {10: 20, 100: 4}
"""Batch sizes, and how many batches of each one process is given."""
RUNS = 6
MOST_CALLS = 2.2
DETAIL_TYPE = "EC2 Command Invocation Status-change Notification"

IN_USE = 30
"""Says of how many images a node tells that it uses them."""
ALIKE = "without usage"
"""Names reports that tell of no use, as a rival of those that do."""

ABOUT = f"""\
- each report is of another node of one command, with one image that was pulled; nothing of it stands in the table yet
- the endpoint is on loopback, answers at once, and counts what it is asked
- usage: each report also tells of {IN_USE} images that are in use, as reports before it have
- rival: Python with boto3, a transaction for each report, an object for each batch
- medians of {RUNS} processes that take turns; calls are the same in all"""


class TellingEndpoint(AwsEndpoint):
    """Has nodes also tell what they use."""

    def answer_to(self, operation: str, body: bytes) -> dict | bytes:
        """Returns what an operation is answered with."""
        answer = super().answer_to(operation, body)
        if operation == "AmazonSSM.GetCommandInvocation":
            answer["StandardOutputContent"] = INVOCATION["StandardOutputContent"] + usage()
        return answer


def usage() -> str:
    """Returns the lines of a node's use."""
    images = [f"quay.io/team/app-{number:02}:v1@sha256:{number:064x}" for number in range(IN_USE)]
    lines = [{"usage": image, "running": 1, "prefetched": True, "bytes": 123456789} for image in images]
    return "".join(json.dumps(line) + "\n" for line in [*lines, {"usageTotals": {"images": IN_USE, "podImages": 1}}])


class Subject:
    """A function, and what its runs took."""

    def __init__(self, command: Sequence[str | Path]):
        self.command = command
        self.inits: list[float] = []
        self.memory: list[float] = []
        self.seconds: dict[int, list[float]] = {size: [] for size in BATCHES}
        self.calls: dict[int, float] = {}

    def run(self, endpoint: AwsEndpoint, log: Path) -> None:
        """Starts it, gives it all batches, ends it."""
        # boto3 would send what has to be read in chunks.
        settings = environment(**endpoint.environment(), AWS_REQUEST_CHECKSUM_CALCULATION="when_required")
        with Function(self.command, settings, log) as function:
            self.inits.append(function.init_seconds * 1e3)
            # Of as many nodes as the largest batch has: what they use is known from then on.
            settle(function, batch(max(BATCHES)))
            for size, count in BATCHES.items():
                batches = [batch(size) for _ in range(count)]
                endpoint.calls.clear()
                started = time.perf_counter()
                for messages in batches:
                    settle(function, messages)
                self.seconds[size].append((time.perf_counter() - started) / (size * count))
                self.calls[size] = endpoint.calls.total() / (size * count)
            self.memory.append(function.peak_memory() / 1e6)


def measure(build: Path) -> Iterator[Row]:
    """Measures node-result beside its rival."""
    program = [build / "NodeResult/bootstrap"]
    ours, telling, rival = Subject(program), Subject(program), Subject([*PYTHON_RIVAL, "node_result"])
    with (
        tempfile.TemporaryDirectory() as folder,
        AwsEndpoint(Path(folder, "plain")) as endpoint,
        TellingEndpoint(Path(folder, "telling")) as of_use,
    ):
        for _ in range(RUNS):
            for subject, asked in ((ours, endpoint), (telling, of_use), (rival, endpoint)):
                subject.run(asked, Path(folder, "function.log"))
    for size in BATCHES:
        calls = [subject.calls[size] for subject in (telling, ours)]
        yield Row(f"usage: AWS calls per report, batch {size}", "", calls[0], {ALIKE: calls[1]}, Above(ALIKE, part=1.1))
        milliseconds = [statistics.median(subject.seconds[size]) * 1e3 for subject in (telling, ours)]
        yield Row(f"usage: a report, batch {size}", "ms", milliseconds[0], {ALIKE: milliseconds[1]})
    for size in BATCHES:
        per_second = [1 / statistics.median(subject.seconds[size]) for subject in (ours, rival)]
        yield Row(f"settled per second, batch {size}", "", *per_second)
        calls = [subject.calls[size] for subject in (ours, rival)]
        yield Row(f"AWS calls per settled report, batch {size}", "", *calls, Below(MOST_CALLS))
    memory = statistics.median(telling.memory)
    yield Row("usage: peak memory", "MB", memory, {ALIKE: statistics.median(ours.memory)}, Below(24))
    yield Row("peak memory", "MB", *(statistics.median(subject.memory) for subject in (ours, rival)), Below(24))
    yield Row("init", "ms", *(statistics.median(subject.inits) for subject in (ours, rival)), PartOfRival(50))


def settle(function: Function, event: bytes) -> None:
    """Hands out a batch that has to be settled."""
    answer = function.invoke(event).answer
    if answer != {"batchItemFailures": []}:
        raise RuntimeError(f"{function.pid} did not settle: {answer}")


def batch(size: int) -> bytes:
    """Returns a batch of SQS with so many reports."""
    command = str(uuid.uuid4())
    return json.dumps({"Records": [message(command, number) for number in range(size)]}).encode()


def message(command: str, number: int) -> dict:
    """Returns the message that tells of a node's end."""
    node = f"i-{number:017x}"
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": DETAIL_TYPE,
        "source": "aws.ssm",
        "account": "123456789012",
        "time": "2026-01-02T03:04:08Z",
        "region": "eu-central-1",
        "resources": [f"arn:aws:ec2:eu-central-1:123456789012:instance/{node}"],
        "detail": {
            "command-id": command,
            "document-name": "eks-image-prefetch-prefetch-images",
            "instance-id": node,
            "requested-date-time": "2026-01-02T03:04:04.000Z",
            "status": "Success",
        },
    }
    return {
        "messageId": str(uuid.uuid4()),
        "body": json.dumps(event),
        "eventSource": "aws:sqs",
        "messageAttributes": {},
    }
