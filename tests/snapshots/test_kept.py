"""Snapshots stay as long as they are among the newest, are published or are named by a launch template."""

from settling import ended

from .builders import fast


def test_three_snapshots_stay_and_one_that_a_launch_template_names(bakes, app):
    snapshots = [bakes.published()]
    ec2 = bakes.cloud.client("ec2")
    mapping = {"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": snapshots[0]}}
    template = ec2.create_launch_template(
        LaunchTemplateName="nodes", LaunchTemplateData={"BlockDeviceMappings": [mapping]}
    )["LaunchTemplate"]["LaunchTemplateId"]
    ec2.create_launch_template_version(LaunchTemplateId=template, LaunchTemplateData={"InstanceType": "m6i.large"})
    for _ in range(4):
        execution = bakes.start(force=True)
        snapshots.append(bakes.succeeded(execution)["x86_64"]["snapshotId"])
    pruned = bakes.ended(execution)["output"]["pruned"]
    [kept] = [kept for kept in pruned["kept"] if kept["snapshotId"] == snapshots[0]]
    assert template in kept["because"]
    assert list(bakes.snapshots()) == [snapshots[0], *snapshots[-3:]]
    assert {name.rpartition("/")[2] for name in bakes.parameters()} == {"snapshot", snapshots[0], *snapshots[-3:]}
    ec2.delete_launch_template(LaunchTemplateId=template)
    bakes.bake(keep=1)
    assert list(bakes.snapshots()) == [snapshots[-1]]


def test_what_is_published_stays_however_old_it_is_and_a_bake_that_fails_prunes_too(bakes, app):
    published = bakes.published()
    newer = [bakes.bake(force=True)["x86_64"]["snapshotId"] for _ in range(2)]
    bakes.publish(published)
    bakes.script(ended("nothing"))
    step, _ = bakes.fail(force=True, keep=1)
    assert step == "Verify"
    assert list(bakes.snapshots()) == [published, newer[-1]]


def test_a_snapshot_restores_fast_until_the_next_is_published(bakes, app):
    zones = [f"{bakes.cloud.region}{letter}" for letter in "ab"]
    [bake] = bakes.bake(fastSnapshotRestoreZones=zones).values()
    assert bake["status"] == "baked"
    assert fast(bakes) == {(bake["snapshotId"], zone): "enabled" for zone in zones}
    execution = bakes.start(fastSnapshotRestoreZones=zones[:1], force=True)
    [next_] = bakes.succeeded(execution).values()
    assert fast(bakes) == {(next_["snapshotId"], zones[0]): "enabled"}
    assert len(bakes.ended(execution)["output"]["pruned"]["fastRestoreDisabled"]) >= 1
    assert bake["snapshotId"] in bakes.snapshots()
    bakes.bake(force=True)
    assert fast(bakes) == {}
