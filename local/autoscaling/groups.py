"""Has Auto Scaling groups tell of what they launch, and have it wait: an instance is a group's that carries its tag.

Groups, their tags and hooks are ministack's; nothing is launched for them.
"""

import threading
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from local import background
from local.api import ApiError, Response
from local.ec2 import instances
from local.eventbridge import events
from local.iam.permissions import Caller
from local.ministack import app, autoscaling
from local.settings import ACCOUNT, REGION, scaled

GROUP_TAG = "aws:autoscaling:groupName"
HOOK = "Launch-LC-Hook"
"""The hook of a managed node group's launches, which EKS completes itself."""
LAUNCHING = "autoscaling:EC2_INSTANCE_LAUNCHING"
MAX_INSTANCES = 50
"""Says how many instances one DescribeAutoScalingInstances takes (Auto Scaling API reference)."""

_instances: dict[str, "_Instance"] = {}
_pools: set[str] = set()
"""The groups that have a warm pool, of stopped instances."""
_lock = threading.RLock()


@dataclass
class _Instance:
    """An instance of a group."""

    id: str
    group: str
    state: str = "Pending"
    actions: dict[str, str] = field(default_factory=dict)
    """The token of the action that waits for it, by its hook."""
    launched: bool = False
    """Tells whether its group has told that it runs."""

    @property
    def warmed(self) -> bool:
        """Tells whether it is in the group's warm pool, or on the way there."""
        return self.state.startswith("Warmed:")


def install() -> None:
    """Listens to what becomes of instances, and puts actions of ours in front of ministack's."""
    instances.on_change(_tell)
    app.SERVICE_HANDLERS["autoscaling"] = handle


async def handle(method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
    """Answers one request."""
    request = {name: values[0] for name, values in parse_qs(body.decode(), keep_blank_values=True).items()}
    name = request.get("Action", "")
    if name not in ACTIONS:
        return await autoscaling.handle_request(method, path, headers, body, query)
    try:
        with _lock:
            result = ACTIONS[name](request, Caller(headers, {**query, **parse_qs(body.decode())}))
    except ApiError as error:
        denied = error.code == "AccessDeniedException"
        code, status = ("AccessDenied", 403) if denied else (error.code, 400)
        return autoscaling._error(code, escape(error.message), status)
    return autoscaling._xml(200, f"{name}Response", f"<{name}Result>{result}</{name}Result>")


def describe(request: dict, caller: Caller) -> str:
    """DescribeAutoScalingInstances; an instance of no group is left out."""
    wanted = autoscaling._parse_member_list(request, "InstanceIds")
    if len(wanted) > MAX_INSTANCES:
        raise ApiError("ValidationError", f"The number of instance ids is greater than {MAX_INSTANCES}")
    found = [_instances[id_] for id_ in wanted or _instances if id_ in _instances]
    zone = {"AvailabilityZone": f"{REGION}a", "HealthStatus": "HEALTHY", "ProtectedFromScaleIn": False}
    member = autoscaling._instance_member_xml
    rows = [member({"InstanceId": row.id, "LifecycleState": row.state, **zone}, row.group) for row in found]
    return f"<AutoScalingInstances>{''.join(rows)}</AutoScalingInstances>"


def complete(request: dict, caller: Caller) -> str:
    """CompleteLifecycleAction, by instance or by token."""
    group, hook = request["AutoScalingGroupName"], request["LifecycleHookName"]
    caller.require("autoscaling:CompleteLifecycleAction", arn(group), tags(group))
    id_, token = request.get("InstanceId"), request.get("LifecycleActionToken")
    of_group = [row for row in _instances.values() if row.group == group and hook in row.actions]
    found = [row for row in of_group if row.id == id_ or (token and row.actions[hook] == token)]
    if not found:
        what = f"instance ID {id_}" if id_ else f"token {token}"
        raise ApiError("ValidationError", f"No active Lifecycle Action found with {what}")
    _end(found[0], hook, found[0].actions[hook])
    return ""


def put_warm_pool(request: dict, caller: Caller) -> str:
    """PutWarmPool, of stopped instances."""
    if request.get("PoolState", "Stopped") != "Stopped":
        raise ApiError("ValidationError", "The local cloud has warm pools of stopped instances only")
    _pools.add(request["AutoScalingGroupName"])
    return ""


ACTIONS = {
    "DescribeAutoScalingInstances": describe,
    "CompleteLifecycleAction": complete,
    "PutWarmPool": put_warm_pool,
}


def arn(group: str) -> str:
    """Returns a group's ARN."""
    known = autoscaling._asgs.get(group)
    made = f"arn:aws:autoscaling:{REGION}:{ACCOUNT}:autoScalingGroup:{uuid.uuid4()}:autoScalingGroupName/{group}"
    return known["AutoScalingGroupARN"] if known else made


def tags(group: str) -> Mapping[str, str]:
    """Returns a group's tags."""
    return {tag["Key"]: tag["Value"] for tag in autoscaling._tags.get(group, [])}


def _tell(instance_id: str, state: str) -> None:
    """Has an instance's group do what it does then, beside EC2's own events."""
    group = instances.tags(instance_id).get(GROUP_TAG)
    if group is None:
        return
    with _lock:
        instance = _instances.setdefault(instance_id, _Instance(instance_id, group))
        if state == "pending":
            _begin(instance)
        elif state == "running" and not instance.actions:
            _go_on(instance)
        elif state == "terminated":
            del _instances[instance_id]


def _begin(instance: _Instance) -> None:
    """Launches an instance, into the warm pool if there is one; starting one from there takes it into the group."""
    if instance.launched:
        return  # started again by somebody else
    to_pool = instance.group in _pools and instance.state != "Warmed:Stopped"
    origin = "WarmPool" if instance.warmed else "EC2"
    hooks = [hook for hook in autoscaling._hooks.values() if hook["AutoScalingGroupName"] == instance.group]
    launching = {hook["LifecycleHookName"]: hook for hook in hooks if hook["LifecycleTransition"] == LAUNCHING}
    instance.actions = {name: str(uuid.uuid4()) for name in launching}
    instance.state = ("Warmed:" if to_pool else "") + ("Pending:Wait" if launching else "Pending")
    told = instance.actions or ({} if instance.group in autoscaling._asgs else {HOOK: str(uuid.uuid4())})
    for name, token in told.items():
        action = {"LifecycleHookName": name, "LifecycleTransition": LAUNCHING, "LifecycleActionToken": token}
        detail = {**_way(instance, origin), **action}
        events.emit("aws.autoscaling", "EC2 Instance-launch Lifecycle Action", detail, [arn(instance.group)])
    for name, hook in launching.items():
        background.later(scaled(hook["HeartbeatTimeout"]), _end, instance, name, instance.actions[name])


def _end(instance: _Instance, hook: str, token: str) -> None:
    """Ends an action that still waits, be it completed or its time over; after the last one the instance goes on."""
    with _lock:
        if instance.actions.get(hook) != token:
            return
        del instance.actions[hook]
        if not instance.actions and instances.state(instance.id) == "running":
            _go_on(instance)


def _go_on(instance: _Instance) -> None:
    """Stops an instance that is for the warm pool, and takes any other into service."""
    if instance.warmed:
        instance.state = "Warmed:Stopped"
        instances.move([instance.id], instances.STOP)
    elif not instance.launched:
        instance.state, instance.launched = "InService", True
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        activity = {"ActivityId": str(uuid.uuid4()), "RequestId": str(uuid.uuid4()), "StartTime": now, "EndTime": now}
        detail = {**_way(instance, "EC2"), **activity, "StatusCode": "InProgress", "Cause": "", "Details": {}}
        resources = [arn(instance.group), instances.arn(instance.id)]
        events.emit("aws.autoscaling", "EC2 Instance Launch Successful", detail, resources)


def _way(instance: _Instance, origin: str) -> dict[str, str]:
    """Returns what an event says of whence an instance comes and where it goes."""
    way = {"EC2InstanceId": instance.id, "AutoScalingGroupName": instance.group, "Origin": origin}
    return {**way, "Destination": "WarmPool" if instance.warmed else "AutoScalingGroup"}
