"""Invokes a schedule's target as its role, retries, and gives it up into the dead-letter queue."""

import json
import logging
import re
import time
import uuid
from datetime import UTC, datetime

from local.iam import permissions
from local.lambda_ import asynchronous
from local.ministack import lambda_svc, sqs
from local.settings import ACCOUNT, REGION, scaled
from local.sqs import queues
from local.traffic import Traffic

log = logging.getLogger("local.scheduler")

SERVICE = "scheduler.amazonaws.com"
ARN = f"arn:aws:scheduler:{REGION}:{ACCOUNT}"
RETRY_SECONDS = 60
"""Before the first retry on AWS, which doubles it each time; it says "exponential backoff" only."""
RETRY_POLICY = {"MaximumEventAgeInSeconds": 86400, "MaximumRetryAttempts": 185}
"""Says what AWS does where a schedule says nothing (Scheduler, RetryPolicy)."""
PLACEHOLDER = re.compile(r"<aws\.scheduler\.(schedule-arn|scheduled-time|execution-id|attempt-number)>")


def group_arn(name: str) -> str:
    """Returns the ARN of a group of schedules."""
    return f"{ARN}:schedule-group/{name}"


def invoke(traffic: Traffic, schedule: dict, at: datetime) -> None:
    """Invokes a target until it takes the event, or gives it up into the dead-letter queue."""
    policy = RETRY_POLICY | schedule["Target"].get("RetryPolicy", {})
    deadline = time.monotonic() + scaled(policy["MaximumEventAgeInSeconds"])
    execution, retries = str(uuid.uuid4()), 0
    while True:
        payload = _input(schedule, at, execution, retries + 1)
        failure = _deliver(traffic, schedule, payload)
        if failure is None:
            return
        code, message, permanent = failure
        log.warning("%s, try %d: %s", schedule["Name"], retries + 1, message)
        delay = scaled(RETRY_SECONDS * 2**retries)
        exhausted = "MaximumRetryAttempts" if retries >= policy["MaximumRetryAttempts"] else ""
        if not exhausted and time.monotonic() + delay > deadline:
            exhausted = "MaximumEventAgeInSeconds"
        if permanent or exhausted:
            break
        time.sleep(delay)
        retries += 1
    facts = {
        "ERROR_CODE": code,
        "ERROR_MESSAGE": message,
        "EXECUTION_ID": execution,
        "RETRY_ATTEMPTS": str(retries),
        "SCHEDULED_TIME": _iso(at),
        **({"EXHAUSTED_RETRY_CONDITION": exhausted} if exhausted else {}),
    }
    _dead_letter(schedule, payload, facts)


def _deliver(traffic: Traffic, schedule: dict, payload: str) -> tuple[str, str, bool] | None:
    """Hands the payload over as the target's role; returns a failure: code, message, whether it is for good."""
    role, arn = schedule["Target"]["RoleArn"], schedule["Target"]["Arn"]
    action = "lambda:InvokeFunction" if ":lambda:" in arn else "sqs:SendMessage"
    if not permissions.service_may_assume(role, SERVICE, group_arn(schedule["GroupName"])):
        return "AccessDeniedException", f"EventBridge Scheduler may not assume {role}.", True
    if not permissions.role_may(role, action, arn):
        return "AccessDeniedException", f"{role} is not authorized to perform {action} on {arn}.", True
    if fault := traffic.strike(action):
        return fault.code, f"Injected by the local cloud: {fault.code}", False
    if action == "sqs:SendMessage":
        if not (queue := sqs._queue_by_arn(arn)):
            return "AWS.SimpleQueueService.NonExistentQueue", f"There is no {arn}.", True
        queues.put(queue, payload)
        return None
    function, config, _ = lambda_svc._get_func_record_for_ref(arn)
    if not function:
        return "ResourceNotFoundException", f"Function not found: {arn}", True
    asynchronous.invoke(lambda_svc._execution_record_for_config(function, config), json.loads(payload))
    return None


def _input(schedule: dict, at: datetime, execution: str, attempt: int) -> str:
    """Returns what the target is handed, the context attributes in place."""
    default = {
        "version": "0",
        "id": execution,
        "detail-type": "Scheduled Event",
        "source": "aws.scheduler",
        "account": ACCOUNT,
        "time": _iso(at),
        "region": REGION,
        "resources": [schedule["Arn"]],
        "detail": "{}",
    }
    attributes = {
        "schedule-arn": schedule["Arn"],
        "scheduled-time": _iso(at),
        "execution-id": execution,
        "attempt-number": str(attempt),
    }
    text = schedule["Target"].get("Input") or json.dumps(default)
    return PLACEHOLDER.sub(lambda match: attributes[match[1]], text)


def _dead_letter(schedule: dict, payload: str, facts: dict[str, str]) -> None:
    """Puts what was given up into the schedule's dead-letter queue, with the attributes that say why."""
    target = schedule["Target"]
    arn = target.get("DeadLetterConfig", {}).get("Arn")
    queue = arn and sqs._queue_by_arn(arn)
    if not queue or not permissions.role_may(target["RoleArn"], "sqs:SendMessage", arn):
        log.warning("%s is lost: the dead-letter queue %s takes it not.", schedule["Arn"], arn)
        return
    known = {"IS_PAYLOAD_TRUNCATED": "false", "SCHEDULE_ARN": schedule["Arn"], "TARGET_ARN": target["Arn"]}
    queues.put(queue, payload, {**facts, **known})


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
