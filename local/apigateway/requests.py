"""Describes a call of an HTTP API, what a function is handed of it, and what is answered in its place."""

import base64
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime

from local.ministack import apigateway
from local.settings import ACCOUNT, REGION

SERVICE = "execute-api"


DOMAIN = f"{SERVICE}.{REGION}.amazonaws.com"


@dataclass
class Refusal(Exception):
    """Says what API Gateway answers by itself."""

    status: int
    message: str


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


def payload(request: Request) -> dict:
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
