"""A bake that cannot be made fails by its step and its reason, and leaves nothing behind."""

import json
import re

import pytest
from bakes import pulled
from settling import ended, line

from local import images
from local.client import until

from .builders import KEY, NAME, ORDINARY, calls, state_of


def test_images_that_are_not_there_fail_the_bake_with_their_reasons(bakes, app):
    before = bakes.published()
    asked = [bakes.push("three/app", f"v{number}", images.image(f"three {number}")) for number in range(3)]
    lines = [line(asked[0]), line(asked[1], "failed", "not-found"), line(asked[2], "skipped", "no-space")]
    bakes.script(ended(*lines))
    step, cause = bakes.fail(images=[f"three/app:v{number}" for number in range(3)])
    assert step == "Verify"
    wanted = (
        f"x86_64: Verify: NotAllThere: 2 of 3 images are not there: {asked[1]} failed not-found, {asked[2]} skipped"
    )
    assert cause.startswith(wanted)
    bakes.until_clean()
    assert bakes.published() == before


def test_an_image_of_which_the_builder_says_nothing_is_not_there(bakes, app):
    bakes.script(ended("It said something else."))
    step, cause = bakes.fail(force=True)
    assert (step, f"{app} failed unreported" in cause) == ("Verify", True)


def test_an_image_that_the_processor_cannot_run_is_left_off_unless_it_is_named(bakes, app):
    other = bakes.push("three/other", "v1", images.image("other"))
    bakes.script(ended(line(app), line(other, "skipped", "platform")))
    step, cause = bakes.fail(images=["snapshots/app:v1", "three/other:v1"])
    assert (step, f"{other} skipped platform" in cause) == ("Verify", True)
    bakes.script(ended(line(app, "skipped", "platform")))
    step, cause = bakes.fail(force=True)
    assert (step, "none of the images runs on x86_64" in cause) == ("Verify", True)


def test_a_builder_that_never_comes_online_is_given_up(bakes, app):
    bakes.script(managed=False)
    step, cause = bakes.fail(force=True)
    assert step == "LookForBuilder"
    assert re.search(r"NotOnline: i-[0-9a-f]{17} was not online in SSM within 10 minutes", cause)
    bakes.until_clean()
    bakes.cloud.turn_defaults(**ORDINARY)


def test_a_builder_that_somebody_terminates_is_not_waited_for(bakes, app):
    bakes.script(managed=False)
    execution = bakes.start(force=True)
    [builder] = until(lambda: bakes.builders("running"), 20, "the builder")
    bakes.cloud.terminate(builder["InstanceId"])
    step, cause = bakes.failed(execution)
    assert step == "LookForBuilder"
    assert "BuilderGone" in cause and "Client.UserInitiatedShutdown" in cause
    bakes.cloud.turn_defaults(**ORDINARY)


def test_a_builder_that_dies_while_it_pulls_fails_the_bake(bakes, app):
    bakes.script(die_on_command=True)
    step, cause = bakes.fail(force=True)
    assert step == "Verify"
    assert f"1 of 1 images are not there: {app} failed unreported" in cause
    bakes.until_clean()
    bakes.cloud.turn_defaults(**ORDINARY)


def test_a_builder_that_is_terminated_while_it_pulls_fails_the_bake(bakes, app):
    bakes.script({**pulled(app), "seconds": 4})
    execution = bakes.start(force=True)
    until(lambda: state_of(bakes, execution) == "WaitForCommand", 20, "the command")
    bakes.cloud.terminate(bakes.builders()[0]["InstanceId"])
    step, cause = bakes.failed(execution)
    assert step in ("Verify", "StopBuilder"), cause
    bakes.until_clean()


def test_a_snapshot_that_ends_in_error_is_deleted_and_is_the_reason(bakes, app):
    before = bakes.published()
    bakes.cloud.fail_snapshots(1)
    step, cause = bakes.fail(force=True)
    assert step == "CreateSnapshot"
    assert "NotComplete" in cause and "is error: Client.InternalError" in cause
    bakes.until_clean()
    assert bakes.published() == before


def test_a_zone_that_is_none_fails_the_bake_with_what_ec2_says(bakes, app):
    step, cause = bakes.fail(force=True, fastSnapshotRestoreZones=["eu-central-1z"])
    assert step == "EnableFastRestore"
    assert "FastRestoreRefused: eu-central-1z: " in cause
    bakes.until_clean()


def test_what_fails_for_one_architecture_ends_not_the_other(bakes, app):
    before = bakes.published()
    step, cause = bakes.fail(
        architectures=["x86_64", "arm64"], instanceType={"x86_64": "m6i.large", "arm64": "m6i.large"}, force=True
    )
    assert step == "LaunchBuilder"
    assert re.match("arm64: LaunchBuilder: Ec2.Ec2Exception: .*architecture", cause) and "\n" not in cause
    assert bakes.published() != before
    assert bakes.published("arm64") is None
    bakes.until_clean()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"architecture": ["x86_64"]}, "architecture"),
        ({"architectures": ["amd64"]}, "amd64"),
        ({"architectures": []}, "architectures"),
        ({"images": ["snapshots/app:v1"], "rules": ["default"]}, "rules"),
        ({"images": ["snapshots/app:never-pushed"]}, "images[0]"),
        ({"images": ["docker.io/library/busybox:"]}, "images[0]"),
        ({"rules": ["nobody"]}, "nobody"),
        ({"volumeSizeGiB": 19}, "volumeSizeGiB"),
        ({"volumeSizeGiB": "40"}, "volumeSizeGiB"),
        ({"instanceType": "m6i.large", "architectures": ["x86_64", "arm64"]}, "instanceType"),
        ({"amiParameter": "/mine/image_id", "architectures": ["x86_64", "arm64"]}, "amiParameter"),
        ({"encrypted": False, "kmsKeyId": KEY}, "kmsKeyId"),
        ({"keep": 0}, "keep"),
        ({"trigger": "moon"}, "trigger"),
        ({"force": "yes"}, "force"),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_what_cannot_be_baked_is_refused_by_its_field_and_nothing_is_launched(bakes, app, given, said):
    execution = bakes.start(**given)
    step, cause = bakes.failed(execution)
    assert step == "Plan"
    assert cause.startswith("Plan: BadInput: ") and said in cause
    assert "runInstances" not in calls(bakes, execution)
    assert bakes.rows() == {}


@pytest.mark.parametrize(
    ("parameter", "said"),
    [
        (f"/{NAME}/{NAME}/ami", "ParameterNotFound"),
        (f"/{NAME}/database/password", "is not authorized to perform: ssm:GetParameter"),
        (f"/{NAME}/another-cluster/ami", "is not authorized to perform: ssm:GetParameter"),
    ],
)
def test_an_ami_parameter_that_is_none_of_the_clusters_fails_the_bake_before_anything_is_launched(
    bakes, app, parameter, said
):
    execution = bakes.start(amiParameter=parameter)
    step, cause = bakes.failed(execution)
    assert step == "GetAmi"
    assert said in cause
    assert "runInstances" not in calls(bakes, execution)
