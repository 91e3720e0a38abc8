"""Keeps SSM's commands, an invocation per node, a plugin per step, and says how their statuses follow."""

import json
import re
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from local.api import ApiError
from local.ec2 import instances
from local.eventbridge import events
from local.settings import REGION
from local.ssm.content import REFERENCE
from local.ssm.documents import Document, Version

STDOUT_LIMIT, STDERR_LIMIT, LIST_LIMIT = 24_000, 8_000, 2_500
"""Characters of output that GetCommandInvocation and ListCommandInvocations return (service model)."""

TRUNCATED = "---Output truncated---"
ERROR_SEPARATOR = "\n----------ERROR-------\n"

COUNTED_ERRORS = ("Failed", "ExecutionTimedOut")
"""Says what counts towards MaxErrors (Run Command, send commands at scale)."""

EXECUTION_TIMEOUT = 3600
"""Seconds a step may run when the document does not say (aws:runShellScript, timeoutSeconds)."""

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

    @property
    def elapsed(self) -> str:
        """Returns how long the step has run, as an ISO 8601 duration."""
        if not self.started:
            return ""
        return f"PT{((self.ended or datetime.now(UTC)) - self.started).total_seconds():.3f}S"

    def listed(self) -> dict:
        """Returns AWS's CommandPlugin."""
        row = {
            "Name": self.name,
            "Status": self.status,
            "StatusDetails": self.details,
            "ResponseCode": self.exit_code,
            "Output": _cut(self.stdout + (ERROR_SEPARATOR + self.stderr if self.stderr else ""), LIST_LIMIT),
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
            "OutputS3Region": REGION,
            "OutputS3BucketName": "",
            "OutputS3KeyPrefix": "",
        }
        if self.started:
            row["ResponseStartDateTime"] = self.started.timestamp()
        if self.ended:
            row["ResponseFinishDateTime"] = self.ended.timestamp()
        return row


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

    def describe(self, plugin: Plugin) -> dict:
        """Returns what GetCommandInvocation answers for one step."""
        return {
            "CommandId": self.command.id,
            "InstanceId": self.instance_id,
            "Comment": self.command.comment,
            "DocumentName": self.command.request["DocumentName"],
            "DocumentVersion": self.command.document_version,
            "PluginName": plugin.name,
            "ResponseCode": plugin.exit_code,
            "ExecutionStartDateTime": _iso(plugin.started),
            "ExecutionElapsedTime": plugin.elapsed,
            "ExecutionEndDateTime": _iso(plugin.ended),
            "Status": self.status,
            "StatusDetails": self.details,
            "StandardOutputContent": _cut(plugin.stdout, STDOUT_LIMIT),
            "StandardOutputUrl": "",
            "StandardErrorContent": _cut(plugin.stderr, STDERR_LIMIT),
            "StandardErrorUrl": "",
            "CloudWatchOutputConfig": {"CloudWatchLogGroupName": "", "CloudWatchOutputEnabled": False},
        }

    def listed(self, details: bool) -> dict:
        """Returns AWS's CommandInvocation, with its steps if details are wanted."""
        return {
            "CommandId": self.command.id,
            "InstanceId": self.instance_id,
            "InstanceName": instances.tags(self.instance_id).get("Name", ""),
            "Comment": self.command.comment,
            "DocumentName": self.command.request["DocumentName"],
            "DocumentVersion": self.command.document_version,
            "RequestedDateTime": self.command.requested.timestamp(),
            "Status": self.status,
            "StatusDetails": self.details,
            "StandardOutputUrl": "",
            "StandardErrorUrl": "",
            "CommandPlugins": [plugin.listed() for plugin in self.plugins] if details else [],
            "ServiceRole": self.command.request.get("ServiceRoleArn", ""),
            "NotificationConfig": self.command.request.get("NotificationConfig", {}),
        }


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
    def comment(self) -> str:
        """Returns the sender's comment."""
        return self.request.get("Comment", "")

    @property
    def document_version(self) -> str:
        """Returns the version as the sender named it."""
        return self.request.get("DocumentVersion", "$DEFAULT")

    @property
    def steps(self) -> list[dict]:
        """Returns the document's steps."""
        return self.version.content["mainSteps"]

    @property
    def execution_timeout(self) -> int:
        """Returns the seconds the document's first step may run."""
        timeout = self.steps[0]["inputs"].get("timeoutSeconds", EXECUTION_TIMEOUT)
        return int(self.substituted(str(timeout), set(self.parameters)))

    @property
    def delivery_seconds(self) -> int:
        """Returns how long AWS tries to deliver: TimeoutSeconds plus the document's executionTimeout."""
        return self.request.get("TimeoutSeconds", 3600) + self.execution_timeout

    @property
    def expires(self) -> datetime:
        """Returns when the command expires."""
        return self.requested + timedelta(seconds=self.delivery_seconds)

    def substituted(self, text: str, names: set[str]) -> str:
        """Puts the values of these parameters in place of `{{ name }}`, as text."""

        def value(match: re.Match) -> str:
            name = match[1]
            if name not in names:
                return match[0]
            values = self.parameters[name]
            return json.dumps(values) if self.version.parameters[name]["type"] == "StringList" else values[0]

        return REFERENCE.sub(value, text)

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
        # Those that the sender named; of nodes found by tag nothing is said.
        resources = [instances.arn(instance_id) for instance_id in self.request.get("InstanceIds", [])]
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

    def describe(self) -> dict:
        """Returns AWS's Command."""
        request = self.request
        return {
            "CommandId": self.id,
            "DocumentName": request["DocumentName"],
            "DocumentVersion": self.document_version,
            "Comment": self.comment,
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


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - len(TRUNCATED)] + TRUNCATED


def _iso(moment: datetime | None) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z") if moment else ""
