"""A bake is made where something has changed, and names every image of its own."""

import json

from bakes import hearing, names, pulled

from local import images
from local.client import ROOT, until

from .builders import calls


def test_where_nothing_has_changed_nothing_is_baked(bakes, app):
    before = bakes.published()
    with hearing(bakes) as heard:
        execution = bakes.start()
        [bake] = bakes.succeeded(execution).values()
        assert (bake["status"], bake["snapshotId"]) == ("unchanged", before)
        assert bakes.published() == before
        assert not heard()
    assert "runInstances" not in calls(bakes, execution)


def test_a_tag_that_has_moved_is_baked_anew_and_what_is_moved_back_is_published_again(bakes, app):
    first = bakes.published()
    moved = bakes.push("snapshots/app", "v1", images.image("moved"))
    bakes.script(pulled(moved))
    [bake] = bakes.bake().values()
    assert (bake["status"], names(bake["images"])) == ("baked", [moved])
    assert bakes.published() == bake["snapshotId"] != first
    bakes.push("snapshots/app", "v1", images.image("app"))
    with hearing(bakes) as heard:
        execution = bakes.start(images=["snapshots/app:v1"])
        [bake] = bakes.succeeded(execution).values()
        [event] = until(heard, 10, "the event")
    assert (bake["status"], bake["snapshotId"]) == ("published again", first)
    assert "runInstances" not in calls(bakes, execution)
    assert bakes.published() == first
    assert event["detail"] == bakes.details(first)
    assert names(event["detail"]["images"]) == [app]


def test_whoever_forces_a_bake_gets_one(bakes, app):
    before = bakes.published()
    [bake] = bakes.bake(force=True).values()
    assert bake["status"] == "baked"
    assert bakes.published() == bake["snapshotId"] != before


def test_a_newer_ami_is_baked_with(bakes, app):
    before = bakes.details(bakes.published())["ami"]
    bakes.cloud.publish_amis()
    [bake] = bakes.bake().values()
    assert (bake["status"], bake["ami"]) == ("baked", bakes.cloud.ami())
    assert bake["ami"] != before


def test_a_snapshot_whose_details_are_gone_is_made_anew(bakes, app):
    before = bakes.published()
    bakes.publish("snap-00000000000000000")
    bakes.forget_details()
    [bake] = bakes.bake().values()
    assert (bake["status"], bake["snapshotId"] == before) == ("baked", False)


def test_of_two_bakes_at_once_the_second_waits_and_finds_nothing_to_do(bakes, app):
    newer = bakes.push("snapshots/app", "v1", images.image("for two"))
    bakes.script(pulled(newer))
    executions = [bakes.start(), bakes.start()]
    outputs = [bakes.succeeded(execution)["x86_64"] for execution in executions]
    assert sorted(output["status"] for output in outputs) == ["baked", "unchanged"]
    assert len({output["snapshotId"] for output in outputs}) == 1
    assert bakes.rows() == {}


def test_a_quiet_bake_says_nothing_of_its_images(bakes, app):
    [bake] = bakes.bake(force=True, quiet=True).values()
    assert bake.keys() == {"architecture", "status", "snapshotId", "ami"}


def test_more_images_than_a_command_takes_are_pulled_by_several(bakes):
    pushed = [bakes.push("many/app", f"v{number}", images.image(f"many {number}")) for number in range(31)]
    bakes.script(*[pulled(*pushed)] * 5)
    [bake] = bakes.bake(images=[f"many/app:v{number}" for number in range(31)]).values()
    assert names(bake["images"]) == pushed
    assert names(bakes.details(bake["snapshotId"])["images"]) == pushed
    commands = [command for command in bakes.stack.commands("bake-snapshot") if "many/app" in str(command)]
    assert len(commands) == 2
    for place, command in enumerate(reversed(commands), 1):
        assert command["Comment"] == f"bake-snapshot x86_64 {place}/{len(commands)}"
    assert [image for command in reversed(commands) for image in command["Parameters"]["images"][0].split()] == pushed
    document = len((ROOT / "ssm" / "prefetch-images.json").read_bytes())
    assert all(document + len(json.dumps(command["Parameters"])) < 64 << 10 for command in commands)
    tags = bakes.snapshots()[bake["snapshotId"]]["tags"]
    assert len([name for name in tags if name.startswith("bake-snapshot/image-")]) == 31
