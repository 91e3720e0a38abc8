"""The house's own limits: no import circles, no file and no function too long, no word that the glossary forbids."""

import ast
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 30


def sources(*suffixes: str) -> list[Path]:
    """Lists the files that end so, but for those that are made."""
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [name for name in folders if name != "target" and not name.startswith((".", "__"))]
        found += [Path(folder, name) for name in files if name.endswith(suffixes)]
    return sorted(found)


# ---- import circles


def circles(imports: dict[Path, set[Path]]) -> list[list[Path]]:
    """Finds the groups of files that import each other, directly or through others (Tarjan)."""
    index: dict[Path, int] = {}
    low: dict[Path, int] = {}
    stack: list[Path] = []
    found: list[list[Path]] = []

    def visit(file: Path) -> None:
        index[file] = low[file] = len(index)
        stack.append(file)
        for other in imports[file]:
            if other not in index:
                visit(other)
                low[file] = min(low[file], low[other])
            elif other in stack:
                low[file] = min(low[file], index[other])
        if low[file] == index[file]:
            place = stack.index(file)
            found.append(sorted(stack[place:], key=Path.as_posix))
            del stack[place:]

    for file in imports:
        if file not in index:
            visit(file)
    return [group for group in found if len(group) > 1]


def crate_imports(root: Path) -> dict[Path, set[Path]]:
    """Reads which files of a crate use which others; what only its tests use does not count."""
    files = {module_of(path, root): path for path in root.rglob("*.rs") if not is_test(path)}
    imports: dict[Path, set[Path]] = {}
    for module, path in files.items():
        used = (file_of(parts, files) for parts in used_paths(path.read_text(), module, files))
        imports[path] = {file for file in used if file and file != path}
    return imports


def module_of(path: Path, root: Path) -> tuple[str, ...]:
    parts = path.relative_to(root).with_suffix("").parts
    return () if parts in (("main",), ("lib",)) else parts


def is_test(path: Path) -> bool:
    return "tests" in path.with_suffix("").parts or "mocks" in path.with_suffix("").parts


def without_tests(text: str) -> str:
    """Cuts off the module of tests that ends a file; one that has a file of its own is only named."""
    return re.split(r"#\[cfg\([^]]*\]\nmod tests \{", text)[0]


def used_paths(text: str, module: tuple[str, ...], files: dict[tuple[str, ...], Path]) -> Iterator[tuple[str, ...]]:
    """Yields the paths that a file names, from the crate's root on."""
    text = re.sub(r"//.*", "", without_tests(text))
    use = re.compile(r"^\s*(?:pub(?:\([^)]*\))? )?use\s+([^;]+);", re.MULTILINE)
    inline = re.findall(r"\b(?:crate|super)(?:::\w+)+", use.sub("", text))
    for path in [path for used in use.findall(text) for path in expanded(used)] + inline:
        parts = [part.strip() for part in path.split("::")]
        if parts[0] == "crate":
            yield tuple(parts[1:])
        elif parts[0] in ("self", "super"):
            here = list(module)
            while parts and parts[0] in ("self", "super"):
                here = here[:-1] if parts.pop(0) == "super" else here
            yield (*here, *parts)
        elif (*module, parts[0]) in files:
            yield (*module, *parts)


def expanded(use: str) -> list[str]:
    """Expands `a::{b, c::{d, e}}` into `a::b`, `a::c::d` and `a::c::e`."""
    use = re.sub(r"\s+as\s+\w+", "", re.sub(r"\s+", " ", use)).strip()
    if "{" not in use:
        return [use]
    before, _, rest = use.partition("{")
    parts, depth = [""], 0
    for c in rest[: rest.rindex("}")]:
        depth += {"{": 1, "}": -1}.get(c, 0)
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    return [path for part in parts if part.strip() for path in expanded(before + part.strip())]


def file_of(parts: tuple[str, ...], files: dict[tuple[str, ...], Path]) -> Path | None:
    """Finds the file whose module a path leads to; the crate's root is nobody's import."""
    for length in range(len(parts), 0, -1):
        if parts[:length] in files:
            return files[parts[:length]]
    return None


def package_imports(package: Path) -> dict[Path, set[Path]]:
    """Reads which files of a Python package import which others when they are loaded."""
    files = {python_module(path): path for path in package.rglob("*.py")}
    imports: dict[Path, set[Path]] = {}
    for path in files.values():
        names = [name for node in ast.parse(path.read_text()).body for name in imported(node)]
        imports[path] = {files[name] for name in names if name in files and files[name] != path}
    return imports


def python_module(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(node: ast.stmt) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


CRATES = sorted(
    path.parent.relative_to(ROOT).as_posix()
    for path in ROOT.glob("**/Cargo.toml")
    if (path.parent / "src").is_dir() and "target" not in path.parts
)


@pytest.mark.parametrize("crate", CRATES)
def test_no_two_files_of_a_crate_import_each_other(crate: str) -> None:
    found = circles(crate_imports(ROOT / crate / "src"))
    assert not found, told(found)


@pytest.mark.parametrize("package", ["local", "tests", "benches", "verify"])
def test_no_two_files_of_a_package_import_each_other(package: str) -> None:
    found = circles(package_imports(ROOT / package))
    assert not found, told(found)


def told(found: list[list[Path]]) -> str:
    return "\n".join(" ".join(path.relative_to(ROOT).as_posix() for path in group) for group in found)


def test_a_circle_is_found_where_there_is_one(tmp_path: Path) -> None:
    sources = {
        "main.rs": "mod a;\nmod b;\nmod c;\nuse a::A;\n",
        "a.rs": "use crate::{b::{self, B}, c};\n",
        "b.rs": "fn f() { crate::b::x::g() }\n",
        "b/x.rs": "use super::super::c::C;\n",
        "c.rs": "#[cfg(test)]\nmod tests {\n    use crate::a::A;\n}\n",
    }
    for name, text in sources.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert circles(crate_imports(tmp_path)) == []
    (tmp_path / "c.rs").write_text("#[cfg(test)]\nmod tests;\n\npub use crate::a::A;\n")
    [group] = circles(crate_imports(tmp_path))
    assert [path.relative_to(tmp_path).as_posix() for path in group] == ["a.rs", "b.rs", "b/x.rs", "c.rs"]


# ---- lengths


def test_no_file_is_longer_than_a_reader_takes() -> None:
    files = sources(".rs", ".py", ".sh")
    long = [(lines, path) for path in files if (lines := len(path.read_text().splitlines())) > MAX_FILE_LINES]
    assert not long, "\n".join(f"{lines} {path.relative_to(ROOT)}" for lines, path in sorted(long, reverse=True))


def test_no_function_in_python_is_longer_than_a_reader_takes() -> None:
    long = []
    for path in sources(".py"):
        text = path.read_text()
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = length(node, text.splitlines())
                if lines > MAX_FUNCTION_LINES:
                    long.append((lines, f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"))
    assert not long, "\n".join(f"{lines} {name}" for lines, name in sorted(long, reverse=True))


def length(function: ast.FunctionDef | ast.AsyncFunctionDef, lines: list[str]) -> int:
    """Counts a function's lines of code: blank lines, comments, docstrings and the rows of tables are none."""
    rows = {
        number
        for node in ast.walk(function)
        if isinstance(node, ast.Dict) or is_text(node)
        for number in range(node.lineno + isinstance(node, ast.Dict), node.end_lineno + 1)
    }
    own = [
        lines[number - 1].strip() for number in range(function.lineno, function.end_lineno + 1) if number not in rows
    ]
    return len([line for line in own if line and not line.startswith("#")])


def is_text(node: ast.AST) -> bool:
    """Tells whether a node is a text that stands for itself, as docstrings do."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def test_no_function_in_rust_is_longer_than_a_reader_takes() -> None:
    long = [
        (lines, f"{path.relative_to(ROOT)}:{number} {name}")
        for path in sources(".rs")
        if not is_test(path)
        for number, name, lines in rust_functions(path.read_text())
        if lines > MAX_FUNCTION_LINES
    ]
    assert not long, "\n".join(f"{lines} {name}" for lines, name in sorted(long, reverse=True))


def rust_functions(text: str) -> Iterator[tuple[int, str, int]]:
    """Yields the functions of a file as rustfmt writes it, without its tests: place, name, lines of the body."""
    lines = without_tests(text).splitlines()
    for number, line in enumerate(lines, 1):
        head = re.match(r"( *)(?:pub(?:\([^)]*\))? )?(?:const )?(?:async )?fn (\w+)", line)
        if head and not line.endswith((";", "}")):
            end = lines.index(head[1] + "}", number)
            begin = next(place for place in range(number - 1, end) if lines[place].endswith("{"))
            body = [text.strip() for text in lines[begin + 1 : end]]
            yield number, head[2], len([text for text in body if text and not text.startswith("//")])


# ---- words

NO_BEGINNING = re.compile(
    r"(?:What|Whether|How|Why|When|Which|Of|Does so)\b|(?:For|By|On|Over|After|Since|Until|Up to) (?:how|when)\b"
)
"""A comment on a module, type, function or field begins with none of these: it says so in a sentence with a verb."""
NO_NAMES = {"asked", "held", "gate", "finding", "reach", "choice", "door"}
"""Modules, types and functions have no such word in their names; CONTRIBUTING.md says what they are called."""
NO_WORDS = re.compile(r"\bfurther tr(?:y|ies)\b|\bone more try\b", re.IGNORECASE)


def test_no_comment_on_a_thing_begins_as_the_glossary_forbids() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{number} {comment}"
        for path in sources(".rs", ".py")
        for number, comment in first_lines(path)
        if NO_BEGINNING.match(comment)
    ]
    assert not found, "\n".join(found)


def first_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields the first lines of doc comments, each with its place."""
    before = ""
    for number, line in enumerate(path.read_text().splitlines(), 1):
        comment = re.match(r"\s*(//[/!]) ?(.*)" if path.suffix == ".rs" else r'\s*(""")(.*)', line)
        if comment and before != comment[1]:
            yield number, comment[2]
        before = comment[1] if comment and path.suffix == ".rs" else ""


def test_no_name_has_a_word_that_the_glossary_forbids() -> None:
    found = [
        f"{path.relative_to(ROOT)} {name}"
        for path in sources(".rs")
        if not is_test(path)
        for name in names(path)
        if NO_NAMES & set(re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().split("_"))
    ]
    assert not found, "\n".join(found)


def names(path: Path) -> list[str]:
    """Lists a file's own name and those of its modules, types and functions, but for its tests'."""
    text = without_tests(path.read_text())
    return [
        path.stem,
        *re.findall(
            r"^\s*(?:pub(?:\([^)]*\))? )?(?:async )?(?:struct|enum|fn|mod|type|trait) (\w+)", text, re.MULTILINE
        ),
    ]


def test_a_retry_is_called_so_wherever_it_is_explained() -> None:
    """Words of answers and logs stay: others read them."""
    own = {Path(__file__), ROOT / "CONTRIBUTING.md", ROOT / "tests/test_docs.py"}
    found = [
        f"{path.relative_to(ROOT)}:{number} {line.strip()}"
        for path in sources(".rs", ".py", ".md", ".yaml", ".json", ".sh")
        if path not in own
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NO_WORDS.search(line) and (path.suffix != ".rs" or line.lstrip().startswith("//"))
    ]
    assert not found, "\n".join(found)
