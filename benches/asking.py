"""Measures asking: what it takes to tell of jobs, and which node holds what, of fleets of many nodes."""

import json
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import parse_qs

from benches.aws_endpoint import JSON_ANSWERS, AwsEndpoint
from benches.rivals import PYTHON_RIVAL
from benches.runtime_api import Function, environment
from benches.table import Below, Row

NODES_OF_JOB = 1_000
NODES = 10_000
PAGE = 500
RUNS = 3
ROUNDS = 3

JOB = str(uuid.UUID(int=1))
DIGEST = "sha256:" + "7" * 64
IMAGE = f"123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1.4.2@{DIGEST}"
TIME = "2026-01-02T03:04:08Z"
QUESTIONS = {
    "GET /jobs/stats": 1,
    f"GET /jobs/{JOB}?limit={NODES_OF_JOB}": 1,
    f"GET /nodes?limit={PAGE}": NODES // PAGE,
}
"""Says what is asked, and how many pages its answer has."""
NAMES = {
    "GET /jobs/stats": "the totals",
    f"GET /jobs/{JOB}?limit={NODES_OF_JOB}": f"a job of {NODES_OF_JOB:,} nodes",
    f"GET /nodes?limit={PAGE}": f"{NODES:,} nodes, {PAGE} a page",
}

ABOUT = f"""\
- the endpoint is on loopback and answers at once; a node has one image
- rival: Python with boto3 that asks the same and answers the same fields
- medians of {RUNS} processes that take turns, {ROUNDS} answers each; memory is a process's peak"""


class Table(AwsEndpoint):
    """An endpoint behind which there is a job of many nodes, and a fleet of more."""

    def answer_to(self, operation: str, body: bytes) -> dict | bytes:
        """Answers by what is there."""
        if operation == "EC2.DescribeInstances":
            return instances(parse_qs(body.decode()))
        request = json.loads(body)
        if operation == "DynamoDB_20120810.Query":
            return query(request)
        if operation == "DynamoDB_20120810.BatchGetItem":
            return rows_of(request)
        if operation == "AmazonSSM.DescribeInstanceInformation":
            return online(request)
        if operation == "AmazonSSM.ListCommands":
            return {"Commands": [COMMAND]}
        return JSON_ANSWERS.get(operation, {})


class Subject:
    """A function, and what its runs took."""

    def __init__(self, command: Sequence[str | Path]):
        self.command = command
        self.memory: list[float] = []
        self.seconds: dict[str, list[float]] = {question: [] for question in QUESTIONS}
        self.calls: dict[str, int] = {}

    def run(self, endpoint: AwsEndpoint, log: Path) -> None:
        """Starts it, asks it everything, ends it."""
        with Function(
            self.command, environment({"repositories": ["team/app"]}, **endpoint.environment()), log
        ) as function:
            for question, pages in QUESTIONS.items():
                ask(function, question, pages)
                endpoint.calls.clear()
                for _ in range(ROUNDS):
                    self.seconds[question].append(ask(function, question, pages))
                self.calls[question] = endpoint.calls.total() // ROUNDS
            self.memory.append(function.peak_memory() / 1e6)


def measure(build: Path) -> Iterator[Row]:
    """Measures jobs beside its rival."""
    ours, rival = Subject([build / "Jobs/bootstrap"]), Subject([*PYTHON_RIVAL, "jobs"])
    with tempfile.TemporaryDirectory() as folder, Table(Path(folder)) as endpoint:
        for _ in range(RUNS):
            for subject in (ours, rival):
                subject.run(endpoint, Path(folder, "function.log"))
    for question, name in NAMES.items():
        milliseconds = [statistics.median(subject.seconds[question]) * 1e3 for subject in (ours, rival)]
        yield Row(name, "ms", *milliseconds)
        yield Row(f"{name}, AWS calls", "", *(subject.calls[question] for subject in (ours, rival)))
    yield Row("peak memory", "MB", *(statistics.median(subject.memory) for subject in (ours, rival)), Below(64))


def ask(function: Function, question: str, pages: int) -> float:
    """Returns the seconds it takes until the last page of an answer is there."""
    page, started = question, time.perf_counter()
    for _ in range(pages):
        answer = function.invoke(json.dumps({"route": page}).encode()).answer
        if "type" in answer:
            raise RuntimeError(f"{question} is answered by {answer}")
        page = f"{question}&next={answer.get('next', '')}"
    if "next" in answer:
        raise RuntimeError(f"{question} has more than {pages} pages")
    return time.perf_counter() - started


def instance_id(number: int) -> str:
    """Returns the id of a node."""
    return f"i-{number:017x}"


def instances(parameters: dict[str, list[str]]) -> bytes:
    """Returns a page of the cluster's instances."""
    start, size = int(parameters.get("NextToken", ["0"])[0]), int(parameters["MaxResults"][0])
    end = min(start + size, NODES)
    items = "".join(
        f"<item><reservationId>r-{number}</reservationId><instancesSet><item><instanceId>{instance_id(number)}</instanceId>"
        "<instanceState><code>16</code><name>running</name></instanceState><instanceType>m7i.large</instanceType>"
        "<launchTime>2026-01-01T00:00:00.000Z</launchTime><tagSet><item><key>aws:eks:cluster-name</key>"
        "<value>prod</value></item></tagSet></item></instancesSet></item>"
        for number in range(start, end)
    )
    token = f"<nextToken>{end}</nextToken>" if end < NODES else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><requestId>bench</requestId>'
        f"<reservationSet>{items}</reservationSet>{token}</DescribeInstancesResponse>"
    ).encode()


def online(request: dict) -> dict:
    """Returns a page of what SSM knows of instances: all are online."""
    [filter] = request["Filters"]
    start = int(request.get("NextToken", "0"))
    end = start + request.get("MaxResults", 10)
    rows = [
        {
            "InstanceId": node,
            "PingStatus": "Online",
            "PlatformType": "Linux",
            "AgentVersion": "3.3.3050.0",
            "LastPingDateTime": 1767323048.0,
        }
        for node in filter["Values"][start:end]
    ]
    return {"InstanceInformationList": rows} | ({"NextToken": str(end)} if end < len(filter["Values"]) else {})


def query(request: dict) -> dict:
    """Returns the rows of a partition: the totals, or a job with its nodes."""
    [partition] = [
        value["S"]
        for value in request["ExpressionAttributeValues"].values()
        if "#" in value["S"] or value["S"] == "totals"
    ]
    items = TOTALS if partition == "totals" else JOB_ROWS
    if start := request.get("ExclusiveStartKey"):
        items = [item for item in items if item["sk"]["S"] > start["sk"]["S"]]
    page = items[: request.get("Limit", len(items))]
    rest = {"LastEvaluatedKey": {key: page[-1][key] for key in ("pk", "sk")}} if len(page) < len(items) else {}
    return {"Items": page, "Count": len(page)} | rest


def rows_of(request: dict) -> dict:
    """Returns the rows with these keys: the job's own, and what nodes hold."""
    [(table, wanted)] = request["RequestItems"].items()
    found = [row for row in map(row_of, wanted["Keys"]) if row]
    return {"Responses": {table: found}, "UnprocessedKeys": {}}


def row_of(key: dict) -> dict | None:
    """Returns the row with a key."""
    if key["pk"]["S"].startswith("node#"):
        return key | HELD
    return next((row for row in JOB_ROWS if row["sk"] == key["sk"]), None)


COUNTERS = {name: {"N": "0"} for name in ("cached", "skipped", "failed", "retrying", "retried")} | {
    "pulled": {"N": str(NODES_OF_JOB)},
    "bytes": {"N": str(NODES_OF_JOB * 123_456_789)},
}
TOTALS = [
    {"pk": {"S": "totals"}, "sk": {"S": trigger}, "jobs": {"N": "1"}} | COUNTERS
    for trigger in ("job", "launch", "push", "reconcile", "schedule")
]
OUTCOME = {
    "status": {"S": "pulled"},
    "reason": {"S": ""},
    "seconds": {"N": "2.345"},
    "bytes": {"N": "123456789"},
    "attempts": {"N": "1"},
    "attempt": {"N": "1"},
    "reported": {"BOOL": True},
}
JOB_ROWS = [
    {
        "pk": {"S": f"job#{JOB}"},
        "sk": {"S": "job"},
        "trigger": {"S": "push"},
        "rule": {"S": "default"},
        "requested_at": {"S": TIME},
        "targets": {"N": str(NODES_OF_JOB)},
        "images": {"L": [{"S": IMAGE}]},
        "slowest_seconds": {"N": "4.5"},
        "slowest_node": {"S": instance_id(1)},
    }
    | COUNTERS,
    *(
        {
            "pk": {"S": f"job#{JOB}"},
            "sk": {"S": f"node#{instance_id(number)}"},
            "version": {"N": "1"},
            "attempt": {"N": "1"},
            "status": {"S": "pulled"},
            "retrying": {"BOOL": False},
            "images": {"M": {IMAGE: {"M": OUTCOME}}},
            "ended_at": {"S": TIME},
            "warm_at": {"S": TIME},
            "command": {"S": JOB},
        }
        for number in range(NODES_OF_JOB)
    ),
]
HELD = {
    "version": {"N": "1"},
    "images": {
        "M": {
            IMAGE: {
                "M": {
                    "status": {"S": "cached"},
                    "reason": {"S": ""},
                    "at": {"S": TIME},
                    "since": {"S": TIME},
                    "job": {"S": JOB},
                }
            }
        }
    },
}
COMMAND = {
    "CommandId": JOB,
    "DocumentName": "eks-image-prefetch-prefetch-images",
    "Comment": "push rule=default attempt=1",
    "Parameters": {"images": [IMAGE]},
    "RequestedDateTime": 1767323044.0,
    "Status": "Success",
    "StatusDetails": "Success",
    "TargetCount": NODES_OF_JOB,
    "CompletedCount": NODES_OF_JOB,
    "ErrorCount": 0,
}
