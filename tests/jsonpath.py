"""The part of kubectl's JSONPath that scripts here use: `{range}`, `{end}`, literals, paths and filters by equality."""

import json
import re
from typing import Any


def jsonpath(template: str, document: Any) -> str:
    """Writes what kubectl writes of a template; a field that is not there is nothing."""
    told, rest = _section(re.findall(r"\{[^}]*\}|[^{]+", template), document)
    assert rest == []
    return told


def _section(tokens: list[str], document: Any) -> tuple[str, list[str]]:
    told = ""
    while tokens:
        token, *tokens = tokens
        if token == "{end}":
            break
        if token.startswith("{range "):
            body = tokens
            _, tokens = _section(body, {})
            told += "".join(_section(body, item)[0] for item in _found(token[7:-1], document))
        elif token.startswith('{"'):
            told += json.loads(token[1:-1])
        elif token.startswith("{"):
            told += " ".join("null" if value is None else str(value) for value in _found(token[1:-1], document))
        else:
            told += token
    return told, tokens


def _found(path: str, document: Any) -> list[Any]:
    found = [document]
    for name, star, key, value in re.findall(r'\.(\w+)(?:(\[\*\])|\[\?\(@\.(\w+)=="(\w+)"\)\])?', path):
        found = [item[name] for item in found if isinstance(item, dict) and name in item]
        if star or key:
            found = [item for items in found for item in items if not key or item.get(key) == value]
    return found
