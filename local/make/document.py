"""Puts the bootstrap into the Command documents: `python -m local.make.document` writes them below ssm/."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

SSM = Path(__file__).parents[2] / "ssm"
BOOTSTRAP = SSM / "bootstrap.sh"
DOCUMENT = SSM / "prefetch-images.json"
TAGS_DOCUMENT = SSM / "resolve-tags.json"
HEADS = {DOCUMENT: SSM / "document.json", TAGS_DOCUMENT: SSM / "resolve.json"}
"""Says where each document has its parameters from."""
READS = re.compile(r"^\w+ {{ \w+ }}$", re.MULTILINE)
"""Finds the bootstrap's lines that read a parameter each."""
MAX_BYTES = 13 << 10
"""Says what a document may take: SSM counts it and a command's parameters together, 64 KB of both."""
ATTRIBUTES = ("Repository", "X8664Digest", "Arm64Digest", "Deployment")
"""Names the attributes of the published program for which the bootstrap has a place each: `@Repository@`."""


def render(path: Path = DOCUMENT) -> str:
    """Returns a document's text, from its head and the bootstrap, one paragraph of that per element.

    Of the bootstrap's lines that read a parameter each, it has those of its own parameters. What the stack's deployment
    writes into it stands in an Fn::Sub of the paragraph that has its place.
    """
    document = json.loads(HEADS[path].read_text())
    others = [line for line in READS.findall(BOOTSTRAP.read_text()) if line.split()[0] not in document["parameters"]]
    lines = [line for line in BOOTSTRAP.read_text().splitlines() if line not in others]
    shebang, script = "\n".join(lines).split("\n", 1)
    about = "# ssm/bootstrap.sh, without comments and indentation"
    code = [paragraph for text in script.split("\n\n") if (paragraph := without_comments(text))]
    document["mainSteps"][0]["inputs"]["runCommand"] = [shebang, about, *map(_references, code)]
    return json.dumps(document, indent=0, ensure_ascii=False) + "\n"


def without_comments(text: str) -> str:
    """Returns lines of a script without indentation, blank lines and lines that only comment."""
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def script(attributes: Mapping[str, str], path: Path = DOCUMENT) -> str:
    """Returns a document's script as a node gets it, of a stack whose published program has these attributes."""
    lines = json.loads(path.read_text())["mainSteps"][0]["inputs"]["runCommand"]
    return "\n".join(line if isinstance(line, str) else _resolved(line["Fn::Sub"], attributes) for line in lines)


def _references(paragraph: str) -> str | dict[str, str]:
    """Returns a paragraph with references in the places of attributes, where it has any."""
    if not any(f"@{name}@" in paragraph for name in ATTRIBUTES):
        return paragraph
    assert "${" not in paragraph, "Fn::Sub would take the shell's variables for its own"
    for name in ATTRIBUTES:
        paragraph = paragraph.replace(f"@{name}@", f"${{PublishedProgram.{name}}}")
    return {"Fn::Sub": paragraph}


def _resolved(text: str, attributes: Mapping[str, str]) -> str:
    return re.sub(r"\${PublishedProgram\.(\w+)}", lambda match: attributes[match[1]], text)


if __name__ == "__main__":
    for path in HEADS:
        path.write_text(render(path))
