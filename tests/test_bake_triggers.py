"""Tests what begins a bake, and what stays of a stack that has baked."""

import json
import subprocess
import sys

import pytest
from account import inventory
from bakes import EVERY, Bakes, names, pulled
from uninstall import uninstall
from uploaded import Uploaded

from local import images
from local.client import ROOT, until

NAME = "triggers"
SECONDS = 60
"""Limits how long bakes take, in seconds: they wait for ten minutes first, of which 12 seconds are waited here."""


@pytest.fixture(scope="module")
def bakes(cloud):
    """A stack that bakes by the clock and after pushes."""
    stack = Uploaded(cloud, NAME)
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


@pytest.fixture(scope="module")
def ten(bakes) -> list[str]:
    """Ten images, pushed one after the other, and what has become of each push."""
    pushed = [bakes.push("triggers/app", f"v{number}", images.image(f"push {number}")) for number in range(10)]
    bakes.script(pulled(pushed[-1]))
    all_over(bakes, 10)
    return pushed


@pytest.fixture
def plain(cloud):
    """A stack that was told nothing of clocks and pushes, and what there was before it: a repository with an image."""
    cloud.push("plain/app", "v1", images.image("first"))
    before = inventory(cloud)
    stack = Uploaded(cloud, "plain")
    stack.deploy(ClusterName="plain", Repositories="plain/*")
    return stack, before


def test_ten_pushes_in_ten_minutes_make_one_bake_and_a_later_one_another(bakes, ten):
    outputs = all_over(bakes, 10)
    [baked] = [output["bakes"] for output in outputs if "bakes" in output]
    assert [output["status"] for output in outputs if "bakes" not in output] == ["collected"] * 9
    assert [(bake["status"], names(bake["images"])) for bake in baked] == [("baked", [ten[-1]])]
    later = bakes.push("triggers/app", "v10", images.image("push 10"))
    bakes.script(pulled(later))
    [*_, last] = all_over(bakes, 11)
    assert [(bake["status"], names(bake["images"])) for bake in last["bakes"]] == [("baked", [later])]
    assert bakes.rows() == {}
    bakes.until_clean()


def test_no_more_than_one_bake_waits_with_pushes_for_another_to_end(bakes, ten):
    before = len(bakes.cloud.executions(bakes.machine))
    bakes.cloud.fault_state("DescribeCluster", "pause", execution="held-up")
    first = bakes.start("held-up", images=["triggers/app:v0"])
    bakes.until_in(first, "DescribeCluster")
    bakes.push("triggers/app", "v11", images.image("push 11"))
    until(lambda: states_of(bakes)[before + 1 :] == ["WaitForRow"], SECONDS, "the bake of the push to wait", EVERY)
    last = bakes.push("triggers/app", "v12", images.image("push 12"))
    until(lambda: len(states_of(bakes)) == before + 3 and not states_of(bakes)[-1], SECONDS, "the other's end", EVERY)
    bakes.script(pulled(ten[0], last))
    bakes.cloud.release("DescribeCluster", "held-up")
    bakes.succeeded(first)
    _, waiting, other = all_over(bakes, before + 3)[before:]
    assert other["status"] == "collected"
    assert [(bake["status"], names(bake["images"])) for bake in waiting["bakes"]] == [("baked", [last])]
    assert bakes.rows() == {}


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


def test_the_clock_begins_a_bake(bakes, ten):
    before, rule = bakes.cloud.executions(bakes.machine), bakes.resources["BakeSnapshotScheduled"]
    schedule = bakes.cloud.client("events").describe_rule(Name=rule)
    assert (schedule["ScheduleExpression"], schedule["State"]) == ("cron(0 3 ? * MON-FRI *)", "ENABLED")
    bakes.cloud.fire(rule)
    [*_, last] = all_over(bakes, len(before) + 1)
    assert [bake["status"] for bake in last["bakes"]] == ["unchanged"]
    execution = bakes.cloud.executions(bakes.machine)[-1]["arn"]
    assert json.loads(bakes.ended(execution)["input"]) == {"trigger": "schedule"}


def test_a_person_bakes_by_make_which_prints_what_the_bake_answers(bakes, ten):
    bakes.script(pulled(ten[1]))
    ran = make_bake(bakes, {"images": ["triggers/app:v1"], "quiet": True})
    [bake] = json.loads(ran.stdout)["bakes"]
    assert (ran.returncode, bake["status"], bake["snapshotId"]) == (0, "baked", bakes.published())
    assert "execution arn:" in ran.stderr


def test_a_bake_that_fails_is_its_error_and_its_cause_on_stderr(bakes, ten):
    ran = make_bake(bakes, {"rules": ["none of $HOME"]})
    assert (ran.returncode != 0, ran.stdout) == (True, "")
    assert "The bake ended as FAILED: Plan: " in ran.stderr
    assert "none of $HOME" in ran.stderr


@pytest.mark.parametrize(
    ("stack", "given", "sentence"),
    [
        (
            "nowhere",
            "{}",
            'There is no stack "nowhere" in us-east-1 that bakes: name yours, as make bake STACK=eks-image-prefetch.',
        ),
        (NAME, "[]", 'The input [] is not accepted: it takes a JSON object, such as {"rules": ["gpu"]}.'),
        (NAME, "{", 'The input { is not accepted: it takes a JSON object, such as {"rules": ["gpu"]}.'),
    ],
)
def test_what_cannot_be_begun_is_one_sentence_on_stderr(bakes, stack, given, sentence):
    ran = run([sys.executable, "-m", "local.make.bake", stack, given], bakes.cloud.env())
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", sentence.replace("us-east-1", bakes.cloud.region) + "\n")


def test_who_says_nothing_of_clock_and_pushes_bakes_when_asked_and_of_a_deleted_stack_the_snapshots_stay(
    cloud, plain, tmp_path
):
    stack, before = plain
    bakes = Bakes(cloud, stack)
    for rule in ("BakeAfterPush", "BakeSnapshotScheduled"):
        assert cloud.client("events").describe_rule(Name=bakes.resources[rule])["State"] == "DISABLED"
    bakes.script(pulled(bakes.push("plain/app", "v2", images.image("plain"))))
    [bake] = bakes.bake(architectures=["x86_64"]).values()
    assert len(cloud.executions(bakes.machine)) == 1
    stack.delete()
    assert inventory(cloud) == before
    assert bakes.left_behind() == []
    assert list(bakes.snapshots()) == [bake["snapshotId"]] == [bakes.published()]
    uninstall(cloud, tmp_path, "plain", "plain")
    assert (bakes.snapshots(), bakes.parameters()) == ({}, {})


def make_bake(bakes: Bakes, given: dict) -> subprocess.CompletedProcess[str]:
    """Runs `make bake` with an input from the environment."""
    return run(["make", "--silent", "bake", f"STACK={NAME}"], {**bakes.cloud.env(), "INPUT": json.dumps(given)})


def run(command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True, timeout=120)


def states_of(bakes: Bakes) -> list[str]:
    """Returns the state that each bake is in, oldest first; none of one that is over."""
    return ["".join(row["states"][-1:]) for row in bakes.cloud.executions(bakes.machine)]


def all_over(bakes: Bakes, count: int) -> list[dict]:
    """Waits until as many bakes have begun, and all are over; returns what each says, oldest first."""

    def over() -> list[dict] | None:
        rows = bakes.cloud.executions(bakes.machine)
        return rows if len(rows) >= count and all(row["status"] == "SUCCEEDED" for row in rows) else None

    rows = until(over, SECONDS, f"{count} bakes", EVERY)
    assert len(rows) == count
    return [bakes.ended(row["arn"])["output"] for row in rows]
