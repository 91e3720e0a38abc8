"""Writes what each role of the template may do."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from template import RESOURCES, of_type, referred, table


def permissions() -> str:
    """Returns a table of what each role may do, but for writing its own log."""
    return table(("role", "may", "on", "only where", "only with"), _rows())


def _rows() -> list[tuple[str, ...]]:
    rows = []
    for role, properties in of_type("AWS::IAM::Role"):
        for policy in properties.get("Policies", []):
            rows += [(f"`{role}`", *row, "") for row in _statements(policy["PolicyDocument"])]
    for resource in RESOURCES.values():
        if resource["Type"] in ("AWS::IAM::Policy", "AWS::IAM::ManagedPolicy"):
            document = resource["Properties"]["PolicyDocument"]
            roles = ", ".join(f"`{referred(role)}`" for role in resource["Properties"]["Roles"])
            own = json.loads(document["Fn::Sub"]) if "Fn::Sub" in document else document
            rows += [(roles, *row, _code(resource.get("Condition"))) for row in _statements(own)]
    return rows


def grants(role: str | None) -> Iterator[str]:
    """Yields every action that a role may do, on whatever."""
    for name, may, _, _, _ in _rows():
        if f"`{role}`" in name and not may.startswith("**not**"):
            yield from re.findall(r"`([^`]+)`", may)


def sent_documents(role: str | None) -> Iterator[str]:
    """Yields the Command documents that a role may send."""
    for name, may, on, _, _ in _rows():
        if f"`{role}`" in name and may == "`ssm:SendCommand`":
            yield from re.findall(r"document/{(\w+)}", on)


def of_scheduler(action: str) -> list[str]:
    """Returns the resources on which EventBridge Scheduler may do something."""
    trusting = [
        role
        for role, of in of_type("AWS::IAM::Role")
        if "scheduler.amazonaws.com" in str(of["AssumeRolePolicyDocument"])
    ]
    return [
        on.strip("`")
        for role, may, on, _, _ in _rows()
        if may == f"`{action}`" and role.strip("`") in trusting and on.startswith("`")
    ]


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
        case {"Fn::Sub": [_, {"Account": account}]} if "CentralRegistries" in str(account):
            return "ecr:<Region>:<account>:repository/*, of CentralRegistries"
        case {"Fn::If": [condition, _, _]}:
            return f"BuilderRole, and what {condition} adds"
    return (referred(value) or str(value)).replace("AWS::StackName", "<stack>")


def _condition(conditions: Mapping[str, Any]) -> str:
    parts = [
        f"`{operator}` `{_resource(key)}`: {', '.join(f'`{_resource(each)}`' for each in _list(value))}"
        for operator, tests in conditions.items()
        for key, value in tests.items()
    ]
    return "; ".join(parts)
