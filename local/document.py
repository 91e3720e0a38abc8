"""Puts the script into the Command document: `python -m local.document` writes ssm/prefetch-images.json."""

import json
from pathlib import Path

SSM = Path(__file__).parent.parent / "ssm"
DOCUMENT = SSM / "prefetch-images.json"
MAX_BYTES = 64 << 10  # of a document (SSM quotas)


def render() -> str:
    """Returns the document's text, from its head document.json and the script, one paragraph of the script per element.

    Indentation and lines that only comment stay behind: with them the document would be larger than SSM takes.
    """
    document = json.loads((SSM / "document.json").read_text())
    shebang, script = (SSM / "prefetch-images.sh").read_text().split("\n", 1)
    about = "# ssm/prefetch-images.sh, without its comments and its indentation"
    code = [paragraph for text in script.split("\n\n") if (paragraph := without_comments(text))]
    document["mainSteps"][0]["inputs"]["runCommand"] = [shebang, about, *code]
    return json.dumps(document, indent=0, ensure_ascii=False) + "\n"


def without_comments(text: str) -> str:
    """Returns lines of a script without indentation, blank lines and lines that only comment."""
    lines = [line.strip() for line in text.splitlines()]
    return "\n".join(line for line in lines if line and not line.startswith("#"))


if __name__ == "__main__":
    DOCUMENT.write_text(render())
