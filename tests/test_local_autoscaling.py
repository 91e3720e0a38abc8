"""The local cloud's Auto Scaling has instances wait for launch hooks and in a warm pool as AWS's does."""

import pytest
from probe import credentials, refused
from roles import make_role

from local.client import until

GROUP, HOOK, CLUSTER = "pooled", "prefetch", "kubernetes.io/cluster/prod"
OF_GROUP = {"aws:autoscaling:groupName": GROUP}
BARE = {"online_after": 0, "containerd": "none"}
LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
SECONDS = 10


@pytest.fixture(scope="module")
def autoscaling(cloud):
    """A group with a hook of five minutes, which pass in six seconds."""
    autoscaling = cloud.client("autoscaling")
    tag = {"Key": CLUSTER, "Value": "owned", "ResourceId": GROUP, "ResourceType": "auto-scaling-group"}
    autoscaling.create_auto_scaling_group(
        AutoScalingGroupName=GROUP, MinSize=0, MaxSize=0, Tags=[{**tag, "PropagateAtLaunch": True}]
    )
    autoscaling.put_lifecycle_hook(
        **of_hook(), LifecycleTransition=LAUNCHING, HeartbeatTimeout=300, DefaultResult="CONTINUE"
    )
    return autoscaling


def test_an_instance_waits_for_its_hook_until_the_action_is_completed_once(cloud, autoscaling):
    node = cloud.launch(OF_GROUP, **BARE)
    until(lambda: lifecycle(autoscaling, node) == "Pending:Wait", SECONDS)
    until(lambda: running(cloud, node), SECONDS)
    assert told(cloud, node) == [("EC2 Instance-launch Lifecycle Action", "EC2", "AutoScalingGroup")]
    complete(autoscaling, node)
    until(lambda: lifecycle(autoscaling, node) == "InService", SECONDS)
    assert told(cloud, node)[1:] == [("EC2 Instance Launch Successful", "EC2", "AutoScalingGroup")]
    with refused("ValidationError") as error:
        complete(autoscaling, node)
    assert f"No active Lifecycle Action found with instance ID {node}" in str(error.value)
    cloud.terminate(node)
    until(lambda: lifecycle(autoscaling, node) is None, SECONDS)


def test_a_hook_ends_by_itself(cloud, autoscaling):
    node = cloud.launch(OF_GROUP, **BARE)
    until(lambda: lifecycle(autoscaling, node) == "Pending:Wait", SECONDS)
    until(lambda: lifecycle(autoscaling, node) == "InService", SECONDS)
    cloud.terminate(node)


def test_who_may_complete_actions_is_told_by_the_groups_tags(cloud, autoscaling):
    node = cloud.launch(OF_GROUP, **BARE)
    until(lambda: lifecycle(autoscaling, node) == "Pending:Wait", SECONDS)
    group = f"arn:aws:autoscaling:{cloud.region}:{cloud.account}:autoScalingGroup:*:autoScalingGroupName/*"
    for cluster, is_allowed in [("kubernetes.io/cluster/other", False), (CLUSTER, True)]:
        owned = {"StringEquals": {f"autoscaling:ResourceTag/{cluster}": "owned"}}
        may = {"Effect": "Allow", "Action": "autoscaling:CompleteLifecycleAction", "Resource": group}
        role = make_role(cloud, f"completes-{is_allowed}", "lambda.amazonaws.com", {**may, "Condition": owned})
        client = cloud.client("autoscaling", **credentials(cloud, role))
        if is_allowed:
            complete(client, node)
        else:
            with refused("AccessDenied"):
                complete(client, node)
        with refused("AccessDenied"):
            lifecycle(client, node)
    cloud.terminate(node)


def test_an_instance_is_stopped_in_the_warm_pool_and_waits_again_when_it_leaves_it(cloud, autoscaling):
    autoscaling.put_warm_pool(AutoScalingGroupName=GROUP, PoolState="Stopped")
    node = cloud.launch(OF_GROUP, **BARE)
    until(lambda: lifecycle(autoscaling, node) == "Warmed:Pending:Wait", SECONDS)
    first = launched_at(cloud, node)
    complete(autoscaling, node)
    until(lambda: lifecycle(autoscaling, node) == "Warmed:Stopped", SECONDS)
    until(lambda: state(cloud, node) == "stopped", SECONDS)
    cloud.client("ec2").start_instances(InstanceIds=[node])
    until(lambda: lifecycle(autoscaling, node) == "Pending:Wait", SECONDS)
    complete(autoscaling, node)
    until(lambda: lifecycle(autoscaling, node) == "InService", SECONDS)
    assert launched_at(cloud, node) >= first
    ways = [way for kind, *way in told(cloud, node) if kind == "EC2 Instance-launch Lifecycle Action"]
    assert ways == [["EC2", "WarmPool"], ["WarmPool", "AutoScalingGroup"]]
    cloud.terminate(node)


def of_hook() -> dict[str, str]:
    return {"AutoScalingGroupName": GROUP, "LifecycleHookName": HOOK}


def complete(autoscaling, node: str) -> None:
    """Completes the hook's action for an instance."""
    autoscaling.complete_lifecycle_action(**of_hook(), InstanceId=node, LifecycleActionResult="CONTINUE")


def lifecycle(autoscaling, node: str) -> str | None:
    """The lifecycle state of an instance, None where it is of no group."""
    found = autoscaling.describe_auto_scaling_instances(InstanceIds=[node])["AutoScalingInstances"]
    return found[0]["LifecycleState"] if found else None


def described(cloud, node: str) -> dict:
    return cloud.client("ec2").describe_instances(InstanceIds=[node])["Reservations"][0]["Instances"][0]


def state(cloud, node: str) -> str:
    return described(cloud, node)["State"]["Name"]


def running(cloud, node: str) -> bool:
    return state(cloud, node) == "running"


def launched_at(cloud, node: str):
    return described(cloud, node)["LaunchTime"]


def told(cloud, node: str) -> list[tuple[str, str, str]]:
    """Returns what Auto Scaling told of an instance, in order: type, origin and destination."""
    events = [event for event in cloud.events() if event["detail"].get("EC2InstanceId") == node]
    return [(event["detail-type"], event["detail"]["Origin"], event["detail"]["Destination"]) for event in events]
