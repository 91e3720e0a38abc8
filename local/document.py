"""Puts the script into the Command document: `python -m local.document` writes ssm/prefetch-images.json."""

import json
from pathlib import Path

SSM = Path(__file__).parent.parent / "ssm"
DOCUMENT = SSM / "prefetch-images.json"
MAX_BYTES = 64 << 10  # of a document (SSM quotas)


def render() -> str:
    """Returns the document's text, from its head document.json and the script, one line of the script per element.

    Indentation and lines that only comment stay behind: with them the document would be larger than SSM takes.
    """
    document = json.loads((SSM / "document.json").read_text())
    lines = [line.strip() for line in (SSM / "prefetch-images.sh").read_text().splitlines()]
    code = [line for line in lines[1:] if line and not line.startswith("#")]
    about = "# ssm/prefetch-images.sh, without its comments and its indentation"
    document["mainSteps"][0]["inputs"]["runCommand"] = [lines[0], about, *code]
    return json.dumps(document, indent=0, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render())
