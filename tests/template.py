"""Reads the template: its resources, and what its values refer to."""

import re
from collections.abc import Iterator
from typing import Any

from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES = TEMPLATE["Resources"]
FUNCTIONS = sorted(name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Serverless::Function")
PARAMETERS = TEMPLATE["Parameters"].keys()
QUEUES = sorted(name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::SQS::Queue")


def variables(function: str) -> dict[str, Any]:
    """Returns the environment of a function, what all are given included."""
    own = RESOURCES[function]["Properties"].get("Environment", {}).get("Variables", {})
    return {**TEMPLATE["Globals"]["Function"]["Environment"]["Variables"], **own}


def references(value: Any) -> Iterator[str]:
    """Yields the names that a value of the template refers to."""
    if isinstance(value, dict):
        yield from [value["Ref"]] if "Ref" in value else []
        texts = value.get("Fn::Sub", [])
        for text in [texts] if isinstance(texts, str) else texts[:1]:
            yield from re.findall(r"\$\{([^}]+)\}", text)
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def reference(value: dict) -> str:
    """Returns a reference in the form that Fn::Sub gives it."""
    return value["Ref"] if "Ref" in value else ".".join(value["Fn::GetAtt"])
