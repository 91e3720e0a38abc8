"""Makes the cells out of the calls that scenarios are seen to make, and runs them beside each other."""

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from .cells import Cell, Run, run
from .faults import FAULTS, TIMES, Call
from .scenarios import Scenario
from .verdicts import Verdict, verdict

AT_ONCE = 64
"""Bounds the cells that run beside each other: most of them wait."""
ALIKE = 4
"""Says how many calls of one operation fail one by one; of more, shards or pages, the first and last do."""


@cache
def clean(build: Path, scenario: Scenario) -> Run:
    """Returns the scenario's run in which nothing fails."""
    done = run(build, scenario)
    if done.left is not None or done.trouble or not done.calls:
        raise RuntimeError(f"{scenario.name} does not work: {done.trouble} {done.last}\n{done.log[-2000:]}")
    return done


def cells(build: Path, scenarios: Iterable[Scenario]) -> list[Cell]:
    """Returns every cell of the scenarios."""
    return [
        Cell(scenario, call, fault, times)
        for scenario in scenarios
        for call in failing(own_calls(clean(build, scenario)))
        for fault in FAULTS
        for times in TIMES
    ]


def own_calls(done: Run) -> list[Call]:
    """Returns the calls of a run without those of what comes later in any case."""
    return done.calls[: done.own_calls]


def failing(calls: Sequence[Call]) -> list[Call]:
    """Returns which of a run's calls are made to fail."""
    most = {(call.service, call.operation): call.number for call in sorted(calls)}
    return [
        call
        for call in calls
        if call.number in (1, most[call.service, call.operation]) or most[call.service, call.operation] <= ALIKE
    ]


def judged(build: Path, chosen: Sequence[Cell]) -> dict[Cell, Verdict]:
    """Runs cells beside each other, and judges each."""

    def judge(cell: Cell) -> Verdict:
        failed = run(build, cell.scenario, (cell.call, cell.fault, TIMES[cell.times]))
        return verdict(cell, failed, clean(build, cell.scenario))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(chosen, pool.map(judge, chosen), strict=True))
