"""A bake whose calls fail, lose their answers or hang, or that is ended in the middle of one: nothing stays behind."""

import json
import queue
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from bakes import Bakes, pulled, states_of
from machine import tasks
from uploaded import Uploaded

from local import images
from local.client import LocalCloud
from local.stack import Stack

TASKS = {task.name: task for task in tasks()}
ONLY_AFTER_A_FAILURE = "CleanUp"
LANES = ("faults", "faults-2", "faults-3", "faults-4")
"""Stacks beside each other: each bakes one bake at a time."""
OLDER = "snap-00000000000000000"
"""Names the snapshot that was published before."""
ERROR, CAUSE = "Injected.Error", "What AWS says of it."
ALWAYS = 99
"""More often than anything is tried."""
ENDINGS = 12
"""More commands than a builder is sent."""


class Lane(Bakes):
    """A stack whose bakes come through every state that there is, but that which cleans up."""

    def __init__(self, cloud: LocalCloud, stack: Stack, image: str):
        super().__init__(cloud, stack)
        self._image = image.partition("/")[2].partition("@")[0]
        self.over = self.start(**self._input())
        self.succeeded(self.over)

    def begin(self, name: str, asked_for_details: bool = False) -> str:
        """Begins a bake that finds its row held by one that is over, and a snapshot of which nothing is said."""
        [snapshot] = self.snapshots()
        self.hold("bake#push", self.over)
        self.publish(OLDER)
        self.forget_details()
        if asked_for_details:
            self.describe(snapshot, {"images": []})
        return self.start(name, **self._input())

    def fault(self, name: str, state: str, *does: str, **fault: Any) -> None:
        """Has something happen to a state of the bake that will be begun by that name."""
        self.cloud.fault_state(state, *does, execution=name, **fault)

    def assert_nothing_left(self, execution: str) -> None:
        """Asserts that what was made is gone or whole, so what is published, and that the next bake is not held up."""
        self.until_clean()
        assert self.published() in (OLDER, *self.snapshots(execution=execution))
        *others, newest = self.snapshots()
        for snapshot in others:
            self.cloud.client("ec2").delete_snapshot(SnapshotId=snapshot)
        if self.rows():  # which are held by one that is over
            self.publish(newest)
            assert states_of(self.bake(**self._input())) == {"x86_64": "unchanged"}
            assert self.rows() == {}

    def _input(self) -> dict[str, Any]:
        zones = [f"{self.cloud.region}a"]
        chosen = {"images": [self._image], "architectures": ["x86_64"], "fastSnapshotRestoreZones": zones}
        return {"trigger": "push", **chosen, "keep": 100}


@pytest.fixture(scope="module")
def cloud():
    """A cloud of their own, in which AWS's waiting takes a quarter of its usual time: nothing real is waited for."""
    with LocalCloud(LOCAL_TIME_SCALE="0.005", LOCAL_SCHEDULES="off") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def lanes(cloud):
    """The stacks, whose builders say at once that they have pulled the image."""
    digest = cloud.push("faults/app", "v1", images.image("faults"))
    image = f"{cloud.registry_host}/faults/app:v1@{digest}"
    stacks = [Uploaded(cloud, name) for name in LANES]
    for stack in stacks:
        stack.deploy(ClusterName=stack.name, Repositories="faults/*")
    # Not yet online when it is looked for the first time.
    cloud.turn_defaults(online_after=0.1, endings=[pulled(image)] * ENDINGS)
    with ThreadPoolExecutor(len(stacks)) as pool:
        return list(pool.map(lambda stack: Lane(cloud, stack, image), stacks))


@pytest.fixture(scope="module")
def runs(request, lanes):
    """Returns what becomes of each bake that a test here is about, begun as soon as a stack is free."""
    free: queue.Queue[Lane] = queue.Queue()
    for lane in lanes:
        free.put(lane)

    def run(kind: Callable[[Lane, str], None], state: str) -> None:
        lane = free.get()
        try:
            kind(lane, state)
        finally:
            free.put(lane)

    chosen = [item.callspec.params for item in request.session.items if "runs" in getattr(item, "fixturenames", ())]
    with ThreadPoolExecutor(len(lanes)) as pool:
        yield {(case["kind"], case["state"]): pool.submit(run, **case) for case in chosen}


# What may become of any call


def error(lane: Lane, state: str) -> None:
    """A call fails, however often it is made."""
    fails(lane, state, f"error-in-{state}", f"{ERROR}: {CAUSE}", error=ERROR, cause=CAUSE)


def lost(lane: Lane, state: str) -> None:
    """A call is made and its answer is lost, however often."""
    # What another try is answered tells that the first one was carried out.
    told = ("LetGoOfPushes", "TakeOverRow")
    fault = {"when": "after", "error": ERROR, "cause": CAUSE}
    fails(lane, state, f"lost-in-{state}", f"{ERROR}: {CAUSE}", none_the_less=told, **fault)


def hang(lane: Lane, state: str) -> None:
    """A call is not answered, however often it is made."""
    fails(lane, state, f"hang-in-{state}", "States.Timeout", "hang")


def abort(lane: Lane, state: str) -> None:
    """A bake is stopped once a call is made, before its answer is heard."""
    is_ended(lane, state, f"abort-in-{state}", "after", lane.stop, "ABORTED")


def expire(lane: Lane, state: str) -> None:
    """A bake's time is over before a call is made."""
    is_ended(lane, state, f"expire-in-{state}", "before", lane.cloud.expire, "TIMED_OUT")


@pytest.mark.parametrize("state", TASKS)
@pytest.mark.parametrize("kind", [error, lost, hang, abort, expire], ids=lambda kind: kind.__name__)
def test_whatever_becomes_of_a_call_the_bake_says_so_and_leaves_nothing_behind(runs, kind, state):
    runs[kind, state].result()


def test_every_call_may_be_throttled_twice(lanes):
    lane, name = lanes[0], "throttled"
    for state in TASKS.keys() - {ONLY_AFTER_A_FAILURE}:
        lane.fault(name, state, times=2)
    execution = lane.begin(name)
    assert states_of(lane.succeeded(execution)) == {"x86_64": "baked"}
    tries = lane.tries(execution)
    assert {state for state in TASKS if tries[state] >= 2} == TASKS.keys() - {ONLY_AFTER_A_FAILURE}
    lane.assert_nothing_left(execution)


def test_every_call_may_lose_an_answer_and_nothing_is_made_twice(lanes):
    lane, name = lanes[1], "lost"
    for state in TASKS.keys() - {ONLY_AFTER_A_FAILURE}:
        lane.fault(name, state, when="after", error=ERROR)
    execution = lane.begin(name)
    assert states_of(lane.succeeded(execution)) == {"x86_64": "baked"}
    assert len(set(re.findall(r'"i-[0-9a-f]{17}', json.dumps(lane.history(execution), default=str)))) == 1
    [snapshot] = lane.snapshots(execution=execution)
    assert lane.published() == snapshot
    lane.assert_nothing_left(execution)


def test_cleaning_up_may_be_throttled_twice(lanes):
    lane, name = lanes[2], "cleaning"
    lane.fault(name, "StopBuilder", times=ALWAYS)
    lane.fault(name, ONLY_AFTER_A_FAILURE, times=2)
    with lane.cloud.holding_events("aws.states"):  # which would have the sweep do it
        execution = lane.begin(name)
        step, cause = lane.failed(execution)
        assert (step, "not cleaned up" in cause) == ("StopBuilder", False)
        assert lane.tries(execution)[ONLY_AFTER_A_FAILURE] == 2
        lane.assert_nothing_left(execution)


def test_what_is_left_behind_and_of_which_no_event_tells_goes_with_the_next_sweep(lanes):
    lane, name = lanes[0], "unheard"
    lane.fault(name, "LookAtSnapshot", "pause")
    with lane.cloud.holding_events("aws.states"):
        execution = lane.begin(name)
        lane.until_in(execution, "LookAtSnapshot")
        lane.stop(execution)
        assert lane.ended(execution)["status"] == "ABORTED"
        assert len(lane.builders()) == 1 and len(lane.left_behind()) >= 3
        lane.cloud.fire(lane.resources["BakeSweepSweep"])
        lane.assert_nothing_left(execution)


def test_a_sweep_touches_nothing_of_a_bake_that_runs(lanes):
    lane, name = lanes[1], "running"
    lane.fault(name, "LookAtSnapshot", "pause")
    execution = lane.begin(name)
    lane.until_in(execution, "LookAtSnapshot")
    there = lane.left_behind()
    assert lane.stack.invoke("BakeSweep", {"source": "aws.events", "detail-type": "Scheduled Event"}) == {
        "terminated": [],
        "deleted": [],
        "kept": [],
        "fastRestoreDisabled": [],
    }
    assert lane.left_behind() == there
    lane.cloud.release("LookAtSnapshot", name)
    assert states_of(lane.succeeded(execution)) == {"x86_64": "baked"}
    lane.assert_nothing_left(execution)


def test_who_has_lost_the_lock_publishes_nothing(lanes):
    lane, name = lanes[2], "redriven"
    lane.fault(name, "HoldLock", "pause")
    execution = lane.begin(name)
    lane.until_in(execution, "HoldLock")
    lane.hold("bake#lock", lane.over)
    lane.cloud.release("HoldLock", name)
    step, cause = lane.failed(execution)
    assert (step, cause.partition(": LockLost: ")[0]) == ("HoldLock", "x86_64: HoldLock")
    assert lane.published() == OLDER
    lane.assert_nothing_left(execution)


# Helpers


def fails(
    lane: Lane, state: str, name: str, said: str, *does: str, none_the_less: tuple[str, ...] = (), **fault: Any
) -> None:
    """Asserts that a bake fails by a call that never succeeds, says so, and leaves nothing behind."""
    lane.fault(name, state, *does, times=ALWAYS, **fault)
    execution = begin(lane, state, name)
    # Where a row cannot be let go, the next execution takes it over.
    if state in ("LetGo", *none_the_less):
        assert states_of(lane.succeeded(execution)) == {"x86_64": "baked"}
        assert lane.tries(execution)[state] >= 1
    elif state == ONLY_AFTER_A_FAILURE:
        step, cause = lane.failed(execution)
        assert step == "StopBuilder"
        assert f"not cleaned up, which is tried again within the hour: {said.partition(':')[0]}" in cause
    else:
        step, cause = lane.failed(execution)
        assert step == step_of(state)
        assert said in cause
        assert "not cleaned up" not in cause
    lane.assert_nothing_left(execution)


def is_ended(lane: Lane, state: str, name: str, when: str, end: Callable[[str], None], status: str) -> None:
    """Asserts that a bake leaves nothing behind that is ended from outside, at a call."""
    lane.fault(name, state, "pause", when=when)
    execution = begin(lane, state, name)
    lane.until_in(execution, state)
    end(execution)
    assert lane.ended(execution)["status"] == status
    lane.assert_nothing_left(execution)


def begin(lane: Lane, state: str, name: str) -> str:
    """Begins a bake that comes through a state."""
    if state == ONLY_AFTER_A_FAILURE:
        lane.fault(name, "StopBuilder", times=ALWAYS)
    return lane.begin(name, asked_for_details=state == "GetDetails")


def step_of(state: str) -> str:
    """Returns the step that an execution names which fails by a state: that of a command's states is their map."""
    outer = TASKS[state].part.outer
    return outer.name if outer and outer.name == "Prefetch" else state
