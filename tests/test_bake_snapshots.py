"""Which bakes make a snapshot, of what, and which snapshots stay; builders say by script what they have pulled."""

import json
import re
from typing import Any

import pytest
from bakes import Bakes, hearing, names, pulled
from settling import ended, line
from uploaded import Uploaded

from local import images
from local.client import ROOT, LocalCloud, until

NAME = "snapshots"
KEY = "arn:aws:kms:eu-central-1:123456789012:key/0f4d2ae0-1c1c-4a0a-9d6c-5f0b7ab8f9a1"


@pytest.fixture(scope="module")
def cloud():
    """A cloud of their own, in which AWS's waiting takes a quarter of its usual time: nothing real is waited for."""
    with LocalCloud(LOCAL_TIME_SCALE="0.005", LOCAL_SCHEDULES="off") as cloud:
        yield cloud


@pytest.fixture(scope="module")
def bakes(cloud):
    """A stack whose commands soon run out of time, and which may give its builders another role."""
    stack = Uploaded(cloud, NAME)
    roles = f"arn:aws:iam::{cloud.account}:role/other-builder"
    stack.deploy(
        ClusterName=NAME,
        Repositories="snapshots/app",
        DeliveryTimeout="30",
        ExecutionTimeout="60",
        BakeDefaults='{"architectures": ["x86_64"]}',
        BakeRoleArns=roles,
    )
    return Bakes(cloud, stack)


@pytest.fixture
def app(bakes) -> str:
    """The newest image of the rule, which builders pull, and a snapshot of which is published."""
    image = bakes.push("snapshots/app", "v1", images.image("app"))
    bakes.script(pulled(image))
    bakes.bake()
    return image


ORDINARY = {"online": True, "online_after": 1.0, "endings": [], "managed": None, "die_on_command": False}


# What is baked anew


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


# Which snapshots stay


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


# How a builder is launched


def test_a_builder_takes_no_calls_of_the_older_metadata_service_and_has_no_public_address(bakes, app):
    builder, volumes = builder_of(bakes, force=True)
    assert builder["MetadataOptions"]["HttpTokens"] == "required"
    assert "PublicIpAddress" not in builder
    assert builder["SubnetId"] in bakes.cluster["subnets"][:2]
    assert [group["GroupId"] for group in builder["SecurityGroups"]] == [bakes.cluster["security_group"]]
    assert builder["InstanceType"] == "m6i.large"
    assert volumes["/dev/xvdb"]["Encrypted"] is True
    assert volumes["/dev/xvdb"]["VolumeType"] == "gp3"
    tags = [{tag["Key"]: tag["Value"] for tag in tagged["Tags"]} for tagged in (builder, *volumes.values())]
    assert all(one.items() >= {"Name": f"{NAME}-builder", "bake-snapshot/stack": NAME}.items() for one in tags)


def test_a_builder_stands_where_the_clusters_nodes_run(bakes, app):
    ec2 = bakes.cloud.client("ec2")
    place = {"VpcId": vpc(bakes), "CidrBlock": "10.0.99.0/24", "AvailabilityZone": f"{bakes.cloud.region}b"}
    subnet = ec2.create_subnet(**place)["Subnet"]["SubnetId"]
    tags = {"aws:eks:cluster-name": NAME}
    nodes = bakes.cloud.launch_many(2, tags, containerd="none", subnet=subnet)
    nodes += bakes.cloud.launch_many(1, tags, containerd="none", subnet=bakes.cluster["subnets"][0])
    builder, _ = builder_of(bakes, force=True)
    assert builder["SubnetId"] == subnet
    bakes.cloud.remove(nodes)
    ec2.delete_subnet(SubnetId=subnet)


def test_what_is_asked_of_a_builder_is_what_is_launched(bakes, app):
    bakes.make_profile("other-builder")
    allow_key(bakes)
    group = bakes.cloud.client("ec2").create_security_group(GroupName="builders", Description="-", VpcId=vpc(bakes))
    builder, volumes = builder_of(
        bakes,
        instanceType="c7i.xlarge",
        volumeSizeGiB=77,
        kmsKeyId=KEY,
        subnetId=bakes.cluster["subnets"][2],
        securityGroupIds=[group["GroupId"]],
        publicAddress=True,
        instanceProfile="other-builder",
    )
    assert builder["InstanceType"] == "c7i.xlarge"
    assert builder["SubnetId"] == bakes.cluster["subnets"][2]
    assert builder["PublicIpAddress"]
    assert [group["GroupId"] for group in builder["SecurityGroups"]] == [group["GroupId"]]
    assert builder["IamInstanceProfile"]["Arn"].endswith("/other-builder")
    assert (volumes["/dev/xvdb"]["Size"], volumes["/dev/xvdb"]["KmsKeyId"]) == (77, KEY)


def test_a_volume_need_not_be_encrypted(bakes, app):
    _, volumes = builder_of(bakes, encrypted=False)
    assert volumes["/dev/xvdb"]["Encrypted"] is False


def test_a_role_that_nobody_has_named_is_given_to_no_builder(bakes, app):
    bakes.make_profile("administrator")
    step, cause = bakes.fail(force=True, instanceProfile="administrator")
    assert step == "LaunchBuilder"
    assert "iam:PassRole" in cause


# What AWS does not say


def test_a_snapshot_is_not_deleted_because_ssm_does_not_say_whether_it_is_published(bakes, app):
    published = bakes.published()
    tags = [{"Key": "bake-snapshot/published"}]
    bakes.cloud.client("ec2").delete_tags(Resources=[published], Tags=tags)
    prune = {"prune": {"keep": 100, "execution": bakes.snapshots()[published]["tags"]["bake-snapshot/execution"]}}
    bakes.cloud.throttle("ssm", "GetParameters", 1, "Empty")
    error = bakes.stack.invoke("BakeSweep", prune)["error"]["errorMessage"]
    assert f"the answer to GetParameters lacks {bakes.prefix}/x86_64/snapshot" in error
    assert published in bakes.snapshots()
    swept = bakes.stack.invoke("BakeSweep", prune)
    because = {kept["snapshotId"]: kept["because"] for kept in swept["kept"]}
    assert (swept["deleted"], because[published]) == ([], "it is the published one")
    marked = [{"Key": "bake-snapshot/published", "Value": "2026-11-16T08:00:00Z"}]
    bakes.cloud.client("ec2").create_tags(Resources=[published], Tags=marked)


def test_no_snapshot_is_deleted_because_ec2_lists_nothing_that_might_keep_it(bakes, app):
    for _ in range(2):
        bakes.bake(force=True)
    before = list(bakes.snapshots())
    prune = {"prune": {"keep": 1, "execution": bakes.details(bakes.published())["execution"]}}
    lists = ("DescribeInstances", "DescribeSnapshots", "DescribeFastSnapshotRestores", "DescribeLaunchTemplates")
    for action in lists:
        bakes.cloud.throttle("ec2", action, 1, "Empty")
        error = bakes.stack.invoke("BakeSweep", prune)["error"]["errorMessage"]
        assert error.startswith(f"the answer to {action} lacks its list")
        assert list(bakes.snapshots()) == before
    assert bakes.stack.invoke("BakeSweep", prune)["deleted"] == before[:-1]


def test_a_builder_is_not_terminated_because_step_functions_does_not_say_whether_its_bake_runs(bakes, app):
    bakes.cloud.fault_state("StopBuilder", "pause", execution="unsaid")
    execution = bakes.start("unsaid", force=True)
    bakes.until_in(execution, "StopBuilder")
    [builder] = bakes.builders()
    bakes.cloud.throttle("states", "DescribeExecution", 1, "Empty")
    sweep = {"source": "aws.events", "detail-type": "Scheduled Event"}
    error = bakes.stack.invoke("BakeSweep", sweep)["error"]["errorMessage"]
    assert f"{builder['InstanceId']}: Step Functions does not say whether the execution {execution} is over" in error
    assert [row["InstanceId"] for row in bakes.builders("running")] == [builder["InstanceId"]]
    bakes.cloud.release("StopBuilder", "unsaid")
    bakes.succeeded(execution)


def test_what_is_said_of_a_snapshot_goes_before_it_so_that_a_refusal_is_made_good_later(bakes, app):
    for _ in range(2):
        bakes.bake(force=True)
    oldest = next(iter(bakes.snapshots()))
    bakes.cloud.throttle("ssm", "DeleteParameters", 99)
    error, cause = bakes.fail(force=True, keep=1)
    assert (error, "the parameters could not be deleted" in cause) == ("Prune", True)
    assert oldest in bakes.snapshots()
    bakes.cloud.forget_faults()
    bakes.bake(force=True, keep=1)
    assert list(bakes.snapshots()) == [bakes.published()]
    assert bakes.parameters().keys() == {f"{bakes.prefix}/x86_64/{name}" for name in ("snapshot", bakes.published())}


# What goes wrong


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
        ({"images": ["docker.io/library/busybox:1"]}, "images[0]"),
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


# Helpers


def calls(bakes: Bakes, execution: str) -> set[str]:
    """Returns what a bake has called."""
    details = [event.get("taskScheduledEventDetails") for event in bakes.history(execution)]
    return {found["resource"] for found in details if found}


def state_of(bakes: Bakes, execution: str) -> str | None:
    """Returns the innermost state that a bake is in."""
    [row] = [row for row in bakes.cloud.executions(bakes.machine) if row["arn"] == execution]
    return row["states"][-1] if row["states"] else None


def builder_of(bakes: Bakes, **input_: Any) -> tuple[dict, dict[str, dict]]:
    """Returns the builder of a bake, and its volumes by their device."""
    name = f"looked-at-{len(bakes.cloud.executions())}"
    bakes.cloud.fault_state("StopBuilder", "pause", execution=name)
    execution = bakes.start(name, **input_)
    bakes.until_in(execution, "StopBuilder")
    [builder] = bakes.builders()
    volumes = {volume["Attachments"][0]["Device"]: volume for volume in bakes.volumes()}
    bakes.cloud.release("StopBuilder", name)
    bakes.succeeded(execution)
    bakes.until_clean()
    return builder, volumes


def fast(bakes: Bakes) -> dict[tuple[str, str], str]:
    """Returns the state of fast restore by snapshot and zone."""
    rows = bakes.cloud.client("ec2").describe_fast_snapshot_restores()["FastSnapshotRestores"]
    return {(row["SnapshotId"], row["AvailabilityZone"]): row["State"] for row in rows}


def allow_key(bakes: Bakes) -> None:
    """Has the key be usable by who bakes, as its own policy would (docs/security.md)."""
    actions = ["kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext"]
    allowed = {"Effect": "Allow", "Action": actions, "Resource": KEY}
    bakes.cloud.client("iam").put_role_policy(
        RoleName=bakes.resources["BakeSnapshotRole"],
        PolicyName="key",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [allowed]}),
    )


def vpc(bakes: Bakes) -> str:
    """Returns the cluster's network."""
    subnets = bakes.cloud.client("ec2").describe_subnets(SubnetIds=bakes.cluster["subnets"][:1])
    return subnets["Subnets"][0]["VpcId"]
