"""Tests what the deployed stack sends where AWS refuses one node, a command's size, or the number of them."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from jobs import Jobs
from uploaded import Uploaded

from local import images
from local.client import ROOT, until
from local.ssm.content import MAX_BYTES

CLUSTER = {"aws:eks:cluster-name": "sending"}
BARE = {"online_after": 0, "containerd": "none"}


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="sending")
    stack.deploy(ClusterName="sending", Repositories="sending/*")
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def digests(cloud, stack):
    """The images of many repositories with long names: there before a node is, for a list of them is remembered."""
    names = [f"sending/{place:02}-{'long' * 12}" for place in range(26)]
    return {cloud.push(name, "t" * 40, images.image(name)) for name in names}


@pytest.fixture
def nodes(cloud, stack, digests):
    # Of which no event tells: whatever serves one of their launches does so once.
    nodes = cloud.launch_many(6, CLUSTER, **BARE)
    cloud.until_online(*nodes)
    yield nodes
    for node in nodes:
        cloud.terminate(node)


@pytest.fixture
def denied(cloud, stack, nodes):
    """Two of the nodes on which IAM permits no commands, as a policy of an organisation may have it."""
    denied = [nodes[1], nodes[4]]
    statement = {
        "Effect": "Deny",
        "Action": "ssm:SendCommand",
        "Resource": [f"arn:aws:ec2:*:*:instance/{node}" for node in denied],
    }
    policy = {"PolicyName": "deny", "PolicyDocument": json.dumps({"Version": "2012-10-17", "Statement": [statement]})}
    iam, resources = cloud.client("iam"), stack.resources()
    roles = [resources[role] for role in ("NodeLaunchRole", "JobsRole", "ImagePushRole")]
    for role in roles:
        iam.put_role_policy(RoleName=role, **policy)
    yield denied
    for role in roles:
        iam.delete_role_policy(RoleName=role, PolicyName="deny")


def test_nodes_that_iam_refuses_keep_no_other_from_its_images(cloud, stack, nodes, denied):
    cloud.push("sending/denied", "v1", images.image("denied"))
    batch = {"Records": [{"messageId": node, "body": json.dumps(running(node))} for node in nodes]}
    before = len(stack.commands("launch"))
    answer = stack.invoke("NodeLaunch", batch)
    assert sorted(row["itemIdentifier"] for row in answer["batchItemFailures"]) == sorted(denied)
    sent = stack.commands("launch")[: len(stack.commands("launch")) - before]
    others = set(nodes) - set(denied)
    assert {node for command in sent for node in command["InstanceIds"]} >= others
    assert stack.invoke("NodeLaunch", running(denied[0]))["reason"] == "access-denied"

    jobs = Jobs(cloud, stack)
    job = jobs.submit(images=["sending/denied:v1"], nodes={"ids": nodes})
    [command] = job["jobs"]
    assert set(command["nodes"]["ids"]) == others
    assert {row["id"]: row["reason"] for row in job["nodes"]} == dict.fromkeys(denied, "access-denied")
    only = jobs.submit(400, images=["sending/denied:v1"], nodes={"ids": denied})
    assert len(only["errors"]) == 2


def test_an_account_of_many_repositories_with_long_names_is_sent_in_commands_that_ssm_takes(
    cloud, stack, digests, nodes
):
    until(lambda: digests <= carried(stack, "push"), 60, "the pushes' commands")
    for node in nodes:
        launched = stack.invoke("NodeLaunch", running(node))
        assert launched["decision"] == "sent", launched
    assert digests <= carried(stack, "launch")
    [rule] = stack.invoke("Jobs", {"reconcile": True})["rules"]
    assert rule["decision"] == "sent"
    assert digests <= carried(stack, "reconcile")
    document = cloud.client("ssm").get_document(Name=stack.resources()["PrefetchImages"])["Content"]
    for command in stack.commands():
        assert len(document.encode()) + len(json.dumps(command["Parameters"])) <= MAX_BYTES


def test_a_burst_of_pushes_ends_with_every_command_sent_and_no_alarm(cloud, stack):
    event = json.loads((ROOT / "events" / "image-push.tagged.json").read_text())
    digests = {f"sha256:{place:064x}" for place in range(40)}
    cloud.throttle("ssm", "SendCommand", 10_000, per_second=5, function=stack.resources()["ImagePush"])
    for digest in sorted(digests):
        pushed = copy.deepcopy(event)
        pushed["id"] = digest
        pushed["detail"] |= {"repository-name": "sending/burst", "image-digest": digest}
        cloud.send_event(pushed)
    until(lambda: digests <= carried(stack, "push"), 90, "all commands")
    cloud.forget_faults()
    letters = {"QueueUrl": stack.resources()["ImagePushDeadLetters"], "AttributeNames": ["ApproximateNumberOfMessages"]}
    counted = cloud.client("sqs").get_queue_attributes(**letters)["Attributes"]
    assert counted == {"ApproximateNumberOfMessages": "0"}
    alarms = cloud.client("cloudwatch").describe_alarms(AlarmNames=[stack.resources()["ImagePushErrors"]])
    assert alarms["MetricAlarms"][0]["StateValue"] != "ALARM"


def test_a_slow_answer_is_waited_for_and_one_that_never_comes_ends_before_the_function_does(cloud, stack, nodes):
    cloud.slow_down("ssm", "SendCommand", 5)
    cloud.push("sending/slow", "v1", images.image("slow"))
    jobs = Jobs(cloud, stack)
    job = {"images": ["sending/slow:v1"], "nodes": {"ids": nodes[:1]}}
    assert len(jobs.submit(**job)["jobs"]) == 1

    cloud.slow_down("ssm", "SendCommand", 600)
    with ThreadPoolExecutor() as pool:
        launch = pool.submit(stack.invoke, "NodeLaunch", running(nodes[0]))
        problem = jobs.submit(503, **job)
    assert problem["detail"].startswith("the command could not be sent; another try may fare better")
    assert [row["nodes"] for row in problem["unknown"]] == [{"ids": nodes[:1]}]
    assert (launch.result()["decision"], launch.result()["reason"]) == ("handed-back", "aws-error")
    cloud.forget_faults()


def carried(stack: Uploaded, trigger: str) -> set[str]:
    """Returns the digests of all images that commands of a trigger carry."""
    commands = stack.commands(trigger)
    images = [image for command in commands for image in command["Parameters"]["images"][0].split()]
    return {image.partition("@")[2] for image in images}


def running(node: str) -> dict:
    event = json.loads((ROOT / "events" / "node-launch.running.json").read_text())
    event["detail"]["instance-id"] = node
    return event
