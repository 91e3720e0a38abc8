"""Makes the calls of a state machine's tasks: an API of AWS, as the machine's role, checked by its service model."""

import functools
import hashlib
import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import botocore.session
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from botocore.handlers import base64_encode_user_data
from botocore.model import OperationModel, Shape
from botocore.validate import ParamValidator

from local.lambda_ import functions
from local.ministack import stepfunctions, sts
from local.settings import ACCOUNT, REGION

CONFIG = Config(
    proxies={}, retries={"total_max_attempts": 1}, read_timeout=900, parameter_validation=False, max_pool_connections=50
)
MODULES = {"sfn": "stepfunctions", "eventbridge": "events", "cloudwatchlogs": "logs"}
"""Services that botocore calls otherwise than Step Functions does."""
OPTIMISED = {
    "dynamodb": ("getItem", "putItem", "updateItem", "deleteItem"),
    "events": ("putEvents",),
    "lambda": ("invoke",),
}
"""The integrations of Step Functions' own that are emulated."""
OPTIMISED_ERRORS = {
    "dynamodb": ("DynamoDB", "AmazonDynamoDBException"),
    "events": ("EventBridge", "AmazonEventBridgeException"),
    "lambda": ("Lambda", "AWSLambdaException"),
}
"""Says how their errors begin, and the one that stands for all that the service's model lacks."""
RANGES = ("invalid range",)
"""Says what Step Functions leaves to the service to find."""

ENCODED = ("RunInstances", "RequestSpotInstances")
"""Operations whose user data botocore encodes by itself; Step Functions hands it on as it is."""

_session = botocore.session.Session(
    {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
)
_clients: dict[tuple[str, str, str], Any] = {}
_lock = threading.Lock()


@dataclass(frozen=True)
class Origin:
    """The execution that makes a call."""

    role: str
    machine: str
    """The name of its state machine."""
    resources: tuple[str, ...]
    """The ARNs of both."""


class Unknown(ValueError):
    """A resource that no task can call."""


class Integration:
    """An API operation that a task names as its resource."""

    def __init__(self, resource: str):
        kind, _, self.action = resource.partition(":states:::")[2].rpartition(":")
        self.optimised = not kind.startswith("aws-sdk:")
        self.service = kind.removeprefix("aws-sdk:")
        if self.optimised and self.action not in OPTIMISED.get(self.service, ()):
            raise Unknown(f"The local cloud has no integration {resource}.")
        module = MODULES.get(self.service, self.service)
        if module not in _session.get_available_services():
            raise Unknown(f"There is no service {self.service}.")
        operations = _operations(module)
        if self.action not in operations:
            raise Unknown(f"{self.service} has no action {self.action}.")
        self.module = module
        self.operation: OperationModel = operations[self.action]

    @property
    def input(self) -> Shape | None:
        """Returns the service's model of the request."""
        return self.operation.input_shape

    def perform(self, arguments: Any, origin: Origin) -> Any:
        """Makes the call of an execution as its role; raises what the task fails with."""
        if self.service == "events" and self.optimised:
            arguments = _with_origin(arguments, origin)
        request = self._request(arguments)
        client = _client(self.module, origin.role, origin.machine)
        payload = request.get("Payload") if self.service == "lambda" and self.optimised else None
        if payload is not None and not isinstance(payload, str | bytes):
            request["Payload"] = json.dumps(payload).encode()
        try:
            answer = client._make_api_call(self.operation.name, request)
        except ClientError as error:
            raise self._error(error.response) from error
        except HTTPClientError as error:
            raise stepfunctions._ExecutionError(f"{self._prefix}.SdkClientException", str(error)) from error
        metadata = answer.pop("ResponseMetadata")
        result = to_states(answer, self.operation.output_shape, renamed=not self._wire_names)
        if not self.optimised:
            return result
        if self.service == "lambda":
            result = _function_result(result, answer)
        if result.get("FailedEntryCount"):
            raise stepfunctions._ExecutionError("EventBridge.FailedEntry", json.dumps(result))
        return {**result, **_metadata(metadata)}

    def throttling(self) -> stepfunctions._ExecutionError:
        """Returns what the task fails with when the service is asked too often."""
        if self.module == "lambda":
            code = "TooManyRequestsException"
        else:
            code = "RequestLimitExceeded" if self.module == "ec2" else "ThrottlingException"
        metadata = {"HTTPStatusCode": 503 if self.module == "ec2" else 400, "RequestId": "injected"}
        return self._error({"Error": {"Code": code, "Message": "Rate exceeded"}, "ResponseMetadata": metadata})

    @property
    def _prefix(self) -> str:
        if self.optimised:
            return OPTIMISED_ERRORS[self.service][0]
        return stepfunctions._AWS_SDK_ERROR_PREFIX.get(self.service, self.service.capitalize())

    @property
    def _wire_names(self) -> bool:
        """Tells whether members are named as the API has them, which holds for rows of DynamoDB's own integration."""
        return self.optimised and self.service == "dynamodb"

    def _request(self, arguments: Any) -> dict:
        """Returns the request by the service's own names; raises States.Runtime where it could not be made."""
        faults: list[str] = []
        request = from_states(arguments, self.input, faults, renamed=not self._wire_names) if self.input else {}
        if self.input and not faults:
            checked = dict(request)
            if self.service == "lambda" and self.optimised:
                checked.pop("Payload", None)  # any JSON
            report = ParamValidator().validate(checked, self.input)
            report._errors = [fault for fault in report._errors if fault[0] not in RANGES]
            faults = report.generate_report().splitlines()
        if faults:
            message = f"could not be used to start the Task: [{'; '.join(faults)}]"
            raise stepfunctions._ExecutionError("States.Runtime", f"The Arguments '{json.dumps(arguments)}' {message}")
        return request

    def _error(self, response: dict) -> stepfunctions._ExecutionError:
        """Returns an error by the name that Step Functions gives it."""
        code, message = response["Error"]["Code"], response["Error"].get("Message", "")
        shape = next((shape for shape in self.operation.error_shapes if shape.error_code == code), None)
        if shape:
            name = _exception(shape.name)
        else:
            name = OPTIMISED_ERRORS[self.service][1] if self.optimised else f"{self._prefix}Exception"
        metadata = response["ResponseMetadata"]
        facts = f"Service: {self._prefix}, Status Code: {metadata['HTTPStatusCode']}"
        cause = f"{message} ({facts}, Request ID: {metadata.get('RequestId', '')})"
        return stepfunctions._ExecutionError(f"{self._prefix}.{name}", cause)


def from_states(value: Any, shape: Shape, faults: list[str], path: str = "", renamed: bool = True) -> Any:
    """Returns a value by the API's names, which Step Functions writes in PascalCase; unknown ones are faults."""
    if shape.type_name == "structure" and isinstance(value, dict):
        members = {_member_key(name, shape, renamed): name for name in shape.members}
        for key in value.keys() - members.keys():
            faults.append(f"The field '{key}' is not supported by Step Functions{f' at {path}' if path else ''}")
        return {
            members[key]: from_states(inner, shape.members[members[key]], faults, f"{path}/{key}", renamed)
            for key, inner in value.items()
            if key in members
        }
    if shape.type_name == "list" and isinstance(value, list):
        return [from_states(inner, shape.member, faults, f"{path}/{n}", renamed) for n, inner in enumerate(value)]
    if shape.type_name == "map" and isinstance(value, dict):
        return {key: from_states(inner, shape.value, faults, f"{path}/{key}", renamed) for key, inner in value.items()}
    if shape.type_name in ("float", "double") and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def to_states(value: Any, shape: Shape | None, renamed: bool = True) -> Any:
    """Returns an answer by the names that Step Functions gives its members, and its times as texts."""
    if shape is None:
        return {}
    if shape.type_name == "structure":
        return {
            _member_key(name, shape, renamed): to_states(inner, shape.members[name], renamed)
            for name, inner in value.items()
            if name in shape.members
        }
    if shape.type_name == "list":
        return [to_states(inner, shape.member, renamed) for inner in value]
    if shape.type_name == "map":
        return {key: to_states(inner, shape.value, renamed) for key, inner in value.items()}
    if isinstance(value, datetime):
        value = value.astimezone(UTC)
        return value.isoformat(timespec="milliseconds" if value.microsecond else "seconds").replace("+00:00", "Z")
    if hasattr(value, "read"):
        value = value.read()
    return value.decode() if isinstance(value, bytes) else value


def _member_key(name: str, shape: Shape, renamed: bool) -> str:
    if not renamed:
        return name
    return "Nul" if (shape.name, name) == ("AttributeValue", "NULL") else stepfunctions._api_name_to_sfn_key(name)


def _with_origin(arguments: dict, origin: Origin) -> dict:
    """Returns the arguments of events:putEvents with details as texts, and with the execution as a resource."""
    entries = [
        {
            **entry,
            **({"Detail": json.dumps(entry["Detail"])} if isinstance(entry.get("Detail"), dict) else {}),
            "Resources": [*entry.get("Resources", []), *origin.resources],
        }
        for entry in arguments.get("Entries", [])
    ]
    return {**arguments, "Entries": entries}


def _function_result(result: dict, answer: dict) -> dict:
    """Returns what lambda:invoke answers, or raises the function's own error."""
    payload = json.loads(result["Payload"]) if result.get("Payload") else None
    if "FunctionError" in answer:
        error = payload.get("errorType", "Lambda.Unknown") if isinstance(payload, dict) else "Lambda.Unknown"
        raise stepfunctions._ExecutionError(error, json.dumps(payload))
    return {"ExecutedVersion": "$LATEST", **result, "Payload": payload}


def _metadata(metadata: dict) -> dict:
    headers = metadata["HTTPHeaders"]
    http = {
        "AllHttpHeaders": {name: [value] for name, value in headers.items()},
        "HttpHeaders": headers,
        "HttpStatusCode": metadata["HTTPStatusCode"],
    }
    return {"SdkHttpMetadata": http, "SdkResponseMetadata": {"RequestId": metadata.get("RequestId", "")}}


def _exception(shape: str) -> str:
    """Returns the Java class of a modelled error (AWS SDK for Java v2, naming of exceptions)."""
    shape = shape[0].upper() + shape[1:]
    return shape if shape.endswith("Exception") else f"{shape.removesuffix('Fault')}Exception"


@functools.cache
def _operations(module: str) -> dict[str, OperationModel]:
    """Returns the operations of a service by the name that Step Functions gives them."""
    model = _session.get_service_model(module)
    return {name[0].lower() + name[1:]: model.operation_model(name) for name in model.operation_names}


def _client(module: str, role: str, caller: str) -> Any:
    """Returns a client with credentials of a role, whose calls are counted as the state machine's."""
    with _lock:
        key = module, role, caller
        if key not in _clients:
            credentials = _credentials(role, caller)
            functions.know(credentials["aws_access_key_id"], caller)
            _clients[key] = client = _session.create_client(
                module, REGION, endpoint_url=os.environ["AWS_ENDPOINT_URL"], config=CONFIG, **credentials
            )
            for operation in ENCODED:
                client.meta.events.unregister(f"before-parameter-build.ec2.{operation}", base64_encode_user_data)
        return _clients[key]


def _credentials(role: str, caller: str) -> dict[str, str]:
    """Opens a session of a role."""
    digest = hashlib.sha256(f"states:{caller}:{role}".encode()).hexdigest()
    name = role.rpartition("/")[2]
    session = {"SecretAccessKey": digest, "SessionToken": digest[::-1]}
    key = f"ASIA{digest[:16].upper()}"
    arn = f"arn:aws:sts::{ACCOUNT}:assumed-role/{name}/{caller[:64]}"
    sts.register_session(key, {"Arn": arn, "UserId": f"{name}:{caller}", **session})
    return {
        "aws_access_key_id": key,
        "aws_secret_access_key": session["SecretAccessKey"],
        "aws_session_token": session["SessionToken"],
    }
