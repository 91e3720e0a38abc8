"""Kills commands of one kind at their system calls, one after the other, and looks what the next makes of each."""

import json
import os
import statistics
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from local.child import entrance
from local.nodes.node import ENVIRONMENT, Node

from ..command import PROGRAM
from ..state import eventually
from .kinds import Kind

KILL_AT = Path(__file__).with_name("kill_at.c")
LIMIT_SECONDS = 60
RUN_EVERY = 50
"""Says of how many commands that are killed there is one after which containers are run."""
COUNTED = 3
"""Says how often the system calls of a whole command are counted, which are others each time."""


@dataclass(frozen=True)
class Ended:
    """Says how a command ended, killed or by itself."""

    calls: int
    is_killed: bool
    exit_code: int
    lines: list[dict]
    stderr: str


@dataclass
class Row:
    """Holds what became of the commands of one kind."""

    kind: str
    containerd: str
    calls: int = 0
    killed: int = 0
    ended: int = 0
    next_ones: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


class Killer:
    """Runs the program on a node, and kills it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tool, self._program, self._result = (
            node.folder / name for name in ("kill-at", "prefetch-images", "killed")
        )
        subprocess.run(["cc", "-static", "-O2", "-o", self._tool, KILL_AT], check=True)
        self._program.write_bytes(PROGRAM.read_bytes())
        self._program.chmod(0o500)

    def run(self, variables: Mapping[str, str], at: int = 0) -> Ended:
        """Runs a command; it is killed at one of its system calls, or, with 0, ends by itself."""
        command = [*entrance(self._node.pid()), self._tool, str(at), self._result, self._program]
        environment = {**ENVIRONMENT, **variables}
        ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS)
        calls, status = map(int, self._result.read_text().split())
        assert ran.stdout == "" or ran.stdout.endswith("\n"), f"half a line: {ran.stdout}"
        lines = [json.loads(line) for line in ran.stdout.splitlines()]
        return Ended(calls, os.WIFSIGNALED(status), os.waitstatus_to_exitcode(status), lines, ran.stderr)


def sweep(kind: Kind, killer: Killer, node: Node, points: Callable[[int], Iterable[int]], tell: Callable) -> Row:
    """Kills commands at the points chosen of so many; `tell` hears of each after which something is not right."""
    row = Row(kind.name, node.containerd)
    row.calls = statistics.median_low(whole(kind, killer) for _ in range(COUNTED))
    for at in points(row.calls):
        wrong = kill(kind, killer, at, row)
        for words in wrong:
            tell(f"{node.containerd}, {kind.name}, call {at}: {words}")
        row.wrong += wrong
    return row


def whole(kind: Kind, killer: Killer) -> int:
    """Returns the number of system calls of a command that nobody kills."""
    kind.prepare()
    ended = killer.run(kind.variables())
    wrong = [*kind.wrong(ended.lines, []), *kind.clear()]
    assert ended.exit_code == 0 and not wrong, f"{wrong} {ended.stderr}"
    return ended.calls


def kill(kind: Kind, killer: Killer, at: int, row: Row) -> list[str]:
    """Kills a command, runs the next, and returns what is not right then."""
    kind.prepare()
    first = killer.run(kind.variables(), at)
    row.killed += first.is_killed
    row.ended += not first.is_killed
    wrong = kind.untrue(first.lines)
    following = killer.run(kind.variables())
    row.next_ones[outcome(following)] += 1
    if following.exit_code != 0:
        wrong.append(f"the next command ends with {following.exit_code}: {following.stderr}")
    wrong += kind.wrong(following.lines, first.lines)
    if not eventually(lambda: leftovers(kind), [], seconds=1):
        wrong += leftovers(kind)
    if row.killed % RUN_EVERY == 1:
        wrong += kind.run()
    return wrong + kind.clear()


def outcome(ended: Ended) -> str:
    """Returns what a command made of its images, in words."""
    return ", ".join(sorted(line["status"] for line in ended.lines if "status" in line)) or "answered"


def leftovers(kind: Kind) -> list[str]:
    """Returns what commands should not have left behind."""
    held = kind.looker.held()
    left = [f"lease {lease}" for lease in sorted(held.leases - kind.before.leases)]
    left += [f"ingest {ingest}" for ingest in sorted(held.ingests)]
    left += [f"file {file}" for file in sorted(kind.looker.files())]
    return left + [f"lock {lock}" for lock in sorted(kind.looker.locked())]
