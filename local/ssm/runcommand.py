"""Replaces Run Command: the operations that send, read and cancel commands."""

import json
from datetime import UTC, datetime, timedelta

from local import background
from local.api import ApiError, page
from local.ec2 import instances
from local.iam.permissions import Caller
from local.nodes.fleet import Fleet
from local.settings import ACCOUNT
from local.ssm import content, delivery, documents
from local.ssm.commands import TERMINAL, Command, Invocation, Plugin
from local.ssm.documents import Version
from local.ssm.scripted import Ending


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
        denied = self._denied(request, instance_ids, caller)
        command = Command(
            request,
            document,
            version,
            max_concurrency=max(1, _share(request.get("MaxConcurrency", "50"), len(instance_ids))),
            max_errors=_share(request.get("MaxErrors", "0"), len(instance_ids)),
            parameters=parameters,
        )
        description = command.describe()
        self._address(command, instance_ids)
        for invocation in command.invocations:
            if invocation.instance_id in denied:
                invocation.move("Failed", "AccessDenied")
        background.start(delivery.deliver, command, self.fleet)
        return {"Command": description}

    def stage(self, request: dict, nodes: dict[str, dict | None], age: float) -> str:
        """Makes a command that was sent that many seconds ago to nodes that need not exist; returns its id.

        Each ends as said, all at once; of one that is None nothing is heard.
        """
        document = documents.find(request["DocumentName"])
        version = document.version(request.get("DocumentVersion"))
        parameters = _checked_parameters(version, request.get("Parameters", {}))
        command = Command(request, document, version, len(nodes), len(nodes), parameters)
        command.requested = datetime.now(UTC) - timedelta(seconds=age)
        self._address(command, list(nodes))
        for row in (command, *command.invocations):
            row.status = row.details = "InProgress"
        self.end(command.id, {node: ending for node, ending in nodes.items() if ending is not None})
        return command.id

    def end(self, command_id: str, endings: dict[str, dict]) -> None:
        """Ends invocations as said, and their command with the last of them."""
        command = self.commands[command_id]
        for invocation in command.invocations:
            if invocation.instance_id in endings:
                Ending(**endings[invocation.instance_id]).apply(invocation)
        if all(invocation.status in TERMINAL for invocation in command.invocations):
            command.settle()

    def get_invocation(self, request: dict) -> dict:
        """GetCommandInvocation."""
        for invocation in self._invocations(request["CommandId"], request["InstanceId"]):
            return invocation.describe(invocation.plugin(request.get("PluginName")))
        raise ApiError("InvocationDoesNotExist", "")

    def list_invocations(self, request: dict) -> dict:
        """ListCommandInvocations, newest command first."""
        details = request.get("Details", False)
        found = self._invocations(request.get("CommandId"), request.get("InstanceId"))
        found = [i for i in found if _matches(request.get("Filters", []), i.command, i)]
        rows, rest = page(found, request.get("NextToken"), request.get("MaxResults", 50))
        return {"CommandInvocations": [row.listed(details) for row in rows], **rest}

    def list_commands(self, request: dict) -> dict:
        """ListCommands, newest first."""
        found = [
            command.describe()
            for command in reversed(self.commands.values())
            if request.get("CommandId", command.id) == command.id
            and ("InstanceId" not in request or request["InstanceId"] in _targets(command))
            and _matches(request.get("Filters", []), command, command)
        ]
        rows, rest = page(found, request.get("NextToken"), request.get("MaxResults", 50))
        return {"Commands": rows, **rest}

    def cancel(self, request: dict) -> dict:
        """CancelCommand: nodes that have not started do not; what runs is not stopped, and ends as it would have."""
        command = self.commands.get(request["CommandId"])
        if command is None:
            raise ApiError("InvalidCommandId", "The specified command ID is not valid.")
        chosen = request.get("InstanceIds") or _targets(command)
        if command.status in TERMINAL:
            return {}
        if len(chosen) == len(command.invocations):
            command.move("Cancelling")
            with command.changed:
                command.cancelled = True
                command.changed.notify_all()
        for invocation in command.invocations:
            if invocation.instance_id in chosen:
                waits = invocation.status == "Pending"
                invocation.move("Cancelling")
                if waits:
                    invocation.move("Cancelled")
        return {}

    def _address(self, command: Command, instance_ids: list[str]) -> None:
        for instance_id in instance_ids:
            plugins = [Plugin(step["name"]) for step in command.steps]
            command.invocations.append(Invocation(command, instance_id, plugins))
        self.commands[command.id] = command

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
            message = f"Instances [[{', '.join(unfit)}]] not in a valid state for account {ACCOUNT}"
            raise ApiError("InvalidInstanceId", message)
        if not tag_targets:
            return named
        return [id_ for id_ in registered if (not named or id_ in named) and _has_tags(id_, tag_targets)]

    def _denied(self, request: dict, instance_ids: list[str], caller: Caller) -> set[str]:
        """Returns which instances found by tag IAM does not permit; of those that are named one refuses the request."""
        by_tags = any(target["Key"].startswith("tag:") for target in request.get("Targets", []))
        denied = set()
        for instance_id in instance_ids:
            try:
                caller.require("ssm:SendCommand", instances.arn(instance_id), instances.tags(instance_id))
            except ApiError as error:
                if error.code != "AccessDeniedException" or not by_tags:
                    raise
                denied.add(instance_id)
        return denied

    def _invocations(self, command_id: str | None, instance_id: str | None) -> list[Invocation]:
        if command_id is None:
            commands = list(reversed(self.commands.values()))
        else:
            commands = [self.commands[command_id]] if command_id in self.commands else []
        return [
            invocation
            for command in commands
            for invocation in command.invocations
            if instance_id in (None, invocation.instance_id)
        ]


def _checked_parameters(version: Version, given: dict[str, list[str]]) -> dict[str, list[str]]:
    """Returns the parameters with the document's defaults, or refuses them as SSM does."""
    if len(version.text.encode()) + len(json.dumps(given).encode()) > content.MAX_BYTES:
        raise ApiError("MaxDocumentSizeExceeded", "The size limit of a document, parameters included, is 64 KB.")
    unknown = given.keys() - version.parameters.keys()
    if unknown:
        raise ApiError("InvalidParameters", f"Parameters {sorted(unknown)} are not defined in the document.")
    result = {}
    for name, spec in version.parameters.items():
        if not given.get(name) and "default" not in spec:
            raise ApiError("InvalidParameters", f"Parameter {name} is required.")
        values = given.get(name) or _as_values(spec["default"])
        if spec["type"] != "StringList" and len(values) != 1:
            raise ApiError("InvalidParameters", f"Parameter {name} takes one value of type {spec['type']}.")
        for fault in content.value_faults(name, spec, values):
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


def _matches(filters: list[dict], command: Command, row: Command | Invocation) -> bool:
    facts = {
        "Status": (row.status, row.details),
        "DocumentName": (command.request["DocumentName"], command.document.name),
        "ExecutionStage": ("Complete" if row.status in TERMINAL else "Executing",),
    }
    for filter_ in filters:
        key, value = filter_["key"], filter_["value"]
        if key in facts and value not in facts[key]:
            return False
        if key == "InvokedAfter" and command.requested < _moment(value):
            return False
        if key == "InvokedBefore" and command.requested > _moment(value):
            return False
    return True


def _moment(value: str) -> datetime:
    try:
        return datetime.fromisoformat(value).astimezone(UTC)
    except ValueError as error:
        raise ApiError("InvalidFilterValue", f"The filter value {value} is not valid.") from error
