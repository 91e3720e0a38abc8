"""Checks requests against AWS's own service models, and writes answers in the JSON protocol."""

import functools
import re
import urllib.parse
from collections.abc import Iterable, Sequence
from typing import Any

from botocore.loaders import Loader
from botocore.model import ServiceModel, Shape

from local.ministack import responses

Response = tuple[int, dict[str, str], bytes]

JAVA_CLASSES = {r"\p{L}": r"\w", r"\p{N}": r"\d", r"\p{Z}": r"\s"}


class ApiError(Exception):
    """A refusal that the caller sees under AWS's error code."""

    def __init__(self, code: str, message: str):
        super().__init__(message)
        self.code = code
        self.message = message

    def response(self) -> Response:
        """Returns the refusal in the JSON protocol."""
        return responses.error_response_json(self.code, self.message, 400)


def answer(result: dict) -> Response:
    """Returns a result in the JSON protocol."""
    return responses.json_response(result)


def page(rows: Sequence, token: str | None, size: int) -> tuple[Sequence, dict[str, str]]:
    """Returns the rows of one page and the token of the next, if there is one."""
    if token is not None and not re.fullmatch("[0-9]{1,9}", token):
        raise ApiError("InvalidNextToken", "The specified token is not valid.")
    start = int(token or 0)
    rest = {"NextToken": str(start + size)} if start + size < len(rows) else {}
    return rows[start : start + size], rest


def check(service: str, operation: str, request: dict) -> None:
    """Raises ValidationException when the request breaks the service model: presence, size, pattern, enum."""
    shape = _model(service).operation_model(operation).input_shape
    errors = list(_violations(shape, request, ""))
    if errors:
        plural = "error" if len(errors) == 1 else "errors"
        raise ApiError("ValidationException", f"{len(errors)} validation {plural} detected: {'; '.join(errors)}")


def operation(service: str, method: str, path: str, query: dict[str, list[str]], body: dict) -> tuple[str, dict]:
    """Returns which operation of a REST API is called, and its request by the members' names."""
    model = _model(service)
    for name in model.operation_names:
        operation_model = model.operation_model(name)
        pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", operation_model.http["requestUri"])
        match = re.fullmatch(pattern, path)
        if match and operation_model.http["method"] == method:
            request = dict(body)
            for member, shape in operation_model.input_shape.members.items():
                place, key = shape.serialization.get("location"), shape.serialization.get("name", member)
                if place == "uri":
                    request[member] = urllib.parse.unquote(match[key])
                elif place == "querystring" and key in query:
                    value = query[key][0]
                    request[member] = int(value) if shape.type_name == "integer" and value.isdecimal() else value
            return name, request
    raise ApiError("UnknownOperationException", f"There is no {method} {path}.")


@functools.cache
def _model(service: str) -> ServiceModel:
    return ServiceModel(Loader().load_service_model(service, "service-2"), service)


def _violations(shape: Shape, value: Any, path: str) -> Iterable[str]:
    limits = shape.metadata
    match shape.type_name:
        case "structure":
            for name in shape.required_members:
                if name not in value:
                    yield f"Value null at '{_member(path, name)}' failed to satisfy constraint: Member must not be null"
            for name, member in shape.members.items():
                if name in value:
                    yield from _violations(member, value[name], _member(path, name))
        case "list":
            yield from _size(path, value, len(value), limits, "length")
            for index, item in enumerate(value, start=1):
                yield from _violations(shape.member, item, f"{path}.{index}.member")
        case "map":
            for key, item in value.items():
                yield from _violations(shape.value, item, f"{path}.{key}.member")
        case "string":
            yield from _size(path, value, len(value), limits, "length")
            if "pattern" in limits and not re.fullmatch(_python_pattern(limits["pattern"]), value):
                rule = f"Member must satisfy regular expression pattern: {limits['pattern']}"
                yield _constraint(path, value, rule)
            if shape.enum and value not in shape.enum:
                yield _constraint(path, value, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
        case "integer":
            yield from _size(path, value, value, limits, "value")


def _size(path: str, value: Any, size: int, limits: dict, noun: str) -> Iterable[str]:
    if size > limits.get("max", size):
        yield _constraint(path, value, f"Member must have {noun} less than or equal to {limits['max']}")
    if size < limits.get("min", size):
        yield _constraint(path, value, f"Member must have {noun} greater than or equal to {limits['min']}")


def _constraint(path: str, value: Any, rule: str) -> str:
    return f"Value '{value}' at '{path}' failed to satisfy constraint: {rule}"


def _member(path: str, name: str) -> str:
    name = name[0].lower() + name[1:]
    return f"{path}.{name}" if path else name


def _python_pattern(pattern: str) -> str:
    for java, python in JAVA_CLASSES.items():
        pattern = pattern.replace(java, python)
    return pattern
