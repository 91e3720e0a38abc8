"""Puts the script into the Command document: `python -m local.document` writes ssm/prefetch-images.json."""

import json
from pathlib import Path

SSM = Path(__file__).parent.parent / "ssm"
DOCUMENT = SSM / "prefetch-images.json"


def render() -> str:
    """Returns the document's text, from its head document.json and the script, one line of the script per element."""
    document = json.loads((SSM / "document.json").read_text())
    document["mainSteps"][0]["inputs"]["runCommand"] = (SSM / "prefetch-images.sh").read_text().splitlines()
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(render())
