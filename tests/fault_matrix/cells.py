"""Runs one cell: a scenario of which one call fails, followed to its end."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from benches.runtime_api import Function, Invocation, environment

from .endpoint import Endpoint
from .faults import Call, Fault
from .scenarios import DELIVERIES, PAUSE_SECONDS, Scenario
from .world import World

SLOW = 30
"""Says how long an invocation may take in which calls are slow."""
SETTINGS = {
    "BAKE_DEFAULTS": "{}",
    "BUILDER_PROFILE": "builder",
    "LAUNCH_HOOK": "",
    "CENTRAL_REGISTRIES": "",
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
}


@dataclass(frozen=True, eq=False)
class Cell:
    """Names a scenario, the call of it that fails, how, and how often."""

    scenario: Scenario
    call: Call
    fault: Fault
    times: str

    def __str__(self) -> str:
        return f"{self.scenario.name}: {self.call} {self.fault.name} {self.times}"


@dataclass
class Run:
    """Holds what a run of a scenario came to."""

    state: dict[str, list[str]]
    calls: list[Call]
    answers: list[Invocation]
    left: dict | None
    log: str
    failed: int = 0
    trouble: str = ""

    @property
    def last(self) -> str:
        """Returns the last answer, as text."""
        return json.dumps(self.answers[-1].answer) if self.answers else ""

    @property
    def deliveries(self) -> int:
        """Returns how often the event was delivered, be it in part."""
        return len(self.answers) - self.later

    own_calls: int = 0
    """Counts the calls before those of what comes later."""
    later: int = 0
    """Counts the answers to what comes later in any case."""


def run(build: Path, scenario: Scenario, failing: tuple[Call, Fault, int] | None = None) -> Run:
    """Runs a scenario to its end in an account of its own."""
    world = World()
    with tempfile.TemporaryDirectory() as folder, Endpoint(world, failing) as endpoint:
        log = Path(folder, "log")
        scenario.before(world)
        done = Run({}, endpoint.calls, [], scenario.event, "")
        limit = SLOW if failing and failing[1].name == "slow" else scenario.seconds
        settings = {**SETTINGS, **scenario.settings, "TABLE_NAME": world.table, "AWS_ENDPOINT_URL": endpoint.url}
        try:
            program = [build / scenario.function / "bootstrap"]
            with Function(program, environment(scenario.rule, **settings), log) as function:
                deliver(function, scenario, world, done, limit)
                done.own_calls = len(done.calls)
                for event in scenario.after:
                    done.answers.append(function.attempt(json.dumps(event).encode(), limit))
                    done.later += 1
        except RuntimeError as error:
            done.trouble = str(error)
        done.log, done.state, done.failed = log.read_text(errors="replace"), world.state(), endpoint.failed
    world.end()
    return done


def deliver(function: Function, scenario: Scenario, world: World, done: Run, limit: float) -> None:
    """Delivers the event, and what is handed back of it, until all is done or the caller gives up."""
    for number in range(DELIVERIES[scenario.caller]):
        if number:
            world.pass_time(PAUSE_SECONDS)
        invocation = function.attempt(json.dumps(done.left).encode(), limit)
        done.answers.append(invocation)
        done.left = scenario.left(done.left, invocation)
        if done.left is None:
            return
