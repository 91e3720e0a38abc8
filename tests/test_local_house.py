"""The house rules of the Python code: where ministack is named, first lines, sizes, and no circles of imports."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import ministack
from local.client import ROOT

LIST = ROOT / "local/ministack.py"
MAX_FILE = 400
MAX_FUNCTION = 30
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


@pytest.mark.parametrize("path", FILES, ids=named)
def test_files_and_functions_keep_to_their_limits(path):
    text = path.read_text()
    assert text.count("\n") <= MAX_FILE
    long = {function.name: size for function, size in sizes(text) if size > MAX_FUNCTION}
    assert long == {}


def test_no_file_imports_itself_through_others():
    modules = {module_of(path): path for path in FILES}
    graph = {
        name: {found for module in imported(path) if (found := known(module, modules)) and found != name}
        for name, path in modules.items()
    }
    graphlib.TopologicalSorter(graph).prepare()


def imported(path: Path) -> Iterator[str]:
    """Yields what a file imports: modules, and names of modules that may be modules themselves."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def known(module: str, modules: dict[str, Path]) -> str | None:
    """Returns the module of ours that is meant, None for others'."""
    return next((name for name in (module, module.rpartition(".")[0]) if name in modules), None)


def sizes(text: str) -> Iterator[tuple[ast.FunctionDef | ast.AsyncFunctionDef, int]]:
    """Yields every function with its lines of code; empty lines, comments, docstrings and tables' rows are none."""
    lines = text.splitlines()
    for function in ast.walk(ast.parse(text)):
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
            rows = {
                number
                for node in ast.walk(function)
                if isinstance(node, ast.Dict) or is_text(node)
                for number in range(node.lineno + isinstance(node, ast.Dict), node.end_lineno + 1)
            }
            own = [
                lines[number - 1].strip()
                for number in range(function.lineno, function.end_lineno + 1)
                if number not in rows
            ]
            yield function, sum(1 for line in own if line and not line.startswith("#"))


def is_text(node: ast.AST) -> bool:
    """Tells whether a node is a text that stands for itself, as docstrings do."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
