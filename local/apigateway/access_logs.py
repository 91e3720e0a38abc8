"""Counts calls of HTTP APIs in CloudWatch, and writes them to their stage's access log."""

import json
import logging
import re
import time
from datetime import UTC, datetime

from local.apigateway.requests import DOMAIN, Request
from local.ministack import apigateway, cloudwatch, cloudwatch_logs
from local.settings import ACCOUNT

log = logging.getLogger("local.gateway")


VARIABLE = re.compile(r"\$context\.([A-Za-z]+(?:\.[A-Za-z0-9]+)*)")


def measure(request: Request, status: int, length: int) -> None:
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
