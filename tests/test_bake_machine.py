"""The state machine of a bake by itself, run against made-up answers: half ones, and some that never come to an end."""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from machine import definition, tasks

from local.stepfunctions import asl, expressions

MAX_EVENTS = 25_000
"""Limits how many events an execution's history has (Step Functions, quotas of state executions)."""
ARN = "arn:aws:states:eu-central-1:123456789012:execution:bakes:this"
BUILDER, SNAPSHOT = "i-0123456789abcdef0", "snap-0123456789abcdef0"
ZONE = "eu-central-1a"
IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1@sha256:" + "0" * 64

OUR_OWN = {task.name for task in tasks() if task.service == "lambda"}
"""Names the calls of our own functions, whose answers are theirs to keep whole."""
MAY_BE_NONE = {"GetDetails"}
"""Whose expression may fail: its answer is a text that anybody may have written, and that is caught."""

INSTANCE = {"InstanceId": BUILDER, "StateReason": {"Message": "-"}}
MAPPING = {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeId": "vol-0123456789abcdef0"}}
ANSWERS: dict[str, Any] = {
    "GetHolder": {"Item": {"holder": {"S": "another"}}},
    "DescribeHolder": {"ExecutionArn": "another", "Status": "FAILED"},
    "DescribeCluster": {
        "Cluster": {
            "Version": "1.33",
            "ResourcesVpcConfig": {"SubnetIds": ["subnet-1", "subnet-2"], "ClusterSecurityGroupId": "sg-1"},
        }
    },
    "GetAmi": {"Parameter": {"Value": "ami-1"}},
    "FindSnapshot": {"Snapshots": [{"SnapshotId": "snap-1", "StartTime": "2026-11-16T08:00:00Z"}]},
    "GetPublished": {"Parameter": {"Value": "snap-2"}},
    "GetDetails": {"Parameter": {"Value": "gone"}},
    "LaunchBuilder": {"Instances": [INSTANCE]},
    "LookForBuilder": {"InstanceInformationList": [{"PingStatus": "Online"}]},
    "LookAtBuilder": {"Reservations": [{"Instances": [{**INSTANCE, "State": {"Name": "running"}}]}]},
    "SendCommand": {"Command": {"CommandId": "command-1"}},
    "GetCommand": {
        "Status": "Success",
        "StatusDetails": "Success",
        "StandardOutputContent": json.dumps({"image": IMAGE, "status": "pulled", "reason": ""}) + "\n",
        "StandardErrorContent": "",
    },
    "LookIfStopped": {
        "Reservations": [{"Instances": [{**INSTANCE, "State": {"Name": "stopped"}, "BlockDeviceMappings": [MAPPING]}]}]
    },
    "CreateSnapshot": {"SnapshotId": SNAPSHOT, "StartTime": "2026-11-16T08:00:00Z"},
    "LookAtSnapshot": {"Snapshots": [{"State": "completed", "StateMessage": "-"}]},
    "EnableFastRestore": {"Successful": [], "Unsuccessful": []},
    "LookAtFastRestore": {"FastSnapshotRestores": [{"State": "enabled", "AvailabilityZone": ZONE}]},
    "TerminateBuilder": {"TerminatingInstances": [{"InstanceId": BUILDER}]},
    "CleanUp": {"Payload": {}},
    "Prune": {"Payload": {}},
}
"""Answers to each call of a bake but Plan's."""


def planned(commands: int) -> dict[str, Any]:
    """Returns a bake of one architecture as BakePlan plans it."""
    return {
        "architecture": "x86_64",
        "amiParameter": "/aws/service/bottlerocket/image_id",
        "instanceType": "m6i.large",
        "instanceProfile": {"Name": "builder"},
        "networkInterface": {"DeviceIndex": 0, "SubnetId": "subnet-1"},
        "volume": {"VolumeSize": 20},
        "images": [{"image": IMAGE, "bytes": 1, "named": True}],
        "leftOff": [],
        "commands": [{"comment": str(number), "parameters": {"images": [IMAGE]}} for number in range(commands)],
        "tags": [],
        "fingerprint": "0",
        "fastSnapshotRestoreZones": [ZONE],
    }


class World:
    """Answers a bake as AWS does: it is of one architecture and comes through every state but that which cleans up."""

    def __init__(self, commands: int = 1):
        self.state = ""
        self.calls: dict[str, int] = {}
        self.events = 0
        self.unusable: list[tuple[str, str]] = []
        self.change: Callable[[str, int, Any], Any] = lambda state, call, answer: answer
        self.answers = copy.deepcopy(ANSWERS)
        self.answers["Plan"] = {"Payload": {"bakes": [planned(commands)], "keep": 3, "force": False, "quiet": False}}

    def run(self, trigger: str = "push", **values: str) -> Any:
        """Runs a bake and returns its output, or what it fails with."""
        context = {"Execution": {"Id": ARN, "Input": {"trigger": trigger}, "Name": "this"}}
        run = asl.Run(json.loads(definition(**values)), context, self._answer, self._enter, self._record)
        try:
            return run.output()
        except (asl.StateError, asl.TimedOut) as error:
            return error

    def _enter(self, execution: str, state: str, fields: dict, when: str) -> None:
        if when == "before":
            self.state = state

    def _answer(self, resource: str, arguments: Any) -> Any:
        state = self.state
        self.calls[state] = call = self.calls.get(state, 0) + 1
        if state == "TakeRow" and call == 1:
            raise asl.StateError("DynamoDB.ConditionalCheckFailedException", "")
        if state == "GetDetails" and self.answers[state]["Parameter"]["Value"] == "gone":
            raise asl.StateError("Ssm.ParameterNotFoundException", "")
        if state == "LookForBuilder" and call == 1:
            return {"InstanceInformationList": []}
        return self.change(state, call, copy.deepcopy(self.answers.get(state, {})))

    def _record(self, previous: int, kind: str, details: dict) -> int:
        self.events += 1
        return self.events


@pytest.fixture
def world(monkeypatch) -> World:
    """A world in which nobody waits, and that hears of each expression that fails."""
    world = World()
    evaluate = expressions.evaluate

    def heard(template: Any, bindings: dict) -> Any:
        try:
            return evaluate(template, bindings)
        except expressions.Unusable as error:
            world.unusable.append((bindings["states"]["context"]["State"]["Name"], str(error)))
            raise

    monkeypatch.setattr(expressions, "evaluate", heard)
    monkeypatch.setattr(asl, "scaled", lambda seconds: 0.0)
    return world


def test_a_bake_comes_through_every_call_but_that_which_cleans_up(world):
    assert [bake["status"] for bake in world.run()["bakes"]] == ["baked"]
    assert {task.name for task in tasks()} - world.calls.keys() == {"CleanUp"}
    assert world.unusable == []


@pytest.mark.parametrize("state", sorted(World().answers.keys() - OUR_OWN))
def test_a_field_that_aws_leaves_out_once_fails_no_expression(world, state):
    for path in [(), *paths(world.answers[state])]:
        world.calls.clear()
        world.change = lambda at, call, answer, path=path: without(answer, path) if (at, call) == (state, 1) else answer
        world.run()
        assert [failed for failed in world.unusable if failed[0] not in MAY_BE_NONE] == [], path


@pytest.mark.parametrize(
    "states",
    [
        ("LookForBuilder",),
        ("LookForBuilder", "LookAtBuilder"),
        ("GetCommand",),
        ("LookIfStopped",),
        ("LookAtSnapshot",),
        ("LookAtFastRestore",),
    ],
    ids=lambda states: states[-1],
)
def test_who_is_answered_nothing_looks_again_and_ends_nothing(world, states):
    world.change = lambda at, call, answer: {} if at in states and call < 9 else answer
    assert [bake["status"] for bake in world.run()["bakes"]] == ["baked"]
    assert all(world.calls[state] >= 8 for state in states)
    assert "CleanUp" not in world.calls


def test_of_a_holder_that_step_functions_says_nothing_of_nothing_is_taken(world):
    for trigger, row in (("push", "bake#push"), ("manual", "bake#lock")):
        world.calls.clear()
        world.change = lambda at, call, answer: {} if (at, call) == ("DescribeHolder", 1) else answer
        assert [bake["status"] for bake in world.run(trigger)["bakes"]] == ["baked"], row
        assert "TakeOverRow" not in world.calls, row


@pytest.mark.parametrize(
    ("state", "step", "said"),
    [
        ("GetAmi", "GetAmi", "NoAmi: SSM does not say what /aws/service/bottlerocket/image_id is"),
        ("LaunchBuilder", "LaunchBuilder", "NotLaunched: EC2 does not say which builder it launched"),
        ("SendCommand", "Verify", "SSM does not say which command it sent"),
        ("CreateSnapshot", "CreateSnapshot", "NotBegun: EC2 does not say which snapshot it began"),
        ("TerminateBuilder", "TerminateBuilder", f"NotTerminated: EC2 does not say that {BUILDER} is terminated"),
    ],
)
def test_a_bake_that_is_not_told_what_it_cannot_do_without_says_so_and_cleans_up(world, state, step, said):
    world.change = lambda at, call, answer: {} if at == state else answer
    failure = world.run()
    assert failure.error == step
    assert said in failure.cause
    assert world.calls["CleanUp"] == 1


@pytest.mark.parametrize("said", ["unreported", "not-found", "no-space"])
def test_an_image_of_another_registry_that_does_not_come_is_left_off_and_one_of_the_own_fails_the_bake(world, said):
    other = "public.ecr.aws/mesh/proxy:v1@sha256:" + "1" * 64
    [bake] = world.answers["Plan"]["Payload"]["bakes"]
    bake["images"].append({"image": other, "bytes": 1, "named": False, "elsewhere": True})
    if said != "unreported":
        line = json.dumps({"image": other, "status": "failed", "reason": said})
        world.answers["GetCommand"]["StandardOutputContent"] += line + "\n"
    [baked] = world.run()["bakes"]
    assert (baked["status"], baked["leftOff"]) == ("baked", [other])
    assert [image["image"] for image in baked["images"]] == [IMAGE]
    del bake["images"][1]["elsewhere"]
    assert "NotAllThere" in world.run().cause


@pytest.mark.parametrize("details", ["", "{", "[]", '"text"', "null"])
def test_details_that_are_none_are_baked_anew(world, details):
    world.answers["GetDetails"] = {"Parameter": {"Value": details}}
    assert [bake["status"] for bake in world.run()["bakes"]] == ["baked"]
    assert world.calls["GetDetails"] == 1


def test_waiting_for_another_bake_ends_with_the_day_and_not_with_the_history(world):
    world.answers["DescribeHolder"] = {"Status": "RUNNING"}

    def held(state: str, call: int, answer: Any) -> Any:
        if state == "TakeRow":
            raise asl.StateError("DynamoDB.ConditionalCheckFailedException", "")
        return answer

    world.change = held
    assert isinstance(world.run("manual"), asl.TimedOut)
    assert world.events < MAX_EVENTS / 3


@pytest.mark.parametrize(("commands", "polls"), [(1, 130), (30, 4)])
def test_whatever_takes_longest_ends_with_the_day_and_not_with_the_history(world, commands, polls):
    """Everything that is waited for comes with the last look, and commands take what is left of the day."""
    world.answers["Plan"] = World(commands).answers["Plan"]
    looks = {
        "LookForBuilder": (59, {}),
        "LookIfStopped": (89, {"Reservations": [{"Instances": [{"State": {"Name": "stopping"}}]}]}),
        "LookAtSnapshot": (179, {"Snapshots": [{"State": "pending"}]}),
        "LookAtFastRestore": (179, {"FastSnapshotRestores": [{"State": "enabling", "AvailabilityZone": ZONE}]}),
    }

    def late(state: str, call: int, answer: Any) -> Any:
        if state == "GetCommand":
            return answer if call % polls == 0 else {"Status": "InProgress"}
        count, before = looks.get(state, (0, {}))
        return before if call <= count else answer

    world.change = late
    world.run("manual", ExecutionTimeout="172800")
    assert world.calls["GetCommand"] == commands * polls
    assert world.calls["LookAtSnapshot"] == 180
    assert 2 * world.events < MAX_EVENTS, "two architectures are baked at once"


# Helpers


def paths(answer: Any, above: tuple = ()) -> Iterator[tuple]:
    """Yields the way to every field of an answer."""
    items = answer.items() if isinstance(answer, dict) else enumerate(answer) if isinstance(answer, list) else ()
    for key, inner in items:
        yield (*above, key)
        yield from paths(inner, (*above, key))


def without(answer: Any, path: tuple) -> Any:
    """Returns an answer without one of its fields; without a path, one without any."""
    if not path:
        return {}
    *above, last = path
    inner = answer
    for key in above:
        inner = inner[key]
    del inner[last]
    return answer
