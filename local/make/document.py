"""Puts the bootstrap into the Command document: `python -m local.make.document` writes ssm/prefetch-images.json."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

SSM = Path(__file__).parents[2] / "ssm"
DOCUMENT = SSM / "prefetch-images.json"
MAX_BYTES = 13 << 10
"""Says what the document may take: SSM counts it and a command's parameters together, 64 KB of both."""
ATTRIBUTES = ("Repository", "X8664Digest", "Arm64Digest", "Deployment")
"""Names the attributes of the published program for which the bootstrap has a place each: `@Repository@`."""


def render() -> str:
    """Returns the document's text, from its head document.json and the bootstrap, one paragraph of that per element.

    What the stack's deployment writes into it stands in an Fn::Sub of the paragraph that has its place.
    """
    document = json.loads((SSM / "document.json").read_text())
    shebang, script = (SSM / "bootstrap.sh").read_text().split("\n", 1)
    about = "# ssm/bootstrap.sh, without comments and indentation"
    code = [paragraph for text in script.split("\n\n") if (paragraph := without_comments(text))]
    document["mainSteps"][0]["inputs"]["runCommand"] = [shebang, about, *map(_references, code)]
    return json.dumps(document, indent=0, ensure_ascii=False) + "\n"


def without_comments(text: str) -> str:
    """Returns lines of a script without indentation, blank lines and lines that only comment."""
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def script(attributes: Mapping[str, str]) -> str:
    """Returns the document's script as a node gets it, of a stack whose published program has these attributes."""
    document = json.loads(DOCUMENT.read_text())
    lines = document["mainSteps"][0]["inputs"]["runCommand"]
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
    DOCUMENT.write_text(render())
