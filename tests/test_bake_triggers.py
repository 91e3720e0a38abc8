"""What begins a bake, and what stays of a stack that has baked."""

import json
import subprocess

import pytest
from account import inventory
from bakes import Bakes, names, pulled

from local import images
from local.client import ROOT, until
from local.stack import Stack

NAME = "triggers"
SECONDS = 60
"""How long bakes may take that wait for ten minutes first, of which 12 seconds are waited here."""


@pytest.fixture(scope="module")
def bakes(cloud):
    """A stack that bakes by the clock and after pushes."""
    stack = Stack(cloud, NAME)
    stack.deploy(
        ClusterName=NAME,
        Repositories="triggers/*",
        BakeSchedule="cron(0 3 ? * MON-FRI *)",
        BakeAfterPushMinutes="10",
        BakeDefaults='{"architectures": ["x86_64"]}',
    )
    yield Bakes(cloud, stack)
    cloud.turn_defaults(online_after=1.0, endings=[])
    stack.delete()


def test_ten_pushes_in_ten_minutes_make_one_bake_and_a_later_one_another(bakes):
    pushed = [bakes.push("triggers/app", f"v{number}", images.image(f"push {number}")) for number in range(10)]
    bakes.script(pulled(pushed[-1]))
    outputs = all_over(bakes, 10)
    [baked] = [output["bakes"] for output in outputs if "bakes" in output]
    assert [output["status"] for output in outputs if "bakes" not in output] == ["collected"] * 9
    assert [(bake["status"], names(bake["images"])) for bake in baked] == [("baked", [pushed[-1]])]
    later = bakes.push("triggers/app", "v10", images.image("push 10"))
    bakes.script(pulled(later))
    [*_, last] = all_over(bakes, 11)
    assert [(bake["status"], names(bake["images"])) for bake in last["bakes"]] == [("baked", [later])]
    assert bakes.rows() == {}
    bakes.until_clean()


@pytest.mark.parametrize(
    ("event", "begins"),
    [
        ("image-push.tagged", True),
        ("image-push.index", True),
        ("image-push.replication", True),
        ("image-push.pull-through-cache", True),
        ("image-push.pull-through-cache-failed", False),
        ("image-push.delete", False),
        ("image-push.failed", False),
        ("image-push.scan", False),
        ("node-launch.running", False),
    ],
)
def test_what_is_a_push_to_nodes_begins_a_bake(bakes, event, begins):
    rule = bakes.cloud.client("events").describe_rule(Name=bakes.resources["BakeAfterPush"])
    answer = bakes.cloud.client("events").test_event_pattern(
        EventPattern=rule["EventPattern"], Event=(ROOT / "events" / f"{event}.json").read_text()
    )
    assert answer["Result"] is begins


def test_the_clock_begins_a_bake(bakes):
    image = bakes.push("triggers/clock", "v1", images.image("clock"))
    before = len(all_over(bakes, 1))
    bakes.script(pulled(image, newest(bakes)))
    rule = bakes.resources["BakeSnapshotScheduled"]
    schedule = bakes.cloud.client("events").describe_rule(Name=rule)
    assert (schedule["ScheduleExpression"], schedule["State"]) == ("cron(0 3 ? * MON-FRI *)", "ENABLED")
    bakes.cloud.fire(rule)
    [*_, last] = all_over(bakes, before + 1)
    assert [bake["status"] for bake in last["bakes"]] == ["baked"]
    execution = bakes.details(bakes.published())["execution"]
    described = bakes.cloud.client("stepfunctions").describe_execution(executionArn=execution)
    assert json.loads(described["input"]) == {"trigger": "schedule"}


def test_a_person_bakes_by_make_which_fails_where_the_bake_does(bakes):
    image = bakes.push("triggers/app", "v1", images.image("push 1"))
    bakes.script(pulled(image))
    ended = make_bake(bakes, json.dumps({"images": ["triggers/app:v1"], "quiet": True}))
    [bake] = json.loads(json.loads(ended.stdout)["output"])["bakes"]
    assert (ended.returncode, bake["status"], bake["snapshotId"]) == (0, "baked", bakes.published())
    ended = make_bake(bakes, json.dumps({"rules": ["none of $HOME"]}))
    said = json.loads(ended.stdout)
    assert (ended.returncode != 0, said["status"], said["error"]) == (True, "FAILED", "Plan")
    assert "none of $HOME" in said["cause"]


def make_bake(bakes: Bakes, given: str) -> subprocess.CompletedProcess:
    """Runs `make bake` as a person does who has this in the environment."""
    return subprocess.run(
        ["make", "--silent", "bake", f"STACK={NAME}"],
        cwd=ROOT,
        env={**bakes.cloud.env(), "INPUT": given},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_neither_clock_nor_pushes_begin_a_bake_of_a_stack_that_was_told_nothing_of_them(cloud):
    stack = Stack(cloud, "quiet")
    stack.deploy(ClusterName="quiet")
    rules, resources = cloud.client("events"), stack.resources()
    for name in ("BakeAfterPush", "BakeSnapshotScheduled"):
        assert rules.describe_rule(Name=resources[name])["State"] == "DISABLED"
    stack.delete()


def test_of_a_deleted_stack_its_snapshots_stay_with_the_parameters_that_name_them_and_nothing_else(cloud):
    stack, before = Stack(cloud, "deleted"), inventory(cloud)
    stack.deploy(ClusterName="deleted", Repositories="deleted/*")
    bakes = Bakes(cloud, stack)
    bakes.script(pulled(bakes.push("deleted/app", "v1", images.image("deleted"))))
    [bake] = bakes.bake(architectures=["x86_64"]).values()
    stack.delete()
    assert inventory(cloud) == before
    assert bakes.left_behind() == []
    assert list(bakes.snapshots()) == [bake["snapshotId"]] == [bakes.published()]


def all_over(bakes: Bakes, count: int) -> list[dict]:
    """Waits until as many bakes have begun, and all are over; returns what each says, oldest first."""

    def over() -> list[dict] | None:
        rows = bakes.cloud.executions(bakes.machine)
        return rows if len(rows) >= count and all(row["status"] == "SUCCEEDED" for row in rows) else None

    rows = until(over, SECONDS, f"{count} bakes")
    assert len(rows) == count or count == 1
    return [bakes.ended(row["arn"])["output"] for row in rows]


def newest(bakes: Bakes) -> str:
    """Returns the image that was baked last."""
    [image] = bakes.details(bakes.published())["images"]
    return image["image"]
