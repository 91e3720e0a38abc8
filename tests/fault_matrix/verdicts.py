"""Judges a run whose call failed beside one where nothing did."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .cells import Cell, Run
from .faults import FOR_EVER, TIME_IS_UP, TIMES
from .world import alike

GOOD = ("done", "redelivered", "sent twice", "told", "refused", "dead letter")
"""Lists what a cell may come to; all else is a fault of ours."""

ENDS = {"request": "refused", "task": "refused", "sweep": "told"}
"""Says what comes of work that its caller gives up, where it is no dead letter; a sweep comes again for ever."""


@dataclass(frozen=True)
class Verdict:
    """Tells what a cell came to, and what of it is wrong."""

    outcome: str
    why: str = ""

    @property
    def is_good(self) -> bool:
        """Tells whether the design has it so."""
        return self.outcome in GOOD


def verdict(cell: Cell, run: Run, clean: Run) -> Verdict:
    """Returns what became of a cell's work."""
    said = list(words(run))
    if run.trouble:
        return Verdict("hung" if "exit code None" in run.trouble else "died", run.trouble)
    if any("panicked" in line for line in [*said, run.log]):
        return Verdict("panicked", run.log[-1000:])
    if not run.failed:
        return Verdict("not reached", ", ".join(map(str, run.calls)))
    cause = next((line for line in said if any(word in line for word in (*cell.fault.words, *TIME_IS_UP))), "")
    if run.left is not None:
        return given_up(cell, run, clean, cause)
    return settled(cell, run, clean, cause)


def given_up(cell: Cell, run: Run, clean: Run, cause: str) -> Verdict:
    """Judges a run whose caller has given up."""
    again = {name: change for name, change in differences(run, clean).items() if is_again(change, clean.state[name])}
    if again and not may_be_again(cell, run):
        return Verdict("doubled", json.dumps(again))
    if TIMES[cell.times] != FOR_EVER and run.failed < run.deliveries:
        return Verdict("given up", run.last)
    if not cause:
        return Verdict("unsaid", f"{run.last}\n{run.log[-1500:]}")
    return Verdict(ENDS.get(cell.scenario.caller, "dead letter"), cause)


def settled(cell: Cell, run: Run, clean: Run, cause: str) -> Verdict:
    """Judges a run all of whose work is said to be done."""
    differs = differences(run, clean)
    again = {name for name, change in differs.items() if is_again(change, clean.state[name])}
    less = differs.keys() - again
    if cell.scenario.caller in ("request", "task") and alike([run.last]) != alike([clean.last]):
        less.add("answer")
        differs["answer"] = [run.last]
    if less - cell.scenario.may_lack.keys() or (less and not cause):
        return Verdict("lost", f"{cause} {json.dumps(differs)}")
    if again and not may_be_again(cell, run):
        return Verdict("doubled", json.dumps(differs))
    if less:
        return Verdict("told", cause)
    if again:
        return Verdict("sent twice", ", ".join(again))
    return Verdict("done" if run.deliveries == 1 else "redelivered", cause)


def may_be_again(cell: Cell, run: Run) -> bool:
    """Tells whether the design lets something be done more than once: where nobody can know that it was done."""
    in_doubt = cell.fault.is_in_doubt and cell.call.operation in ("SendCommand", "SendMessageBatch")
    return in_doubt or (bool(cell.scenario.may_send_again) and run.deliveries > 1)


def differences(run: Run, clean: Run) -> dict[str, list[str]]:
    """Returns in what the end of a run differs from that of one in which nothing failed."""
    differs = {name: changes(run.state[name], clean.state[name]) for name in run.state}
    return {name: change for name, change in differs.items() if change}


def is_again(change: list[str], there: list[str]) -> bool:
    """Tells whether nothing has changed but that something is there more often."""
    return all(text[0] == "+" and text[1:] in there for text in change)


def changes(here: list[str], there: list[str]) -> list[str]:
    """Returns what is here more or less often than there."""
    more, fewer = Counter(here) - Counter(there), Counter(there) - Counter(here)
    return [f"+{text}" for text in more.elements()] + [f"-{text}" for text in fewer.elements()]


def words(run: Run) -> Iterator[str]:
    """Yields what the function has said: the lines of its log, and its answers."""
    for line in run.log.splitlines():
        try:
            yield json.loads(line).get("message", "")
        except ValueError:
            yield line
    for invocation in run.answers:
        yield json.dumps(invocation.answer)
