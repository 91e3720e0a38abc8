"""Reads EC2's requests and writes its answers by AWS's service model, and puts actions of ours in front."""

import functools
import re
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from botocore.loaders import Loader
from botocore.model import OperationModel, ServiceModel, Shape

from local.api import ApiError, Response, page
from local.ec2 import tagging
from local.iam.permissions import Caller
from local.ministack import app, ec2

Action = Callable[[dict, Caller], dict]
Fact = Callable[[dict], str | Iterable[str]]
"""Says what a filter compares of a resource: a text, or any of several."""

_actions: dict[str, Action] = {}
_lag = 0.0


def install() -> None:
    """Puts the actions that were registered in front of ministack's."""
    ec2._ensure_defaults_initialized()
    app.SERVICE_HANDLERS["ec2"] = handle


def register(actions: Mapping[str, Action]) -> None:
    """Has actions be answered by ours."""
    _actions.update(actions)


def lag(seconds: float) -> None:
    """Has EC2 not know of what was made in the last seconds when it is asked, as it may not on AWS."""
    global _lag
    _lag = seconds


def visible(resource: dict) -> bool:
    """Tells whether EC2 knows already of what was made at the moment of time.monotonic() that stands in it."""
    return time.monotonic() >= resource.get("Made", 0.0) + _lag


def rows(store: Mapping[str, dict]) -> list[dict]:
    """Returns what there is of one kind now; others add and remove meanwhile."""
    return [row for key in list(store) if (row := store.get(key)) is not None]


def typed(action: str, member: str, value: Any) -> Any:
    """Returns a member of an action's request with numbers and truth values in place of texts that say so."""
    return _typed(_operation(action).input_shape.members[member], value)


async def handle(method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
    """Answers one request."""
    parameters = {**query, **parse_qs(body.decode(), keep_blank_values=True)}
    name = parameters["Action"][0]
    if name not in _actions:
        return await ec2.handle_request(method, path, headers, body, query)
    operation = _operation(name)
    try:
        request = _parsed(operation.input_shape, _tree(parameters)) or {}
        return _answer(operation, _actions[name](request, Caller(headers, query)))
    except ApiError as error:
        if error.code == "AccessDeniedException":
            message = f"You are not authorized to perform this operation. {error.message}"
            return ec2._error("UnauthorizedOperation", escape(message), 403)
        return ec2._error(error.code, escape(error.message), 400)


def one_page(member: str, rows: list[dict], request: dict, sizes: range, ids: str) -> dict:
    """Returns one page of an answer; a page's size goes with no list of ids."""
    size = request.get("MaxResults")
    if size and request.get(ids):
        message = f"The parameter {ids} cannot be used with the parameter maxResults"
        raise ApiError("InvalidParameterCombination", message)
    if size and size not in sizes:
        bounds = f"between {sizes[0]} and {sizes[-1]}"
        message = f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value {bounds}."
        raise ApiError("InvalidParameterValue", message)
    try:
        rows, rest = page(rows, request.get("NextToken"), size or max(len(rows), 1))
    except ApiError as error:
        message = f"The token '{request['NextToken']}' is invalid"
        raise ApiError("InvalidNextToken", message) from error
    return {member: rows, **rest}


def select(rows: Iterable[dict], filters: Iterable[dict], facts: Mapping[str, Fact], id_: str = "") -> list[dict]:
    """Returns the resources that pass the filters of a request; their tags are found by the member that is their id."""
    tests = [_test(filter_, facts, id_) for filter_ in filters]
    return [row for row in rows if all(passes(row) for passes in tests)]


def _test(filter_: dict, facts: Mapping[str, Fact], id_: str) -> Callable[[dict], bool]:
    name, patterns = filter_["Name"], [re.compile(_regex(value)) for value in filter_.get("Values", [])]
    tag = name.removeprefix("tag:") if name.startswith("tag:") else None
    if tag is None and name not in (*facts, "tag-key", "tag-value"):
        raise ApiError("InvalidParameterValue", f"The filter '{name}' is invalid")

    def values(row: dict) -> Iterable[str]:
        if name in facts:
            found = facts[name](row)
            return [found] if isinstance(found, str) else found
        tags = tagging.of(row[id_])
        if tag is None:
            return tags if name == "tag-key" else tags.values()
        return [tags[tag]] if tag in tags else []

    return lambda row: any(pattern.fullmatch(value) for value in values(row) for pattern in patterns)


def _regex(value: str) -> str:
    """Returns the pattern of a filter's value, in which * and ? stand for any characters and for one."""
    return re.escape(value).replace(r"\*", ".*").replace(r"\?", ".")


def _typed(shape: Shape, value: Any) -> Any:
    match shape.type_name:
        case "structure":
            return {name: _typed(shape.members[name], inner) for name, inner in value.items()}
        case "list":
            return [_typed(shape.member, inner) for inner in value]
        case "integer" | "long":
            return int(value)
        case "boolean":
            return value in (True, "true")
        case _:
            return value


@functools.cache
def _operation(name: str) -> OperationModel:
    return ServiceModel(Loader().load_service_model("ec2", "service-2"), "ec2").operation_model(name)


def _tree(parameters: Mapping[str, list[str]]) -> dict:
    """Returns the parameters by the parts of their names."""
    tree: dict = {}
    for name, values in parameters.items():
        *parts, last = name.split(".")
        node = tree
        for part in parts:
            node = node.setdefault(part, {})
        node[last] = values[0]
    return tree


def _parsed(shape: Shape | None, node: Any) -> Any:
    """Returns a value of a request, None where it has none."""
    if shape is None or node is None:
        return None
    match shape.type_name:
        case "structure":
            found = {name: _parsed(member, node.get(_key(name, member))) for name, member in shape.members.items()}
            return {name: value for name, value in found.items() if value is not None}
        case "list":
            return [_parsed(shape.member, node[index]) for index in sorted(node, key=int)]
        case "integer" | "long":
            return int(node)
        case "boolean":
            return node == "true"
        case _:
            return node


def _key(name: str, member: Shape) -> str:
    """Returns how a request spells a member (EC2's protocol: queryName, or locationName with a capital)."""
    key = member.serialization.get("queryName") or member.serialization.get("name", name)
    return key[0].upper() + key[1:]


def _answer(operation: OperationModel, result: dict) -> Response:
    shape = operation.output_shape
    return ec2._xml(200, f"{operation.name}Response", _writer(shape)(result) if shape else "<return>true</return>")


@functools.cache
def _writer(shape: Shape) -> Callable[[Any], str]:
    """Returns what writes a value of that shape as the content of an element."""
    if shape.type_name == "structure":
        members: dict[str, tuple[str, Callable[[Any], str]]] = {}

        def structure(value: dict) -> str:
            if not members:
                names = {name: member.serialization.get("name", name) for name, member in shape.members.items()}
                members.update({name: (names[name], _writer(member)) for name, member in shape.members.items()})
            known = [(members[name], inner) for name, inner in value.items() if name in members and inner is not None]
            return "".join([f"<{name}>{write(inner)}</{name}>" for (name, write), inner in known])

        return structure
    if shape.type_name == "list":
        item, write_item = shape.member.serialization.get("name", "item"), _writer(shape.member)
        return lambda value: "".join([f"<{item}>{write_item(one)}</{item}>" for one in value])
    if shape.type_name == "boolean":
        return lambda value: str(value).lower()
    return lambda value: escape(str(value))
