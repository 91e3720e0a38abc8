"""Checks a definition as Step Functions does: fields, transitions, expressions and the calls of its tasks."""

import json
import re
from collections.abc import Iterator
from typing import Any

from local.stepfunctions import asl, expressions
from local.stepfunctions.integrations import Integration, Unknown, from_states

MACHINE = frozenset({"Comment", "QueryLanguage", "StartAt", "States", "TimeoutSeconds", "Version"})
PART = frozenset({"Comment", "QueryLanguage", "StartAt", "States"})
COMMON = frozenset({"Type", "Comment", "QueryLanguage"})
LEAVING = frozenset({"Assign", "Output", "Next", "End"})
CATCHING = frozenset({"Retry", "Catch"})
FIELDS = {
    "Task": LEAVING | CATCHING | {"Resource", "Arguments", "TimeoutSeconds"},
    "Parallel": LEAVING | CATCHING | {"Branches", "Arguments"},
    "Map": LEAVING | CATCHING | {"Items", "ItemSelector", "ItemProcessor", "MaxConcurrency"},
    "Pass": LEAVING,
    "Wait": LEAVING | {"Seconds", "Timestamp"},
    "Choice": frozenset({"Choices", "Default", "Assign", "Output"}),
    "Succeed": frozenset({"Output"}),
    "Fail": frozenset({"Error", "Cause"}),
}
"""Says what each type of state may have in JSONata (Amazon States Language); what is not emulated is not there."""
REQUIRED = {
    "Task": ("Resource",),
    "Parallel": ("Branches",),
    "Map": ("ItemProcessor",),
    "Choice": ("Choices",),
}
CHOICE = frozenset({"Condition", "Next", "Assign", "Output", "Comment"})
CATCHER = frozenset({"ErrorEquals", "Next", "Assign", "Output", "Comment"})
RETRIER = frozenset(
    {"ErrorEquals", "IntervalSeconds", "MaxAttempts", "BackoffRate", "MaxDelaySeconds", "JitterStrategy", "Comment"}
)
MAX_NAME = 80
"""Characters of a state's name (Amazon States Language, States)."""
MAX_DEFINITION = 1 << 20
"""Bytes of a definition (Step Functions, quotas of state machines)."""
VARIABLE = re.compile(r"[^\W\d_]\w{0,79}")


def faults(text: str) -> list[str]:
    """Returns why Step Functions would refuse a definition, nothing of a good one."""
    if len(text.encode()) > MAX_DEFINITION:
        return [f"SCHEMA_VALIDATION_FAILED: The definition is larger than {MAX_DEFINITION} bytes"]
    try:
        definition = json.loads(text)
    except json.JSONDecodeError as error:
        return [f"INVALID_JSON_DESCRIPTION: {error}"]
    if not isinstance(definition, dict):
        return ["INVALID_JSON_DESCRIPTION: The definition is no object"]
    if definition.get("QueryLanguage") != "JSONata":
        return ["The local cloud executes state machines of the query language JSONata only."]
    found = [*_unknown(definition, MACHINE, "")]
    seconds = definition.get("TimeoutSeconds", 1)
    if not isinstance(seconds, int) or not 1 <= seconds <= asl.NO_TIMEOUT:
        found.append("SCHEMA_VALIDATION_FAILED: Expected an integer of at least 1 at /TimeoutSeconds")
    found += _part_faults(definition, "", set())
    return found + [f"{kind} at {path}" for path, kind in _syntax_errors(definition, "")]


def _part_faults(part: dict, path: str, names: set[str]) -> Iterator[str]:
    """Yields what is wrong with the states of a machine, branch or item processor."""
    states = part.get("States")
    if not isinstance(states, dict) or not states:
        yield f"SCHEMA_VALIDATION_FAILED: The field 'States' is required but was missing at {path}/"
        return
    for name, state in states.items():
        place = f"{path}/States/{name}"
        if len(name) > MAX_NAME:
            yield f"SCHEMA_VALIDATION_FAILED: The name of a state is longer than {MAX_NAME} characters at {place}"
        if name in names:
            yield f"DUPLICATE_STATE_NAME: Duplicate state name: {name} at {place}"
        names.add(name)
        yield from _state_faults(state, place)
        for target, where in _targets(state):
            if target not in states:
                yield f"MISSING_TRANSITION_TARGET: Missing 'Next' target: {target} at {place}/{where}"
        for inner, where, fields in _inner(state):
            yield from _unknown(inner, fields, f"{place}/{where}")
            yield from _part_faults(inner, f"{place}/{where}", names)
    start = part.get("StartAt")
    if start not in states:
        yield f"MISSING_TRANSITION_TARGET: Missing 'Next' target: {start} at {path}/StartAt"
    else:
        for name in states.keys() - _reachable(states, start):
            yield f'MISSING_TRANSITION_TARGET: State "{name}" is not reachable. at {path}/States/{name}'


def _state_faults(state: dict, path: str) -> Iterator[str]:
    kind = state.get("Type")
    if kind not in FIELDS:
        yield f"SCHEMA_VALIDATION_FAILED: Value {kind!r} is not a type of state at {path}/Type"
        return
    yield from _unknown(state, COMMON | FIELDS[kind], path)
    if state.get("QueryLanguage", "JSONata") != "JSONata":
        yield f"SCHEMA_VALIDATION_FAILED: A JSONata state machine has no state of another language at {path}"
    for field in REQUIRED.get(kind, ()):
        if field not in state:
            yield f"SCHEMA_VALIDATION_FAILED: The field '{field}' is required but was missing at {path}"
    if "Next" in FIELDS[kind] and ("Next" in state) == (state.get("End") is True):
        yield f"SCHEMA_VALIDATION_FAILED: These fields are mutually exclusive, one is required: Next, End at {path}"
    if kind == "Wait" and ("Seconds" in state) == ("Timestamp" in state):
        yield f"SCHEMA_VALIDATION_FAILED: One of Seconds and Timestamp is required at {path}"
    for name in _assigned(state):
        if not VARIABLE.fullmatch(name) or name == "states":
            yield f"SCHEMA_VALIDATION_FAILED: '{name}' is no name of a variable at {path}/Assign"
    for index, choice in enumerate(state.get("Choices", [])):
        yield from _unknown(choice, CHOICE, f"{path}/Choices[{index}]")
        if expressions.source(choice.get("Condition")) is None and not isinstance(choice.get("Condition"), bool):
            yield f"SCHEMA_VALIDATION_FAILED: Condition must be an expression at {path}/Choices[{index}]"
    for field, allowed in (("Retry", RETRIER), ("Catch", CATCHER)):
        yield from _handler_faults(state.get(field, []), allowed, f"{path}/{field}")
    for field, least in (("TimeoutSeconds", 1), ("Seconds", 0), ("MaxConcurrency", 0)):
        value = state.get(field, least)
        if expressions.source(value) is None and not (isinstance(value, int) and least <= value <= asl.NO_TIMEOUT):
            yield f"SCHEMA_VALIDATION_FAILED: Expected an integer of at least {least} at {path}/{field}"
    if "Resource" in state:
        yield from _call_faults(state, path)


def _handler_faults(handlers: list[dict], allowed: frozenset, path: str) -> Iterator[str]:
    for index, handler in enumerate(handlers):
        place = f"{path}[{index}]"
        yield from _unknown(handler, allowed, place)
        errors = handler.get("ErrorEquals")
        if not errors or not isinstance(errors, list):
            yield f"SCHEMA_VALIDATION_FAILED: The field 'ErrorEquals' is required but was missing at {place}"
        elif "States.ALL" in errors and (len(errors) > 1 or index + 1 < len(handlers)):
            yield f"SCHEMA_VALIDATION_FAILED: States.ALL must appear alone and last at {place}"
        bounds = (("IntervalSeconds", 1), ("MaxAttempts", 0), ("BackoffRate", 1), ("MaxDelaySeconds", 1))
        for field, least in bounds:
            value = handler.get(field, least)
            kinds = int | float if field == "BackoffRate" else int
            if not isinstance(value, kinds) or value < least:
                yield f"SCHEMA_VALIDATION_FAILED: Expected a number of at least {least} at {place}/{field}"
        if handler.get("JitterStrategy", "NONE") not in ("FULL", "NONE"):
            yield f"SCHEMA_VALIDATION_FAILED: JitterStrategy is FULL or NONE at {place}"
        if "Next" in allowed and "Next" not in handler:
            yield f"SCHEMA_VALIDATION_FAILED: The field 'Next' is required but was missing at {place}"


def _call_faults(state: dict, path: str) -> Iterator[str]:
    """Yields what can be told of a task's call before it is made."""
    try:
        shape = Integration(state["Resource"]).input
    except Unknown as error:
        yield f"SCHEMA_VALIDATION_FAILED: {error} at {path}/Resource"
        return
    arguments = state.get("Arguments")
    if shape and isinstance(arguments, dict):
        unknown: list[str] = []
        given = from_states(arguments, shape, unknown, renamed=":::dynamodb:" not in state["Resource"])
        yield from (f"SCHEMA_VALIDATION_FAILED: {fault} at {path}/Arguments" for fault in unknown)
        for name in set(shape.required_members) - given.keys():
            if "idempotencyToken" not in shape.members[name].metadata:
                yield f"SCHEMA_VALIDATION_FAILED: The field '{name}' is required but was missing at {path}/Arguments"


def _unknown(given: dict, allowed: frozenset, path: str) -> Iterator[str]:
    for field in given.keys() - allowed:
        yield f"SCHEMA_VALIDATION_FAILED: Field '{field}' is not supported at {path}/{field}"


def _targets(state: dict) -> Iterator[tuple[str, str]]:
    """Yields where a state may lead, and by which of its fields."""
    if "Next" in state:
        yield state["Next"], "Next"
    if "Default" in state:
        yield state["Default"], "Default"
    for field in ("Choices", "Catch"):
        for index, way in enumerate(state.get(field, [])):
            if "Next" in way:
                yield way["Next"], f"{field}[{index}]/Next"


def _inner(state: dict) -> Iterator[tuple[dict, str, frozenset]]:
    """Yields the flows within a state."""
    for index, branch in enumerate(state.get("Branches", [])):
        yield branch, f"Branches[{index}]", PART
    if isinstance(processor := state.get("ItemProcessor"), dict):
        inline = processor.get("ProcessorConfig", {"Mode": "INLINE"}) == {"Mode": "INLINE"}
        yield processor, "ItemProcessor", PART | {"ProcessorConfig"} if inline else PART


def _assigned(state: dict) -> set[str]:
    """Returns the variables that a state assigns, however it is left."""
    ways = [state, *state.get("Choices", []), *state.get("Catch", [])]
    return {name for way in ways for name in way.get("Assign", {})}


def _reachable(states: dict, start: str) -> set[str]:
    reached, open_ = set(), [start]
    while open_:
        if (name := open_.pop()) in states and name not in reached:
            reached.add(name)
            open_ += [target for target, _ in _targets(states[name])]
    return reached


def _syntax_errors(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """Yields where an expression cannot be parsed, and why."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _syntax_errors(value, f"{path}/{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from _syntax_errors(value, f"{path}[{index}]")
    elif isinstance(node, str):
        if (source := expressions.source(node)) is not None:
            try:
                expressions.check(source)
            except expressions.Unusable as error:
                yield path, f"INVALID_JSONATA_EXPRESSION: {error}"
        elif node.startswith("{%") or node.endswith("%}"):
            yield path, "INVALID_JSONATA_EXPRESSION: Expected an expression that begins with '{%' and ends with '%}'"
