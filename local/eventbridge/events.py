"""Adds AWS's own events, wants permission for all others, and serves targets as AWS does."""

import contextvars
import json
import logging
import threading
import time
import uuid
from datetime import UTC, datetime

from local import background
from local.api import ApiError, Response
from local.iam import permissions
from local.lambda_ import asynchronous
from local.ministack import app, eventbridge, lambda_svc, sqs, stepfunctions
from local.settings import ACCOUNT, ARE_SCHEDULES_ON, REGION
from local.sqs import queues

log = logging.getLogger("local.events")

BUS = "default"

_lock = threading.Lock()
_held: dict[str, list[dict]] = {}
"""The events of those sources that are held back."""
_target: contextvars.ContextVar[tuple[dict, dict]] = contextvars.ContextVar("target and rule being served")


def emit(source: str, detail_type: str, detail: dict, resources: list[str]) -> None:
    """Raises an event of an AWS service on the default bus, or keeps it where those of the service are held back."""
    event = {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": detail_type,
        "source": source,
        "account": ACCOUNT,
        "time": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": resources,
        "detail": detail,
    }
    with _lock:
        if source in _held:
            _held[source].append(event)
            return
    inject(event)


def hold(source: str) -> None:
    """Holds the events of a service back from now on."""
    with _lock:
        _held.setdefault(source, [])


def let_go(source: str) -> list[dict]:
    """Holds none back any more and returns those that were: who wants them delivered injects them."""
    with _lock:
        return _held.pop(source, [])


def fire(rule_name: str) -> None:
    """Has a scheduled rule's moment come."""
    rule = eventbridge._rules[eventbridge._rule_key(rule_name, BUS)]
    event = {
        "EventId": str(uuid.uuid4()),
        "Source": "aws.events",
        "DetailType": "Scheduled Event",
        "Detail": "{}",
        "EventBusName": BUS,
        "Time": time.time(),
        "Resources": [rule["Arn"]],
        "Account": ACCOUNT,
        "Region": REGION,
    }
    if rule["State"] != "ENABLED" or not rule.get("ScheduleExpression"):
        raise ValueError(f"{rule_name} has no schedule that is on.")
    for target in eventbridge._targets.get(eventbridge._rule_key(rule_name, BUS), []):
        eventbridge._invoke_target(target, event, rule, eventbridge._pattern_event_view(event))


def inject(envelope: dict) -> None:
    """Delivers a whole event behind PutEvents, which refuses the sources of AWS."""
    event = {**eventbridge._event_from_test_payload(envelope), "EventBusName": BUS}
    with _lock:
        eventbridge._events_log_list().append(event)
        eventbridge._dispatch_event(event)


def raised() -> list[dict]:
    """Returns every event of an AWS service so far, oldest first, as targets see them."""
    events = [event for event in eventbridge._events_log_list() if event["Source"].startswith("aws.")]
    return [eventbridge._pattern_event_view(event).event_with_detail() for event in events]


def install() -> None:
    """Routes rule targets through permission checks, the asynchronous Lambda queue and dead-letter queues."""
    invoke_target = eventbridge._invoke_target

    def serve_target(target, event, rule, view=None):
        token = _target.set((target, rule))
        try:
            invoke_target(target, event, rule, view)
        finally:
            _target.reset(token)

    app.SERVICE_HANDLERS["events"] = handle
    eventbridge._invoke_target = serve_target
    if not ARE_SCHEDULES_ON:
        eventbridge._tick_scheduled_rules = lambda: None
    eventbridge._dispatch_to_lambda = _to_lambda
    eventbridge._dispatch_to_sqs = _to_sqs
    eventbridge._dispatch_to_stepfunctions = _to_state_machine


async def handle(method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
    """Answers one request; each event that is put needs permission for its bus and its source."""
    if headers.get("x-amz-target", "").endswith(".PutEvents"):
        try:
            for entry in json.loads(body)["Entries"]:
                name = entry.get("EventBusName", BUS)
                bus = name if name.startswith("arn:") else f"arn:aws:events:{REGION}:{ACCOUNT}:event-bus/{name}"
                # The key has several values (service authorization reference), here of one event.
                keys = {"events:source": [entry.get("Source")], "events:detail-type": entry.get("DetailType")}
                permissions.Caller(headers, query).require("events:PutEvents", bus, {}, keys)
        except ApiError as error:
            return error.response()
    return await eventbridge.handle_request(method, path, headers, body, query)


def _to_lambda(arn: str, payload: str) -> None:
    function, config, _ = lambda_svc._get_func_record_for_ref(arn)
    if not function:
        _dead_letter(payload, "NO_RESOURCE", f"The function {arn} does not exist.")
    elif not permissions.service_may(
        function.get("policy"), "events.amazonaws.com", "lambda:InvokeFunction", arn, _rule_arn()
    ):
        _dead_letter(payload, "NO_PERMISSIONS", f"EventBridge is not allowed to invoke {arn}.")
    else:
        record = lambda_svc._execution_record_for_config(function, config)
        asynchronous.invoke(record, json.loads(payload))


def _to_sqs(spec, payload: str, parameters: dict | None = None) -> None:
    arn = str(spec)
    queue = sqs._queue_by_arn(arn)
    if not queue:
        _dead_letter(payload, "NO_RESOURCE", f"The queue {arn} does not exist.")
    elif not sqs.queue_policy_allows(arn, "events.amazonaws.com", _rule_arn(), ACCOUNT):
        _dead_letter(payload, "NO_PERMISSIONS", f"EventBridge is not allowed to send to {arn}.")
    else:
        queues.put(queue, payload)


def _to_state_machine(arn: str, payload: str) -> None:
    target, _ = _target.get()
    role = target.get("RoleArn", "")
    if stepfunctions._resolve_state_machine_arn(arn) is None:
        _dead_letter(payload, "NO_RESOURCE", f"The state machine {arn} does not exist.")
    elif not permissions.service_may_assume(role, "events.amazonaws.com", _rule_arn()):
        _dead_letter(payload, "NO_PERMISSIONS", f"EventBridge may not assume {role}.")
    elif not permissions.role_may(role, "states:StartExecution", arn):
        _dead_letter(payload, "NO_PERMISSIONS", f"{role} is not authorized to perform states:StartExecution on {arn}.")
    else:
        # An execution that begins raises an event itself, which waits until this one is delivered.
        background.start(contextvars.copy_context().run, _start_execution, arn, payload)


def _start_execution(arn: str, payload: str) -> None:
    status, _, body = stepfunctions._start_execution({"stateMachineArn": arn, "input": payload})
    if status != 200:
        _dead_letter(payload, "INVALID_PARAMETER", body.decode())


def _dead_letter(payload: str, code: str, message: str) -> None:
    """Gives up on a delivery: such errors are permanent, AWS does not retry them."""
    target, _ = _target.get()
    log.warning("%s %s", message, code)
    arn = target.get("DeadLetterConfig", {}).get("Arn")
    if not arn:
        return
    queue = sqs._queue_by_arn(arn)
    if not queue or not sqs.queue_policy_allows(arn, "events.amazonaws.com", _rule_arn(), ACCOUNT):
        log.warning("The dead-letter queue %s takes no events of this rule.", arn)
        return
    attributes = {"RULE_ARN": _rule_arn(), "TARGET_ARN": target["Arn"], "ERROR_CODE": code, "ERROR_MESSAGE": message}
    queues.put(queue, payload, attributes)


def _rule_arn() -> str:
    _, rule = _target.get()
    return rule["Arn"]
