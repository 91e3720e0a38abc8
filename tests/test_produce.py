"""`make produce`: as many events as wanted, at the rate and with the duplicates wanted, each where its kind goes."""

import contextlib
import json
import random
import subprocess
import sys
import time
import uuid
from collections import Counter

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as some

from local.client import ROOT, until
from local.make import produce
from local.make.produce import RECENT, Sent

CLUSTER_TAG = "aws:eks:cluster-name"
QUEUES = ("NodeQueue", "ResultQueue")
TEMPLATE = {
    "Parameters": {
        "ClusterName": {"Type": "String", "Default": "producing"},
        "ClusterTagKey": {"Type": "String", "Default": CLUSTER_TAG},
    },
    "Resources": {name: {"Type": "AWS::SQS::Queue"} for name in QUEUES},
    "Outputs": {"JobsUrl": {"Value": "https://none.example"}},
}


@given(some.integers(1, 2000), some.floats(0, 0.99), some.integers())
def test_the_share_of_duplicates_is_met_and_each_repeats_a_recent_event(count, share, seed):
    order = produce.numbers(count, share, random.Random(seed))
    again = [place for place, number in enumerate(order) if number in order[:place]]
    assert len(order) == count
    assert len(again) == min(round(count * share), count - 1)
    assert all(order[place] in order[max(0, place - RECENT) : place] for place in again)


def test_events_are_sent_at_the_rate_and_counted():
    seen, sent, began = [], Sent(), time.monotonic()
    produce.produce([0, 1, 1, 2, 0, 3, 4, 5, 6, 7, 8], 100, seen.append, sent)
    assert time.monotonic() - began >= 0.1
    assert sorted(seen) == [0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8]
    assert (sent.different, sent.duplicates, sent.failure) == (9, 2, "")
    assert sent.line(100).startswith("11 events sent, 2 of them duplicates, in ")


def test_a_rate_that_was_not_reached_is_told():
    sent = Sent(different=90, duplicates=10, began=time.monotonic() - 50)
    assert sent.line(5) == "100 events sent, 10 of them duplicates, in 50.0 s: 2.0 a second; 5 were wanted"


def test_an_event_that_cannot_be_sent_ends_it_and_says_why():
    def send(number: int) -> None:
        if number == 3:
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "SendMessage")

    sent = Sent()
    produce.produce(range(1000), 500, send, sent)
    assert sent.failure.startswith("Stopped at an event that could not be sent: the caller may not SendMessage: ")
    assert 3 <= sent.total < 100


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ("--events=0", "EVENTS=0 is not accepted"),
        ("--events=many", "EVENTS=many is not accepted"),
        ("--per-second=0", "PER_SECOND=0 is not accepted"),
        ("--per-second=nan", "PER_SECOND=nan is not accepted"),
        ("--per-second=1001", "PER_SECOND=1001 is not accepted"),
        ("--duplicates=5", "DUPLICATES=5 is not accepted: it takes a share such as 5%"),
        ("--duplicates=100%", "DUPLICATES=100% is not accepted"),
        ("--duplicates=-1%", "DUPLICATES=-1% is not accepted"),
        ("--kind=pull", "invalid choice: 'pull'"),
    ],
)
def test_what_is_wrong_is_told_and_nothing_is_sent(wrong, reason, capsys):
    with pytest.raises(SystemExit) as end:
        produce.main(["prod", wrong])
    assert end.value.code == 2
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--kind=launch"], "no node of the cluster producing runs"),
        (["--kind=report"], "no command of the stack has succeeded yet"),
        (["--repository=nobody/knows"], "nobody/knows"),
        (["--repository=empty/app"], "there is no tagged image in the repository empty/app"),
    ],
)
def test_where_there_is_nothing_to_tell_of_nothing_is_sent(cloud, stack, options, reason):
    with contextlib.suppress(cloud.client("ecr").exceptions.RepositoryAlreadyExistsException):
        cloud.client("ecr").create_repository(repositoryName="empty/app")
    ran = run(cloud, stack, "--events=5", *options)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert reason in ran.stderr


def test_a_stack_that_is_not_there_is_told(cloud):
    ran = run(cloud, "nobodys")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "There is no stack 'nobodys' in eu-central-1" in ran.stderr


def test_launches_go_to_the_nodes_queue_with_as_many_duplicates_as_wanted(cloud, stack):
    nodes = {cloud.launch({CLUSTER_TAG: "producing"}, containerd="none") for _ in range(2)}
    until(lambda: running(cloud, nodes), 10, "the nodes to run")
    ran = run(cloud, stack, "--kind=launch", "--events=40", "--per-second=100", "--duplicates=25%")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("40 events sent, 10 of them duplicates, in ")
    received = messages(cloud, stack, "NodeQueue", 40)
    bodies = Counter(received)
    assert (len(received), len(bodies)) == (40, 30)
    events = [json.loads(body) for body in bodies]
    assert len({event["id"] for event in events}) == 30
    assert {event["detail"]["instance-id"] for event in events} == nodes
    assert {event["detail-type"] for event in events} == {"EC2 Instance State-change Notification"}
    assert all(event["resources"][0].endswith(event["detail"]["instance-id"]) for event in events)


@pytest.fixture(scope="module")
def stack(cloud) -> str:
    """A stack that has the queues of ours and nothing else."""
    name = f"producing-{uuid.uuid4().hex[:8]}"
    client = cloud.client("cloudformation")
    client.create_stack(StackName=name, TemplateBody=json.dumps(TEMPLATE))
    client.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
    return name


def run(cloud, stack: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "local.make.produce", stack, *options]
    return subprocess.run(command, cwd=ROOT, env=cloud.env(), check=False, capture_output=True, text=True, timeout=60)


def running(cloud, nodes: set[str]) -> bool:
    known = cloud.state()["nodes"]
    return all(known[node]["state"] == "running" for node in nodes)


def messages(cloud, stack: str, queue: str, count: int) -> list[str]:
    resource = cloud.client("cloudformation").describe_stack_resource(StackName=stack, LogicalResourceId=queue)
    url = resource["StackResourceDetail"]["PhysicalResourceId"]
    sqs, bodies = cloud.client("sqs"), []

    def complete() -> bool:
        found = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        bodies.extend(message["Body"] for message in found)
        return len(bodies) >= count

    until(complete, 10, f"{count} messages")
    return bodies
