"""An instance of Bottlerocket on the local cloud is a real node, and its data volume holds what it has pulled."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from document.command import PROGRAMS
from roles import make_role

from local import images
from local.client import LocalCloud, until
from local.make import document
from local.nodes import program

NAMED = '[settings.kubernetes]\nhostname-override = "builder"\n'
ADMIN = "[settings.host-containers.admin]\nenabled = true\n"
AGENT = ["ssm:UpdateInstanceInformation", "ssmmessages:*"]
PULLS = ["ecr:GetAuthorizationToken", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]


def test_a_volume_keeps_what_was_pulled_and_its_snapshot_boots_elsewhere(cloud, ec2, launch, prefetch):
    others = kept(cloud)
    builder = launch()
    assert outcomes(prefetch(builder)) == ["pulled", "pulled"]
    ec2.stop_instances(InstanceIds=[builder])
    until(lambda: state(ec2, builder) == "stopped", 20)
    snapshot = snapshot_of(ec2, builder)
    assert not cloud.state()["snapshots"][snapshot]["crash_consistent"]
    ec2.start_instances(InstanceIds=[builder])
    cloud.until_online(builder)
    assert len([name for name in cloud.images(builder) if ":v1" in name]) == 2
    ec2.terminate_instances(InstanceIds=[builder])

    mapping = [{"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": snapshot}}]
    data = {"ImageId": cloud.ami(), "InstanceType": "m6i.large", "BlockDeviceMappings": mapping}
    ec2.create_launch_template(LaunchTemplateName="from-snapshot", LaunchTemplateData=data)
    node = launch(LaunchTemplate={"LaunchTemplateName": "from-snapshot"}, ImageId=None)
    requests = Path(cloud.folder, "registry/registry.log")
    before = requests.read_text().count("/v2/builders/")
    assert outcomes(prefetch(node)) == ["cached", "cached"]
    assert requests.read_text().count("/v2/builders/") == before
    ec2.terminate_instances(InstanceIds=[node])
    ec2.delete_snapshot(SnapshotId=snapshot)
    ec2.delete_launch_template(LaunchTemplateName="from-snapshot")
    until(lambda: not kept(cloud) - others, 10, "the volumes and the snapshot to be deleted")


def test_the_snapshot_of_a_running_builder_is_as_after_a_power_cut(cloud, ec2, launch):
    builder = launch()
    snapshot = snapshot_of(ec2, builder)
    assert cloud.state()["snapshots"][snapshot]["crash_consistent"]
    ec2.terminate_instances(InstanceIds=[builder])
    ec2.delete_snapshot(SnapshotId=snapshot)


def test_a_builder_whose_admin_container_is_off_pulls_nothing(ec2, launch, prefetch):
    builder = launch(UserData=NAMED)
    report = prefetch(builder)
    assert report["Status"] == "Failed"
    assert "settings.host-containers.admin.enabled" in report["StandardErrorContent"]
    ec2.terminate_instances(InstanceIds=[builder])


def test_a_builder_that_may_have_no_token_is_denied_the_program(ec2, launch, prefetch):
    builder = launch(IamInstanceProfile={"Name": "builders-without-ecr"})
    report = prefetch(builder)
    assert outcomes(report) == ["failed", "failed"]
    assert "the program could not be fetched" in report["StandardErrorContent"]
    ec2.terminate_instances(InstanceIds=[builder])


@pytest.mark.parametrize(
    "change",
    [
        {"UserData": "#!/bin/sh\nreboot\n"},
        {"UserData": ADMIN},
        {"IamInstanceProfile": {"Name": "builders-without-ssm"}},
        {"IamInstanceProfile": None},
    ],
    ids=["no TOML", "a name that it may not ask EC2 for", "a role that may not register", "no profile"],
)
def test_a_builder_that_cannot_register_is_never_online(cloud, ec2, launch, change):
    builder = launch(online=False, **change)
    until(lambda: state(ec2, builder) == "running", 10)
    cloud.turn(builder, online_after=0)
    assert not cloud.state()["nodes"][builder]["online"]
    ec2.terminate_instances(InstanceIds=[builder])


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def kept(cloud: LocalCloud) -> set[Path]:
    """Returns the folders of all volumes and snapshots."""
    return set(Path(cloud.folder, "ebs").glob("*/*"))


def outcomes(report: dict) -> list[str]:
    """Returns the status of each image that a document reports."""
    lines = map(json.loads, report["StandardOutputContent"].splitlines())
    return [line["status"] for line in lines if "image" in line]


def state(ec2, instance_id: str) -> str:
    """Returns an instance's state."""
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]["State"]["Name"]


def snapshot_of(ec2, instance_id: str) -> str:
    """Makes a snapshot of an instance's data volume, waits until it is complete, and returns its id."""
    attached = [{"Name": "attachment.instance-id", "Values": [instance_id]}]
    data = {"Name": "attachment.device", "Values": ["/dev/xvdb"]}
    [volume] = ec2.describe_volumes(Filters=[*attached, data])["Volumes"]
    snapshot = ec2.create_snapshot(VolumeId=volume["VolumeId"])["SnapshotId"]
    until(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot])["Snapshots"][0]["State"] == "completed", 20)
    return snapshot


@pytest.fixture(scope="module")
def ec2(cloud: LocalCloud):
    return cloud.client("ec2")


@pytest.fixture(scope="module")
def launch(cloud: LocalCloud, ec2) -> Callable[..., str]:
    """Launches builders, waits until they are online, and returns their ids."""
    iam = cloud.client("iam")
    for name, actions in (("", AGENT + PULLS), ("-without-ecr", AGENT), ("-without-ssm", PULLS)):
        allow = {"Effect": "Allow", "Action": actions, "Resource": "*"}
        make_role(cloud, f"builders{name}", "ec2.amazonaws.com", allow)
        iam.create_instance_profile(InstanceProfileName=f"builders{name}")
        iam.add_role_to_instance_profile(InstanceProfileName=f"builders{name}", RoleName=f"builders{name}")

    def launch_one(online: bool = True, **change) -> str:
        request = {
            "ImageId": cloud.ami(),
            "InstanceType": "m6i.large",
            "MinCount": 1,
            "MaxCount": 1,
            "UserData": NAMED + ADMIN,
            "IamInstanceProfile": {"Name": "builders"},
        } | change
        given = {field: value for field, value in request.items() if value is not None}
        [instance] = ec2.run_instances(**given)["Instances"]
        if online:
            cloud.until_online(instance["InstanceId"])
        return instance["InstanceId"]

    return launch_one


@pytest.fixture(scope="module")
def prefetch(cloud: LocalCloud) -> Callable[[str], dict]:
    """Has a node prefetch two images, and returns what is known of the command there."""
    ssm = cloud.client("ssm")
    cloud.push("builders-program", "v1", program.artifact(PROGRAMS))
    content = json.loads(document.DOCUMENT.read_text())
    script = document.script(program.attributes(f"{cloud.registry_host}/builders-program", PROGRAMS))
    content["mainSteps"][0]["inputs"]["runCommand"] = script.splitlines()
    ssm.create_document(Name="builders-prefetch", DocumentType="Command", Content=json.dumps(content))
    digests = {name: cloud.push(f"builders/{name}", "v1", images.multi_platform(name)) for name in ("a", "b")}
    references = [f"{cloud.registry_host}/builders/{name}:v1@{digest}" for name, digest in digests.items()]

    def send(instance_id: str) -> dict:
        # Its disk is this machine's, which may be quite full.
        parameters = {"images": [" ".join(references)], "imageGCHighThresholdPercent": ["100"]}
        request = {"DocumentName": "builders-prefetch", "Parameters": parameters}
        command = ssm.send_command(InstanceIds=[instance_id], **request)["Command"]["CommandId"]
        asked = {"CommandId": command, "InstanceId": instance_id}

        def ended() -> dict | None:
            invocation = ssm.get_command_invocation(**asked)
            return invocation if invocation["Status"] not in ("Pending", "InProgress") else None

        return until(lambda: ssm.list_command_invocations(**asked)["CommandInvocations"], 5) and until(ended, 90)

    return send
