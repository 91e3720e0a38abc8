"""Auto Scaling groups, as far as they tell of what they launch: an instance is a group's that carries its tag."""

import uuid
from datetime import UTC, datetime

from local import events, instances
from local.settings import ACCOUNT, REGION

GROUP_TAG = "aws:autoscaling:groupName"
HOOK = "Launch-LC-Hook"
"""The hook of a managed node group's launches, which EKS completes itself."""

_launched: set[str] = set()
"""The instances of which their group has told that they run: one that is started again is not launched."""


def install() -> None:
    """Listens to what becomes of instances."""
    instances.on_change(_tell)


def _tell(instance_id: str, state: str) -> None:
    """Tells of an instance's launch what its group does, beside EC2's own events."""
    group = instances.tags(instance_id).get(GROUP_TAG)
    if group is None or instance_id in _launched:
        return
    way = {"EC2InstanceId": instance_id, "AutoScalingGroupName": group, "Origin": "EC2"}
    way["Destination"] = "AutoScalingGroup"
    arn = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:{uuid.uuid4()}:autoScalingGroupName/{group}"
    if state == "pending":
        hook = {"LifecycleHookName": HOOK, "LifecycleTransition": "autoscaling:EC2_INSTANCE_LAUNCHING"}
        detail = {**way, **hook, "LifecycleActionToken": str(uuid.uuid4())}
        events.emit("aws.autoscaling", "EC2 Instance-launch Lifecycle Action", detail, [arn])
    elif state == "running":
        _launched.add(instance_id)
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        activity = {"ActivityId": str(uuid.uuid4()), "RequestId": str(uuid.uuid4()), "StartTime": now, "EndTime": now}
        detail = {**way, **activity, "StatusCode": "InProgress", "Cause": "", "Details": {}}
        events.emit("aws.autoscaling", "EC2 Instance Launch Successful", detail, [arn, instances.arn(instance_id)])
