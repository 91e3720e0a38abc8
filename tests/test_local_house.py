"""The house rules of local/: where ministack is named, and what a file's first line says."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import ministack
from local.client import ROOT

LIST = ROOT / "local/ministack.py"
FILES = sorted(path for folder in ("local", "verify", "benches") for path in (ROOT / folder).rglob("*.py"))
LOCAL = [path for path in FILES if path.is_relative_to(ROOT / "local")]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_one_file_alone_imports_ministack():
    others = {named(path) for path in LOCAL for module in imported(path) if module.partition(".")[0] == "ministack"}
    assert others - {named(LIST)} == set()


def test_the_pinned_ministack_has_every_name_that_is_listed():
    ministack.load()


def test_a_name_that_is_not_listed_is_neither_read_nor_replaced():
    with pytest.raises(AttributeError, match="not listed"):
        _ = ministack.ec2._instance_types
    with pytest.raises(AttributeError, match="not listed"):
        ministack.ec2.handle = None


def test_a_name_that_ministack_lacks_is_told():
    part = ministack.Part("services.ec2", _instances="is there", _teleporters="is not")
    assert part.missing() == ["ministack.services.ec2._teleporters"]


def test_every_name_that_is_listed_is_used():
    texts = [path.read_text() for path in LOCAL if path != LIST]
    unused = {
        f"{part}.{name}"
        for part, listed in ministack.parts().items()
        for name in listed.names
        if not any(f".{name}" in text for text in texts)
    }
    assert unused == set()


@pytest.mark.parametrize("path", FILES, ids=named)
def test_a_first_line_says_what_the_file_does_and_begins_with_a_verb(path):
    first = path.read_text().partition("\n")[0]
    assert first.startswith('"""'), "the first line is the module's docstring"
    assert first.removeprefix('"""').split()[0].rstrip(",").endswith("s"), first


def imported(path: Path) -> Iterator[str]:
    """Yields what a file imports: modules, and names of modules that may be modules themselves."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)
