"""The jobs API's OpenAPI document, and whether an answer is one that it documents."""

from datetime import datetime
from functools import cache

import yaml
from jsonschema import Draft7Validator, FormatChecker

from local.client import ROOT
from local.http_api import Answer

DOCUMENT = ROOT / "functions" / "jobs" / "openapi.yaml"

_formats = FormatChecker(formats=())


@_formats.checks("date-time", raises=ValueError)
def _is_date_time(text: object) -> bool:
    return not isinstance(text, str) or datetime.fromisoformat(text).tzinfo is not None


@cache
def document() -> dict:
    """Returns the document."""
    return yaml.safe_load(DOCUMENT.read_text())


def operations() -> list[tuple[str, str]]:
    """Returns method and path of every call there is."""
    methods = ("get", "post", "put", "patch", "delete")
    return [
        (method.upper(), path) for path, item in document()["paths"].items() for method in item if method in methods
    ]


def check(method: str, path: str, answer: Answer) -> None:
    """Asserts that the answer to a call is one that the document has: status, content type and content."""
    operation = document()["paths"][_template(path)][method.lower()]
    said = f"{method} {path} was answered with {answer.status}: {answer.body.decode(errors='replace')[:2000]}"
    response = operation["responses"].get(str(answer.status))
    assert response, f"{said}, which is not documented"
    response = _resolved(response)
    content = response.get("content", {})
    if not content:
        assert not answer.body, said
        return
    type_ = answer.headers.get("content-type", "").partition(";")[0]
    assert type_ in content, f"{said}, as {type_}"
    errors = list(_validator(content[type_]["schema"]).iter_errors(answer.json()))
    assert not errors, f"{said}: {errors[0].json_path}: {errors[0].message}"
    if type_ == "application/problem+json":
        assert answer.json()["status"] == answer.status, said


def _template(path: str) -> str:
    """Returns the document's path that a path is, the one without parameters first."""
    parts = path.partition("?")[0].split("/")

    def is_(template: str) -> bool:
        wanted = template.split("/")
        return len(wanted) == len(parts) and all(
            part.startswith("{") or part == given for part, given in zip(wanted, parts, strict=True)
        )

    return min((template for template in document()["paths"] if is_(template)), key=lambda template: "{" in template)


def _resolved(value: dict) -> dict:
    while "$ref" in value:
        found = document()
        for name in value["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        value = found
    return value


def _validator(schema: dict) -> Draft7Validator:
    return Draft7Validator({**schema, "components": document()["components"]}, format_checker=_formats)
