"""Writes the generated parts of these pages from the template and the state machine; with --check, says what differs.

A part stands between `<!-- generated: name -->` and `<!-- end: name -->`; what is around it is written by hand.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES: Mapping[str, Any] = TEMPLATE["Resources"]
MACHINE = json.loads((ROOT / "statemachine" / "bake-snapshot.asl.json").read_text())

# Parameters


def parameters() -> str:
    """Returns a table of the template's parameters for each group of the console."""
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    return "\n\n".join(_group(group["Label"]["default"], group["Parameters"]) for group in groups)


def _group(label: str, names: list[str]) -> str:
    rows = [(f"`{name}`", *_parameter(TEMPLATE["Parameters"][name])) for name in names]
    return f"## {label}\n\n" + _table(("parameter", "default", "accepted", "meaning"), rows)


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str]:
    default = str(parameter.get("Default", "\N{EN DASH}"))
    shown = default if default in ("", "\N{EN DASH}") else f"`{default}`"
    return shown, _accepted(parameter), _prose(parameter["Description"])


def _accepted(parameter: Mapping[str, Any]) -> str:
    if values := parameter.get("AllowedValues"):
        return ", ".join(f"`{value}`" for value in values)
    if "MinValue" in parameter:
        return f"{parameter['MinValue']:,} to {parameter['MaxValue']:,}"
    return _prose(parameter.get("ConstraintDescription", "")).rstrip(".")


def _prose(text: str) -> str:
    """Returns a description as Markdown: nothing of it is markup, pages that it names are links."""
    text = re.sub(r"([*<>])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"\bdocs/([a-z-]+\.md)", r"[\1](\1)", text)
    return re.sub(r"\bexamples/boot\b", "[examples/boot](../examples/boot/README.md)", text)


# Functions, events, queues


def events() -> str:
    """Returns a table of what starts a function or a bake, and what becomes of an event that cannot be delivered."""
    return _table(("event", "from", "goes to", "where it cannot be delivered"), [tuple(row) for row in _events()])


def _events() -> Iterator[list[str]]:
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Events::Rule":
            [target] = properties["Targets"]
            yield [f"`{name}`", _source(properties), _short(target["Arn"]), _dead_letters(target)]
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
    return _short(arn) if arn else "nothing is kept: the next run does its work"


def functions() -> str:
    """Returns a table of the functions: what invokes each, for how long it may run, where its failures go."""
    return _table(
        ("function", "does", "is invoked by", "seconds, MB", "every try failed"),
        [
            (f"`{name}`", _sentence(of["Description"]), _invokers(name, of), _limits(of), _failures(name, of))
            for name, of in _of_type("AWS::Serverless::Function")
        ],
    )


def _sentence(text: str) -> str:
    return _prose(text).rstrip(".")


def _invokers(name: str, function: Mapping[str, Any]) -> str:
    events = function.get("Events", {}).values()
    found = [f"the queue `{_name(event['Properties']['Queue'])}`" for event in events if event["Type"] == "SQS"]
    found += ["EventBridge"] if any(event["Type"] in ("EventBridgeRule", "Schedule") for event in events) else []
    found += ["the jobs API"] if any(event["Type"] == "HttpApi" for event in events) else []
    for other, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if _name(properties.get("ServiceToken")) == name:
            found.append(f"CloudFormation, as `{other}`")
        if name in map(_name, properties.get("DefinitionSubstitutions", {}).values()):
            found.append(f"the state machine `{other}`")
    if name == "Jobs":
        found.append("EventBridge Scheduler")
    return ", ".join(found)


def _limits(function: Mapping[str, Any]) -> str:
    defaults = TEMPLATE["Globals"]["Function"]
    return ", ".join(str(function.get(key, defaults[key])) for key in ("Timeout", "MemorySize"))


def _failures(name: str, function: Mapping[str, Any]) -> str:
    destination = function.get("EventInvokeConfig", {}).get("DestinationConfig", {}).get("OnFailure")
    if destination:
        return _short(destination["Destination"])
    if any(event["Type"] == "SQS" for event in function.get("Events", {}).values()):
        return "handed back to its queue"
    return "the deployment fails" if "CloudFormation" in _invokers(name, function) else "an alarm"


def queues() -> str:
    """Returns a table of the queues: who fills them, who reads them, when a message becomes a dead letter."""
    return _table(
        ("queue", "filled by", "read by", "dead letters", "encrypted"),
        [
            (f"`{name}`", _writers(name), _reader(name), _redrive(of), _encrypted(of))
            for name, of in _of_type("AWS::SQS::Queue")
        ],
    )


def _writers(queue: str) -> str:
    found = []
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Events::Rule":
            [target] = properties["Targets"]
            if _name(target["Arn"]) == queue:
                found.append(f"`{name}`")
            if _name(target.get("DeadLetterConfig", {}).get("Arn")) == queue:
                found.append(f"`{name}`, undelivered")
        destination = properties.get("EventInvokeConfig", {}).get("DestinationConfig", {}).get("OnFailure", {})
        if _name(destination.get("Destination")) == queue:
            found.append(f"`{name}`, after its last try")
        if _name(properties.get("RedrivePolicy", {}).get("deadLetterTargetArn")) == queue:
            found.append(f"`{name}`")
        for event, source in properties.get("Events", {}).items():
            if _name(source["Properties"].get("DeadLetterConfig", {}).get("Arn")) == queue:
                found.append(f"`{name}{event}`, undelivered")
    found += [f"`{name}`" for name, variable in _urls() if variable == queue]
    return ", ".join(found)


def _urls() -> Iterator[tuple[str, str]]:
    """Yields each function with each queue whose address stands in its environment."""
    for name, function in _of_type("AWS::Serverless::Function"):
        variables = function.get("Environment", {}).get("Variables", {})
        yield from ((name, _name(value) or "") for key, value in variables.items() if key.endswith("QUEUE_URL"))


def _reader(queue: str) -> str:
    for name, function in _of_type("AWS::Serverless::Function"):
        for event in function.get("Events", {}).values():
            if event["Type"] == "SQS" and _name(event["Properties"]["Queue"]) == queue:
                return f"`{name}`"
    return "people: an alarm tells"


def _redrive(queue: Mapping[str, Any]) -> str:
    if redrive := queue.get("RedrivePolicy"):
        seconds = redrive["maxReceiveCount"] * queue["VisibilityTimeout"]
        return (
            f"{_short(redrive['deadLetterTargetArn'])}, after {redrive['maxReceiveCount']} receipts "
            f"{queue['VisibilityTimeout']} seconds apart ({seconds // 60} minutes)"
        )
    return f"kept for {queue['MessageRetentionPeriod'] // 86_400} days"


def _encrypted(queue: Mapping[str, Any]) -> str:
    return "yes" if queue.get("SqsManagedSseEnabled") else "no"


def picture() -> str:
    """Returns a drawing of events, queues, functions and dead letters."""
    lines = ["flowchart LR"]
    lines += [f"    {name}[[{name}]]" for name, _ in _of_type("AWS::SQS::Queue")]
    lines += [f"    {name}([{name}])" for name, _ in _of_type("AWS::Serverless::Function")]
    lines += [f"    {name}{{{{{name}}}}}" for name, _ in _of_type("AWS::Serverless::StateMachine")]
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Events::Rule":
            [target] = properties["Targets"]
            lines.append(f"    {name}[/{name}/] --> {_name(target['Arn'])}")
        for event, source in properties.get("Events", {}).items():
            lines += _arrows(name, event, source)
        destination = properties.get("EventInvokeConfig", {}).get("DestinationConfig", {}).get("OnFailure", {})
        if dead := _name(destination.get("Destination")):
            lines.append(f"    {name} -. last try failed .-> {dead}")
        if dead := _name(properties.get("RedrivePolicy", {}).get("deadLetterTargetArn")):
            lines.append(f"    {name} -.-> {dead}")
        if function := _name(properties.get("ServiceToken")):
            lines.append(f"    {name}[/{name}/] --> {function}")
        for value in properties.get("DefinitionSubstitutions", {}).values():
            if _name(value) in dict(_of_type("AWS::Serverless::Function")):
                lines.append(f"    {name} --> {_name(value)}")
    lines += [f"    {name} --> {queue}" for name, queue in _urls()]
    return "```mermaid\n" + "\n".join(dict.fromkeys(lines)) + "\n```"


def _arrows(name: str, event: str, source: Mapping[str, Any]) -> list[str]:
    match source["Type"]:
        case "SQS":
            return [f"    {_name(source['Properties']['Queue'])} --> {name}"]
        case "HttpApi":
            return [f"    JobsApi[/JobsApi/] --> {name}"]
        case _:
            return [f"    {name}{event}[/{name}{event}/] --> {name}"]


def _of_type(kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    return [(name, resource["Properties"]) for name, resource in RESOURCES.items() if resource["Type"] == kind]


def _name(value: Any) -> str | None:
    """Returns the resource that a value refers to."""
    match value:
        case {"Fn::GetAtt": [name, *_]}:
            return name
        case {"Ref": name}:
            return name.split(".")[0]
        case {"Fn::GetAtt": str(path)}:
            return path.split(".")[0]
    return None


def _short(value: Any) -> str:
    return f"`{_name(value)}`"


# Roles


def permissions() -> str:
    """Returns a table of what each role may do, but for writing its own log."""
    rows = []
    for role, properties in _of_type("AWS::IAM::Role"):
        for policy in properties.get("Policies", []):
            rows += [(f"`{role}`", *row, "") for row in _statements(policy["PolicyDocument"])]
    for resource in RESOURCES.values():
        if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            document = resource["Properties"]["PolicyDocument"]
            roles = ", ".join(f"`{_name(role)}`" for role in resource["Properties"]["Roles"])
            own = json.loads(document["Fn::Sub"]) if "Fn::Sub" in document else document
            rows += [(roles, *row, _code(resource.get("Condition"))) for row in _statements(own)]
    return _table(("role", "may", "on", "only where", "only with"), rows)


def _statements(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    own_log = ["logs:CreateLogStream", "logs:PutLogEvents"]
    return [_statement(statement) for statement in document["Statement"] if statement["Action"] != own_log]


def _code(text: str | None) -> str:
    return f"`{text}`" if text else ""


def _statement(statement: Mapping[str, Any]) -> tuple[str, str, str]:
    actions, resources = _list(statement["Action"]), _list(statement["Resource"])
    may = ", ".join(f"`{action}`" for action in actions)
    shown = ", ".join(dict.fromkeys(f"`{_resource(resource)}`" for resource in resources))
    return (
        ("**not** " if statement["Effect"] == "Deny" else "") + may,
        shown,
        _condition(statement.get("Condition", {})),
    )


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _resource(value: Any) -> str:
    match value:
        case str(text) | {"Fn::Sub": str(text)}:
            text = re.sub(r"arn:\$\{AWS::Partition\}:", "", text)
            text = re.sub(r"\$\{AWS::(?:Region|AccountId)\}", "", text)
            return (
                text.replace("${AWS::StackName}", "<stack>").replace("${ClusterName}", "<cluster>").replace("${", "{")
            )
        case {"Fn::If": [condition, _, _]}:
            return f"BuilderRole, and what {condition} adds"
    return (_name(value) or str(value)).replace("AWS::StackName", "<stack>")


def _condition(conditions: Mapping[str, Any]) -> str:
    parts = [
        f"`{operator}` `{_resource(key)}`: {', '.join(f'`{_resource(each)}`' for each in _list(value))}"
        for operator, tests in conditions.items()
        for key, value in tests.items()
    ]
    return "; ".join(parts)


# The state machine


def machine() -> str:
    """Returns a drawing for the state machine, and one for each of its loops."""
    return "\n\n".join(_drawings(MACHINE, "The whole bake"))


def _drawings(part: Mapping[str, Any], title: str) -> Iterator[str]:
    states = part["States"]
    cleaning = _cleaning(states)
    lines = ["flowchart TD", f"    start((start)) --> {part['StartAt']}"]
    lines += [f"    {_shape(name, state)}" for name, state in states.items()]
    failing = [name for name, state in states.items() if cleaning in _caught(state)]
    failing += [name for name, state in states.items() if "failedStep" in state.get("Assign", {})]
    for name, state in states.items():
        lines += [f"    {name} --> {target}" for target in _targets(state) if name not in failing or target != cleaning]
        lines += [f"    {name} -. error .-> {target}" for target in _caught(state) if target != cleaning]
    text = f"### {title}\n\n```mermaid\n" + "\n".join(dict.fromkeys(lines)) + "\n```"
    if failing:
        text += (
            f"\n\n{len(failing)} of these {len(states)} steps go to `{cleaning}` when they fail, which is not drawn."
        )
    yield text
    for name, state in states.items():
        if "ItemProcessor" in state:
            yield from _drawings(state["ItemProcessor"], f"Inside of `{name}`")


def _cleaning(states: Mapping[str, Any]) -> str:
    """Returns the state to which most states go when they fail."""
    caught = [target for state in states.values() for target in _caught(state)]
    return max(caught, key=caught.count, default="")


def _shape(name: str, state: Mapping[str, Any]) -> str:
    match state["Type"]:
        case "Choice":
            return f"{name}{{{name}}}"
        case "Map":
            return f"{name}[[{name}]]"
        case "Wait":
            return f"{name}([{name}])"
        case "Succeed" | "Fail":
            return f"{name}((({name})))"
    return f"{name}[{name}]"


def _targets(state: Mapping[str, Any]) -> list[str]:
    choices = [choice["Next"] for choice in state.get("Choices", [])]
    return list(dict.fromkeys([*choices, *(state[key] for key in ("Default", "Next") if key in state)]))


def _caught(state: Mapping[str, Any]) -> list[str]:
    return [catch["Next"] for catch in state.get("Catch", [])]


# Pages

PARTS: Mapping[str, Callable[[], str]] = {
    "parameters": parameters,
    "picture": picture,
    "events": events,
    "functions": functions,
    "queues": queues,
    "permissions": permissions,
    "machine": machine,
}


def page(text: str) -> str:
    """Returns a page with its generated parts written anew."""
    for name, part in PARTS.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        new = f"{begin}\n{part()}\n\n{end}"
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, new=new: new, text, flags=re.DOTALL)
    return text


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def main() -> int:
    """Writes every page, or says which is not as it would be written."""
    differ = []
    for path in sorted(Path(__file__).parent.glob("*.md")):
        old = path.read_text()
        if (new := page(old)) != old:
            differ.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(new)
    if differ and "--check" in sys.argv:
        print(f"docs/{', docs/'.join(differ)}: not as `make docs` writes it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
