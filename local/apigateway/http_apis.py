"""Replaces how HTTP APIs answer: callers checked by IAM, throttling, limits, and functions that may be invoked."""

import asyncio
import base64
import json
import re

from local.api import Response
from local.apigateway.access_logs import measure
from local.apigateway.openapi import INTEGRATION_SECONDS, import_body
from local.apigateway.requests import DOMAIN, SERVICE, Refusal, Request, payload
from local.apigateway.throttling import bucket
from local.cloudformation.resources import complete
from local.iam import permissions
from local.ministack import (
    apigateway,
    app,
    arns,
    concurrency,
    iam_evaluator,
    lambda_svc,
    provisioners,
    router,
    sigv4,
)
from local.settings import ACCOUNT, REGION

MAX_BODY = 10 << 20
"""Bytes of a request's body (API Gateway, quotas of HTTP APIs)."""
MAX_PAYLOAD = 6 << 20
"""Bytes of what a function is handed, and of what it answers (Lambda, quotas)."""

_handle_others = app._handle_execute_api_request
_delete_api = provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"]["delete"]


def install() -> None:
    """Serves HTTP APIs under their names on AWS too, and has CloudFormation import their OpenAPI bodies."""
    names = "|".join(re.escape(name) for name in (DOMAIN, f"{SERVICE}.localhost", f"{SERVICE}.127.0.0.1"))
    app._EXECUTE_API_RE = re.compile(rf"^([a-z0-9]+)\.(?:{names})(?::\d+)?$")
    app._handle_execute_api_request = handle
    complete("AWS::ApiGatewayV2::Api", import_body, lambda name: _delete_api(name, {}))


async def handle(
    host: str,
    path: str,
    method: str,
    headers: dict,
    body: bytes,
    query_params: dict,
    raw_path: str | None = None,
    raw_query_string: str | None = None,
) -> Response | None:
    """Answers one call of an HTTP API; None where it is about something else."""
    address = app._parse_execute_api_url(host, path)
    if address is None or address[0] not in apigateway._apis:
        return await _handle_others(host, path, method, headers, body, query_params, raw_path, raw_query_string)
    stage, path_in_stage = app._resolve_stage_and_path(*address)
    signed_path, prefix = raw_path or path, path[: len(path) - len(path_in_stage)]
    path = apigateway.decode_http_api_path(signed_path).removeprefix(prefix)
    headers = {name.lower(): value for name, value in headers.items()}
    raw_query = raw_query_string or ""
    return await _answered(
        Request(address[0], stage, method, path, signed_path, headers, query_params, raw_query, body)
    )


async def _answered(request: Request) -> Response:
    """Answers a call by its route's function, or by what stands against it, and measures it."""
    try:
        _admit(request)
        status, answer_headers, answer = await _invoke(request)
    except Refusal as refusal:
        request.error = refusal.message
        answer_headers, answer = (
            {"content-type": "application/json"},
            json.dumps({"message": refusal.message}, separators=(",", ":")).encode(),
        )
        status = refusal.status
    measure(request, status, len(answer))
    return status, {**answer_headers, "apigw-requestid": request.id}, answer


def _admit(request: Request) -> None:
    """Finds the route and checks the call, or raises what is answered in its place."""
    if len(request.body) > MAX_BODY:
        raise Refusal(413, "Request Entity Too Large")
    path = "/" + request.path.lstrip("/")
    route = request.stage in apigateway._stages[request.api] and apigateway._match_route(
        request.api, request.method, path
    )
    if not route:
        raise Refusal(404, "Not Found")
    request.route = route
    request.path_parameters = apigateway._extract_path_params(request.route_key.partition(" ")[2], path) or {}
    if route.get("authorizationType") == "AWS_IAM":
        request.caller = _authorized(request)
    if not bucket(request).take():
        raise Refusal(429, "Too Many Requests")


def _authorized(request: Request) -> dict:
    """Returns who has signed the call and may make it; whatever stands against it is "Forbidden"."""
    access_key = router.extract_access_key_id(request.headers, request.query)
    resource = arns.execute_api_arn(REGION, ACCOUNT, request.api, request.stage, request.method, request.path)
    if not _signed(request) or iam_evaluator.enforce(access_key, f"{SERVICE}:Invoke", "apigateway", REGION, resource):
        raise Refusal(403, "Forbidden")
    return iam_evaluator.resolve_caller_identity(access_key)


def _signed(request: Request) -> bool:
    """Returns whether the signature is there, is for this API, is right and is not old."""
    presigned = "X-Amz-Signature" in request.query
    if not presigned and not request.headers.get("authorization", "").startswith("AWS4-HMAC-SHA256 "):
        return False
    parse = sigv4.parse_query_signature if presigned else sigv4.parse_header_signature
    signature = parse(request.query if presigned else request.headers)
    if isinstance(signature, tuple) or (signature.service, signature.region) != (SERVICE, REGION):
        return False
    token = request.query.get("X-Amz-Security-Token", [""])[0] or request.headers.get("x-amz-security-token", "")
    credential = iam_evaluator.resolve_credential(signature.access_key_id, ACCOUNT, token)
    if isinstance(credential, iam_evaluator.CredentialResolutionError) or sigv4.request_time_failure(signature):
        return False
    return not sigv4.header_signature_failure(
        signature,
        credential.secret_access_key,
        request.method,
        request.signed_path,
        request.query,
        request.headers,
        request.body,
        presigned=presigned,
    )


async def _invoke(request: Request) -> Response:
    """Runs the route's function and returns its answer as HTTP."""
    integration = apigateway._integrations[request.api][request.route["target"].rpartition("/")[2]]
    arn = apigateway._extract_lambda_ref_from_integration_uri(integration["integrationUri"])
    function, config, _ = lambda_svc._get_func_record_for_ref(arn)
    source = arns.execute_api_arn(
        REGION, ACCOUNT, request.api, request.stage, *request.route_key.replace("$default", "* /*").split(" ")
    )
    if not function or not permissions.service_may(
        function.get("policy"), "apigateway.amazonaws.com", "lambda:InvokeFunction", arn, source
    ):
        request.integration_status = "403"
        raise Refusal(500, "Internal Server Error")
    event = payload(request)
    if len(json.dumps(event)) > MAX_PAYLOAD:
        request.integration_status = "413"
        raise Refusal(413, "Request Entity Too Large")
    record = lambda_svc._execution_record_for_config(function, config)
    run = asyncio.ensure_future(
        concurrency.run_reentrant(lambda_svc._execute_function_with_config_scope, record, event, thread_name="api")
    )
    seconds = int(integration.get("timeoutInMillis") or INTEGRATION_SECONDS * 1000) / 1000
    done, _ = await asyncio.wait({run}, timeout=seconds)
    if not done or run.result().get("throttle"):
        raise Refusal(503, "Service Unavailable")
    request.integration_status = "200"
    return _answer(run.result())


def _answer(result: dict) -> Response:
    """Returns a function's result as HTTP; one that is no answer is our error, not the caller's."""
    body = result.get("body")
    if isinstance(body, bytes | str):
        body = json.loads(body or "null")
    if result.get("error") or len(json.dumps(body)) > MAX_PAYLOAD:
        raise Refusal(500, "Internal Server Error")
    if not isinstance(body, dict) or "statusCode" not in body:
        return 200, {"content-type": "application/json"}, json.dumps(body).encode()
    headers = {name.lower(): str(value) for name, value in (body.get("headers") or {}).items()}
    content = body.get("body") or ""
    if not isinstance(content, str) or not 100 <= int(body["statusCode"]) <= 599:
        raise Refusal(500, "Internal Server Error")
    if content:
        headers.setdefault("content-type", "text/plain;charset=UTF-8")
    data = base64.b64decode(content) if body.get("isBase64Encoded") else content.encode()
    return int(body["statusCode"]), headers, data
