"""Kills commands at their system calls, all or so many of each kind: `python -m tests.document.kills [points]`."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from .nodes import kill_all, table

ROOM = 1 << 30
"""Says what two nodes and their registry take at most, in bytes."""


def main() -> int:
    """Prints a table; returns non-zero where something is not right after a command that follows."""
    parser = argparse.ArgumentParser(prog="python -m tests.document.kills", description=__doc__)
    parser.add_argument(
        "points", nargs="?", type=int, help="of each kind on each containerd, spread evenly (default: all)"
    )
    parser.add_argument("--kind", default="", help="words of a kind's name (default: all kinds)")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)

    def spread(calls: int) -> range:
        return range(1, calls + 1, max(1, calls // (arguments.points or calls)))

    began = time.monotonic()
    with tempfile.TemporaryDirectory(dir=memory()) as folder:
        rows = kill_all(Path(folder), spread, kind=arguments.kind, tell=lambda words: print(words, flush=True))
    killed, seconds = sum(row.killed for row in rows), time.monotonic() - began
    print(f"\n{table(rows)}\n\n{killed} commands killed in {seconds:.0f} s, {killed / seconds:.1f} in a second")
    return 1 if any(row.wrong for row in rows) else 0


def memory() -> str | None:
    """Returns a folder in memory, where nodes need not wait for the disk; none where there is none, or no room."""
    folder = "/dev/shm"
    is_large = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM
    return folder if is_large else None


if __name__ == "__main__":
    sys.exit(main())
