"""`python docs/generator`: writes the generated parts of the pages; with --check, says what differs.

A part stands between `<!-- generated: name -->` and `<!-- end: name -->`; what is around it is written by hand.
"""

import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from dashboard import dashboard
from drawings import machine, picture
from flow import events, functions, queues
from parameters import parameters
from roles import permissions

DOCS = Path(__file__).resolve().parent.parent
PARTS: Mapping[str, Callable[[], str]] = {
    "parameters": parameters,
    "picture": picture,
    "events": events,
    "functions": functions,
    "queues": queues,
    "permissions": permissions,
    "machine": machine,
}


FILES: Mapping[str, Callable[[], str]] = {"dashboard.svg": dashboard}


def page(text: str) -> str:
    """Returns a page with its generated parts written anew."""
    for name, part in PARTS.items():
        begin, end = f"<!-- generated: {name} -->\n", f"<!-- end: {name} -->"
        new = f"{begin}\n{part()}\n\n{end}"
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", lambda _, new=new: new, text, flags=re.DOTALL)
    return text


def main() -> int:
    """Writes every page, or says which is not as it would be written."""
    written = {path: page(path.read_text()) for path in sorted(DOCS.glob("*.md"))}
    written |= {DOCS / name: file() for name, file in FILES.items()}
    differ = []
    for path, new in written.items():
        if not path.exists() or path.read_text() != new:
            differ.append(path.name)
            if "--check" not in sys.argv:
                path.write_text(new)
    if differ and "--check" in sys.argv:
        print(f"docs/{', docs/'.join(differ)}: not as `make docs` writes it", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
