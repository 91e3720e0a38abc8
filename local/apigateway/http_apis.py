"""API Gateway's HTTP APIs: routes imported from OpenAPI, callers checked by IAM, throttling, limits, access logs."""

import asyncio
import base64
import json
import logging
import re
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from local.api import Response
from local.cloudformation.resources import complete
from local.iam import permissions
from local.ministack import (
    apigateway,
    app,
    arns,
    cloudwatch,
    cloudwatch_logs,
    concurrency,
    iam_evaluator,
    lambda_svc,
    provisioners,
    router,
    sigv4,
)
from local.settings import ACCOUNT, REGION

log = logging.getLogger("local.gateway")

SERVICE = "execute-api"
DOMAIN = f"{SERVICE}.{REGION}.amazonaws.com"

MAX_BODY = 10 << 20
"""Bytes of a request's body (API Gateway, quotas of HTTP APIs)."""
MAX_PAYLOAD = 6 << 20
"""Bytes of what a function is handed, and of what it answers (Lambda, quotas)."""
ACCOUNT_RATE, ACCOUNT_BURST = 10_000, 5_000
"""Requests a second, and at once, where a stage says nothing (API Gateway, account-level quotas)."""
INTEGRATION_SECONDS = 30
"""How long a function may take (API Gateway, quotas of HTTP APIs)."""
METHODS = frozenset({"get", "put", "post", "delete", "options", "head", "patch"})
ANY = "x-amazon-apigateway-any-method"
VARIABLE = re.compile(r"\$context\.([A-Za-z]+(?:\.[A-Za-z0-9]+)*)")

_handle_others = app._handle_execute_api_request
_delete_api = provisioners._RESOURCE_HANDLERS["AWS::ApiGatewayV2::Api"]["delete"]

_buckets: dict[tuple, "Bucket"] = {}


@dataclass
class Refusal(Exception):
    """What API Gateway answers by itself."""

    status: int
    message: str


@dataclass
class Bucket:
    """The tokens of one route's throttling."""

    rate: float
    burst: float
    tokens: float = field(init=False)
    filled: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.tokens = self.burst

    def take(self) -> bool:
        """Takes a token, if there is one."""
        now = time.monotonic()
        self.tokens = min(self.burst, self.tokens + (now - self.filled) * self.rate)
        self.filled = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass
class Request:
    """One call of an API."""

    api: str
    stage: str
    method: str
    path: str
    """Within the stage, as the function gets it."""
    signed_path: str
    headers: dict[str, str]
    query: dict[str, list[str]]
    raw_query: str
    body: bytes
    id: str = field(default_factory=lambda: base64.b64encode(uuid.uuid4().bytes[:11]).decode())
    at: datetime = field(default_factory=lambda: datetime.now(UTC))
    route: dict = field(default_factory=dict)
    path_parameters: dict[str, str] = field(default_factory=dict)
    caller: dict | None = None
    error: str = ""
    integration_status: str = ""

    @property
    def route_key(self) -> str:
        """Returns the key of the route it has found."""
        return self.route.get("routeKey", "")

    @property
    def settings(self) -> dict:
        """Returns the stage it reaches."""
        return apigateway._stages[self.api][self.stage]


def install() -> None:
    """Serves HTTP APIs under their names on AWS too, and has CloudFormation import their OpenAPI bodies."""
    names = "|".join(re.escape(name) for name in (DOMAIN, f"{SERVICE}.localhost", f"{SERVICE}.127.0.0.1"))
    app._EXECUTE_API_RE = re.compile(rf"^([a-z0-9]+)\.(?:{names})(?::\d+)?$")
    app._handle_execute_api_request = handle
    complete("AWS::ApiGatewayV2::Api", _import, lambda name: _delete_api(name, {}))


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
    prefix = path[: len(path) - len(path_in_stage)]
    signed_path = raw_path or path
    request = Request(
        address[0],
        stage,
        method,
        apigateway.decode_http_api_path(signed_path).removeprefix(prefix),
        signed_path,
        {name.lower(): value for name, value in headers.items()},
        query_params,
        raw_query_string or "",
        body,
    )
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
    _measure(request, status, len(answer))
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
    if not _bucket(request).take():
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


def _bucket(request: Request) -> Bucket:
    settings = dict(request.settings.get("defaultRouteSettings") or {})
    settings |= (request.settings.get("routeSettings") or {}).get(request.route_key, {})
    # A template spells them with a capital, the API without.
    settings = {name.lower(): value for name, value in settings.items()}
    rate = float(settings.get("throttlingratelimit", ACCOUNT_RATE))
    burst = float(settings.get("throttlingburstlimit", ACCOUNT_BURST))
    key = request.api, request.stage, request.route_key, rate, burst
    return _buckets.setdefault(key, Bucket(rate, burst))


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
    event = _event(request)
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


def _event(request: Request) -> dict:
    """Returns what the function is handed: payload format 2.0."""
    text = apigateway._v2_request_body_is_text(request.headers.get("content-type"))
    body = request.body.decode(errors="replace") if text else base64.b64encode(request.body).decode()
    query = {name: ",".join(values) for name, values in request.query.items()}
    forwarded = {"x-forwarded-for": "127.0.0.1", "x-forwarded-port": "443", "x-forwarded-proto": "https"}
    path = request.path if request.stage == "$default" else f"/{request.stage}{request.path}"
    return {
        "version": "2.0",
        "routeKey": request.route_key,
        "rawPath": path,
        "rawQueryString": request.raw_query,
        "headers": {**request.headers, **forwarded},
        **({"queryStringParameters": query} if query else {}),
        "requestContext": {
            "accountId": ACCOUNT,
            "apiId": request.api,
            **({"authorizer": {"iam": _caller(request.caller)}} if request.caller else {}),
            "domainName": f"{request.api}.{DOMAIN}",
            "domainPrefix": request.api,
            "http": {
                "method": request.method,
                "path": path,
                "protocol": "HTTP/1.1",
                "sourceIp": "127.0.0.1",
                "userAgent": request.headers.get("user-agent", ""),
            },
            "requestId": request.id,
            "routeKey": request.route_key,
            "stage": request.stage,
            "time": f"{request.at:%d/%b/%Y:%H:%M:%S +0000}",
            "timeEpoch": int(request.at.timestamp() * 1000),
        },
        **({"pathParameters": request.path_parameters} if request.path_parameters else {}),
        **({"body": body} if request.body else {}),
        "isBase64Encoded": bool(request.body) and not text,
    }


def _caller(identity: dict) -> dict:
    return {
        "accessKey": identity["accessKey"],
        "accountId": identity["accountId"],
        "callerId": identity["userId"],
        "cognitoIdentity": None,
        "principalOrgId": identity["principalOrgId"],
        "userArn": identity["userArn"],
        "userId": identity["userId"],
    }


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


def _measure(request: Request, status: int, length: int) -> None:
    """Counts the call and writes it to the stage's access log."""
    if request.stage not in apigateway._stages[request.api]:
        return
    for dimensions in ({"ApiId": request.api}, {"ApiId": request.api, "Stage": request.stage}):
        for name, counted in (("Count", True), ("4xx", 400 <= status < 500), ("5xx", status >= 500)):
            cloudwatch.record_metric("AWS/ApiGateway", name, int(counted), "Count", dimensions)
    cloudwatch._evaluate_all_alarms()
    settings = request.settings.get("accessLogSettings")
    if settings:
        facts = _facts(request, status, length)
        line = VARIABLE.sub(lambda match: facts.get(match[1]) or "-", settings["format"])
        group = settings["destinationArn"].partition(":log-group:")[2].removesuffix(":*")
        _write(group, f"{request.api}-{request.stage}", line)


def _facts(request: Request, status: int, length: int) -> dict[str, str]:
    """Returns what the variables of an access log stand for."""
    caller = request.caller or {}
    milliseconds = str(int((datetime.now(UTC) - request.at).total_seconds() * 1000))
    return {
        "accountId": ACCOUNT,
        "apiId": request.api,
        "domainName": f"{request.api}.{DOMAIN}",
        "domainPrefix": request.api,
        "error.message": request.error,
        "error.messageString": request.error and json.dumps(request.error),
        "extendedRequestId": request.id,
        "httpMethod": request.method,
        "identity.accountId": caller.get("accountId", ""),
        "identity.caller": caller.get("userId", ""),
        "identity.sourceIp": "127.0.0.1",
        "identity.user": caller.get("userId", ""),
        "identity.userAgent": request.headers.get("user-agent", ""),
        "identity.userArn": caller.get("userArn", ""),
        "integration.status": request.integration_status,
        "integrationStatus": request.integration_status,
        "path": request.path,
        "protocol": "HTTP/1.1",
        "requestId": request.id,
        "requestTime": f"{request.at:%d/%b/%Y:%H:%M:%S +0000}",
        "requestTimeEpoch": str(int(request.at.timestamp() * 1000)),
        "responseLatency": milliseconds,
        "responseLength": str(length),
        "routeKey": request.route_key,
        "stage": request.stage,
        "status": str(status),
    }


def _write(group: str, stream: str, line: str) -> None:
    if group not in cloudwatch_logs._log_groups:
        log.warning("The access log has no log group %s.", group)
        return
    names = {"logGroupName": group, "logStreamName": stream}
    if stream not in cloudwatch_logs._log_groups[group]["streams"]:
        cloudwatch_logs._create_log_stream(names)
    cloudwatch_logs._put_log_events({**names, "logEvents": [{"timestamp": int(time.time() * 1000), "message": line}]})


def _import(api: str, properties: dict) -> None:
    """Makes the routes and integrations that an OpenAPI body names, in the place of those before."""
    body = properties.get("Body")
    if body is None:
        return
    routes, integrations = {}, {}
    for path, item in body.get("paths", {}).items():
        for method, operation in item.items():
            if method not in METHODS and method != ANY:
                continue
            key = "$default" if path == "/$default" else f"{'ANY' if method == ANY else method.upper()} {path}"
            target = uuid.uuid4().hex[:7]
            integrations[target] = _integration(key, target, operation)
            route = uuid.uuid4().hex[:7]
            routes[route] = {
                "routeId": route,
                "routeKey": key,
                "target": f"integrations/{target}",
                "authorizationType": _authorization(key, operation, body),
                "apiKeyRequired": False,
            }
    apigateway._routes[api], apigateway._integrations[api] = routes, integrations


def _integration(key: str, id_: str, operation: dict) -> dict:
    described = operation.get("x-amazon-apigateway-integration")
    if not described or described.get("type", "").lower() != "aws_proxy":
        raise ValueError(f"The local cloud invokes functions only, and route {key} has no aws_proxy integration.")
    if described.get("payloadFormatVersion") != "2.0":
        raise ValueError(f"Route {key}: the local cloud knows payload format 2.0 only.")
    return {
        "integrationId": id_,
        "integrationType": "AWS_PROXY",
        "integrationUri": described["uri"],
        "payloadFormatVersion": "2.0",
        "timeoutInMillis": int(described.get("timeoutInMillis", INTEGRATION_SECONDS * 1000)),
    }


def _authorization(key: str, operation: dict, body: dict) -> str:
    schemes = body.get("components", {}).get("securitySchemes", {})
    requirements = operation.get("security", body.get("security", []))
    names = [name for requirement in requirements for name in requirement if name != "NONE"]  # as SAM says it
    for name in names:
        if schemes.get(name, {}).get("x-amazon-apigateway-authtype") != "awsSigv4":
            raise ValueError(f"Route {key}: the local cloud knows no authorizer {name}.")
    return "AWS_IAM" if names else "NONE"
