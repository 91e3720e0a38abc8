"""The state machine of a bake as its file has it: its states, how one leads to another, and what they read."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jsonata import Jsonata
from jsonata.parser import Parser

from local.client import ROOT

FILE = ROOT / "statemachine" / "bake-snapshot.asl.json"
MACHINE = json.loads(FILE.read_text())
ALL = "States.ALL"
SOURCES = {name: ROOT / "functions" / folder for name, folder in (("Plan", "bake-plan"), ("Sweep", "bake-sweep"))}
"""Where the source is of the functions that it calls."""


@dataclass(frozen=True)
class Part:
    """A sequence of states: the machine's own, or that of a map's items."""

    start: str
    states: dict[str, dict] = field(hash=False, compare=False)
    outer: "State | None" = None


@dataclass(frozen=True)
class State:
    """One state."""

    name: str
    part: Part
    fields: dict[str, Any] = field(hash=False, compare=False, repr=False)

    @property
    def type(self) -> str:
        """Returns its type."""
        return self.fields["Type"]

    @property
    def service(self) -> str:
        """Returns the service that a task calls, by its SDK's name."""
        return self.fields["Resource"].partition(":states:::")[2].removeprefix("aws-sdk:").partition(":")[0]

    @property
    def action(self) -> str:
        """Returns what a task calls of its service."""
        return self.fields["Resource"].rpartition(":")[2]

    @property
    def inner(self) -> Part | None:
        """Returns the states of a map's items."""
        processor = self.fields.get("ItemProcessor")
        return Part(processor["StartAt"], processor["States"], self) if processor else None


@dataclass(frozen=True)
class Edge:
    """A way from one state to another of its part."""

    source: str
    target: str
    how: str
    """The field that has it."""
    errors: tuple[str, ...] = ()
    """Upon which errors it is taken; none: the state succeeded."""
    assigns: frozenset[str] = frozenset()


def definition(**values: str) -> str:
    """Returns the definition as Step Functions gets it, with something in place of each substitution."""
    numbers = {"CollectMinutes": "10", "DeliveryTimeout": "600", "ExecutionTimeout": "3600"}
    values = {"Partition": "aws", **numbers, **values}
    return re.sub(r"\$\{(\w+)\}", lambda match: values.get(match[1], match[1]), FILE.read_text())


def parts() -> list[Part]:
    """Returns the machine's own sequence of states and those of its maps, outermost first."""
    found = [Part(MACHINE["StartAt"], MACHINE["States"])]
    for part in found:  # which grows
        found += [state.inner for state in states_of(part) if state.inner]
    return found


def states_of(part: Part) -> list[State]:
    """Returns the states of one sequence."""
    return [State(name, part, fields) for name, fields in part.states.items()]


def states() -> list[State]:
    """Returns every state."""
    return [state for part in parts() for state in states_of(part)]


def tasks() -> list[State]:
    """Returns every state that calls something."""
    return [state for state in states() if state.type == "Task"]


def edges(state: State) -> list[Edge]:
    """Returns the ways out of a state."""
    fields, own = state.fields, frozenset(state.fields.get("Assign", {}))
    found = [Edge(state.name, fields[how], how, (), own) for how in ("Next", "Default") if how in fields]
    for field_ in ("Choices", "Catch"):
        for way in fields.get(field_, []):
            errors = tuple(way.get("ErrorEquals", ()))
            found.append(Edge(state.name, way["Next"], field_, errors, frozenset(way.get("Assign", {}))))
    return found


def reachable(part: Part, *starts: str, without: frozenset[str] = frozenset()) -> set[str]:
    """Returns the states of a sequence that some of them lead to, themselves included, past none of those left out."""
    reached: set[str] = set()
    open_ = [name for name in starts if name not in without]
    while open_:
        name = open_.pop()
        if name not in reached and name not in without:
            reached.add(name)
            open_ += [edge.target for edge in edges(State(name, part, part.states[name]))]
    return reached


def last(part: Part) -> set[str]:
    """Returns the states that end a sequence."""
    return {state.name for state in states_of(part) if state.fields.get("End") or state.type in ("Succeed", "Fail")}


def assigned(state: State) -> set[str]:
    """Returns the variables that a state assigns on any way out."""
    return set(state.fields.get("Assign", {})).union(*(edge.assigns for edge in edges(state)))


def expressions(value: Any) -> Iterator[str]:
    """Yields every expression in a field."""
    if isinstance(value, dict):
        for inner in value.values():
            yield from expressions(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from expressions(inner)
    elif isinstance(value, str) and value.startswith("{%"):
        yield value.removeprefix("{%").removesuffix("%}").strip()


def reads(state: State) -> set[str]:
    """Returns the variables that a state's own fields read, functions included and AWS's `states` left out."""
    own = {name: value for name, value in state.fields.items() if name != "ItemProcessor"}
    return {name for text in expressions(own) for name in free(text)} - {"states"}


def free(text: str) -> set[str]:
    """Returns the variables that an expression reads and does not bind itself."""
    return set(_free(Jsonata.jsonata(substituted(text)).ast, frozenset()))


def substituted(text: str) -> str:
    """Returns a text of the file with a number in place of each of the template's substitutions."""
    for name in ("CollectMinutes", "DeliveryTimeout", "ExecutionTimeout"):
        text = text.replace(f"${{{name}}}", "600")
    return text


def _free(node: Any, bound: frozenset[str]) -> Iterator[str]:
    """Yields the variables below a node of a parsed expression that nothing above it binds."""
    if isinstance(node, list | tuple):
        for inner in node:
            yield from _free(inner, bound)
        return
    if not isinstance(node, Parser.Symbol):
        return
    if node.type == "variable" and node.value and node.value != "$" and node.value not in bound:
        yield node.value
    if node.type == "lambda" and node.arguments:
        bound |= {argument.value for argument in node.arguments}
        yield from _free(node.body, bound)
        return
    if node.type == "block":
        for expression in node.expressions:
            yield from _free(expression, bound)
            if expression.type == "bind":
                bound |= {expression.lhs.value}
        return
    if node.type == "bind":
        yield from _free(node.rhs, bound | {node.lhs.value})
        return
    for name, inner in vars(node).items():
        if name != "_outer_instance":
            yield from _free(inner, bound)
