"""Evaluates the JSONata in a state machine."""

from typing import Any

import jsonata
from jsonata.utils import Utils

from local.ministack import stepfunctions

EVALUATION_SECONDS = 30
"""Says how long an expression may be evaluated: one second on AWS, whose evaluator is not written in Python."""


class Unusable(ValueError):
    """An expression that cannot be parsed, or yields nothing that is JSON."""


def check(text: str) -> None:
    """Raises Unusable where an expression cannot be parsed."""
    try:
        jsonata.Jsonata.jsonata(text)
    except Exception as error:
        raise Unusable(str(error)) from error


def source(text: Any) -> str | None:
    """Returns the JSONata within a text of a definition, None where it is a text like any other."""
    if isinstance(text, str) and text.startswith("{%") and text.endswith("%}"):
        return text[2:-2].strip()
    return None


def evaluate(template: Any, bindings: dict) -> Any:
    """Returns a template with its expressions evaluated; raises Unusable where one yields nothing."""
    if isinstance(template, dict):
        return {key: evaluate(value, bindings) for key, value in template.items()}
    if isinstance(template, list):
        return [evaluate(value, bindings) for value in template]
    if (text := source(template)) is None:
        return template
    bindings = {name: Utils.NULL_VALUE if value is None else value for name, value in bindings.items()}
    try:
        parsed = jsonata.Jsonata.jsonata(text, timeout=EVALUATION_SECONDS * 1000)
        stepfunctions._register_sfn_jsonata_functions(parsed)
        value = parsed.evaluate(None, bindings)
        if value is None and not stepfunctions._jsonata_result_defined(text, bindings):
            raise ValueError(f"The JSONata expression '{text}' returned nothing (undefined).")
        return _plain(value)
    except Exception as error:
        code = getattr(error, "error", None)
        raise Unusable(f"{code}: {error}" if isinstance(code, str) else str(error)) from error


def _plain(value: Any) -> Any:
    """Returns a result as JSON has it, where 3.0 is 3; raises ValueError for what it has not, such as a function."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return int(value) if value.is_integer() else value
    if value is None or isinstance(value, bool | int | str):
        return value
    raise ValueError(f"The JSONata expression returned a {type(value).__name__}, which is no JSON.")
