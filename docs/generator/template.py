"""The template and the state machine, as the generated pages read them."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from samtranslator.yaml_helper import yaml_parse

ROOT = Path(__file__).resolve().parent.parent.parent
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES: Mapping[str, Any] = TEMPLATE["Resources"]
MACHINE = json.loads((ROOT / "statemachine" / "bake-snapshot.asl.json").read_text())


def of_type(kind: str) -> list[tuple[str, Mapping[str, Any]]]:
    """Returns the names and properties of the resources of a type."""
    return [(name, resource["Properties"]) for name, resource in RESOURCES.items() if resource["Type"] == kind]


def referred(value: Any) -> str | None:
    """Returns the resource that a value refers to."""
    match value:
        case {"Fn::GetAtt": [name, *_]}:
            return name
        case {"Ref": name}:
            return name.split(".")[0]
        case {"Fn::GetAtt": str(path)}:
            return path.split(".")[0]
    return None


def short(value: Any) -> str:
    """Returns the resource that a value refers to, as code."""
    return f"`{referred(value)}`"


def urls() -> Iterator[tuple[str, str]]:
    """Yields each function with each queue whose address stands in its environment."""
    for name, function in of_type("AWS::Serverless::Function"):
        variables = function.get("Environment", {}).get("Variables", {})
        yield from ((name, referred(value) or "") for key, value in variables.items() if key.endswith("QUEUE_URL"))


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Returns a table in Markdown."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def prose(text: str) -> str:
    """Returns a description as Markdown: nothing of it is markup, pages that it names are links."""
    text = re.sub(r"([*<>])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"\bdocs/([a-z-]+\.md)", r"[\1](\1)", text)
    return re.sub(r"\bexamples/boot\b", "[examples/boot](../examples/boot/README.md)", text)
