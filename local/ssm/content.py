"""Checks the content of a Command document, and the values of its parameters, as AWS does."""

import json
import re

import yaml

from local.api import ApiError

MAX_BYTES = 64 * 1024
"""The largest content CreateDocument takes, and SendCommand with the parameters of the run (SSM service model)."""


ACTIONS = frozenset(
    {
        "aws:applications",
        "aws:cloudWatch",
        "aws:configureDocker",
        "aws:configurePackage",
        "aws:domainJoin",
        "aws:downloadContent",
        "aws:psModule",
        "aws:refreshAssociation",
        "aws:runDockerAction",
        "aws:runDocument",
        "aws:runPowerShellScript",
        "aws:runShellScript",
        "aws:softwareInventory",
        "aws:updateAgent",
        "aws:updateSsmAgent",
    }
)
"""The plugins of a Command document (Systems Manager user guide, plugin reference)."""


PARAMETER_TYPES = {
    "String": str,
    "StringList": list,
    "Boolean": bool,
    "Integer": int,
    "MapList": list,
    "StringMap": dict,
}


PARAMETER_FIELDS = frozenset(
    {
        "type",
        "description",
        "default",
        "allowedValues",
        "allowedPattern",
        "displayType",
        "interpolationType",
        "minItems",
        "maxItems",
        "minChars",
        "maxChars",
    }
)


REFERENCE = re.compile(r"{{\s*(\w+)\s*}}")


def parse(text: str, format_: str) -> dict:
    """Returns the content of a Command document, or raises the error AWS would."""
    if len(text.encode()) > MAX_BYTES:
        raise ApiError("MaxDocumentSizeExceeded", "The size limit of a document is 64 KB.")
    try:
        content = yaml.safe_load(text) if format_ == "YAML" else json.loads(text)
    except (json.JSONDecodeError, yaml.YAMLError) as error:
        raise _invalid(f"{format_} not well-formed: {error}") from error
    if not isinstance(content, dict):
        raise _invalid("The document is not an object.")
    if content.get("schemaVersion") != "2.2":
        version = content.get("schemaVersion")
        raise ApiError("InvalidDocumentSchemaVersion", f"The schema version {version} is not supported; use 2.2.")
    unknown = content.keys() - {"schemaVersion", "description", "parameters", "mainSteps"}
    if unknown:
        raise _invalid(f"Unknown top-level elements: {', '.join(sorted(unknown))}.")
    parameters = content.get("parameters") or {}
    for name, spec in parameters.items():
        _check_parameter(name, spec)
    _check_steps(content.get("mainSteps"), parameters)
    return content


def _check_parameter(name: str, spec: dict) -> None:
    unknown = spec.keys() - PARAMETER_FIELDS
    if unknown:
        raise _invalid(f"Parameter {name} has unknown properties: {', '.join(sorted(unknown))}.")
    if spec.get("type") not in PARAMETER_TYPES:
        raise _invalid(f"Parameter {name} has the unknown type {spec.get('type')}.")
    if spec.get("interpolationType", "ENV_VAR") != "ENV_VAR" or (
        "interpolationType" in spec and spec["type"] != "String"
    ):
        raise _invalid(f"Parameter {name}: interpolationType ENV_VAR is for parameters of type String only.")
    if "allowedPattern" in spec:
        try:
            re.compile(spec["allowedPattern"])
        except re.error as error:
            raise _invalid(f"Parameter {name}: allowedPattern is no regular expression: {error}.") from error
    if "default" not in spec:
        return
    if not isinstance(spec["default"], PARAMETER_TYPES[spec["type"]]):
        raise _invalid(f"Parameter {name}: the default is not of type {spec['type']}.")
    if spec["type"] in ("String", "StringList"):
        values = spec["default"] if spec["type"] == "StringList" else [spec["default"]]
        for fault in value_faults(name, spec, values):
            raise _invalid(f"The default value is not allowed: {fault}")


def _check_steps(steps: list | None, parameters: dict) -> None:
    if not isinstance(steps, list) or not steps:
        raise _invalid("mainSteps is required and must have at least one step.")
    names = [step.get("name") for step in steps]
    if None in names or len(set(names)) != len(names):
        raise _invalid("Every step needs a name of its own.")
    for step in steps:
        if step.get("action") not in ACTIONS:
            raise _invalid(f"Step {step['name']} has the unknown action {step.get('action')}.")
        script = step.get("inputs", {}).get("runCommand")
        if step["action"] == "aws:runShellScript" and not (script and isinstance(script, list)):
            raise _invalid(f"Step {step['name']}: runCommand must be a list of lines.")
    undeclared = set(REFERENCE.findall(json.dumps(steps))) - parameters.keys()
    if undeclared:
        raise _invalid(f"Parameters are used and not declared: {', '.join(sorted(undeclared))}.")


def value_faults(name: str, spec: dict, values: list[str]) -> list[str]:
    """Returns what is wrong with the values of a String or StringList parameter."""
    faults = []
    if not spec.get("minItems", 0) <= len(values) <= spec.get("maxItems", len(values)):
        faults.append(f"Parameter {name} has a number of items that is not allowed.")
    for value in values:
        if "allowedValues" in spec and value not in spec["allowedValues"]:
            faults.append(f"Parameter {name} has a value that is not one of the allowed values: {value}")
        if "allowedPattern" in spec and not re.fullmatch(spec["allowedPattern"], value):
            faults.append(f"Parameter {name} does not match its allowed pattern: {spec['allowedPattern']}")
        if not spec.get("minChars", 0) <= len(value) <= spec.get("maxChars", len(value)):
            faults.append(f"Parameter {name} has a value whose length is not allowed.")
    return faults


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidDocumentContent", message)
