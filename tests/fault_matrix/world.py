"""Keeps what a function's calls of AWS have done: rows, commands, messages, objects, parameters, schedules."""

import contextlib
import itertools
import json
import re
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

from benches.aws_endpoint import JSON_ANSWERS, REPORT
from benches.http1 import Request
from local.ministack import dynamodb

from .faults import JSON, XML, Answer

NODES = [f"i-0abc{number:013}" for number in range(1, 4)]
DOCUMENT = "eks-image-prefetch-prefetch-images"
JOB = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b"
"""Names the command that reports are of."""

LIFETIME_SECONDS = 4200
"""Says after how long a command has ended on every node, as its timeouts have it."""

_tables = threading.Lock()
_numbers = itertools.count()

VOLATILE_TIME = r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)"
OF_THE_WAY = ("outbox", "version", "duplicates", "DelaySeconds", "ClientToken", "statusCode", "headers")
"""Names the members that say in how many steps something came about."""
VOLATILE = (
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"), "<id>"),
    (re.compile(VOLATILE_TIME), "<time>"),
    (re.compile(r"\b[0-9a-f]{16}\b"), "<id>"),
    (re.compile(r"\b1[6-9]\d{8}(\d{3})?\b"), "<time>"),
)
"""Lists what two runs of one scenario never have alike, and what stands for it."""


class World:
    """An account for one cell."""

    def __init__(self):
        self.table = f"outcomes-{next(_numbers)}"
        self.commands: list[dict] = []
        self.sent_at: dict[str, float] = {JOB: 0}
        self.cancelled: list[str] = []
        self.messages: list[dict] = []
        self.objects: dict[str, bytes] = {}
        self.parameters: dict[str, dict] = {}
        self.schedules: dict[str, dict] = {}
        self.hooks: list[dict] = []
        keys = {"pk": "HASH", "sk": "RANGE"}
        self._dynamodb(
            "CreateTable",
            {
                "TableName": self.table,
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in keys],
                "KeySchema": [{"AttributeName": name, "KeyType": kind} for name, kind in keys.items()],
            },
        )

    def answer(self, service: str, operation: str, request: Request) -> Answer:
        """Carries a call out, and returns its answer."""
        if service == "dynamodb":
            return self._dynamodb(operation, json.loads(request.body))
        if service == "s3":
            self.objects[request.path] = request.body
            return "200 OK", XML, b""
        if service in ("ec2", "autoscaling"):
            return "200 OK", XML, QUERIES[operation](self, parse_qs(request.body.decode()))
        if service == "scheduler":
            return self._scheduler(operation, request)
        body = json.loads(request.body)
        own: Callable | None = getattr(self, f"_{operation}", None)
        answer = own(body) if own else JSON_ANSWERS[f"{TARGETS[service]}.{operation}"]
        if "__type" in answer:
            return "400 Bad Request", JSON, json.dumps(answer).encode()
        return "200 OK", JSON, json.dumps(answer).encode()

    def state(self) -> dict[str, list[str]]:
        """Returns all that was done, without what no two runs have alike."""
        _, _, rows = self._dynamodb("Scan", {"TableName": self.table})
        lines = [f"{key.rpartition('/')[0]} {line}" for key, text in self.objects.items() for line in records(text)]
        return {
            "commands": alike(self.commands),
            "cancelled": alike(self.cancelled),
            "messages": alike(self.messages),
            "records": alike(lines),
            "parameters": alike([f"{name} {parameter['Value']}" for name, parameter in self.parameters.items()]),
            "schedules": alike(list(self.schedules.values())),
            "hooks": alike(self.hooks),
            "rows": alike(json.loads(rows)["Items"]),
        }

    def end(self) -> None:
        """Forgets the table."""
        self._dynamodb("DeleteTable", {"TableName": self.table})

    def put(self, row: dict[str, Any]) -> None:
        """Writes a row that stands there before."""
        self._dynamodb("PutItem", {"TableName": self.table, "Item": row})

    def pass_time(self, seconds: int) -> None:
        """Has everything be that much older, as it is when a caller comes again."""
        self.sent_at = {command: at and at - seconds for command, at in self.sent_at.items()}
        _, _, rows = self._dynamodb("Scan", {"TableName": self.table})
        for row in json.loads(rows)["Items"]:
            self.put({name: value if name in ("pk", "sk") else older(value, seconds) for name, value in row.items()})

    def _dynamodb(self, operation: str, request: dict) -> Answer:
        target = {"x-amz-target": f"DynamoDB_20120810.{operation}"}
        with _tables:
            work = dynamodb.handle_request("POST", "/", target, json.dumps(request).encode(), {})
            try:
                work.send(None)
            except StopIteration as done:
                status, _, body = done.value
                return ("200 OK" if status == 200 else f"{status} Error"), "application/x-amz-json-1.0", body
        raise RuntimeError(f"{operation} waits for something")

    def _SendCommand(self, body: dict) -> dict:
        command = str(uuid.uuid4())
        self.commands.append({**body, "CommandId": command})
        self.sent_at[command] = time.time()
        return {"Command": {"CommandId": command, "Status": "Pending", **body}}

    def _ListCommands(self, body: dict) -> dict:
        wanted = body.get("CommandId")
        listed = [
            {
                "Status": "InProgress",
                "RequestedDateTime": self.sent_at[command["CommandId"]],
                "ExpiresAfter": self.sent_at[command["CommandId"]] + LIFETIME_SECONDS,
                "TargetCount": 3,
                **command,
            }
            for command in [*self.commands, {"CommandId": JOB, "DocumentName": DOCUMENT, "Comment": COMMENT}]
            if wanted in (None, command["CommandId"]) and self.sent_at[command["CommandId"]]
        ]
        return {"Commands": listed}

    def _ListCommandInvocations(self, body: dict) -> dict:
        return {"CommandInvocations": [{"CommandId": body["CommandId"], "InstanceId": node} for node in NODES]}

    def _CancelCommand(self, body: dict) -> dict:
        self.cancelled.append(body["CommandId"])
        return {}

    def _GetCommandInvocation(self, body: dict) -> dict:
        number = NODES.index(body["InstanceId"]) if body["InstanceId"] in NODES else 0
        report = [REPORT, {**REPORT, "status": "failed", "reason": "registry"}, {**REPORT, "status": "cached"}][
            number % 3
        ]
        return {
            **body,
            "Comment": COMMENT,
            "DocumentName": DOCUMENT,
            "PluginName": "prefetch",
            "ResponseCode": 0,
            "ExecutionStartDateTime": "2026-11-16T01:54:35.000Z",
            "ExecutionEndDateTime": f"2026-11-16T01:54:{40 - number}.000Z",
            "Status": "Success",
            "StatusDetails": "Success",
            "StandardOutputContent": json.dumps(report) + "\n" + USAGE,
            "StandardErrorContent": "",
        }

    def _DescribeInstanceInformation(self, body: dict) -> dict:
        nodes = [{"InstanceId": node, "PingStatus": "Online", "PlatformType": "Linux"} for node in NODES]
        return {"InstanceInformationList": nodes}

    def _GetParameters(self, body: dict) -> dict:
        known = [self.parameters[name] for name in body["Names"] if name in self.parameters]
        return {"Parameters": known, "InvalidParameters": [n for n in body["Names"] if n not in self.parameters]}

    def _GetParametersByPath(self, body: dict) -> dict:
        return {"Parameters": [p for name, p in self.parameters.items() if name.startswith(body["Path"])]}

    def _GetParameter(self, body: dict) -> dict:
        if body["Name"] in self.parameters:
            return {"Parameter": self.parameters[body["Name"]]}
        return {"__type": "ParameterNotFound", "message": "There is none."}

    def _PutParameter(self, body: dict) -> dict:
        before = self.parameters.get(body["Name"], {}).get("Version", 0)
        if before and not body.get("Overwrite"):
            return {"__type": "ParameterAlreadyExists", "message": "There is one."}
        parameter = {"Name": body["Name"], "Type": "String", "Value": body["Value"], "Version": before + 1}
        self.parameters[body["Name"]] = parameter
        return {"Version": before + 1, "Tier": "Standard"}

    def _DeleteParameter(self, body: dict) -> dict:
        if self.parameters.pop(body["Name"], None):
            return {}
        return {"__type": "ParameterNotFound", "message": "There is none."}

    def _SendMessageBatch(self, body: dict) -> dict:
        self.messages += [
            {"QueueUrl": body["QueueUrl"], **{name: entry.get(name) for name in ("MessageBody", "DelaySeconds")}}
            for entry in body["Entries"]
        ]
        return {
            "Successful": [{"Id": entry["Id"], "MessageId": "1", "MD5OfMessageBody": ""} for entry in body["Entries"]]
        }

    def _BatchGetImage(self, body: dict) -> dict:
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "size": 7023,
                "digest": "sha256:" + "5" * 64,
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
                    "size": 12345678,
                    "digest": "sha256:" + "6" * 64,
                }
            ],
        }
        images = [
            {
                "registryId": "123456789012",
                "repositoryName": body["repositoryName"],
                "imageId": {"imageDigest": "sha256:" + "7" * 64, **image},
                "imageManifest": json.dumps(manifest),
                "imageManifestMediaType": manifest["mediaType"],
            }
            for image in body["imageIds"]
        ]
        return {"images": images, "failures": []}

    def _scheduler(self, operation: str, request: Request) -> Answer:
        name = request.path.partition("?")[0].removeprefix("/schedules").strip("/")
        if operation == "ListSchedules":
            return "200 OK", JSON, json.dumps({"Schedules": list(self.schedules.values())}).encode()
        known, body = self.schedules.get(name), json.loads(request.body or "{}")
        if operation == "CreateSchedule" and (not known or known["ClientToken"] == body["ClientToken"]):
            self.schedules[name] = {"Name": name, **body}
            return (
                "200 OK",
                JSON,
                b'{"ScheduleArn": "arn:aws:scheduler:eu-central-1:123456789012:schedule/schedules/1"}',
            )
        if operation != "CreateSchedule" and known:
            if operation == "DeleteSchedule":
                del self.schedules[name]
            return "200 OK", JSON, json.dumps(known).encode()
        code, status = ("ConflictException", "409 Conflict")
        if operation != "CreateSchedule":
            code, status = ("ResourceNotFoundException", "404 Not Found")
        return status, JSON, json.dumps({"__type": code, "Message": "It is as it is."}).encode()


def older(value: dict[str, Any], seconds: int) -> dict[str, Any]:
    """Returns a row's value with the times of this run in it that much earlier; those of events stay as they are."""

    def earlier(match: re.Match) -> str:
        at = datetime.fromisoformat(match[0])
        if datetime.now(UTC) - at > timedelta(days=1):
            return match[0]
        return f"{at - timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%S}{match[1] or ''}{match[2]}"

    if re.fullmatch(r"1[6-9]\d{8}", value.get("N", "")):
        return {"N": str(int(value["N"]) - seconds)}
    return json.loads(re.sub(VOLATILE_TIME, earlier, json.dumps(value)))


def plain(thing: Any) -> Any:
    """Returns a thing without the members that tell of the way to it, and with the JSON in its texts read."""
    if isinstance(thing, dict):
        return {name: plain(value) for name, value in thing.items() if name not in OF_THE_WAY}
    if isinstance(thing, list):
        return [plain(one) for one in thing]
    if isinstance(thing, str) and thing.startswith("{"):
        with contextlib.suppress(ValueError):  # several lines of it
            return plain(json.loads(thing))
    return thing


def alike(things: list) -> list[str]:
    """Returns things as sorted text, without what no two runs have alike."""
    texts = [json.dumps(plain(thing), sort_keys=True) for thing in things]
    for pattern, stand_in in VOLATILE:
        texts = [pattern.sub(stand_in, text) for text in texts]
    return sorted(texts)


def records(text: bytes) -> list[str]:
    """Returns the lines of an object, be it sent in chunks that carry a checksum."""
    return [line for line in text.decode().splitlines() if line.startswith("{")]


def _instances(world: World, form: dict) -> bytes:
    items = "".join(
        f"<item><instanceId>{node}</instanceId><instanceState><code>16</code><name>running</name></instanceState>"
        "<launchTime>2026-01-01T00:00:00.000Z</launchTime><architecture>x86_64</architecture>"
        "<subnetId>subnet-0abc0000000000001</subnetId><vpcId>vpc-1</vpcId>"
        "<tagSet><item><key>aws:eks:cluster-name</key><value>prod</value></item></tagSet></item>"
        for node in NODES
    )
    return _ec2(
        "DescribeInstances",
        "<reservationSet><item><reservationId>r-1</reservationId><ownerId>123456789012</ownerId>"
        f"<instancesSet>{items}</instancesSet></item></reservationSet>",
    )


def _subnets(world: World, form: dict) -> bytes:
    wanted = [form[name][0] for name in form if name.startswith("Filter.1.Value")]
    subnets = "".join(
        f"<item><subnetId>{name}</subnetId><vpcId>vpc-1</vpcId><state>available</state>"
        "<availableIpAddressCount>250</availableIpAddressCount></item>"
        for name in wanted
    )
    return _ec2("DescribeSubnets", f"<subnetSet>{subnets}</subnetSet>")


def _ec2(operation: str, inner: str) -> bytes:
    space = "http://ec2.amazonaws.com/doc/2016-11-15/"
    return f'<{operation}Response xmlns="{space}"><requestId>r</requestId>{inner}</{operation}Response>'.encode()


COMMENT = "push rule=default attempt=1"
USAGE = (
    json.dumps({"usage": REPORT["image"], "running": 1, "prefetched": True, "bytes": 123456789})
    + "\n"
    + json.dumps({"usageTotals": {"images": 1, "podImages": 1}})
    + "\n"
)
QUERIES = {"DescribeInstances": _instances, "DescribeSubnets": _subnets}
TARGETS = {"ecr": "AmazonEC2ContainerRegistry_V20150921", "ssm": "AmazonSSM"}
