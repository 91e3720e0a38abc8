"""Tests that the commands of docs/deploy.md remove what a stack has baked, and nothing else."""

import pytest
from uninstall import uninstall

from local.client import LocalCloud

STACK, CLUSTER = "prod", "eu-1"
OWN = [
    f"/{STACK}/{CLUSTER}/{architecture}/{name}"
    for architecture in ("x86_64", "arm64")
    for name in ("snapshot", *(f"snap-{number:017x}" for number in range(12)))
]
FOREIGN = [
    f"/{STACK}/other",
    f"/{STACK}/database/password",
    f"/{STACK}/{CLUSTER}-2/x86_64/snapshot",
    f"/{STACK}/eu-2/x86_64/snapshot",
    f"/{STACK}/eu-2/x86_64/snap-00000000000000000",
    f"/{STACK}/{CLUSTER}/ami",
    f"/{STACK}/{CLUSTER}/x86_64/ami",
    f"/{STACK}/{CLUSTER}/x86_64/snapshots",
    f"/{STACK}/{CLUSTER}/x86_64/snapshot/of-mine",
    f"/{STACK}-2/{CLUSTER}/x86_64/snapshot",
    f"/company/{STACK}/{CLUSTER}/x86_64/snapshot",
]


@pytest.fixture
def parameters(cloud: LocalCloud):
    """SSM with what a stack has published, and what others have put beside it."""
    ssm = cloud.client("ssm")
    for name in (*OWN, *FOREIGN):
        ssm.put_parameter(Name=name, Type="String", Value="value")
    yield ssm
    for name in FOREIGN:
        ssm.delete_parameter(Name=name)


@pytest.fixture
def snapshots(cloud: LocalCloud):
    """EC2 with two snapshots of the stack's, and some of others, by what they are of."""
    ec2 = cloud.client("ec2")
    volume = ec2.create_volume(AvailabilityZone=f"{cloud.region}a", Size=1)["VolumeId"]

    def snapshot(**tags: str) -> str:
        named = [{"Key": f"bake-snapshot/{name}", "Value": value} for name, value in tags.items()]
        specification = [{"ResourceType": "snapshot", "Tags": [{"Key": "Name", "Value": "mine"}, *named]}]
        return ec2.create_snapshot(VolumeId=volume, TagSpecifications=specification)["SnapshotId"]

    made = {
        "own": [snapshot(stack=STACK, cluster=CLUSTER) for _ in range(2)],
        "foreign": [
            snapshot(stack=STACK, cluster="eu-2"),
            snapshot(stack=f"{STACK}-2", cluster=CLUSTER),
            snapshot(cluster=CLUSTER),
            snapshot(),
        ],
    }
    yield made
    for id_ in made["foreign"]:
        ec2.delete_snapshot(SnapshotId=id_)
    ec2.delete_volume(VolumeId=volume)


def test_what_is_another_stacks_another_clusters_or_the_companys_own_stays(cloud, parameters, snapshots, tmp_path):
    uninstall(cloud, tmp_path, STACK, CLUSTER)
    there = {row["Name"] for page in everything(parameters) for row in page["Parameters"]}
    assert there >= set(FOREIGN)
    assert not there & set(OWN)
    found = cloud.client("ec2").describe_snapshots(OwnerIds=["self"])["Snapshots"]
    ids = {row["SnapshotId"] for row in found}
    assert ids >= set(snapshots["foreign"])
    assert not ids & set(snapshots["own"])


def test_where_nothing_is_left_the_commands_do_nothing_and_do_not_fail(cloud, tmp_path):
    uninstall(cloud, tmp_path, "never-deployed", CLUSTER)


def everything(ssm):
    return ssm.get_paginator("get_parameters_by_path").paginate(Path="/", Recursive=True)
