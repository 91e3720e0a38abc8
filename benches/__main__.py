"""Measures, and prints a table for each subject; `make bench` runs all: `python -m benches [subject …]`."""

import argparse
import os
import platform
import signal
import sys
import time
import traceback
from pathlib import Path

from benches import asking, boot, calls, cold_start, document, download, inventory, parallel, settling
from benches.table import markdown
from local.stack import TEMPLATE

SUBJECTS = {
    "cold-start": cold_start,
    "calls": calls,
    "settling": settling,
    "asking": asking,
    "document": document,
    "inventory": inventory,
    "download": download,
    "parallel": parallel,
    "boot": boot,
}


def main() -> int:
    """Runs the subjects; returns non-zero where something could not be measured, a missed target is none of that."""
    parser = argparse.ArgumentParser(prog="python -m benches", description=__doc__)
    parser.add_argument("subjects", nargs="*", metavar="subject", help=f"{', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--build", type=Path, default=TEMPLATE.parent, help="what sam build has left")
    arguments = parser.parse_args()
    if unknown := set(arguments.subjects) - SUBJECTS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(f"{os.cpu_count()} CPUs, Linux {platform.release()}, load {os.getloadavg()[0]:.2f} before the first run")
    measured = [bench(name, arguments.build) for name in arguments.subjects or SUBJECTS]
    return 0 if all(measured) else 1


def bench(name: str, build: Path) -> bool:
    """Measures one subject and prints its table; returns whether every row could be measured."""
    subject, rows = SUBJECTS[name], []
    started, complete = time.monotonic(), True
    try:
        rows.extend(subject.measure(build))
    except Exception:
        traceback.print_exc()
        complete = False
    spent = time.monotonic() - started
    print(f"\n## {name} ({spent:.0f} s)\n\n{subject.ABOUT}\n\n{markdown(rows)}", flush=True)
    if not complete:
        print(f"\n{name} could not be measured completely: see the error.", flush=True)
    return complete and all(row.ours is not None for row in rows)


if __name__ == "__main__":
    sys.exit(main())
