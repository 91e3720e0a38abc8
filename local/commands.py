"""SSM Run Command: commands, their invocations, and the operations that send, read and cancel them."""

import json
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from local import background, delivery, documents, events, instances
from local.api import ApiError, page
from local.documents import Document, Version
from local.fleet import Fleet
from local.iam import Caller
from local.settings import REGION

STDOUT_LIMIT, STDERR_LIMIT, LIST_LIMIT = 24_000, 8_000, 2_500
"""Characters of output that GetCommandInvocation and ListCommandInvocations return (service model)."""

TRUNCATED = "---Output truncated---"
ERROR_SEPARATOR = "\n----------ERROR-------\n"

COUNTED_ERRORS = ("Failed", "ExecutionTimedOut")
"""What counts towards MaxErrors (Run Command, send commands at scale)."""

TERMINAL = ("Success", "Cancelled", "TimedOut", "Failed")


@dataclass
class Plugin:
    """One step of the document on one node."""

    name: str
    status: str = "Pending"
    details: str = "Pending"
    exit_code: int = -1
    stdout: str = ""
    stderr: str = ""
    started: datetime | None = None
    ended: datetime | None = None


@dataclass
class Invocation:
    """A command on one node."""

    command: "Command"
    instance_id: str
    plugins: list[Plugin]
    status: str = "Pending"
    details: str = "Pending"

    def move(self, status: str, details: str | None = None) -> None:
        """Takes a status, unless a terminal one is reached, and says so to EventBridge."""
        with self.command.changed:
            if self.status in TERMINAL:
                return
            self.status, self.details = status, details or status
            self.command.changed.notify_all()
        detail = {
            "command-id": self.command.id,
            "document-name": self.command.document.name,
            "instance-id": self.instance_id,
            "requested-date-time": _iso(self.command.requested),
            "status": self.status,
        }
        resources = [instances.arn(self.instance_id)]
        events.emit("aws.ssm", "EC2 Command Invocation Status-change Notification", detail, resources)

    def plugin(self, name: str | None) -> Plugin:
        """Returns a step by its name; without one, the last that ran."""
        if name is None:
            return next((plugin for plugin in reversed(self.plugins) if plugin.started), self.plugins[0])
        for plugin in self.plugins:
            if plugin.name == name:
                return plugin
        raise ApiError("InvalidPluginName", f"The plugin name {name} is not valid.")


@dataclass
class Command:
    """One SendCommand: its request, and an invocation per node."""

    request: dict
    document: Document
    version: Version
    max_concurrency: int
    max_errors: int
    parameters: dict[str, list[str]]
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    requested: datetime = field(default_factory=lambda: datetime.now(UTC))
    invocations: list[Invocation] = field(default_factory=list)
    status: str = "Pending"
    details: str = "Pending"
    cancelled: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def delivery_seconds(self) -> int:
        """Returns how long AWS tries to deliver: TimeoutSeconds plus the document's executionTimeout."""
        return self.request.get("TimeoutSeconds", 3600) + delivery.execution_timeout(self)

    def count(self, *details: str) -> int:
        """Returns how many invocations have one of these detailed statuses."""
        return sum(invocation.details in details for invocation in self.invocations)

    def stopped(self) -> bool:
        """Returns whether no further node gets the command."""
        return self.cancelled or self.count(*COUNTED_ERRORS) > self.max_errors

    def move(self, status: str, details: str | None = None) -> None:
        """Takes a status and says so to EventBridge."""
        self.status, self.details = status, details or status
        detail = {
            "command-id": self.id,
            "document-name": self.document.name,
            "expire-after": _iso(self.expires),
            "parameters": self.parameters,
            "requested-date-time": _iso(self.requested),
            "status": status,
        }
        resources = [instances.arn(invocation.instance_id) for invocation in self.invocations]
        events.emit("aws.ssm", "EC2 Command Status-change Notification", detail, resources)

    def settle(self) -> None:
        """Takes the terminal status that follows from its invocations (Run Command, command statuses)."""
        delivered = [i.details for i in self.invocations if i.details != "Undeliverable"]
        if not self.invocations:
            self.move("Success", "NoInstancesInTag")
        elif self.cancelled:
            self.move("Cancelled")
        elif self.count(*COUNTED_ERRORS) > self.max_errors or not delivered:
            self.move("Failed")
        elif all(details == "Success" for details in delivered):
            self.move("Success")
        elif all(details == "DeliveryTimedOut" for details in delivered):
            self.move("TimedOut", "DeliveryTimedOut")
        else:
            self.move("Failed", "Incomplete")

    @property
    def expires(self) -> datetime:
        """Returns when the command expires."""
        return self.requested + timedelta(seconds=self.delivery_seconds)

    def describe(self) -> dict:
        """Returns AWS's Command."""
        request = self.request
        return {
            "CommandId": self.id,
            "DocumentName": request["DocumentName"],
            "DocumentVersion": request.get("DocumentVersion", "$DEFAULT"),
            "Comment": request.get("Comment", ""),
            "ExpiresAfter": self.expires.timestamp(),
            "Parameters": self.parameters,
            "InstanceIds": request.get("InstanceIds", []),
            "Targets": request.get("Targets", []),
            "RequestedDateTime": self.requested.timestamp(),
            "Status": self.status,
            "StatusDetails": self.details,
            "OutputS3Region": REGION,
            "OutputS3BucketName": request.get("OutputS3BucketName", ""),
            "OutputS3KeyPrefix": request.get("OutputS3KeyPrefix", ""),
            "MaxConcurrency": request.get("MaxConcurrency", "50"),
            "MaxErrors": request.get("MaxErrors", "0"),
            "TargetCount": len(self.invocations),
            "CompletedCount": sum(i.status in TERMINAL for i in self.invocations),
            "ErrorCount": self.count(*COUNTED_ERRORS),
            "DeliveryTimedOutCount": self.count("DeliveryTimedOut"),
            "ServiceRole": request.get("ServiceRoleArn", ""),
            "NotificationConfig": request.get("NotificationConfig", {}),
            "CloudWatchOutputConfig": request.get("CloudWatchOutputConfig", {"CloudWatchOutputEnabled": False}),
            "TimeoutSeconds": request.get("TimeoutSeconds", 3600),
        }


class RunCommand:
    """The operations of Run Command on a fleet."""

    def __init__(self, fleet: Fleet):
        self.fleet = fleet
        self.commands: dict[str, Command] = {}

    def send(self, request: dict, caller: Caller) -> dict:
        """SendCommand."""
        document = documents.find(request["DocumentName"])
        version = document.version(request.get("DocumentVersion"))
        if request.get("DocumentHash", version.hash) != version.hash:
            raise ApiError("InvalidDocument", "The document hash does not match the document.")
        parameters = _checked_parameters(version, request.get("Parameters", {}))
        instance_ids = self._instance_ids(request)
        for instance_id in instance_ids:
            caller.require("ssm:SendCommand", instances.arn(instance_id), instances.tags(instance_id))
        command = Command(
            request,
            document,
            version,
            max_concurrency=max(1, _share(request.get("MaxConcurrency", "50"), len(instance_ids))),
            max_errors=_share(request.get("MaxErrors", "0"), len(instance_ids)),
            parameters=parameters,
        )
        description = command.describe()
        steps = [step["name"] for step in version.content["mainSteps"]]
        command.invocations = [Invocation(command, id_, [Plugin(name) for name in steps]) for id_ in instance_ids]
        self.commands[command.id] = command
        background.start(delivery.deliver, command, self.fleet)
        return {"Command": description}

    def get_invocation(self, request: dict) -> dict:
        """GetCommandInvocation."""
        for invocation in self._invocations(request["CommandId"], request["InstanceId"]):
            plugin = invocation.plugin(request.get("PluginName"))
            return {
                "CommandId": invocation.command.id,
                "InstanceId": invocation.instance_id,
                "Comment": invocation.command.request.get("Comment", ""),
                "DocumentName": invocation.command.request["DocumentName"],
                "DocumentVersion": invocation.command.request.get("DocumentVersion", "$DEFAULT"),
                "PluginName": plugin.name,
                "ResponseCode": plugin.exit_code,
                "ExecutionStartDateTime": _iso(plugin.started),
                "ExecutionElapsedTime": _elapsed(plugin),
                "ExecutionEndDateTime": _iso(plugin.ended),
                "Status": invocation.status,
                "StatusDetails": invocation.details,
                "StandardOutputContent": _cut(plugin.stdout, STDOUT_LIMIT),
                "StandardOutputUrl": "",
                "StandardErrorContent": _cut(plugin.stderr, STDERR_LIMIT),
                "StandardErrorUrl": "",
                "CloudWatchOutputConfig": {"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": False},
            }
        raise ApiError("InvocationDoesNotExist", "")

    def list_invocations(self, request: dict) -> dict:
        """ListCommandInvocations, newest command first."""
        details = request.get("Details", False)
        found = self._invocations(request.get("CommandId"), request.get("InstanceId"))
        found = [i for i in found if _matches(request.get("Filters", []), i.command, i.status)]
        rows, rest = page([_listed(i, details) for i in found], request.get("NextToken"), request.get("MaxResults", 50))
        return {"CommandInvocations": rows, **rest}

    def list_commands(self, request: dict) -> dict:
        """ListCommands, newest first."""
        found = [
            command.describe()
            for command in reversed(self.commands.values())
            if request.get("CommandId", command.id) == command.id
            and ("InstanceId" not in request or request["InstanceId"] in _targets(command))
            and _matches(request.get("Filters", []), command, command.status)
        ]
        rows, rest = page(found, request.get("NextToken"), request.get("MaxResults", 50))
        return {"Commands": rows, **rest}

    def cancel(self, request: dict) -> dict:
        """CancelCommand: nodes that have not started do not; what runs is not stopped."""
        command = self.commands.get(request["CommandId"])
        if command is None:
            raise ApiError("InvalidCommandId", "The specified command ID is not valid.")
        chosen = request.get("InstanceIds")
        with command.changed:
            command.cancelled = not chosen
            command.changed.notify_all()
        for invocation in command.invocations:
            if invocation.status == "Pending" and (not chosen or invocation.instance_id in chosen):
                invocation.move("Cancelled")
        return {}

    def _instance_ids(self, request: dict) -> list[str]:
        """Returns the instances a request addresses, or refuses it for one that cannot take a command."""
        named = list(request.get("InstanceIds", []))
        tag_targets = []
        for target in request.get("Targets", []):
            if target["Key"] == "InstanceIds":
                named += target["Values"]
            elif target["Key"].startswith("tag:"):
                tag_targets.append(target)
            else:
                raise ApiError("InvalidTarget", f"The local cloud does not resolve targets by {target['Key']}.")
        if not named and not tag_targets:
            raise ApiError("ValidationException", "InstanceIds or Targets is required.")
        if len(set(named)) != len(named):
            raise ApiError("DuplicateInstanceId", "You can't specify an instance ID more than once.")
        registered = {node.instance_id: node for node in self.fleet.registered()}
        unfit = [id_ for id_ in named if id_ not in registered or registered[id_].state != "running"]
        if unfit:
            raise ApiError("InvalidInstanceId", f"Instances [[{', '.join(unfit)}]] not in a valid state for account")
        if not tag_targets:
            return named
        return [id_ for id_ in registered if (not named or id_ in named) and _has_tags(id_, tag_targets)]

    def _invocations(self, command_id: str | None, instance_id: str | None) -> list[Invocation]:
        return [
            invocation
            for command in reversed(self.commands.values())
            for invocation in command.invocations
            if command_id in (None, command.id) and instance_id in (None, invocation.instance_id)
        ]


def _checked_parameters(version: Version, given: dict[str, list[str]]) -> dict[str, list[str]]:
    """Returns the parameters with the document's defaults, or refuses them as SSM does."""
    unknown = given.keys() - version.parameters.keys()
    if unknown:
        raise ApiError("InvalidParameters", f"Parameters {sorted(unknown)} are not defined in the document.")
    result = {}
    for name, spec in version.parameters.items():
        if name not in given and "default" not in spec:
            raise ApiError("InvalidParameters", f"Parameter {name} is required.")
        values = given.get(name) or _as_values(spec["default"])
        if spec["type"] != "StringList" and len(values) != 1:
            raise ApiError("InvalidParameters", f"Parameter {name} takes one value of type {spec['type']}.")
        for fault in documents.value_faults(name, spec, values):
            raise ApiError("InvalidParameters", fault)
        result[name] = values
    return result


def _as_values(default) -> list[str]:
    if isinstance(default, list):
        return default
    return [default if isinstance(default, str) else json.dumps(default)]


def _has_tags(instance_id: str, targets: list[dict]) -> bool:
    tags = instances.tags(instance_id)
    return all(tags.get(target["Key"].removeprefix("tag:")) in target["Values"] for target in targets)


def _share(amount: str, of: int) -> int:
    """Returns a number, or a percentage of the targets rounded down."""
    return of * int(amount[:-1]) // 100 if amount.endswith("%") else int(amount)


def _targets(command: Command) -> list[str]:
    return [invocation.instance_id for invocation in command.invocations]


def _matches(filters: list[dict], command: Command, status: str) -> bool:
    stage = "Complete" if status in TERMINAL else "Executing"
    facts = {"Status": status, "DocumentName": command.document.name, "ExecutionStage": stage}
    for filter_ in filters:
        key, value = filter_["key"], filter_["value"]
        if key == "InvokedAfter" and _iso(command.requested) < value:
            return False
        if key == "InvokedBefore" and _iso(command.requested) > value:
            return False
        if facts.get(key, value) != value:
            return False
    return True


def _listed(invocation: Invocation, details: bool) -> dict:
    command = invocation.command
    return {
        "CommandId": command.id,
        "InstanceId": invocation.instance_id,
        "InstanceName": instances.tags(invocation.instance_id).get("Name", ""),
        "Comment": command.request.get("Comment", ""),
        "DocumentName": command.request["DocumentName"],
        "DocumentVersion": command.request.get("DocumentVersion", "$DEFAULT"),
        "RequestedDateTime": command.requested.timestamp(),
        "Status": invocation.status,
        "StatusDetails": invocation.details,
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
        "CommandPlugins": [_listed_plugin(plugin) for plugin in invocation.plugins] if details else [],
        "ServiceRole": command.request.get("ServiceRoleArn", ""),
        "NotificationConfig": command.request.get("NotificationConfig", {}),
        "CloudWatchOutputConfig": command.request.get("CloudWatchOutputConfig", {"CloudWatchOutputEnabled": False}),
    }


def _listed_plugin(plugin: Plugin) -> dict:
    row = {
        "Name": plugin.name,
        "Status": plugin.status,
        "StatusDetails": plugin.details,
        "ResponseCode": plugin.exit_code,
        "Output": _cut(plugin.stdout + (ERROR_SEPARATOR + plugin.stderr if plugin.stderr else ""), LIST_LIMIT),
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
        "OutputS3Region": REGION,
        "OutputS3BucketName": "",
        "OutputS3KeyPrefix": "",
    }
    if plugin.started:
        row["ResponseStartDateTime"] = plugin.started.timestamp()
    if plugin.ended:
        row["ResponseFinishDateTime"] = plugin.ended.timestamp()
    return row


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(TRUNCATED)] + TRUNCATED


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else ""


def _elapsed(plugin: Plugin) -> str:
    if not plugin.started:
        return ""
    seconds = ((plugin.ended or datetime.now(UTC)) - plugin.started).total_seconds()
    return f"PT{seconds:.3f}S"
