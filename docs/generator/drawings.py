"""Drawings: what starts what, the state machine of a bake, and the dashboard."""

from collections.abc import Iterator, Mapping
from typing import Any

from roles import grants, sent_documents
from template import MACHINE, RESOURCES, of_type, referred, urls


def picture() -> str:
    """Returns a drawing of events, queues, functions and dead letters."""
    lines = ["flowchart LR"]
    lines += [f"    {name}[[{name}]]" for name, _ in of_type("AWS::SQS::Queue")]
    lines += [f"    {name}([{name}])" for name, _ in of_type("AWS::Serverless::Function")]
    lines += [f"    {name}{{{{{name}}}}}" for name, _ in of_type("AWS::Serverless::StateMachine")]
    for name, resource in RESOURCES.items():
        properties = resource.get("Properties", {})
        if resource["Type"] == "AWS::Events::Rule":
            [target] = properties["Targets"]
            lines.append(f"    {name}[/{name}/] --> {referred(target['Arn'])}")
        for event, source in properties.get("Events", {}).items():
            lines += _arrows(name, event, source)
        destination = properties.get("EventInvokeConfig", {}).get("DestinationConfig", {}).get("OnFailure", {})
        if dead := referred(destination.get("Destination")):
            lines.append(f"    {name} -. last try failed .-> {dead}")
        if dead := referred(properties.get("RedrivePolicy", {}).get("deadLetterTargetArn")):
            lines.append(f"    {name} -.-> {dead}")
        if function := referred(properties.get("ServiceToken")):
            lines.append(f"    {name}[/{name}/] --> {function}")
        for value in properties.get("DefinitionSubstitutions", {}).values():
            if referred(value) in dict(of_type("AWS::Serverless::Function")):
                lines.append(f"    {name} --> {referred(value)}")
    lines += [f"    {name} --> {queue}" for name, queue in urls()]
    lines += _effects()
    return "```mermaid\n" + "\n".join(dict.fromkeys(lines)) + "\n```"


def _effects() -> Iterator[str]:
    """Yields what functions and the state machine send and write, as far as their roles may."""
    table, bucket = "Outcomes", "Records"
    for document, _ in of_type("AWS::SSM::Document"):
        yield f"    {document}[\\the document {document}\\] --> nodes((nodes))"
    yield f"    {table}[({table})]"
    yield f"    {bucket}[({bucket})]"
    for kind in ("AWS::Serverless::Function", "AWS::Serverless::StateMachine"):
        for name, properties in of_type(kind):
            granted = list(grants(referred(properties["Role"])))
            yield from (f"    {name} ==> {document}" for document in sent_documents(referred(properties["Role"])))
            if "dynamodb:UpdateItem" in granted or ("dynamodb:PutItem" in granted and "dynamodb:DeleteItem" in granted):
                yield f"    {name} --> {table}"
            if "s3:PutObject" in granted:
                yield f"    {name} --> {bucket}"


def _arrows(name: str, event: str, source: Mapping[str, Any]) -> list[str]:
    match source["Type"]:
        case "SQS":
            return [f"    {referred(source['Properties']['Queue'])} --> {name}"]
        case "HttpApi":
            return [f"    JobsApi[/JobsApi/] --> {name}"]
        case _:
            return [f"    {name}{event}[/{name}{event}/] --> {name}"]


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
