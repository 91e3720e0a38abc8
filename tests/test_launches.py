"""Launches: by which tags an instance is a node's, who tells of it, and that it is served once."""

import json

import pytest
from uploaded import Uploaded

from local import images
from local.client import ROOT, until

NAME = "launched"
JOINED = "aws:eks:cluster-name"
OURS = {JOINED: NAME}
OF_A_GROUP = {**OURS, "aws:autoscaling:groupName": "nodes"}
BARE = {"online_after": 0, "containerd": "none", "delay": 3600}
"""A node of which SSM knows, and on which nothing is run."""
SECONDS = 40


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, NAME)
    stack.deploy(ClusterName=NAME, Repositories="launched/*")
    cloud.push("launched/app", "v1", images.image("launched"))
    yield stack
    stack.delete()


@pytest.mark.parametrize(
    "tags",
    [
        {"eks:cluster-name": NAME},
        {"eks:eks-cluster-name": NAME},
        {f"kubernetes.io/cluster/{NAME}": "owned", "karpenter.sh/nodepool": "default"},
    ],
)
def test_a_node_is_served_by_the_tags_of_its_launch_before_it_has_the_clusters(cloud, stack, tags):
    node = cloud.launch(tags, **BARE)
    [command] = until(lambda: sent_to(stack, node), SECONDS, "the launch's command")
    assert command["InstanceIds"] == [node]
    cloud.terminate(node)


def test_an_instance_that_is_tagged_late_is_served_once_it_is(cloud, stack):
    node = cloud.launch({"team": "web"}, **BARE)
    until(lambda: len(decided(cloud, stack, node, "not-tagged")) > 3, SECONDS, "some looks")
    cloud.turn(node, tags=OURS)
    until(lambda: sent_to(stack, node), SECONDS, "the launch's command")
    cloud.terminate(node)


def test_an_instance_that_no_tag_calls_a_node_is_looked_at_for_minutes_and_is_no_dead_letter(cloud, stack):
    stranger = cloud.launch({"team": "web"}, **BARE)
    until(lambda: decided(cloud, stack, stranger, "foreign"), 60, "the last look")
    assert len(decided(cloud, stack, stranger, "not-tagged")) == 24
    until(lambda: waiting(cloud, stack, "NodeQueue") == 0, SECONDS, "the queue to be empty")
    assert waiting(cloud, stack, "NodeDeadLetters") == 0
    assert not sent_to(stack, stranger)
    cloud.terminate(stranger)


def test_a_node_of_another_cluster_is_neither_served_nor_could_be_whatever_it_carries(cloud, stack):
    other = {JOINED: "other", "eks:cluster-name": NAME, f"kubernetes.io/cluster/{NAME}": "owned"}
    [node] = cloud.launch_many(1, other, **BARE)
    assert stack.invoke("NodeLaunch", running(node))["reason"] == "foreign"
    assert not may_send(cloud, stack, "NodeLaunchRole", other)
    assert not may_send(cloud, stack, "NodeLaunchRole", {"kubernetes.io/cluster/other": "owned"})
    assert not may_send(cloud, stack, "NodeLaunchRole", {f"kubernetes.io/cluster/{NAME}": "shared"})
    joining = {f"kubernetes.io/cluster/{NAME}": "owned"}
    assert may_send(cloud, stack, "NodeLaunchRole", joining)
    assert may_send(cloud, stack, "NodeLaunchRole", {"eks:cluster-name": NAME, **OURS})
    for role in ("ImagePushRole", "JobsRole"):
        assert may_send(cloud, stack, role, OURS)
        assert not may_send(cloud, stack, role, joining)
    cloud.remove([node])


def test_a_launch_of_which_ec2_and_auto_scaling_tell_is_one_command(cloud, stack):
    node = cloud.launch(OF_A_GROUP, **BARE)
    until(lambda: sent_to(stack, node), SECONDS, "the launch's command")
    assert told(cloud, node) == [
        "EC2 Instance Launch Successful",
        "EC2 Instance State-change Notification",
        "EC2 Instance-launch Lifecycle Action",
    ]
    until(lambda: waiting(cloud, stack, "NodeQueue") == 0, SECONDS, "the queue to be empty")
    again = stack.invoke("NodeLaunch", running(node))
    [command] = sent_to(stack, node)
    assert (again["decision"], again["reason"]) == ("dropped", "already-sent")
    assert command["CommandId"] in again["message"]
    cloud.terminate(node)


def test_a_launch_of_which_ec2s_event_is_lost_is_served_by_auto_scalings(cloud, stack):
    with cloud.holding_events("aws.ec2"):
        node = cloud.launch(OF_A_GROUP, **BARE)
        until(lambda: sent_to(stack, node), SECONDS, "the launch's command")
    until(lambda: waiting(cloud, stack, "NodeQueue") == 0, SECONDS, "the queue to be empty")
    assert "EC2 Instance State-change Notification" not in told(cloud, node)
    assert len(sent_to(stack, node)) == 1
    cloud.terminate(node)


def test_a_table_that_answers_nothing_keeps_no_node_from_its_images(cloud, stack):
    [node] = cloud.launch_many(1, OURS, **BARE)
    cloud.throttle("dynamodb", "TransactWriteItems", times=1000, function=stack.resources()["NodeLaunch"])
    try:
        assert stack.invoke("NodeLaunch", running(node))["decision"] == "sent"
    finally:
        cloud.throttle("dynamodb", "TransactWriteItems", times=0)
    assert len(sent_to(stack, node)) == 1
    cloud.remove([node])


def test_a_launch_that_was_let_go_after_some_commands_goes_on_from_there(cloud, stack):
    [node] = cloud.launch_many(1, OURS, **BARE)
    assert stack.invoke("NodeLaunch", running(node))["decision"] == "sent"
    dynamodb, table = cloud.client("dynamodb"), stack.resources()["Outcomes"]
    pages = dynamodb.get_paginator("scan").paginate(TableName=table)
    [row] = [row for page in pages for row in page["Items"] if row["pk"]["S"].startswith(f"launch#{node}")]
    [command] = row.pop("commands")["L"]
    went = {command["S"]: {"M": {"rule": {"S": "another"}, "images": {"L": [{"S": "0123456789abcdef"}]}}}}
    row |= {"held_until": {"N": "0"}, "went": {"M": went}, "went_until": row["held_until"]}
    dynamodb.put_item(TableName=table, Item=row)
    [sent] = stack.invoke("NodeLaunch", running(node))["commands"]
    again = stack.invoke("NodeLaunch", running(node))
    assert again["reason"] == "already-sent"
    assert command["S"] in again["message"] and sent["command"] in again["message"]
    cloud.remove([node])


def running(node: str) -> dict:
    """EC2's event of an instance."""
    event = json.loads((ROOT / "events" / "node-launch.running.json").read_text())
    event["detail"]["instance-id"] = node
    return event


def sent_to(stack: Uploaded, node: str) -> list[dict]:
    """The commands that a node's launch became."""
    return [command for command in stack.commands("launch") if node in command["InstanceIds"]]


def told(cloud, node: str) -> list[str]:
    """Returns what was told of a launch: the types of the events that lead to a message in the queue."""
    events = [event for event in cloud.events() if event["detail"].get("EC2InstanceId") == node]
    events += [event for event in cloud.events() if event["detail"] == {"instance-id": node, "state": "running"}]
    return sorted(event["detail-type"] for event in events)


def decided(cloud, stack: Uploaded, node: str, reason: str) -> list[dict]:
    """The lines of the log by which a node was decided of for that reason."""
    group = stack.resources()["NodeLaunchLogs"]
    pages = cloud.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
    lines = [event["message"] for page in pages for event in page["events"] if event["message"].startswith("{")]
    return [line for line in map(json.loads, lines) if (line.get("instance.id"), line.get("reason")) == (node, reason)]


def waiting(cloud, stack: Uploaded, queue: str) -> int:
    """Counts a queue's messages, those in work or not due yet included."""
    names = [
        "ApproximateNumberOfMessages",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesDelayed",
    ]
    url = stack.resources()[queue]
    answer = cloud.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=names)
    return sum(map(int, answer["Attributes"].values()))


def may_send(cloud, stack: Uploaded, role: str, tags: dict[str, str]) -> bool:
    """Tells whether IAM lets a role send a command to an instance with these tags."""
    iam = cloud.client("iam")
    keys = [(f"ssm:resourceTag/{key}", value) for key, value in tags.items()]
    answer = iam.simulate_principal_policy(
        PolicySourceArn=iam.get_role(RoleName=stack.resources()[role])["Role"]["Arn"],
        ActionNames=["ssm:SendCommand"],
        ResourceArns=[f"arn:aws:ec2:{cloud.region}:{cloud.account}:instance/i-0123456789abcdef0"],
        ContextEntries=[
            {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": "string"} for key, value in keys
        ],
    )
    return answer["EvaluationResults"][0]["EvalDecision"] == "allowed"
