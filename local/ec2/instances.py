"""Keeps EC2 instances as AWS tells of them: records, state transitions with events, filters and pages."""

import random
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from local import background
from local.api import ApiError
from local.ec2 import amis, query, tagging
from local.eventbridge import events
from local.iam.permissions import Caller
from local.ministack import ec2
from local.settings import ACCOUNT, REGION

TRANSITION_SECONDS = 0.2
"""Says how long an instance stays pending, stopping or shutting down; minutes on AWS."""

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
LAUNCH = ("pending", "running")
STOP = ("stopping", "stopped")
TERMINATION = ("shutting-down", "terminated")
STOPPABLE = ("running", "stopping", "stopped")
STARTABLE = ("stopped", "pending", "running")
USER_SHUTDOWN = {
    "Code": "Client.UserInitiatedShutdown",
    "Message": "Client.UserInitiatedShutdown: User initiated shutdown",
}
FACTS: dict[str, query.Fact] = {
    "instance-id": lambda instance: instance["InstanceId"],
    "instance-state-name": lambda instance: instance["State"]["Name"],
    "instance-type": lambda instance: instance["InstanceType"],
    "image-id": lambda instance: instance["ImageId"],
    "architecture": lambda instance: instance["Architecture"],
    "subnet-id": lambda instance: instance["SubnetId"],
    "vpc-id": lambda instance: instance["VpcId"],
    "client-token": lambda instance: instance.get("ClientToken", ""),
}
"""Says what the filters of DescribeInstances compare."""

PAGE_SIZES = range(5, 1001)
"""Says what MaxResults may be (EC2, DescribeInstances)."""

DEFAULT_AMI, DEFAULT_TYPE = "ami-0123456789abcdef0", "m5.large"

_changed = []


def install() -> None:
    """Replaces the EC2 actions that move instances between states, that list them, and that tag."""
    actions = {
        "StartInstances": start,
        "StopInstances": stop,
        "TerminateInstances": terminate,
        "DescribeInstances": describe,
        "CreateTags": create_tags,
    }
    query.register(actions)


def on_change(listener) -> None:
    """Has the listener called with every instance id and its new state."""
    _changed.append(listener)


def arn(instance_id: str) -> str:
    """Returns an instance's ARN, or that of a managed node outside EC2."""
    if instance_id.startswith("mi-"):
        return f"arn:aws:ssm:{REGION}:{ACCOUNT}:managed-instance/{instance_id}"
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance_id}"


def state(instance_id: str) -> str | None:
    """Returns an instance's state, None for one that never existed."""
    instance = ec2._instances.get(instance_id)
    return instance and instance["State"]["Name"]


def tags(instance_id: str) -> dict[str, str]:
    """Returns an instance's tags."""
    return tagging.of(instance_id)


def add_tags(instance_id: str, added: dict[str, str]) -> None:
    """Sets tags behind the API, as AWS does with those that begin with `aws:`."""
    tagging.put(instance_id, added)


def record(
    ami: str = DEFAULT_AMI,
    type_: str = DEFAULT_TYPE,
    subnet_id: str = ec2._DEFAULT_SUBNET_ID,
    groups: list[str] | None = None,
    profile: dict | None = None,
    age: float = 0,
    **facts: object,
) -> dict:
    """Makes the record of an instance that is pending, launched that many seconds ago, and returns it."""
    id_ = f"i-{random.getrandbits(68):017x}"
    subnet = ec2._subnets[subnet_id]
    address = ec2._random_ip("10.0.")
    name = f"ip-{address.replace('.', '-')}.{REGION}.compute.internal"
    ec2._instances[id_] = instance = {
        "InstanceId": id_,
        "ImageId": ami,
        "InstanceType": type_,
        "Architecture": amis.architecture_of(type_),
        "State": _state("pending"),
        "LaunchTime": (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        "Placement": {"AvailabilityZone": subnet["AvailabilityZone"], "Tenancy": "default", "GroupName": ""},
        "SubnetId": subnet_id,
        "VpcId": subnet["VpcId"],
        "PrivateIpAddress": address,
        "PrivateDnsName": name,
        "PublicDnsName": "",
        "SourceDestCheck": True,
        "SecurityGroups": [
            {"GroupId": group, "GroupName": ec2._security_groups[group]["GroupName"]}
            for group in groups or [ec2._DEFAULT_SG_ID]
        ],
        "IamInstanceProfile": profile,
        "RootDeviceType": "ebs",
        "RootDeviceName": "/dev/xvda",
        "BlockDeviceMappings": [],
        "NetworkInterfaces": [],
        "VirtualizationType": "hvm",
        "Hypervisor": "xen",
        "Monitoring": {"State": "disabled"},
        "AmiLaunchIndex": 0,
        "StateTransitionReason": "",
        "Made": time.monotonic(),
        "MetadataOptions": {
            "State": "applied",
            "HttpTokens": "optional",
            "HttpPutResponseHopLimit": 1,
            "HttpEndpoint": "enabled",
            "InstanceMetadataTags": "disabled",
        },
        **facts,
    }
    return instance


def launch(tags: dict[str, str], profile: str | None) -> str:
    """Runs one instance with any tags, reserved ones too, and returns its id."""
    [instance_id] = _launched(1, tags, profile)
    move([instance_id], LAUNCH)
    return instance_id


def launch_many(
    count: int,
    tags: dict[str, str],
    profile: str | None,
    age: float = 0,
    operator: str | None = None,
    subnet: str | None = None,
) -> list[str]:
    """Has instances run, for that many seconds already, of which no event is raised, and returns their ids.

    An operator is the service that manages them, as EKS Auto Mode does. Without a subnet it is the default one.
    """
    ids = _launched(count, tags, profile, age=age, subnet_id=subnet or ec2._DEFAULT_SUBNET_ID)
    for instance_id in ids:
        instance = ec2._instances[instance_id]
        instance["State"] = _state("running")
        instance["Operator"] = operator and {"Managed": True, "Principal": operator}
    return ids


def remove(instance_ids: list[str]) -> None:
    """Has instances be no more, as EC2 forgets those that were terminated, of which no event is raised."""
    for instance_id in instance_ids:
        ec2._instances.pop(instance_id, None)
        ec2._tags.pop(instance_id, None)


def move(instance_ids: list[str], way: tuple[str, str]) -> None:
    """Has instances take a state now and another after a while, and says so each time."""
    for instance_id in instance_ids:
        ec2._instances[instance_id]["State"] = _state(way[0])
        background.start(_pass, instance_id, way)


def start(request: dict, caller: Caller) -> dict:
    """StartInstances."""
    return {"StartingInstances": _moved(request["InstanceIds"], LAUNCH, STARTABLE, "ec2:StartInstances", caller)}


def stop(request: dict, caller: Caller) -> dict:
    """StopInstances."""
    return {"StoppingInstances": _moved(request["InstanceIds"], STOP, STOPPABLE, "ec2:StopInstances", caller)}


def terminate(request: dict, caller: Caller) -> dict:
    """TerminateInstances, from any state."""
    ids = request["InstanceIds"]
    return {"TerminatingInstances": _moved(ids, TERMINATION, tuple(CODES), "ec2:TerminateInstances", caller)}


def describe(request: dict, caller: Caller) -> dict:
    """DescribeInstances."""
    known = [instance for instance in query.rows(ec2._instances) if query.visible(instance)]
    rows = _found(request["InstanceIds"]) if "InstanceIds" in request else known
    found = query.select(rows, request.get("Filters", []), FACTS, "InstanceId")
    answer = query.one_page("Reservations", found, request, PAGE_SIZES, "InstanceIds")
    return {**answer, "Reservations": [_reservation(instance) for instance in answer["Reservations"]]}


def create_tags(request: dict, caller: Caller) -> dict:
    """CreateTags of whatever there is."""
    added = tagging.checked(request["Tags"])
    for id_ in request["Resources"]:
        present = tagging.of(id_)
        tagging.checked(request["Tags"], present)
        kind = ec2._guess_resource_type(id_)
        owner = "" if kind in ("snapshot", "image") else ACCOUNT
        caller.require(
            "ec2:CreateTags", f"arn:aws:ec2:{REGION}:{owner}:{kind}/{id_}", present, tagging.requested(added)
        )
        stores = {"snapshot": ec2._snapshots, "instance": ec2._instances, "volume": ec2._volumes}
        if kind in stores and id_ not in stores[kind]:
            code = {"snapshot": "InvalidSnapshot", "instance": "InvalidInstanceID", "volume": "InvalidVolume"}[kind]
            raise ApiError(f"{code}.NotFound", f"The {kind} ID '{id_}' does not exist")
    for id_ in request["Resources"]:
        tagging.put(id_, added)
    return {}


def _launched(count: int, tags: dict[str, str], profile: str | None, **facts: Any) -> list[str]:
    resolved = None
    if profile:
        resolved, _ = ec2._resolve_iam_instance_profile(iam_name=profile, allow_missing=True)
    ids = [record(profile=resolved, **facts)["InstanceId"] for _ in range(count)]
    for instance_id in ids:
        tagging.put(instance_id, tags)
    return ids


def _moved(ids: list[str], way: tuple[str, str], allowed: tuple[str, ...], action: str, caller: Caller) -> list[dict]:
    """Moves those instances that are not there or on the way, and returns what becomes of all."""
    before = {instance["InstanceId"]: instance["State"] for instance in _found(ids)}
    for id_ in ids:
        profile = ec2._instances[id_]["IamInstanceProfile"]
        caller.require(action, arn(id_), tags(id_), {"ec2:InstanceProfile": profile["Arn"]} if profile else {})
    if wrong := [id_ for id_ in ids if before[id_]["Name"] not in allowed]:
        verb = "started" if way == LAUNCH else "stopped"
        message = f"This instance '{wrong[0]}' is not in a state from which it can be {verb}."
        raise ApiError("IncorrectInstanceState", message)
    moving = [id_ for id_ in ids if before[id_]["Name"] not in way]
    for id_ in moving:
        ec2._instances[id_]["StateReason"] = None if way == LAUNCH else USER_SHUTDOWN
        at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S GMT")
        if way == LAUNCH:
            ec2._instances[id_]["LaunchTime"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        ec2._instances[id_]["StateTransitionReason"] = "" if way == LAUNCH else f"User initiated ({at})"
    move(moving, way)
    return [
        {"InstanceId": id_, "PreviousState": before[id_], "CurrentState": ec2._instances[id_]["State"]} for id_ in ids
    ]


def _pass(instance_id: str, way: tuple[str, str]) -> None:
    """Goes from one state to the next; whoever listens has done so before the next is taken."""
    transient, last = way
    started = time.monotonic()
    _announce(instance_id, transient)
    time.sleep(max(0.0, started + TRANSITION_SECONDS - time.monotonic()))
    if state(instance_id) == transient:
        ec2._instances[instance_id]["State"] = _state(last)
        _announce(instance_id, last)


def _state(name: str) -> dict:
    return {"Code": CODES[name], "Name": name}


def _announce(instance_id: str, name: str) -> None:
    for listener in _changed:
        background.logged(listener, instance_id, name)
    detail = {"instance-id": instance_id, "state": name}
    events.emit("aws.ec2", "EC2 Instance State-change Notification", detail, [arn(instance_id)])


def _found(ids: list[str]) -> list[dict]:
    """Returns instances by their ids, or refuses those that are none."""
    for id_ in ids:
        if not re.fullmatch(ec2._INSTANCE_ID_RE, id_):
            raise ApiError("InvalidInstanceID.Malformed", f'Invalid id: "{id_}"')
    known = {id_ for id_ in ids if id_ in ec2._instances and query.visible(ec2._instances[id_])}
    if missing := [id_ for id_ in ids if id_ not in known]:
        noun, verb = ("ID", "does") if len(missing) == 1 else ("IDs", "do")
        message = f"The instance {noun} '{', '.join(missing)}' {verb} not exist"
        raise ApiError("InvalidInstanceID.NotFound", message)
    return [ec2._instances[id_] for id_ in ids]


def _reservation(instance: dict) -> dict:
    return {
        "ReservationId": f"r-{instance['InstanceId'][2:]}",
        "OwnerId": ACCOUNT,
        "Groups": [],
        "Instances": [tagging.shown(instance, "InstanceId")],
    }
