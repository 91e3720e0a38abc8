"""Counts AWS calls per event, as the local cloud sees them while the deployed stack works."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benches.rivals import PYTHON_RIVAL
from benches.runtime_api import Function, environment
from benches.table import Exactly, Row
from local import images
from local.client import LocalCloud, until
from local.stack import Stack

RUNS = 3
NODES = 50
CLUSTER = "prod"
REPOSITORY = "team/app"
QUIET_SECONDS = 1.5
OUR_OWN = ("cloudformation:", "lambda:")
"""The services that the bench itself calls, to find and to invoke a function."""

ABOUT = f"""\
- every call of an AWS API that the local cloud receives, the largest of {RUNS} runs; {NODES} nodes run
- the push arrives through EventBridge; the launches are one batch of SQS, handed to the function by Invoke
- rival: a function per node that keeps nothing, in Python with boto3, which really makes its calls"""


def measure(build: Path) -> Iterator[Row]:
    """Counts on a cloud of its own."""
    with LocalCloud(LOCAL_SCHEDULES="off") as cloud:
        stack = Stack(cloud)
        stack.deploy(build / "template.yaml", ClusterName=CLUSTER, Repositories=REPOSITORY)
        # A delay without end: what is sent to a node is not run.
        knobs = {"containerd": "none", "online_after": 0, "delay": 3600}
        nodes = [cloud.launch({"aws:eks:cluster-name": CLUSTER}, **knobs) for _ in range(NODES)]
        cloud.until_online(*nodes)
        until_quiet(cloud)
        cloud.push(REPOSITORY, "v1", images.image("bench"))
        until(lambda: stack.commands("push"), 30, "the push's command")

        yield Row("a push", "", largest(cloud, lambda: push_again(cloud)), None, Exactly(1))
        launches = [event_of(cloud, node) for node in nodes]
        ours = largest(
            cloud,
            lambda: launch_batch(cloud, stack, launches),
            before=lambda: forget_launches(cloud, stack),
            warm_up=True,
        )
        rival = largest(cloud, lambda: launch_each(cloud, stack, launches))
        yield Row(f"{NODES} launches, ECR's answer remembered", "", ours, rival, Exactly(5))


def push_again(cloud: LocalCloud) -> None:
    """Delivers the push's event once more."""
    cloud.send_event(cloud.events("ECR Image Action")[-1])
    until(lambda: cloud.calls("ssm"), 10, "a call")


def launch_batch(cloud: LocalCloud, stack: Stack, launches: list[dict]) -> None:
    """Hands our function all launches in one batch."""
    records = [
        {"messageId": str(number), "body": json.dumps(launch), "eventSource": "aws:sqs", "messageAttributes": {}}
        for number, launch in enumerate(launches)
    ]
    answer = stack.invoke("NodeLaunch", {"Records": records})
    if answer != {"batchItemFailures": []}:
        raise RuntimeError(f"NodeLaunch did not send to every node: {answer}")


def forget_launches(cloud: LocalCloud, stack: Stack) -> None:
    """Has all launches be new: what was sent for one is not sent again for minutes."""
    table, dynamodb = stack.resources()["Outcomes"], cloud.client("dynamodb")
    for page in dynamodb.get_paginator("scan").paginate(TableName=table):
        for row in page["Items"]:
            if row["pk"]["S"].startswith("launch#"):
                dynamodb.delete_item(TableName=table, Key={name: row[name] for name in ("pk", "sk")})


def launch_each(cloud: LocalCloud, stack: Stack, launches: list[dict]) -> None:
    """Hands the rival one launch after another."""
    document = stack.resources()["PrefetchImages"]
    settings = environment(
        {"repositories": [REPOSITORY]},
        CLUSTER_NAME=CLUSTER,
        DOCUMENT_NAME=document,
        AWS_ENDPOINT_URL=cloud.endpoint,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        Function([*PYTHON_RIVAL, "node_launch"], settings, Path(folder, "log")) as function,
    ):
        for launch in launches:
            answer = function.invoke(json.dumps(launch).encode()).answer
            if answer["decision"] != "sent":
                raise RuntimeError(f"the rival did not send: {answer}")


def largest(
    cloud: LocalCloud, work: Callable[[], None], before: Callable[[], None] = lambda: None, warm_up: bool = False
) -> int:
    """Returns the most calls that the work has made in any run; a warm-up, and what comes before, is not counted."""
    counts = []
    for _ in range(RUNS + warm_up):
        before()
        until_quiet(cloud)
        cloud.forget_calls()
        work()
        until_quiet(cloud)
        counts.append(sum(count for action, count in cloud.calls().items() if not action.startswith(OUR_OWN)))
    return max(counts[warm_up:])


def event_of(cloud: LocalCloud, node: str) -> dict:
    """Returns the event that EC2 raised when the instance ran."""
    events = cloud.events("EC2 Instance State-change Notification")
    return next(e for e in events if e["detail"] == {"instance-id": node, "state": "running"})


def until_quiet(cloud: LocalCloud) -> None:
    """Waits until nobody has called for a while."""
    calls, since = cloud.calls(), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        if (now := cloud.calls()) != calls:
            calls, since = now, time.monotonic()
        time.sleep(0.1)
