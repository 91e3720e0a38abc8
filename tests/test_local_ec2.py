"""The local cloud's instances, volumes and snapshots are as AWS's, wherever a bake relies on it."""

from collections.abc import Callable

import pytest
from probe import credentials, refused
from roles import make_role

from local.client import LocalCloud, until

OURS = {"Key": "bake-snapshot/stack", "Value": "ours"}
EVERYTHING = {"Effect": "Allow", "Action": ["ec2:*", "iam:PassRole"], "Resource": "*"}

# ── RunInstances ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_same_token_launches_once(ec2, launch):
    first = launch(ClientToken="once")
    assert launch(ClientToken="once")["InstanceId"] == first["InstanceId"]
    with refused("IdempotentParameterMismatch"):
        launch(ClientToken="once", InstanceType="m6i.xlarge")


def test_a_launch_makes_tagged_volumes_and_an_interface_that_go_with_it(ec2, launch):
    mapping = {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 40, "VolumeType": "gp3", "Encrypted": True}}
    instance = launch(BlockDeviceMappings=[mapping], MetadataOptions={"HttpTokens": "required"})
    id_ = instance["InstanceId"]
    until(lambda: describe(ec2, id_)["State"]["Name"] == "running", 5)
    described = describe(ec2, id_)
    assert (described["Architecture"], described["MetadataOptions"]["HttpTokens"]) == ("x86_64", "required")
    assert described["Tags"] == [OURS]
    volumes = {mapping["DeviceName"]: mapping["Ebs"]["VolumeId"] for mapping in described["BlockDeviceMappings"]}
    [data] = ec2.describe_volumes(VolumeIds=[volumes["/dev/xvdb"]])["Volumes"]
    assert (data["Size"], data["Encrypted"], data["Tags"]) == (40, True, [OURS])
    [interface] = described["NetworkInterfaces"]
    assert interfaces(ec2, id_) == {interface["NetworkInterfaceId"]}
    assert interface["NetworkInterfaceId"] in interfaces(ec2, "ours", of="tag:bake-snapshot/stack")
    assert not interfaces(ec2, "theirs", of="tag:bake-snapshot/stack")
    assert "PublicIpAddress" not in described
    ec2.terminate_instances(InstanceIds=[id_])
    until(lambda: describe(ec2, id_)["State"]["Name"] == "terminated", 5)
    assert describe(ec2, id_)["StateReason"]["Code"] == "Client.UserInitiatedShutdown"
    found = ec2.describe_volumes(Filters=[{"Name": "tag:bake-snapshot/stack", "Values": ["ours"]}])["Volumes"]
    assert volumes["/dev/xvdb"] not in {volume["VolumeId"] for volume in found}
    assert not interfaces(ec2, id_)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ImageId": "ami-00000000000000000"}, "InvalidAMIID.NotFound"),
        ({"InstanceType": "m6g.large"}, "InvalidParameterValue"),
        ({"SubnetId": "subnet-00000001"}, "InvalidParameterCombination"),
        ({"IamInstanceProfile": {"Name": "nobody"}}, "InvalidParameterValue"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0, "SubnetId": "subnet-0"}]}, "InvalidSubnetID.NotFound"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0, "Groups": ["sg-0"]}]}, "InvalidGroup.NotFound"),
        ({"TagSpecifications": [{"ResourceType": "snapshot", "Tags": [OURS]}]}, "InvalidParameterValue"),
        (
            {"BlockDeviceMappings": [{"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": "snap-0"}}]},
            "InvalidSnapshot.NotFound",
        ),
        ({"LaunchTemplate": {"LaunchTemplateName": "none"}}, "InvalidLaunchTemplateName.NotFoundException"),
    ],
)
def test_a_launch_that_aws_would_refuse_is_refused(launch, change, code):
    with refused(code):
        launch(**change)


def test_an_instance_that_ends_cannot_be_stopped(ec2, launch):
    id_ = launch()["InstanceId"]
    ec2.terminate_instances(InstanceIds=[id_])
    with refused("IncorrectInstanceState"):
        ec2.stop_instances(InstanceIds=[id_])


def test_ec2_may_not_know_yet_of_what_it_has_made(cloud, ec2, launch):
    with cloud.lagging_ec2(60):
        id_ = launch()["InstanceId"]
        with refused("InvalidInstanceID.NotFound"):
            ec2.terminate_instances(InstanceIds=[id_])
        ours = [{"Name": "tag:bake-snapshot/stack", "Values": ["ours"]}, {"Name": "instance-id", "Values": [id_]}]
        assert ec2.describe_instances(Filters=ours)["Reservations"] == []
    assert len(ec2.describe_instances(Filters=ours)["Reservations"]) == 1
    ec2.terminate_instances(InstanceIds=[id_])


# ── Permission ──────────────────────────────────────────────────────────────────────────────────────────────────────

ARN = "arn:aws:ec2:*:*:"
SNAPSHOTS = "arn:aws:ec2:*::snapshot/*"
TAGGED = {"StringEquals": {"aws:RequestTag/bake-snapshot/stack": "ours"}}
LAUNCHES = [
    {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": f"{ARN}{kind}/*", "Condition": TAGGED}
    for kind in ("instance", "volume", "network-interface")
] + [
    {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "arn:aws:ec2:*::image/*"},
    {"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": [f"{ARN}subnet/*", f"{ARN}security-group/*"]},
    {
        "Effect": "Allow",
        "Action": "ec2:CreateTags",
        "Resource": [f"{ARN}instance/*", f"{ARN}volume/*", f"{ARN}network-interface/*"],
        "Condition": {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
    },
    {
        "Effect": "Allow",
        "Action": "iam:PassRole",
        "Resource": "arn:aws:iam::*:role/ec2-builder",
        "Condition": {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}},
    },
]
"""Exactly what a launch needs."""


def test_a_launch_needs_exactly_its_permissions(cloud, launch, caller):
    instance = launch(caller(*LAUNCHES))
    cloud.terminate(instance["InstanceId"])


@pytest.mark.parametrize("missing", range(len(LAUNCHES)))
def test_a_launch_without_one_of_them_is_refused(launch, caller, missing):
    with refused("UnauthorizedOperation"):
        launch(caller(*(statement for index, statement in enumerate(LAUNCHES) if index != missing)))


def test_a_launch_with_other_tags_is_refused(launch, caller):
    tags = [{"Key": "bake-snapshot/stack", "Value": "theirs"}]
    with refused("UnauthorizedOperation"):
        launch(caller(*LAUNCHES), tags=tags)


def test_only_what_carries_the_tag_is_ended_tagged_and_deleted(ec2, launch, caller, snapshot):
    owned = {"StringEquals": {"aws:ResourceTag/bake-snapshot/stack": "ours"}}
    actions = ["ec2:StopInstances", "ec2:TerminateInstances", "ec2:CreateTags", "ec2:DeleteSnapshot"]
    actions += ["ec2:EnableFastSnapshotRestores"]
    owner = caller({"Effect": "Allow", "Action": actions, "Resource": "*", "Condition": owned})
    theirs = [{"Key": "bake-snapshot/stack", "Value": "theirs"}]
    ids = {name: launch(tags=tags)["InstanceId"] for name, tags in (("ours", [OURS]), ("theirs", theirs))}
    snapshots = {name: snapshot(tags) for name, tags in (("ours", [OURS]), ("theirs", theirs))}
    for refused_ in (
        lambda: owner.terminate_instances(InstanceIds=[ids["theirs"]]),
        lambda: owner.terminate_instances(InstanceIds=list(ids.values())),
        lambda: owner.stop_instances(InstanceIds=[ids["theirs"]]),
        lambda: owner.create_tags(Resources=[snapshots["theirs"]], Tags=[OURS]),
        lambda: owner.delete_snapshot(SnapshotId=snapshots["theirs"]),
        lambda: owner.enable_fast_snapshot_restores(
            AvailabilityZones=["eu-central-1a"], SourceSnapshotIds=[snapshots["theirs"]]
        ),
    ):
        with refused("UnauthorizedOperation"):
            refused_()
    owner.create_tags(Resources=[snapshots["ours"]], Tags=[{"Key": "bake-snapshot/published", "Value": "now"}])
    owner.delete_snapshot(SnapshotId=snapshots["ours"])
    owner.terminate_instances(InstanceIds=[ids["ours"]])
    ec2.terminate_instances(InstanceIds=[ids["theirs"]])
    ec2.delete_snapshot(SnapshotId=snapshots["theirs"])


def test_a_snapshot_needs_permission_for_volume_and_snapshot_and_their_tags(ec2, launch, caller):
    id_ = launch()["InstanceId"]
    volume = describe(ec2, id_)["BlockDeviceMappings"][1]["Ebs"]["VolumeId"]
    creating = {"StringEquals": {"ec2:CreateAction": "CreateSnapshot"}}
    allowed = [
        {"Effect": "Allow", "Action": "ec2:CreateSnapshot", "Resource": f"{ARN}volume/*"},
        {"Effect": "Allow", "Action": "ec2:CreateSnapshot", "Resource": SNAPSHOTS, "Condition": TAGGED},
        {"Effect": "Allow", "Action": "ec2:CreateTags", "Resource": SNAPSHOTS, "Condition": creating},
    ]
    request = {"VolumeId": volume, "TagSpecifications": [{"ResourceType": "snapshot", "Tags": [OURS]}]}
    for missing in range(len(allowed)):
        with refused("UnauthorizedOperation"):
            caller(*(row for index, row in enumerate(allowed) if index != missing)).create_snapshot(**request)
    made = caller(*allowed).create_snapshot(**request)
    ec2.delete_snapshot(SnapshotId=made["SnapshotId"])
    ec2.terminate_instances(InstanceIds=[id_])


def test_an_instance_whose_key_its_launcher_may_not_use_ends_as_it_begins(ec2, launch, caller):
    key = "arn:aws:kms:eu-central-1:123456789012:key/1234"
    mapping = {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 40, "Encrypted": True, "KmsKeyId": key}}
    id_ = launch(caller(EVERYTHING), BlockDeviceMappings=[mapping])["InstanceId"]
    until(lambda: describe(ec2, id_)["State"]["Name"] == "terminated", 5)
    assert describe(ec2, id_)["StateReason"]["Code"] == "Client.InternalError"
    uses = {"Effect": "Allow", "Action": ["kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKey*"], "Resource": key}
    id_ = launch(caller(EVERYTHING, uses), BlockDeviceMappings=[mapping])["InstanceId"]
    until(lambda: describe(ec2, id_)["State"]["Name"] == "running", 5)
    ec2.terminate_instances(InstanceIds=[id_])


# ── Snapshots ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_snapshot_is_pending_and_then_complete_or_in_error(cloud, ec2, snapshot):
    good = snapshot([OURS])
    until(lambda: ec2.describe_snapshots(SnapshotIds=[good])["Snapshots"][0]["State"] == "completed", 5)
    cloud.fail_snapshots()
    bad = snapshot([OURS])
    until(lambda: ec2.describe_snapshots(SnapshotIds=[bad])["Snapshots"][0]["State"] == "error", 5)
    wanted = [{"Name": "status", "Values": ["completed"]}, {"Name": "tag-key", "Values": ["bake-snapshot/*"]}]
    found = ec2.describe_snapshots(OwnerIds=["self"], Filters=wanted)["Snapshots"]
    assert [row["SnapshotId"] for row in found] == [good]
    for id_ in (good, bad):
        ec2.delete_snapshot(SnapshotId=id_)
    with refused("InvalidSnapshot.NotFound"):
        ec2.delete_snapshot(SnapshotId=good)


def test_snapshots_are_listed_in_pages(ec2, snapshot):
    made = [snapshot([OURS]) for _ in range(6)]
    filters = [{"Name": "tag:bake-snapshot/stack", "Values": ["ours"]}]
    pages = list(ec2.get_paginator("describe_snapshots").paginate(Filters=filters, PaginationConfig={"PageSize": 5}))
    assert [len(page["Snapshots"]) for page in pages] == [5, 1]
    with refused("InvalidParameterValue"):
        ec2.describe_snapshots(Filters=[{"Name": "cluster", "Values": ["x"]}])
    for id_ in made:
        ec2.delete_snapshot(SnapshotId=id_)


def test_a_snapshot_that_an_image_is_made_of_is_in_use(ec2, snapshot):
    id_ = snapshot([OURS])
    mapping = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": id_}}]
    image = ec2.register_image(Name="made-of-it", RootDeviceName="/dev/xvda", BlockDeviceMappings=mapping)["ImageId"]
    with refused("InvalidSnapshot.InUse"):
        ec2.delete_snapshot(SnapshotId=id_)
    ec2.deregister_image(ImageId=image)
    ec2.delete_snapshot(SnapshotId=id_)


def test_fast_restore_takes_a_while_and_ends_with_its_snapshot(ec2, snapshot):
    id_ = snapshot([OURS])
    until(lambda: ec2.describe_snapshots(SnapshotIds=[id_])["Snapshots"][0]["State"] == "completed", 5)
    zones = ["eu-central-1a", "eu-central-1z"]
    answer = ec2.enable_fast_snapshot_restores(AvailabilityZones=zones, SourceSnapshotIds=[id_])
    assert [row["State"] for row in answer["Successful"]] == ["enabling"]
    [failure] = answer["Unsuccessful"][0]["FastSnapshotRestoreStateErrors"]
    assert failure["AvailabilityZone"] == "eu-central-1z"

    def states() -> list[str]:
        answer = ec2.describe_fast_snapshot_restores(Filters=[{"Name": "snapshot-id", "Values": [id_]}])
        return [row["State"] for row in answer["FastSnapshotRestores"]]

    until(lambda: states() == ["optimizing"], 5)
    until(lambda: states() == ["enabled"], 5)
    ec2.disable_fast_snapshot_restores(AvailabilityZones=zones[:1], SourceSnapshotIds=[id_])
    assert states() == []
    ec2.enable_fast_snapshot_restores(AvailabilityZones=zones[:1], SourceSnapshotIds=[id_])
    ec2.delete_snapshot(SnapshotId=id_)
    assert states() == []


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def describe(ec2, instance_id: str) -> dict:
    """Returns an instance."""
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def interfaces(ec2, value: str, of: str = "attachment.instance-id") -> set[str]:
    """Returns the network interfaces of an instance, or of what else a filter names."""
    found = ec2.describe_network_interfaces(Filters=[{"Name": of, "Values": [value]}])["NetworkInterfaces"]
    return {row["NetworkInterfaceId"] for row in found}


@pytest.fixture(scope="module")
def ec2(cloud: LocalCloud):
    return cloud.client("ec2")


@pytest.fixture(scope="module")
def launch(cloud: LocalCloud, ec2) -> Callable[..., dict]:
    """Launches a builder, as the administrator or with another client, and returns the instance."""
    network = cloud.cluster("ec2")
    iam = cloud.client("iam")
    make_role(cloud, "ec2-builder", "ec2.amazonaws.com")
    iam.create_instance_profile(InstanceProfileName="ec2-builder")
    iam.add_role_to_instance_profile(InstanceProfileName="ec2-builder", RoleName="ec2-builder")

    def launch_one(client=None, tags: list[dict] | None = None, **change) -> dict:
        kinds = ("instance", "volume", "network-interface")
        request = {
            "ImageId": cloud.ami(),
            "InstanceType": "m6i.large",
            "MinCount": 1,
            "MaxCount": 1,
            "IamInstanceProfile": {"Name": "ec2-builder"},
            "NetworkInterfaces": [
                {"DeviceIndex": 0, "SubnetId": network["subnets"][0], "Groups": [network["security_group"]]}
            ],
            "TagSpecifications": [{"ResourceType": kind, "Tags": tags or [OURS]} for kind in kinds],
        }
        return (client or ec2).run_instances(**request | change)["Instances"][0]

    return launch_one


@pytest.fixture
def snapshot(ec2, launch) -> Callable[[list[dict]], str]:
    """Makes snapshots of an empty volume."""
    id_ = launch()["InstanceId"]
    volume = describe(ec2, id_)["BlockDeviceMappings"][1]["Ebs"]["VolumeId"]

    def make(tags: list[dict]) -> str:
        specification = [{"ResourceType": "snapshot", "Tags": tags}]
        made = ec2.create_snapshot(VolumeId=volume, TagSpecifications=specification)
        assert (made["State"], made["Tags"]) == ("pending", tags)
        return made["SnapshotId"]

    yield make
    ec2.terminate_instances(InstanceIds=[id_])


@pytest.fixture
def caller(cloud: LocalCloud, request: pytest.FixtureRequest) -> Callable:
    """Returns EC2 clients of roles that are allowed some statements."""
    count = 0

    def make(*statements: dict):
        nonlocal count
        count += 1
        name = f"ec2-{abs(hash(request.node.name)):x}-{count}"
        return cloud.client("ec2", **credentials(cloud, make_role(cloud, name, "ec2.amazonaws.com", *statements)))

    return make
