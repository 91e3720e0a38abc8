"""Replaces custom resources: a request to a function, whose answer is put at a pre-signed address."""

import json
import logging
import queue
import uuid
from urllib.parse import quote

from local.lambda_ import asynchronous
from local.ministack import app, custom_resource, lambda_svc

log = logging.getLogger("local.cloudformation")

PATH = "/_ministack/cfn-response/"
MAX_ANSWER = 4096
"""The longest answer in bytes (CloudFormation user guide, custom resource response objects)."""
SERVICE_TIMEOUT = 3600
"""Seconds that an answer is waited for where the resource has no ServiceTimeout."""

Answer = tuple[int, dict, bytes]

_shortcut = app._handle_post_body_shortcuts
_waiting: dict[str, queue.SimpleQueue] = {}


class FailedError(RuntimeError):
    """The function has answered that it failed."""

    def __init__(self, message: str, physical_id: str) -> None:
        super().__init__(message)
        self.physical_id = physical_id


def install() -> None:
    """Replaces how ministack asks and how it takes answers."""
    custom_resource.invoke_custom_resource = ask
    app._handle_post_body_shortcuts = _take


def ask(
    request_type: str,
    logical_id: str,
    properties: dict,
    stack_name: str,
    stack_id: str,
    resource_type: str,
    physical_id: str | None = None,
    old_props: dict | None = None,
) -> tuple[str, dict]:
    """Asks the function behind a resource and returns the resource's id and attributes.

    What could not be created is deleted, for something of it may be there; AWS does it with the rollback.
    """
    request = {
        "RequestType": request_type,
        "ServiceToken": properties["ServiceToken"],
        "RequestId": str(uuid.uuid4()),
        "StackId": stack_id,
        "ResourceType": resource_type,
        "LogicalResourceId": logical_id,
        "ResourceProperties": custom_resource._normalise_resource_properties(properties),
    }
    if physical_id is not None:
        request["PhysicalResourceId"] = physical_id
    if old_props is not None:
        request["OldResourceProperties"] = custom_resource._normalise_resource_properties(old_props)
    try:
        return _answered(request)
    except FailedError as failed:
        if request_type == "Create" and failed.physical_id:
            _answered({**request, "RequestType": "Delete", "PhysicalResourceId": failed.physical_id})
        raise


def _answered(request: dict) -> tuple[str, dict]:
    """Invokes the function and waits for its answer; raises with what CloudFormation says where it is no good one."""
    function, config, _ = lambda_svc._get_func_record_for_ref(request["ServiceToken"])
    if config is None:
        raise ValueError(f"Function not found: {request['ServiceToken']}")
    token = uuid.uuid4().hex
    url = f"{custom_resource._gateway_url()}{PATH}{token}?X-Amz-Signature={quote(_signature(token), safe='')}"
    answers = _waiting[token] = queue.SimpleQueue()
    try:
        record = lambda_svc._execution_record_for_config(function, config)
        asynchronous.invoke(record, {**request, "ResponseURL": url})
        seconds = float(request["ResourceProperties"].get("ServiceTimeout", SERVICE_TIMEOUT))
        body = answers.get(timeout=seconds)
    except queue.Empty as error:
        raise TimeoutError(
            "CloudFormation did not receive a response from your Custom Resource. Please check your logs for requestId "
            f"[{request['RequestId']}]."
        ) from error
    finally:
        del _waiting[token]
    return _read(request, body)


def _read(request: dict, body: bytes) -> tuple[str, dict]:
    """Returns the id and the attributes that an answer names."""
    if len(body) > MAX_ANSWER:
        raise ValueError("Response object is too long.")
    try:
        answer = json.loads(body)
    except ValueError as error:
        raise ValueError("Response is not valid JSON") from error
    for name in ("StackId", "RequestId", "LogicalResourceId"):
        if answer.get(name) != request[name]:
            raise ValueError(f"Invalid {name}")
    if not answer.get("PhysicalResourceId"):
        raise ValueError("Invalid PhysicalResourceId")
    if answer.get("Status") == "SUCCESS":
        return answer["PhysicalResourceId"], answer.get("Data") or {}
    if answer.get("Status") != "FAILED" or not answer.get("Reason"):
        raise ValueError("Invalid Status: it takes SUCCESS, or FAILED with a Reason")
    raise FailedError(
        f"Received response status [FAILED] from custom resource. Message returned: {answer['Reason']} "
        f"(RequestId: {request['RequestId']})",
        answer["PhysicalResourceId"],
    )


async def _take(method: str, path: str, headers: dict, body: bytes, query: dict, request_id: str) -> Answer | None:
    """Takes an answer as S3 does for CloudFormation: its signature covers that there is no content type."""
    if method != "PUT" or not path.startswith(PATH):
        return await _shortcut(method, path, headers, body, query, request_id)
    token = path.removeprefix(PATH)
    if headers.get("content-type") or query.get("X-Amz-Signature") not in (_signature(token), [_signature(token)]):
        return _refuse(403, "SignatureDoesNotMatch")
    if "content-length" not in headers:
        return _refuse(411, "MissingContentLength")
    if token in _waiting:
        _waiting[token].put(body)
    else:
        log.warning("An answer came for which nobody waits any more: %s", body)
    return 200, {}, b""


def _refuse(status: int, code: str) -> Answer:
    return status, {"Content-Type": "application/xml"}, f"<Error><Code>{code}</Code></Error>".encode()


def _signature(token: str) -> str:
    """Returns what stands for a signature: only an address that is kept as it is has it."""
    return f"{token[::-1]}/+="
