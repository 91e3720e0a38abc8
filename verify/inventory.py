"""Looks at the parts of a stack: functions, what invokes them, what they could not do, and alarms."""

import json
from collections.abc import Mapping
from datetime import UTC
from typing import Any

from botocore.exceptions import ClientError

from verify.aws import Account
from verify.results import Results, counted, one_line
from verify.stack import Resource, Stack

SWITCHES = {
    "BakeAfterPush": ("BakeAfterPushMinutes", "0"),
    "BakeSnapshotScheduled": ("BakeSchedule", ""),
    "JobsReconcile": ("ReconcileInterval", ""),
}
"""The rules that a parameter switches off, and the value with which it does."""
MAX_LISTED = 5


def check(account: Account, stack: Stack, results: Results) -> dict[str, dict]:
    """Checks all parts; returns the configurations of the functions that are there, by logical id."""
    if stack.is_usable:
        results.held(f"stack {stack.name}", stack.status)
    else:
        results.broken(f"stack {stack.name}", f"it is {stack.status}: let the deployment end, or deploy it again")
    functions = check_functions(account, stack, results)
    check_rules(account, stack, results)
    check_mappings(account, stack, results)
    check_letters(account, stack, results)
    check_alarms(account, stack, results)
    return functions


def check_functions(account: Account, stack: Stack, results: Results) -> dict[str, dict]:
    """Checks that each function is there and can run; returns their configurations."""
    found, faults = {}, []
    with results.checking("functions"):
        for row in stack.of("AWS::Lambda::Function"):
            configuration = _function(account, row)
            if configuration is None:
                faults.append((row, "it is missing: deploy the stack again"))
                continue
            found[row.logical] = configuration
            if fault := _fault_of_function(configuration):
                faults.append((row, fault))
        _tell(results, "functions", "function", len(stack.of("AWS::Lambda::Function")), faults)
    return found


def check_rules(account: Account, stack: Stack, results: Results) -> None:
    """Checks that each EventBridge rule is as its parameters have it, and has a target."""
    faults = []
    with results.checking("EventBridge rules"):
        for row in stack.of("AWS::Events::Rule"):
            if fault := fault_of_rule(account, stack, row):
                faults.append((row, fault))
        _tell(results, "EventBridge rules", "rule", len(stack.of("AWS::Events::Rule")), faults)


def fault_of_rule(account: Account, stack: Stack, row: Resource) -> str:
    """Returns what keeps a rule from doing what it is for, and what to do; an empty text where nothing does."""
    events = account.client("events")
    try:
        state = events.describe_rule(Name=row.physical)["State"]
        targets = events.list_targets_by_rule(Rule=row.physical)["Targets"]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return f"{row.physical} is missing: deploy the stack again"
        raise
    if not targets:
        return f"{row.physical} has no target: deploy the stack again"
    if state == "DISABLED" and _is_on(stack, row):
        return f"{row.physical} is DISABLED: aws events enable-rule --name {row.physical}"
    return ""


def check_mappings(account: Account, stack: Stack, results: Results) -> None:
    """Checks that each queue is read by its function."""
    faults = []
    rows = stack.of("AWS::Lambda::EventSourceMapping")
    with results.checking("event source mappings"):
        for row in rows:
            try:
                state = account.client("lambda").get_event_source_mapping(UUID=row.physical)["State"]
            except ClientError as error:
                if error.response["Error"]["Code"] != "ResourceNotFoundException":
                    raise
                faults.append((row, f"{row.physical} is missing: deploy the stack again"))
                continue
            if state != "Enabled":
                enable = f"aws lambda update-event-source-mapping --uuid {row.physical} --enabled"
                faults.append((row, f"it is {state}: {enable}"))
        _tell(results, "event source mappings", "mapping", len(rows), faults)


def check_letters(account: Account, stack: Stack, results: Results) -> None:
    """Checks that the dead-letter queues are empty; says of one that is not what a message of it has as its cause."""
    faults = []
    rows = [row for row in stack.of("AWS::SQS::Queue") if row.logical.endswith("DeadLetters")]
    with results.checking("dead-letter queues"):
        for row in rows:
            names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
            counts = account.client("sqs").get_queue_attributes(QueueUrl=row.physical, AttributeNames=names)
            number = sum(int(count) for count in counts["Attributes"].values())
            if number:
                cause = next(iter(causes(account, row)), "their messages have the cause")
                faults.append(
                    (row, f"{counted(number, 'message')}, such as: {cause}. Redrive or purge them once it is mended")
                )
        _tell(results, "dead-letter queues", "queue", len(rows), faults, "empty")


def causes(account: Account, row: Resource, text: str = "") -> list[str]:
    """Returns what is said against the messages of a dead-letter queue that hold a text; they stay in it."""
    try:
        answer = account.client("sqs").receive_message(
            QueueUrl=row.physical, MaxNumberOfMessages=10, VisibilityTimeout=0, MessageAttributeNames=["All"]
        )
    except ClientError:
        return []
    return [cause(message) for message in answer.get("Messages", []) if text in message["Body"]]


def cause(message: Mapping[str, Any]) -> str:
    """Returns why a message is a dead letter: Lambda puts it into the body, EventBridge beside it."""
    attributes = message.get("MessageAttributes", {})
    if "ERROR_MESSAGE" in attributes:
        return one_line(attributes["ERROR_MESSAGE"]["StringValue"])
    try:
        body = json.loads(message["Body"])
        if "responsePayload" in body:
            return one_line(body["responsePayload"]["errorMessage"])
        return one_line(f"{body['detail-type']} {json.dumps(body['detail'])}")[:300]
    except (KeyError, TypeError, ValueError):
        return one_line(message["Body"])[:300]


def check_alarms(account: Account, stack: Stack, results: Results) -> None:
    """Checks that no alarm is on."""
    rows = stack.of("AWS::CloudWatch::Alarm")
    faults = []
    with results.checking("alarms"):
        names = {row.physical: row for row in rows}
        alarms = account.client("cloudwatch").describe_alarms(AlarmNames=list(names), MaxRecords=100)["MetricAlarms"]
        for name in names.keys() - {alarm["AlarmName"] for alarm in alarms}:
            faults.append((names[name], "it is missing: deploy the stack again"))
        for alarm in alarms:
            if alarm["StateValue"] == "ALARM":
                since = alarm["StateUpdatedTimestamp"].astimezone(UTC)
                faults.append((names[alarm["AlarmName"]], f"since {since:%Y-%m-%d %H:%M}Z: {_described(alarm)}"))
        _tell(results, "alarms", "alarm", len(rows), faults, "none is on")


def _function(account: Account, row: Resource) -> dict | None:
    try:
        return account.client("lambda").get_function_configuration(FunctionName=row.physical)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return None
        raise


def _fault_of_function(configuration: Mapping[str, Any]) -> str:
    state, update = configuration.get("State", "Active"), configuration.get("LastUpdateStatus", "Successful")
    if state not in ("Active", "Inactive"):  # inactive is one that was not invoked for weeks
        return f"its state is {state}: {configuration.get('StateReason') or 'ask again in a minute'}"
    if update != "Successful":
        return f"its last update is {update}: {configuration.get('LastUpdateStatusReason') or 'ask again in a minute'}"
    return ""


def _is_on(stack: Stack, row: Resource) -> bool:
    parameter, off = SWITCHES.get(row.logical, ("", ""))
    return not parameter or stack.parameters.get(parameter, off) != off


def _described(alarm: Mapping[str, Any]) -> str:
    return one_line(alarm.get("AlarmDescription") or alarm.get("StateReason") or "")


def _tell(
    results: Results, whole: str, part: str, number: int, faults: list[tuple[Resource, str]], note: str = ""
) -> None:
    """Adds one row for all parts, or one for each that does not hold."""
    if not faults:
        results.held(whole, f"{number}" + (f", {note}" if note else ""))
    for row, fault in faults[:MAX_LISTED]:
        results.broken(f"{part} {row.logical}", fault)
    if len(faults) > MAX_LISTED:
        results.broken(whole, f"and {len(faults) - MAX_LISTED} more")
