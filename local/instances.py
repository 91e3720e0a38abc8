"""EC2 instances: AWS's state transitions and their events, reserved tags, and DescribeInstances filtered and paged."""

import re
from datetime import UTC, datetime, timedelta

from ministack.services import ec2

from local import background, events
from local.api import Response
from local.settings import ACCOUNT, REGION

TRANSITION_SECONDS = 0.2
"""How long an instance stays pending, stopping or shutting down; minutes on AWS."""

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
TRANSITIONS = {
    "RunInstances": ("pending", "running"),
    "StartInstances": ("pending", "running"),
    "StopInstances": ("stopping", "stopped"),
    "TerminateInstances": ("shutting-down", "terminated"),
}
FILTERS = frozenset({"instance-id", "instance-state-name", "instance-type", "image-id", "tag-key", "tag-value"})

PAGE_SIZES = range(5, 1001)
"""What MaxResults may be (EC2, DescribeInstances)."""

_changed = []


def install() -> None:
    """Replaces the EC2 actions that move instances between states, and the one that lists them."""
    for action in TRANSITIONS:
        ec2._ACTION_MAP[action] = _moving(action, ec2._ACTION_MAP[action])
    ec2._ACTION_MAP["CreateTags"] = _refusing_reserved_tags(ec2._ACTION_MAP["CreateTags"])
    ec2._ACTION_MAP["DescribeInstances"] = _describe


def on_change(listener) -> None:
    """Has the listener called with every instance id and its new state."""
    _changed.append(listener)


def arn(instance_id: str) -> str:
    """Returns an instance's ARN."""
    return f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance_id}"


def state(instance_id: str) -> str | None:
    """Returns an instance's state, None for one that never existed."""
    instance = ec2._instances.get(instance_id)
    return instance and instance["State"]["Name"]


def tags(instance_id: str) -> dict[str, str]:
    """Returns an instance's tags."""
    return {tag["Key"]: tag["Value"] for tag in ec2._tags.get(instance_id, [])}


def add_tags(instance_id: str, added: dict[str, str]) -> None:
    """Sets tags behind the API, as AWS does with those that begin with `aws:`."""
    merged = tags(instance_id) | added
    ec2._tags[instance_id] = [{"Key": key, "Value": value} for key, value in merged.items()]


def launch(tags: dict[str, str], profile: str | None) -> str:
    """Runs one instance with any tags, reserved ones too, and returns its id."""
    [instance_id] = launch_many(1, tags, profile)
    _move([instance_id], *TRANSITIONS["RunInstances"])
    return instance_id


def launch_many(
    count: int, tags: dict[str, str], profile: str | None, age: float = 0, operator: str | None = None
) -> list[str]:
    """Has instances run, for that many seconds already, of which no event is raised, and returns their ids.

    An operator is the service that manages them, as EKS Auto Mode does.
    """
    launched = ec2._launch_instances_internal("ami-0123456789abcdef0", "m5.large", ec2._DEFAULT_SUBNET_ID, count)
    for instance in launched:
        if profile:
            instance["IamInstanceProfile"], _ = ec2._resolve_iam_instance_profile(iam_name=profile, allow_missing=True)
        instance["LaunchTime"] = (datetime.now(UTC) - timedelta(seconds=age)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        instance["Operator"] = operator
        add_tags(instance["InstanceId"], tags)
    return [instance["InstanceId"] for instance in launched]


def remove(instance_ids: list[str]) -> None:
    """Has instances be no more, as EC2 forgets those that were terminated, of which no event is raised."""
    for instance_id in instance_ids:
        ec2._instances.pop(instance_id, None)
        ec2._tags.pop(instance_id, None)


def _moving(action: str, handler):
    """Wraps an action that ministack completes at once: the way to the last state takes time and raises events."""
    transient, last = TRANSITIONS[action]

    def moving(parameters: dict) -> Response:
        if refusal := _reserved_tag(parameters):
            return refusal
        before = {id_: instance["State"]["Name"] for id_, instance in ec2._instances.items()}
        status, headers, body = handler(parameters)
        moved = [
            id_
            for id_, instance in ec2._instances.items()
            if instance["State"]["Name"] == last and before.get(id_) not in (last, transient)
        ]
        if status == 200 and moved:
            _move(moved, transient, last)
            body = _in_transit(body, transient, last)
        return status, headers, body

    return moving


def _move(instance_ids: list[str], transient: str, last: str) -> None:
    for instance_id in instance_ids:
        _set_state(instance_id, transient)
        background.later(TRANSITION_SECONDS, _arrive, instance_id, transient, last)
        background.start(_announce, instance_id, transient)


def _arrive(instance_id: str, transient: str, last: str) -> None:
    if state(instance_id) == transient:
        _set_state(instance_id, last)
        _announce(instance_id, last)


def _set_state(instance_id: str, name: str) -> None:
    ec2._instances[instance_id]["State"] = {"Code": CODES[name], "Name": name}


def _announce(instance_id: str, name: str) -> None:
    for listener in _changed:
        listener(instance_id, name)
    detail = {"instance-id": instance_id, "state": name}
    events.emit("aws.ec2", "EC2 Instance State-change Notification", detail, [arn(instance_id)])


def _in_transit(body: bytes, transient: str, last: str) -> bytes:
    """Puts the transient state in place of the last one in an answer."""
    pattern = rf"<code>{CODES[last]}</code>(\s*)<name>{last}</name>"
    return re.sub(pattern, rf"<code>{CODES[transient]}</code>\1<name>{transient}</name>", body.decode()).encode()


def _refusing_reserved_tags(handler):
    return lambda parameters: _reserved_tag(parameters) or handler(parameters)


def _reserved_tag(parameters: dict) -> Response | None:
    for name in parameters:
        key = ec2._p(parameters, name)
        if re.fullmatch(r"(TagSpecification\.\d+\.)?Tag\.\d+\.Key", name) and key.startswith("aws:"):
            message = "Tag keys starting with 'aws:' are reserved for internal use"
            return ec2._error("InvalidParameterValue", f"Value ( {key} ) for parameter key is invalid. {message}", 400)
    return None


def _describe(parameters: dict) -> Response:
    """DescribeInstances."""
    wanted = ec2._parse_member_list(parameters, "InstanceId")
    filters = ec2._parse_filters(parameters)
    size = ec2._p(parameters, "MaxResults")
    token = ec2._p(parameters, "NextToken")
    if refusal := _describe_refusal(wanted, filters, size, token):
        return refusal
    ec2._cleanup_terminated()
    rows = [
        instance
        for id_, instance in ec2._instances.items()
        if (not wanted or id_ in wanted)
        and id_ in filters.get("instance-id", [id_])
        and ec2._matches_filters(instance, filters)
    ]
    start = int(token or 0)
    end = start + int(size) if size else len(rows)
    rest = f"<nextToken>{end}</nextToken>" if end < len(rows) else ""
    items = "".join(_reservation(instance) for instance in rows[start:end])
    return ec2._xml(200, "DescribeInstancesResponse", f"<reservationSet>{items}</reservationSet>{rest}")


def _describe_refusal(wanted: list[str], filters: dict, size: str, token: str) -> Response | None:
    for instance_id in wanted:
        if not ec2._INSTANCE_ID_RE.match(instance_id):
            return ec2._error("InvalidInstanceID.Malformed", f'Invalid id: "{instance_id}"', 400)
    missing = [instance_id for instance_id in wanted if instance_id not in ec2._instances]
    if missing:
        noun, verb = ("ID", "does") if len(missing) == 1 else ("IDs", "do")
        message = f"The instance {noun} '{', '.join(missing)}' {verb} not exist"
        return ec2._error("InvalidInstanceID.NotFound", message, 400)
    for name in filters:
        if not name.startswith("tag:") and name not in FILTERS:
            return ec2._error("InvalidParameterValue", f"The filter '{name}' is invalid", 400)
    if token and not re.fullmatch("[0-9]{1,9}", token):
        return ec2._error("InvalidNextToken", f"The token '{token}' is invalid", 400)
    if size and wanted:
        message = "The parameter instancesSet cannot be used with the parameter maxResults"
        return ec2._error("InvalidParameterCombination", message, 400)
    if size and int(size) not in PAGE_SIZES:
        message = f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value between 5 and 1000."
        return ec2._error("InvalidParameterValue", message, 400)
    return None


def _reservation(instance: dict) -> str:
    xml = ec2._instance_xml(instance)
    if operator := instance.get("Operator"):
        facts = f"<operator><managed>true</managed><principal>{operator}</principal></operator></item>"
        xml = xml.removesuffix("</item>") + facts
    return (
        f"<item><reservationId>r-{instance['InstanceId'][2:]}</reservationId><ownerId>{ACCOUNT}</ownerId><groupSet/>"
        f"<instancesSet>{xml}</instancesSet></item>"
    )
