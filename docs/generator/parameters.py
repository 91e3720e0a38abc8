"""The parameters of the template."""

from collections.abc import Mapping
from typing import Any

from template import TEMPLATE, prose, table


def parameters() -> str:
    """Returns a table of the template's parameters for each group of the console."""
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    return "\n\n".join(_group(group["Label"]["default"], group["Parameters"]) for group in groups)


def _group(label: str, names: list[str]) -> str:
    rows = [(f"`{name}`", *_parameter(TEMPLATE["Parameters"][name])) for name in names]
    return f"## {label}\n\n" + table(("parameter", "default", "accepted", "meaning"), rows)


def _parameter(parameter: Mapping[str, Any]) -> tuple[str, str, str]:
    default = str(parameter.get("Default", "\N{EN DASH}"))
    shown = default if default in ("", "\N{EN DASH}") else f"`{default}`"
    return shown, _accepted(parameter), prose(parameter["Description"])


def _accepted(parameter: Mapping[str, Any]) -> str:
    if values := parameter.get("AllowedValues"):
        return ", ".join(f"`{value}`" for value in values)
    if "MinValue" in parameter:
        return f"{parameter['MinValue']:,} to {parameter['MaxValue']:,}"
    return prose(parameter.get("ConstraintDescription", "")).rstrip(".")
