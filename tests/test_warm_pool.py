"""Warm pools: an instance waits in a launch lifecycle hook until it has its images, and no longer."""

import pytest
from settling import ended, line
from uploaded import Uploaded

from local import images
from local.client import until

NAME, HOOK = "pooled", "prefetch"
TAG = f"kubernetes.io/cluster/{NAME}"
LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
IN_SERVICE, STOPPED = "InService", "Warmed:Stopped"
SCRIPTED = {"online_after": 0, "containerd": "none"}
LONG = 7200
"""Seconds of a hook that nothing here waits for: they pass in two and a half minutes."""
SECONDS = 40


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, NAME)
    stack.deploy(ClusterName=NAME, Repositories="pooled/*", LaunchLifecycleHook=HOOK)
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def image(cloud, stack):
    """The image that the rule names, as commands name it."""
    digest = cloud.push("pooled/app", "v1", images.image("pooled"))
    return f"{cloud.state()['registry_host']}/pooled/app:v1@{digest}"


@pytest.fixture(scope="module")
def group(cloud):
    return make_group(cloud, "pooled-nodes", TAG)


def test_an_instance_is_stopped_with_its_images_and_has_them_when_it_leaves_the_pool(cloud, stack, group, image):
    cloud.client("autoscaling").put_warm_pool(AutoScalingGroupName=group)
    node = cloud.launch(of(group), online_after=0)
    until(lambda: lifecycle(cloud, node) == STOPPED, SECONDS, "the node to be stopped")
    assert reported(stack, node) == ["pulled"]
    until(lambda: state(cloud, node) == "stopped", SECONDS, "the instance to be stopped")
    cloud.client("ec2").start_instances(InstanceIds=[node])
    until(lambda: lifecycle(cloud, node) == IN_SERVICE, SECONDS, "the node to leave the pool")
    assert reported(stack, node) == ["cached", "pulled"]
    assert cloud.image_status(node, image)
    cloud.terminate(node)


@pytest.mark.parametrize(("status", "reason"), [("failed", "denied"), ("skipped", "no-space"), ("skipped", "platform")])
def test_an_image_that_never_comes_holds_no_instance(cloud, stack, image, status, reason):
    group = make_group(cloud, f"pooled-{reason}", TAG)
    node = cloud.launch(of(group), **SCRIPTED, endings=[ended(line(image, status, reason))])
    until(lambda: lifecycle(cloud, node) == IN_SERVICE, SECONDS, "the node to be in service")
    assert len(commands(stack, node)) == 1
    cloud.terminate(node)


def test_an_instance_waits_for_the_last_retry_and_no_longer(cloud, stack, image):
    group = make_group(cloud, "pooled-retries", TAG)
    failed = ended(line(image, "failed", "registry"))
    node = cloud.launch(of(group), **SCRIPTED, endings=[failed] * 3)
    until(lambda: lifecycle(cloud, node) == IN_SERVICE, SECONDS, "the node to be in service")
    assert len(commands(stack, node)) == 3
    cloud.terminate(node)


def test_a_group_without_the_clusters_tag_is_not_touched_and_its_hook_ends_by_itself(cloud, stack, image):
    group = make_group(cloud, "pooled-untagged", "team", seconds=1000)
    node = cloud.launch(of(group), **SCRIPTED, endings=[ended(line(image, "cached"))])
    until(lambda: told(cloud, stack, node, "AccessDenied"), SECONDS, "the refusal in the log")
    assert lifecycle(cloud, node) == "Pending:Wait"
    until(lambda: lifecycle(cloud, node) == IN_SERVICE, SECONDS, "the hook's own end")
    cloud.terminate(node)


def test_an_action_that_another_completed_is_told_and_nothing_is_handed_back(cloud, stack, image):
    group = make_group(cloud, "pooled-completed", TAG, hook="another")
    node = cloud.launch(of(group), **SCRIPTED, endings=[ended(line(image, "cached"))])
    until(lambda: told(cloud, stack, node, "No active Lifecycle Action"), SECONDS, "the answer in the log")
    assert lifecycle(cloud, node) == "Pending:Wait"
    cloud.terminate(node)


def make_group(cloud, name: str, tag: str, hook: str = HOOK, seconds: int = LONG) -> str:
    """Makes a group with a hook, and returns its name."""
    autoscaling = cloud.client("autoscaling")
    owned = {"Key": tag, "Value": "owned", "ResourceId": name, "ResourceType": "auto-scaling-group"}
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=name, MinSize=0, MaxSize=0, Tags=[{**owned, "PropagateAtLaunch": True}]
    )
    autoscaling.put_lifecycle_hook(
        AutoScalingGroupName=name,
        LifecycleHookName=hook,
        LifecycleTransition=LAUNCHING,
        HeartbeatTimeout=seconds,
        DefaultResult="CONTINUE",
    )
    return name


def of(group: str) -> dict[str, str]:
    """The tags of a group's instance, which joins the cluster only later."""
    return {TAG: "owned", "aws:autoscaling:groupName": group}


def lifecycle(cloud, node: str) -> str:
    [found] = cloud.client("autoscaling").describe_auto_scaling_instances(InstanceIds=[node])["AutoScalingInstances"]
    return found["LifecycleState"]


def state(cloud, node: str) -> str:
    [reservation] = cloud.client("ec2").describe_instances(InstanceIds=[node])["Reservations"]
    return reservation["Instances"][0]["State"]["Name"]


def commands(stack: Uploaded, node: str) -> list[dict]:
    """The commands that a node's launches became."""
    return [command for command in stack.commands("launch") if node in command["InstanceIds"]]


def reported(stack: Uploaded, node: str) -> list[str]:
    """Returns what became of the image by each of a node's commands, in alphabetical order."""
    reports = [stack.report(command["CommandId"], node) or [] for command in commands(stack, node)]
    return sorted(line["status"] for report in reports for line in report)


def told(cloud, stack: Uploaded, node: str, what: str) -> bool:
    """Tells whether node-result's log says something of a node."""
    group = stack.resources()["NodeResultLogs"]
    pages = cloud.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
    lines = [event["message"] for page in pages for event in page["events"]]
    return any(node in line and what in line for line in lines)
