"""The pages say what is there: links lead somewhere, commands parse, and what is generated is as it would be now."""

import html
import json
import math
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import botocore.session
import pytest
from botocore import xform_name
from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT
from local.cloudwatch import dashboards

PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md", ".github/**/*.md")
    for path in ROOT.glob(pattern)
    if path.is_file()
)
DOCS = ROOT / "docs"
FOR_USERS = [ROOT / "README.md", ROOT / "examples" / "boot" / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
MAX_LINES = 150
"""The most lines of README.md."""
MAX_WORDS = 150
"""The most words of a paragraph."""
FENCE = re.compile(r"^( *)```([a-z]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^()\s]+)\)")
PLACEHOLDER = re.compile(r"<[A-Za-z][A-Za-z' ]*>")
TERMS = ("SSM", "CRI", "snapshotter", "SOCI", "redrive", "reconcile")
"""Lists what a reader who does not know Systems Manager, containerd or SQS stumbles over."""
ABBREVIATED = {"s3", "configure"}
"""The commands of the AWS CLI that are no service of botocore's."""
CUSTOM = {("cloudformation", "deploy"), ("ecr", "get-login-password"), ("logs", "tail")}
"""The operations that the AWS CLI has beside those of the services."""
SAM = {"build", "delete", "deploy", "local", "package", "remote", "validate"}
NO_REASONS = {"RegistryEndpoint", "Order", "Mode", "Trigger"}
"""Enumerations that are settings, or what made a job."""
INTERNAL = {"working", "open", "stopped", "partial", "whole"}
"""Lists words that only rows of the functions' own say."""
ENUM = re.compile(
    r'rename_all = "(?:kebab-case|lowercase)"\)\](?:\n#\[.*\])*\n(?:pub )?enum (\w+) \{\n(.*?)\n\}', re.DOTALL
)


def ids(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Links


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_every_link_leads_somewhere(path):
    for target in LINK.findall(prose(path)):
        address = urlsplit(target)
        if address.scheme:
            assert address.scheme == "https" and re.fullmatch(r"[a-z0-9.-]+\.[a-z]+", address.netloc), target
            continue
        page = (path.parent / address.path).resolve() if address.path else path
        assert page.exists(), f"{target}: there is no such file"
        assert page.is_relative_to(ROOT), target
        if address.fragment:
            assert address.fragment in anchors(page), f"{target}: there is no such heading"


def test_the_index_has_every_page():
    index = (DOCS / "README.md").read_text()
    for path in DOCS.glob("*.md"):
        assert path.name == "README.md" or f"]({path.name})" in index, path.name


def test_every_page_that_is_named_elsewhere_is_there():
    named = 0
    for path in sources():
        for page in re.findall(r"\bdocs/[\w-]+\.md\b", path.read_text()):
            assert (ROOT / page).is_file(), f"{ids(path)}: {page}"
            named += 1
    assert named


def test_the_words_of_the_glossary_are_in_order_and_explained_nowhere_else():
    words, of_the_code = (terms(path) for path in (DOCS / "README.md", ROOT / "CONTRIBUTING.md"))
    assert words == sorted(words, key=str.lower)
    assert {"job", "reconcile"} <= set(words) and "lease" in of_the_code
    assert set(words) & set(of_the_code) == set()


# Text


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_no_paragraph_is_long(path):
    for paragraph in paragraphs(path):
        assert len(paragraph.split()) <= MAX_WORDS, paragraph


@pytest.mark.parametrize("path", [path for path in FOR_USERS if path != DOCS / "README.md"], ids=ids)
def test_terms_are_linked_or_explained_where_they_first_stand(path):
    text = re.sub(r"^#.*$|`[^`\n]*`", "", prose(path), flags=re.MULTILINE)
    for term in TERMS:
        first = re.search(rf"\b{term}(?:'?s|d)?\b", text, re.IGNORECASE if term.islower() else 0)
        if first:
            around = text[max(0, first.start() - 80) : first.end() + 40]
            linked = re.search(rf"\[[^\[\]]*{re.escape(first.group())}[^\[\]]*\]\(", around)
            explained = text[first.end() :].startswith(" (")
            assert linked or explained, f"{term}: {around}"


@pytest.mark.parametrize("path", FOR_USERS, ids=ids)
def test_one_word_is_used_for_one_thing(path):
    text = re.sub(r"`[^`\n]*`", "", prose(path)).lower()
    for words, word in {"further tr": "retry", "one more try": "retry"}.items():
        assert words not in text, f"{words}…: the word is {word}"


# Commands


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_every_shell_line_parses(path):
    for language, block in blocks(path):
        if language in ("sh", "bash", "console"):
            script = shell(language, block)
            parsed = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
            assert parsed.returncode == 0 and not parsed.stderr, f"{parsed.stderr}\n{script}"


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_every_make_target_that_is_named_is_one(path):
    makefile = (ROOT / "Makefile").read_text().replace("$(TOOLS)", ".tools/venv")
    targets = {name for line in re.findall(r"^([\w./ -]+):(?!=)", makefile, re.MULTILINE) for name in line.split()}
    for command in commands(path):
        for name in re.findall(r"(?:^|&& |; )make ([\w./-]+)", command):
            assert name in targets, command


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_every_command_of_aws_is_one_with_its_options(path):
    session = botocore.session.Session()
    services = set(session.get_available_services())
    for command in commands(path):
        for service, operation, rest in re.findall(r"\baws ([a-z0-9]+) ([a-z0-9-]+)([^|;]*)", command):
            if service in ABBREVIATED or (service, operation) in CUSTOM:
                continue
            assert service in services, command
            model = session.get_service_model(service)
            operations = {xform_name(name, "-"): model.operation_model(name) for name in model.operation_names}
            assert operation in operations, command
            shape = operations[operation].input_shape
            known = {xform_name(name, "-") for name in (shape.members if shape else ())}
            known |= {"query", "output", "region", "profile"}
            given = {option.removeprefix("no-") for option in re.findall(r"(?:^|\s)--([a-z-]+)", rest)}
            assert given <= known, command


@pytest.mark.parametrize("path", PAGES, ids=ids)
def test_every_command_of_sam_is_one(path):
    for command in commands(path):
        assert set(re.findall(r"(?:^|&& )sam ([a-z]+)", command)) <= SAM, command


# What follows from the code


def test_what_is_generated_is_as_it_would_be_now():
    done = subprocess.run([sys.executable, DOCS / "generator", "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_picture_of_the_dashboard_has_every_widget_and_says_that_it_was_recorded():
    picture = html.unescape((DOCS / "dashboard.svg").read_text())
    for widget in json.loads(dashboard())["widgets"]:
        assert f">{widget['properties']['title']}</text>" in picture
    assert re.search(r"<title>Recorded on the local cloud, [\d.]+ minutes", picture)


@pytest.mark.parametrize(
    "row",
    [
        [{"expression": "SEARCH('{AWS/Lambda,FunctionName} Errors', 'Sum')"}],
        [{"expression": "RATE(errors)"}],
        ["AWS/Lambda", "Errors", "...", "Jobs"],
        ["AWS/Lambda", "Errors"],
    ],
)
def test_a_row_of_a_form_that_the_picture_does_not_know_is_refused(row):
    widget = {"type": "metric", "properties": {"title": "new", "view": "timeSeries", "metrics": [row]}}
    command = [sys.executable, "-c", f"import widgets; list(widgets.rows({widget}))"]
    done = subprocess.run(command, cwd=DOCS / "generator", capture_output=True, text=True, check=False)
    assert re.search(r"widgets\.Unknown: .* not known", done.stderr)


def test_every_series_that_was_recorded_is_of_a_metric_that_the_dashboard_shows():
    recorded = json.loads((DOCS / "generator" / "dashboard.json").read_text())
    metrics = {(row["namespace"], row["name"], frozenset(row["dimensions"])) for row in recorded["series"]}
    assert metrics <= dashboards.metrics(dashboard())
    assert {name for namespace, name, _ in metrics if namespace == "EKSImagePrefetch"} > {"NodesWarm", "NodesPulled"}
    for row in recorded["series"]:
        assert row["points"] and all(0 <= at < recorded["periods"] for at, _ in row["points"])


def test_every_reason_that_a_user_can_meet_is_explained():
    page = (DOCS / "operate.md").read_text()
    words = set(reasons()) - INTERNAL
    assert {"no-space", "unreported", "no-rule", "not-tagged", "still-running", "role-or-network"} <= words
    assert [word for word in sorted(words) if f"`{word}`" not in page] == []


def test_every_reason_of_a_node_is_in_the_table_of_reports():
    page = (DOCS / "nodes.md").read_text()
    assert [word for word in node_reasons() if f"`{word}`" not in page] == []


def test_every_alarm_is_explained():
    page = (DOCS / "operate.md").read_text()
    alarms = [name for name, resource in TEMPLATE["Resources"].items() if resource["Type"] == "AWS::CloudWatch::Alarm"]
    assert alarms and [name for name in alarms if f"`{name}`" not in page] == []


def test_the_totals_of_the_bill_are_sums_of_their_rows():
    section = (DOCS / "costs.md").read_text().partition("| 50 nodes |")[2].partition("\n\n")[0]
    rows = [line.split("|")[2:4] for line in section.splitlines()[2:]]
    *parts, total = [[round(float(cell.strip(" *")) * 100) for cell in row] for row in rows]
    assert [sum(column) for column in zip(*parts, strict=True)] == total


def test_the_units_of_the_bill_are_those_of_the_rows():
    page = (DOCS / "costs.md").read_text()
    rows = page.partition("| row |")[2].partition("| **write units** |")[0].splitlines()[2:]
    units = [[float(cell.split(": ")[-1]) for cell in row.split("|")[2:5]] for row in rows]
    assert [round(sum(column), 1) for column in zip(*units, strict=True)] == numbers(page, "**write units**")
    for kilobytes, written in re.findall(r"([\d.]+) KB: (\d+) ", "\n".join(rows)):
        assert int(written) == 2 * math.ceil(float(kilobytes))


def test_the_prices_of_the_bill_are_those_of_the_units():
    page = (DOCS / "costs.md").read_text()
    columns = zip(numbers(page, "**write units**"), numbers(page, "**read units**"), strict=True)
    dynamodb = [0.625 * writes + 0.125 * reads for writes, reads in columns]
    assert numbers(page, "DynamoDB, on demand") == pytest.approx(dynamodb, abs=0.05)
    table = page.partition("| DynamoDB, on demand |")[2].partition("\n\n")[0].splitlines()
    parts = [numbers(line, line[:9].strip("| ")) for line in table[1:-1]]
    totals = numbers(page, "**about**")
    assert len(parts) == 4
    assert totals == pytest.approx([sum(column) for column in zip(dynamodb, *parts, strict=True)], abs=0.1)
    for name, invocations, price in (("hourly [reconcile]", 720, totals[2]), ("pushes", 20 * 30, totals[1])):
        bill = [nodes * invocations * price / 1e6 for nodes in (50, 1000)]
        assert numbers(page, name, slice(2, 4)) == pytest.approx(bill, abs=0.005)


def test_the_bill_counts_as_many_images_as_a_command_takes():
    limit = re.search(r"MAX_IMAGES: usize = (\d+);", (ROOT / "shared" / "src" / "command.rs").read_text()).group(1)
    assert limit == "30" and "for each node, rule and thirty images begun" in (DOCS / "costs.md").read_text()


def test_the_readme_has_the_figures_of_the_pages():
    readme, measured = (ROOT / "README.md").read_text(), (DOCS / "measured.md").read_text()
    section = readme.partition("## What it reaches")[2].partition("\n## ")[0]
    for figure in re.findall(r"\d+(?:\.\d+)?", section):
        assert re.search(rf"(?<![\d.]){re.escape(figure)}(?![\d.]*\d)", measured), figure
    missed = sum("**missed**" in line for line in measured.splitlines() if line.startswith("|"))
    words = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
    assert f"{words[missed]} were missed" in section.lower()
    [few, many] = re.search(
        r"\| \*\*sum\*\* \| \*\*([\d.]+)\*\* \| \*\*([\d.]+)\*\*", (DOCS / "costs.md").read_text()
    ).groups()
    assert f"${round(float(few))} a month for 50 nodes and ${round(float(many) + 0.01)} for 1,000" in readme


def numbers(page: str, name: str, cells: slice = slice(-4, -1)) -> list[float]:
    """Returns the numbers in these cells of the row that begins so."""
    [row] = [line for line in page.splitlines() if line.startswith(f"| {name}")]
    return [float(cell.strip(" *$")) for cell in row.split("|")[cells]]


def sources() -> Iterator[Path]:
    """Yields the files of other kinds that may name a page."""
    yield from (ROOT / "template.yaml", ROOT / "Makefile")
    for folder in ("functions", "local", "verify", "examples", "tests", "benches", "ssm"):
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in (".rs", ".py", ".yaml", ".sh", ".mime", ".json") and "target" not in path.parts:
                yield path


def prose(path: Path) -> str:
    """Returns a page without its blocks of code."""
    return FENCE.sub("", path.read_text())


def blocks(path: Path) -> list[tuple[str, str]]:
    """Returns the language and the text of each block of code."""
    return [(language, textwrap.dedent(text)) for _, language, text in FENCE.findall(path.read_text())]


def anchors(path: Path) -> set[str]:
    """Returns what the headings of a page can be linked by, as GitHub makes it, and the anchors that it sets itself."""
    text = prose(path)
    found: set[str] = set(re.findall(r'<a id="([\w-]+)">', text))
    for heading in re.findall(r"^#{1,6} +(.*?) *$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found.add(next(name for name in (slug, *(f"{slug}-{n}" for n in range(1, 100))) if name not in found))
    return found


def terms(path: Path) -> list[str]:
    """Returns the words that a page explains in the first table below Words."""
    table = path.read_text().partition("\n## Words\n")[2].partition("|---|---|\n")[2].partition("\n\n")[0]
    return re.findall(r"^\| ([^|]+) \|", table, re.MULTILINE)


def paragraphs(path: Path) -> Iterator[str]:
    """Yields paragraphs and items of lists; tables are none."""
    for block in re.split(r"\n\s*\n", prose(path)):
        for item in re.split(r"\n(?= *(?:[-*]|\d+\.) )", block):
            if not item.lstrip().startswith(("|", "#", "<!--")):
                yield item


def dashboard() -> str:
    """Returns the dashboard's body, with the names of the template's references in their place."""
    body = TEMPLATE["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return re.sub(r"\$\{!?([^}]+)\}", r"\1", body)


def shell(language: str, block: str) -> str:
    """Returns a block as bash reads it, with a word in the place of each placeholder."""
    if language == "console":
        block = "\n".join(line.removeprefix("$ ") for line in block.splitlines() if line.startswith("$ "))
    return PLACEHOLDER.sub("placeholder", block)


def commands(path: Path) -> Iterator[str]:
    """Yields the lines of shell blocks, and what stands in backquotes."""
    for language, block in blocks(path):
        if language in ("sh", "bash", "console"):
            yield from shell(language, block).replace("\\\n", " ").splitlines()
    for code in re.findall(r"`([^`\n]+)`", prose(path)):
        yield PLACEHOLDER.sub("placeholder", code)


def reasons() -> Iterator[str]:
    """Yields every word by which the code says why, or what became of something."""
    yield from node_reasons()
    outcome = (ROOT / "shared" / "src" / "outcome.rs").read_text()
    yield from re.findall(r'^    \("([a-z-]+)", (?:true|false)\)', outcome, re.MULTILINE)
    for path in [*ROOT.glob("functions/*/src/**/*.rs"), *ROOT.glob("shared/src/**/*.rs")]:
        text = path.read_text()
        yield from re.findall(r'\breason(?: =|:) "([a-z]+(?:-[a-z]+)+)"[,;]', text.partition("#[cfg(test)]")[0])
        for name, body in ENUM.findall(text):
            if name not in NO_REASONS:
                yield from words_of(body)


def words_of(variants: str) -> Iterator[str]:
    """Yields the words by which an enum's variants are written."""
    renamed = r'^    #\[serde\(rename = "([a-z-]+)"\)\]\n'
    for word, variant in re.findall(rf"(?:{renamed})?^    ([A-Z]\w*)(?:,|\(| \{{)", variants, re.MULTILINE):
        yield word or re.sub(r"(?<=.)([A-Z])", r"-\1", variant).lower()


def node_reasons() -> list[str]:
    """Returns the reasons that a node prints."""
    text = (ROOT / "shared" / "src" / "outcome.rs").read_text()
    found = re.findall(r'^            Self::\w+ => "([a-z-]+)",$', text, re.MULTILINE)
    assert found
    return found
