"""Replaces the asynchronous invocation: two retries, then the failure destination."""

import json
import logging
import time
import uuid
from datetime import UTC, datetime

from local import background
from local.iam import permissions
from local.ministack import lambda_svc, sqs
from local.settings import scaled
from local.sqs import queues

log = logging.getLogger("local.lambda")

RETRY_DELAYS = (60, 120)
"""Seconds before the second and the third try (Lambda's developer guide, asynchronous invocation)."""

MAX_EVENT_AGE = 6 * 60 * 60
"""Seconds that a throttled event waits at most."""


def install() -> None:
    """Replaces ministack's asynchronous invocation."""
    lambda_svc.invoke_async_with_retry = invoke


def invoke(function: dict, event: dict) -> None:
    """Queues the event for the function and returns at once."""
    background.start(_invoke_until_done, function, event)


def _invoke_until_done(function: dict, event: dict) -> None:
    config = function.get("config") or function
    settings = _event_invoke_config(function)
    retries = settings.get("MaximumRetryAttempts", len(RETRY_DELAYS))
    deadline = time.monotonic() + scaled(settings.get("MaximumEventAgeInSeconds", MAX_EVENT_AGE))
    condition = "RetriesExhausted"
    attempts = 0
    while True:
        result = lambda_svc._execute_function(function, event)
        if not result.get("error"):
            return
        if result.get("throttle"):
            delay = scaled(5)
        else:
            attempts += 1
            log.warning("%s failed (try %d): %s", config["FunctionName"], attempts, result.get("body"))
            if attempts > retries:
                break
            delay = scaled(RETRY_DELAYS[attempts - 1])
        if time.monotonic() + delay > deadline:
            condition = "EventAgeExceeded"
            break
        time.sleep(delay)
    _send_to_destination(config, settings, event, result, condition, attempts)


def _event_invoke_config(function: dict) -> dict:
    configs = function.get("event_invoke_configs") or {}
    return function.get("event_invoke_config") or configs.get("$LATEST") or {}


def _send_to_destination(
    config: dict, settings: dict, event: dict, result: dict, condition: str, attempts: int
) -> None:
    destination = settings.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
    if not destination:
        return
    queue = sqs._queue_by_arn(destination)
    if queue is None:
        log.warning("The failure destination %s is not a queue of this account.", destination)
        return
    if not permissions.role_may(config["Role"], "sqs:SendMessage", destination):
        log.warning("%s may not send to its failure destination %s.", config["FunctionName"], destination)
        return
    record = {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": str(uuid.uuid4()),
            "functionArn": f"{config['FunctionArn']}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": attempts,
        },
        "requestPayload": event,
        "responseContext": {"statusCode": 200, "executedVersion": "$LATEST", "functionError": "Unhandled"},
        "responsePayload": result.get("body"),
    }
    queues.put(queue, json.dumps(record))
