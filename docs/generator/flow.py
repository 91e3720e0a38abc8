"""Events, functions and queues of the template: what starts what, and what becomes of failures."""

from collections.abc import Iterator, Mapping
from typing import Any

from roles import of_scheduler
from template import RESOURCES, TEMPLATE, of_type, prose, referred, short, table, urls


def events() -> str:
    """Returns a table of what starts a function or a bake, and what becomes of an event that cannot be delivered."""
    return table(("event", "from", "goes to", "where it cannot be delivered"), [tuple(row) for row in _events()])


def _events() -> Iterator[list[str]]:
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Events::Rule":
            [target] = properties["Targets"]
            yield [f"`{name}`", _source(properties), short(target["Arn"]), _dead_letters(target)]
        for event, source in properties.get("Events", {}).items():
            if source["Type"] in ("EventBridgeRule", "Schedule"):
                yield [
                    f"`{name}{event}`",
                    _source(source["Properties"]),
                    f"`{name}`",
                    _dead_letters(source["Properties"]),
                ]


def _source(rule: Mapping[str, Any]) -> str:
    if schedule := rule.get("Schedule", rule.get("ScheduleExpression")):
        return f"schedule: {_interval(schedule)}"
    pattern = rule.get("Pattern", rule.get("EventPattern"))
    kinds = pattern.get("detail-type") or [kind for case in pattern["$or"] for kind in case["detail-type"]]
    return f"{', '.join(pattern['source'])}: {', '.join(dict.fromkeys(kinds))}"


def _interval(schedule: Any) -> str:
    if isinstance(schedule, str):
        return f"`{schedule}`"
    if "Fn::If" in schedule:
        return f"{_interval(schedule['Fn::If'][1])}, where it is set"
    return f"the parameter `{schedule['Ref']}`"


def _dead_letters(target: Mapping[str, Any]) -> str:
    arn = target.get("DeadLetterConfig", {}).get("Arn")
    return short(arn) if arn else "it is not kept"


def functions() -> str:
    """Returns a table of the functions: what invokes each, for how long it may run, where its failures go."""
    return table(
        ("function", "does", "is invoked by", "seconds, MB", "every try failed"),
        [
            (f"`{name}`", prose(of["Description"]).rstrip("."), _invokers(name, of), _limits(of), _failures(name, of))
            for name, of in of_type("AWS::Serverless::Function")
        ],
    )


def _invokers(name: str, function: Mapping[str, Any]) -> str:
    events = function.get("Events", {}).values()
    found = [f"the queue `{referred(event['Properties']['Queue'])}`" for event in events if event["Type"] == "SQS"]
    found += ["EventBridge"] if any(event["Type"] in ("EventBridgeRule", "Schedule") for event in events) else []
    found += ["the jobs API"] if any(event["Type"] == "HttpApi" for event in events) else []
    for other, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if referred(properties.get("ServiceToken")) == name:
            found.append(f"CloudFormation, as `{other}`")
        if name in map(referred, properties.get("DefinitionSubstitutions", {}).values()):
            found.append(f"the state machine `{other}`")
    found += ["EventBridge Scheduler"] if name in of_scheduler("lambda:InvokeFunction") else []
    return ", ".join(found)


def _limits(function: Mapping[str, Any]) -> str:
    defaults = TEMPLATE["Globals"]["Function"]
    return ", ".join(str(function.get(key, defaults[key])) for key in ("Timeout", "MemorySize"))


def _failures(name: str, function: Mapping[str, Any]) -> str:
    destination = function.get("EventInvokeConfig", {}).get("DestinationConfig", {}).get("OnFailure")
    if destination:
        return short(destination["Destination"])
    if any(event["Type"] == "SQS" for event in function.get("Events", {}).values()):
        return "handed back to its queue"
    invokers = _invokers(name, function)
    if "CloudFormation" in invokers:
        return "the deployment fails"
    return "an alarm" if "EventBridge" in invokers else "the bake fails"


def queues() -> str:
    """Returns a table of the queues: who fills them, who reads them, when a message becomes a dead letter."""
    return table(
        ("queue", "filled by", "read by", "dead letters", "encrypted"),
        [
            (f"`{name}`", _writers(name), _reader(name), _redrive(of), _encrypted(of))
            for name, of in of_type("AWS::SQS::Queue")
        ],
    )


def _writers(queue: str) -> str:
    found = []
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Events::Rule":
            [target] = properties["Targets"]
            if referred(target["Arn"]) == queue:
                found.append(f"`{name}`")
            if referred(target.get("DeadLetterConfig", {}).get("Arn")) == queue:
                found.append(f"`{name}` (undelivered)")
        destination = properties.get("EventInvokeConfig", {}).get("DestinationConfig", {}).get("OnFailure", {})
        if referred(destination.get("Destination")) == queue:
            found.append(f"`{name}` (after its last try)")
        if referred(properties.get("RedrivePolicy", {}).get("deadLetterTargetArn")) == queue:
            found.append(f"`{name}`")
        for event, source in properties.get("Events", {}).items():
            if referred(source["Properties"].get("DeadLetterConfig", {}).get("Arn")) == queue:
                found.append(f"`{name}{event}` (undelivered)")
    found += ["EventBridge Scheduler (undelivered)"] if queue in of_scheduler("sqs:SendMessage") else []
    found += [f"`{name}`" for name, variable in urls() if variable == queue]
    return ", ".join(found)


def _reader(queue: str) -> str:
    for name, function in of_type("AWS::Serverless::Function"):
        for event in function.get("Events", {}).values():
            if event["Type"] == "SQS" and referred(event["Properties"]["Queue"]) == queue:
                return f"`{name}`"
    return "people: an alarm tells"


def _redrive(queue: Mapping[str, Any]) -> str:
    if redrive := queue.get("RedrivePolicy"):
        seconds = redrive["maxReceiveCount"] * queue["VisibilityTimeout"]
        return (
            f"{short(redrive['deadLetterTargetArn'])}, after {redrive['maxReceiveCount']} receipts "
            f"{queue['VisibilityTimeout']} seconds apart ({seconds // 60} minutes)"
        )
    return f"kept for {queue['MessageRetentionPeriod'] // 86_400} days"


def _encrypted(queue: Mapping[str, Any]) -> str:
    return "yes" if queue.get("SqsManagedSseEnabled") else "no"
