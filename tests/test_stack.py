"""The deployed stack on the local cloud: what a push, a launch, bad input and failures end with."""

import json
from pathlib import Path

import pytest
from account import inventory
from uploaded import Uploaded

from local import images
from local.client import ROOT, LocalCloud, until
from local.stack import EVERYTHING, TEMPLATE, Stack

CLUSTER = {"aws:eks:cluster-name": "prod"}
EVENTS = ROOT / "events"
ONE_MIB = 1 << 20

TUNED = {
    "NodeTags": "team=ml,karpenter.sh/nodepool=gpu|gpu-large",
    "Repositories": "team/*,!team/x",
    "Tags": "v*",
    "Newest": "2",
    "Keep": "3",
    "Pin": "true",
    "MaxImageGiB": "20",
    "MaxConcurrency": "10%",
    "ImageGCHighThresholdPercent": "90",
    "MaxParallelImagePulls": "4",
    "MaxConnections": "5",
    "MaxBandwidthMiB": "100",
}
"""Parameters of the rule that is made of the simple ones."""


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Stack(cloud)
    stack.deploy(ClusterName="prod", Repositories="team/*,!team/unwanted")
    cloud.push("team/first", "v1", images.image("first"))
    yield stack
    stack.delete()


@pytest.fixture
def node(cloud, stack):
    """A node of the cluster that SSM can reach, and whose launch was answered with a command."""
    node = cloud.launch(CLUSTER, online_after=0)
    until(lambda: sent_to(stack, node), 40, "the launch's command")
    yield node
    cloud.terminate(node)


def test_a_push_ends_with_both_names_on_every_node_of_the_cluster_and_on_no_other(cloud, stack):
    ours = [cloud.launch(CLUSTER, online_after=0, containerd=version) for version in ("1.7", "2.1")]
    foreign = cloud.launch({"aws:eks:cluster-name": "test"}, online_after=0)
    cloud.until_online(foreign)
    until(lambda: all(sent_to(stack, node) for node in ours), 40, "the launches' commands")
    digest = cloud.push("team/push", "v1", images.image("push", layer_bytes=ONE_MIB))
    command = command_for(stack, "push", digest)
    for node in ours:
        [line] = report(stack, command, node)
        assert (line["status"], line["digest"], line["attempts"]) == ("pulled", digest, 1)
        assert cloud.image_status(node, f"{registry(cloud)}/team/push:v1")
        assert cloud.image_status(node, f"{registry(cloud)}/team/push@{digest}")
    invocations = cloud.client("ssm").list_command_invocations(CommandId=command["CommandId"])["CommandInvocations"]
    assert {invocation["InstanceId"] for invocation in invocations} >= set(ours)
    assert foreign not in {invocation["InstanceId"] for invocation in invocations}
    for instance in (*ours, foreign):
        cloud.terminate(instance)


def test_a_multi_architecture_push_is_one_command_although_ecr_raises_an_event_for_each_manifest(cloud, stack, node):
    seen = len(cloud.events("ECR Image Action"))
    children = [images.image("index", architecture=architecture) for architecture in ("amd64", "arm64")]
    digest = cloud.push("team/index", "v1", images.index(children))
    until(lambda: len(cloud.events("ECR Image Action")) == seen + 3, 10, "three events")
    command = command_for(stack, "push", digest)
    [line] = report(stack, command, node)
    assert line["status"] == "pulled"
    carrying = [c["CommandId"] for c in stack.commands("push") if "team/index" in c["Parameters"]["images"][0]]
    assert carrying == [command["CommandId"]]


def test_the_same_event_again_costs_the_node_milliseconds(cloud, stack, node):
    digest = cloud.push("team/again", "v1", images.image("again"))
    first = command_for(stack, "push", digest)
    report(stack, first, node)
    cloud.send_event(cloud.events("ECR Image Action")[-1])
    again = command_for(stack, "push", digest, besides=[first["CommandId"]])
    [line] = report(stack, again, node)
    assert (line["status"], line["attempts"]) == ("cached", 0)


def test_a_launched_node_gets_the_newest_image_once_it_is_online(cloud):
    stack = Uploaded(cloud, name="launch")
    stack.deploy(ClusterName="launch")
    cloud.push("team/launch", "v1", images.image("old"))
    digest = cloud.push("team/launch", "v2", images.image("new"))
    cloud.forget_calls()
    node = cloud.launch({"aws:eks:cluster-name": "launch"}, online_after=3)
    until(lambda: cloud.calls("ssm").get("ssm:DescribeInstanceInformation"), 10, "the first look")
    assert not sent_to(stack, node)
    cloud.until_online(node)

    def commands() -> list[dict]:
        # What other tests have pushed is of other commands, where one does not carry all.
        image = f"team/launch:v2@{digest}"
        return [command for command in sent_to(stack, node) if image in command["Parameters"]["images"][0]]

    [command] = until(commands, 20, "a command for the node")
    lines = {line["image"].rpartition("/")[2].partition("@")[0]: line for line in report(stack, command, node)}
    assert (lines["launch:v2"]["status"], lines["launch:v2"]["digest"]) == ("pulled", digest)
    assert "launch:v1" not in lines
    assert cloud.image_status(node, f"{registry(cloud)}/team/launch:v2")
    cloud.terminate(node)
    stack.delete()


def test_a_node_that_never_comes_online_ends_in_the_dead_letter_queue(cloud, stack):
    node = cloud.launch(CLUSTER, managed=False)
    queue = stack.resources()["NodeDeadLetters"]
    letter = until(lambda: letter_about(cloud, queue, node), 60, "the node's message in the dead-letter queue")
    assert json.loads(letter["Body"])["detail"]["instance-id"] == node
    cloud.terminate(node)


def test_a_foreign_instance_is_dropped(cloud, stack):
    node = cloud.launch({"aws:eks:cluster-name": "test"}, online_after=0)
    cloud.until_online(node)
    event = running(node)
    assert stack.invoke("NodeLaunch", event)["reason"] == "foreign"
    cloud.terminate(node)


def test_of_a_mixed_batch_only_what_may_still_come_online_is_handed_back(cloud, stack):
    cloud.push("team/mixed", "v1", images.image("mixed"))
    [ours] = cloud.launch_many(1, CLUSTER, online_after=0)
    offline, foreign, terminated = (
        cloud.launch(CLUSTER, managed=False),
        cloud.launch({"aws:eks:cluster-name": "test"}, online_after=0),
        cloud.launch(CLUSTER, online_after=0),
    )
    cloud.until_online(ours, foreign, terminated)
    cloud.terminate(terminated)
    batch = json.loads((EVENTS / "node-launch.sqs-ten.json").read_text())
    for record, node in zip(batch["Records"], (ours, offline, foreign, terminated), strict=False):
        record["body"] = json.dumps(running(node))
    answer = stack.invoke("NodeLaunch", batch)
    assert answer == {"batchItemFailures": [{"itemIdentifier": batch["Records"][1]["messageId"]}]}
    assert len(sent_to(stack, ours)) == 1
    assert not sent_to(stack, foreign)
    for node in (ours, offline, foreign):
        cloud.terminate(node)


def test_one_refused_node_does_not_block_the_others(cloud, stack):
    nodes = cloud.launch_many(3, CLUSTER, online_after=0)
    batch = json.loads((EVENTS / "node-launch.sqs-ten.json").read_text())
    batch["Records"] = batch["Records"][:3]
    for record, node in zip(batch["Records"], nodes, strict=True):
        record["body"] = json.dumps(running(node))
    cloud.throttle("ssm", "SendCommand", times=1, code="InvalidInstanceId")
    assert stack.invoke("NodeLaunch", batch) == {"batchItemFailures": []}
    assert [len(sent_to(stack, node)) for node in nodes] == [1, 1, 1]
    for node in nodes:
        cloud.terminate(node)


@pytest.mark.parametrize("path", sorted(EVENTS.glob("image-push.*.json")), ids=lambda path: path.stem)
def test_every_recorded_push_is_decided_of_by_the_real_function(stack, path):
    answer = stack.invoke("ImagePush", json.loads(path.read_text()))
    wanted = {"tagged", "longest-tag"}
    asked = {"index", "docker-list", "replication", "cache-index", "restored", "chart-replicated"}
    if path.stem.removeprefix("image-push.") in asked:
        assert answer["reason"] in ("gone", "no-rule")  # ECR is asked of them, and has none
    elif path.stem.removeprefix("image-push.") in wanted:
        assert [command["rule"] for command in answer["commands"]] == ["default"]
    else:
        assert answer["decision"] == "ignored"
        assert answer["reason"] and answer["message"]


@pytest.mark.parametrize("path", sorted(EVENTS.glob("node-launch.*.json")), ids=lambda path: path.stem)
def test_every_recorded_launch_is_decided_of_by_the_real_function(stack, path):
    answer = stack.invoke("NodeLaunch", json.loads(path.read_text()))
    assert answer == {"batchItemFailures": []} or (answer["decision"] == "dropped" and answer["message"])


def test_throttling_is_waited_out_by_the_sdk(cloud, stack, node):
    cloud.throttle("ssm", "SendCommand", times=2)
    digest = cloud.push("team/throttled", "v1", images.image("throttled"))
    [line] = report(stack, command_for(stack, "push", digest), node)
    assert line["status"] == "pulled"


def test_what_fails_every_try_ends_in_the_dead_letter_queue_with_its_cause(cloud, stack):
    # An error that no try heals: for one that may pass, the SDK alone waits longer than this test.
    cloud.throttle("ssm", "SendCommand", times=1000, code="InvalidDocument")
    digest = cloud.push("team/lost", "v1", images.image("lost"))
    queue = stack.resources()["ImagePushDeadLetters"]
    try:
        letter = until(lambda: letter_about(cloud, queue, digest), 60, "the event in the dead-letter queue")
    finally:
        cloud.throttle("ssm", "SendCommand", times=0)
    body = json.loads(letter["Body"])
    assert body["requestPayload"]["detail"]["image-digest"] == digest
    assert body["responsePayload"]["errorType"] == "PushError"
    assert "InvalidDocument" in body["responsePayload"]["errorMessage"]


def test_an_event_costs_the_calls_that_are_promised(cloud, stack, node):
    cloud.forget_calls()
    function = stack.resources()["ImagePush"]
    stack.invoke("ImagePush", json.loads((EVENTS / "image-push.tagged.json").read_text()))
    assert cloud.calls(function=function) == {"ssm:SendCommand": 1}
    cloud.forget_calls()
    stack.invoke("ImagePush", json.loads((EVENTS / "image-push.signature.json").read_text()))
    assert cloud.calls(function=function) == {}


@pytest.mark.timeout(300)
def test_an_update_changes_the_document_in_place_and_a_delete_leaves_nothing(cloud, tmp_path):
    stack = Stack(cloud, name="short-lived")
    before = inventory(cloud)
    stack.deploy(ClusterName="short")
    document = stack.resources()["PrefetchImages"]
    stack.deploy(ClusterName="short", template=changed_document(tmp_path))
    assert stack.resources()["PrefetchImages"] == document
    description = cloud.client("ssm").describe_document(Name=document)["Document"]
    assert (description["LatestVersion"], description["DefaultVersion"]) == ("2", "2")
    stack.delete()
    assert inventory(cloud) == before


def test_the_parameters_become_the_rule(cloud, stack):
    tuned = Uploaded(cloud, name="tuned")
    tuned.deploy(ClusterName="tuned", **TUNED)
    event = json.loads((EVENTS / "image-push.tagged.json").read_text())
    [command] = sent_for(tuned, event)
    assert {target["Key"]: target["Values"] for target in command["Targets"]} == {
        "tag:aws:eks:cluster-name": ["tuned"],
        "tag:team": ["ml"],
        "tag:karpenter.sh/nodepool": ["gpu", "gpu-large"],
    }
    assert command["MaxConcurrency"] == "10%"
    assert parameters(command) == {
        "executionTimeout": "3600",
        "imageGCHighThresholdPercent": "90",
        "maxParallelImagePulls": "4",
        "maxConnections": "5",
        "maxBandwidthMiB": "100",
        "maxImageGiB": "20",
        "keep": "3",
        "pin": "true",
        "reportOnly": "false",
    }
    tuned.delete()


def test_each_rules_own_fields_reach_the_document_and_what_is_unsaid_means_nothing(cloud):
    ruled = Uploaded(cloud, name="ruled")
    limits = {"newest": 2, "keep": 3, "pin": True, "maxImageGiB": 20}
    rules = [{"name": "gpu", **limits, **EVERYTHING}, {"name": "rest", **EVERYTHING}]
    # Beside Rules the simple parameters are none: a Pin without a Keep is no mistake then.
    ruled.deploy(ClusterName="ruled", Rules=json.dumps(rules), Pin="true")
    gpu, rest = sent_for(ruled, json.loads((EVENTS / "image-push.tagged.json").read_text()))
    fields = ("maxImageGiB", "keep", "pin")
    assert [parameters(gpu)[name] for name in fields] == ["20", "3", "true"]
    assert [parameters(rest)[name] for name in fields] == ["0", "0", "false"]
    ruled.delete()


def command_for(stack: Stack, trigger: str, digest: str, besides: list[str] = ()) -> dict:
    """Waits for the command that carries an image."""

    def found() -> dict | None:
        commands = [c for c in stack.commands(trigger) if digest in c["Parameters"]["images"][0]]
        return next((command for command in commands if command["CommandId"] not in besides), None)

    return until(found, 20, f"a command for {digest}")


def sent_for(stack: Stack, event: dict) -> list[dict]:
    """Returns the commands that the function sends for a push, in the order of their rules."""
    ids = [sent["command"] for sent in stack.invoke("ImagePush", event)["commands"]]
    commands = {command["CommandId"]: command for command in stack.commands("push")}
    return [commands[id_] for id_ in ids]


def parameters(command: dict) -> dict[str, str]:
    """Returns what the document is told beside the images, its own defaults included."""
    return {name: value for name, [value] in command["Parameters"].items() if name != "images"}


def sent_to(stack: Stack, node: str) -> list[dict]:
    return [command for command in stack.commands("launch") if node in command["InstanceIds"]]


def report(stack: Stack, command: dict, node: str) -> list[dict]:
    return until(lambda: stack.report(command["CommandId"], node), 30, f"the report of {node}")


def running(node: str) -> dict:
    event = json.loads((EVENTS / "node-launch.running.json").read_text())
    event["detail"]["instance-id"] = node
    return event


def letter_about(cloud: LocalCloud, queue: str, what: str) -> dict | None:
    messages = cloud.client("sqs").receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return next((message for message in messages.get("Messages", []) if what in message["Body"]), None)


def registry(cloud: LocalCloud) -> str:
    return f"{cloud.account}.dkr.ecr.{cloud.region}.amazonaws.com"


def changed_document(folder: Path) -> Path:
    """A copy of the built template whose document has one more line."""
    build = TEMPLATE.parent
    built = (build / "template.yaml").read_text()
    document = json.loads((ROOT / "ssm" / "prefetch-images.json").read_text())
    document["mainSteps"][0]["inputs"]["runCommand"].append("# changed")
    (folder / "document.json").write_text(json.dumps(document))
    locations = {line.split("Location:")[1].strip() for line in built.splitlines() if "Location:" in line}
    changed = built
    for location in locations:
        name = Path(location).name
        here = folder / "document.json" if name == "prefetch-images.json" else ROOT / "ssm" / name
        changed = changed.replace(location, str(here))
    changed = changed.replace("DefinitionUri: ../../", f"DefinitionUri: {ROOT}/")
    for bootstrap in build.glob("*/bootstrap"):
        changed = changed.replace(f"CodeUri: {bootstrap.parent.name}\n", f"CodeUri: {bootstrap.parent}\n")
    (folder / "template.yaml").write_text(changed)
    return folder / "template.yaml"
