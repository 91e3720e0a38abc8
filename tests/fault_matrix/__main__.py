"""Prints what became of every cell, and fails where one came to what the design does not have."""

import sys
import time
from collections import Counter, defaultdict

from local.stack import TEMPLATE

from .matrix import cells, judged
from .scenarios import SCENARIOS


def main() -> int:
    """Runs all cells, or those whose name has every word of the command line."""
    words = sys.argv[1:]
    started = time.monotonic()
    build = TEMPLATE.parent
    chosen = [cell for cell in cells(build, SCENARIOS) if all(word in str(cell) for word in words)]
    verdicts = judged(build, chosen)
    print_table(verdicts)
    counts = Counter(verdict.outcome for verdict in verdicts.values())
    print(f"{len(verdicts)} cells in {time.monotonic() - started:.0f} s: {dict(counts)}")
    bad = {cell: verdict for cell, verdict in verdicts.items() if not verdict.is_good}
    for cell, verdict in bad.items():
        print(f"\n{cell}: {verdict.outcome}\n{verdict.why[:3000]}")
    return 1 if bad else 0


def print_table(verdicts: dict) -> None:
    """Prints a row for each call, with what once, three times and for ever came to under each fault."""
    rows = defaultdict(lambda: defaultdict(list))
    for cell, verdict in verdicts.items():
        rows[cell.scenario.name, str(cell.call)][cell.fault.name].append(verdict.outcome)
    faults = list(dict.fromkeys(cell.fault.name for cell in verdicts))
    print("| what | call |", " | ".join(faults), "|")
    print("|---" * (len(faults) + 2) + "|")
    for (scenario, call), outcomes in rows.items():
        print(f"| {scenario} | `{call}` |", " | ".join(", ".join(outcomes[name]) for name in faults), "|")


if __name__ == "__main__":
    sys.exit(main())
