"""Checks that what CONTRIBUTING.md and its neighbours name is there."""

import re

import pytest

from local.client import ROOT

PAGES = ["CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_every_path_of_a_page_leads_somewhere(page):
    text = (ROOT / page).read_text()
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    paths = re.findall(r"(?<![\w.])((?:[a-z.-]+/)+[\w.-]*)(?=[`\s])", " ".join(code(text)))
    named = {path for path in [*links, *paths] if not path.startswith(("https://", ".tools", ".aws-sam"))}
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", PAGES)
def test_every_target_of_a_page_is_one_of_the_makefile(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"\bmake ([a-z]+)\b", " ".join(code((ROOT / page).read_text()))))
    assert {target for target in targets if not re.search(rf"^{target}\b.*:", makefile, re.MULTILINE)} == set()


def test_every_test_that_is_named_as_an_example_is_there():
    table = CONTRIBUTING.partition("## One test of each kind")[2].partition("\n## ")[0]
    sources = [path.read_text() for folder in ("functions", "tests") for path in (ROOT / folder).rglob("*.[rp][sy]")]
    names = re.findall(r"(?:-k |-p [a-z-]+ )([a-z_]{5,})`", table)
    assert len(names) == 2
    assert all(any(name in source for source in sources) for name in names)


def test_every_folder_with_code_stands_in_the_layout():
    layout = CONTRIBUTING.partition("## Layout")[2].partition("\n## ")[0]
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and re.fullmatch("[a-z]+", path.name)}
    assert set(re.findall(r"^\| `([a-z]+)/` \|", layout, re.MULTILINE)) == folders - {"target", "dist"}


def test_a_dozen_questions_are_answered_in_a_line_each():
    section = CONTRIBUTING.partition("## Where it is decided")[2]
    answers = re.findall(r"^\| (.+) \| (\[.+) \|$", section, re.MULTILINE)
    assert len(answers) >= 12
    assert all(answer.startswith("[") for _, answer in answers)
    files = re.findall(r"\]\(([^)]+)\)", section)
    facades = {
        file for file in files if not re.search(r"\bfn \w+", (ROOT / file).read_text().partition("#[cfg(test)]")[0])
    }
    assert len(files) > len(answers) and facades == set(), "a file without a function decides nothing"


def code(text: str) -> list[str]:
    """Returns what stands as code in a page, in its lines and in its blocks."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    lines = re.sub(r"^```\w*\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*blocks, *(f"{span}`" for span in re.findall(r"`([^`]+)`", lines))]
