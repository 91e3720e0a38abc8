"""Bakes with real builders: containerd pulls from a registry, and nodes boot with what was pulled."""

import string
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from bakes import Bakes, hearing, names, states_of
from uploaded import Uploaded

from local import images
from local.client import ROOT, until
from local.settings import scaled

NAME = "baked"
EXAMPLES = ROOT / "examples" / "bake"
ONE_MIB = 1 << 20
FIFTEEN_SECONDS = scaled(15)
"""Tells for how long a bake that failed waits before it cleans up."""
NODE = "node"
"""The role of nodes, and its instance profile."""


@pytest.fixture(scope="module")
def bakes(cloud):
    """A stack whose rule takes three repositories, in one of which is nothing for x86_64."""
    stack = Uploaded(cloud, NAME)
    # A machine that runs tests has a fuller disk than a builder.
    stack.deploy(ClusterName=NAME, Repositories=f"{NAME}/*", ImageGCHighThresholdPercent="99")
    bakes = Bakes(cloud, stack)
    bakes.push("baked/app", "v1", images.image("old"))
    # Bottlerocket asks EC2 for its host's name (AmazonEKSWorkerNodePolicy).
    bakes.make_profile(NODE, "ec2:DescribeInstances")
    yield bakes
    stack.delete()


@pytest.fixture(scope="module")
def pushed(bakes) -> dict[str, str]:
    """The newest image of each repository of the rule, as commands name it."""
    both = [images.image("multi", architecture=architecture) for architecture in ("amd64", "arm64")]
    return {
        "app": bakes.push("baked/app", "v2", images.index([images.image("app", layer_bytes=ONE_MIB)])),
        "multi": bakes.push("baked/multi", "v1", images.index(both)),
        "arm": bakes.push("baked/arm", "v1", images.index([images.image("arm", architecture="arm64")])),
    }


@pytest.fixture(scope="module")
def node(bakes):
    """A running node of the cluster, of the one processor that it is baked for."""
    [node] = bakes.cloud.launch_many(1, {"aws:eks:cluster-name": NAME}, containerd="none")
    yield node
    bakes.cloud.remove([node])


@pytest.fixture(scope="module")
def baked(bakes, pushed, node) -> dict[str, Any]:
    """Returns what a bake says that was told nothing, and what was heard of it."""
    with hearing(bakes) as heard:
        output = bakes.bake()
        events = until(heard, 10, "the event")
    return {"output": output, "events": events}


def test_a_bake_that_is_told_nothing_brings_every_rules_newest_images_into_a_snapshot(bakes, baked, pushed):
    [(architecture, bake)] = baked["output"].items()
    assert (architecture, bake["status"]) == ("x86_64", "baked")
    assert bake["ami"] == bakes.cloud.ami()
    assert sorted(names(bake["images"])) == sorted([pushed["app"], pushed["multi"]])
    assert bake["leftOff"] == [pushed["arm"]]
    snapshot = bakes.snapshots()[bake["snapshotId"]]
    assert (snapshot["State"], snapshot["VolumeSize"], snapshot["Encrypted"]) == ("completed", 20, True)


def test_what_was_baked_is_published_with_all_that_is_to_be_known_of_it(bakes, baked):
    bake = baked["output"]["x86_64"]
    details = bakes.details(bake["snapshotId"])
    assert bakes.published() == bake["snapshotId"]
    assert details["images"] == bake["images"]
    assert all(image["bytes"] > 0 for image in details["images"])
    known = {"snapshotId": bake["snapshotId"], "cluster": NAME, "architecture": "x86_64", "ami": bake["ami"]}
    parameter = "/aws/service/bottlerocket/aws-k8s-1.33/x86_64/latest/image_id"
    assert (
        known.items() | {("amiParameter", parameter), ("volumeSizeGiB", 20)}
        <= {name: value for name, value in details.items() if name != "images"}.items()
    )
    [event] = baked["events"]
    assert event["detail-type"] == "Image Snapshot Ready"
    assert event["detail"] == details


def test_a_snapshot_carries_what_it_is_as_tags(bakes, baked, pushed):
    bake = baked["output"]["x86_64"]
    details, tags = bakes.details(bake["snapshotId"]), bakes.snapshots()[bake["snapshotId"]]["tags"]
    of_images = {value for name, value in tags.items() if name.startswith("bake-snapshot/image-")}
    assert of_images == {pushed[name].partition("/")[2] for name in ("app", "multi")}
    assert tags["Name"] == f"{NAME}-{NAME}-x86_64"
    for name in ("architecture", "cluster", "execution", "fingerprint", "ami"):
        assert tags[f"bake-snapshot/{name}"] == details[name]
    assert tags["bake-snapshot/stack"] == NAME
    published = datetime.fromisoformat(tags["bake-snapshot/published"])
    assert published >= datetime.fromisoformat(details["bakedAt"])


def test_nothing_but_the_snapshot_stays(bakes, baked):
    bakes.until_clean()
    assert bakes.rows() == {}
    [snapshot] = bakes.snapshots()
    assert bakes.parameters().keys() == {f"{bakes.prefix}/x86_64/snapshot", f"{bakes.prefix}/x86_64/{snapshot}"}


def test_a_builders_launch_is_no_nodes_launch(bakes, baked):
    commands = bakes.stack.commands("launch")
    assert not [command for command in commands if command["DocumentName"] == bakes.resources["PrefetchImages"]]


def test_nodes_of_a_managed_group_boot_with_their_images(bakes, baked, pushed):
    cloudformation = bakes.cloud.client("cloudformation")
    parameters = {
        "ClusterName": NAME,
        "Snapshot": f"{bakes.prefix}/x86_64/snapshot",
        "Subnets": ",".join(bakes.cluster["subnets"][:2]),
        "NodeRoleArn": f"arn:aws:iam::{bakes.cloud.account}:role/{NODE}",
    }
    cloudformation.create_stack(
        StackName="node-group",
        TemplateBody=(EXAMPLES / "node-group.yaml").read_text(),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
    )
    cloudformation.get_waiter("stack_create_complete").wait(StackName="node-group", WaiterConfig={"Delay": 0.2})
    eks = bakes.cloud.client("eks")
    [name] = eks.list_nodegroups(clusterName=NAME)["nodegroups"]
    template = eks.describe_nodegroup(clusterName=NAME, nodegroupName=name)["nodegroup"]["launchTemplate"]
    boots_with(
        bakes,
        [pushed["app"], pushed["multi"]],
        LaunchTemplate={"LaunchTemplateId": template["id"], "Version": template["version"]},
    )
    cloudformation.delete_stack(StackName="node-group")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="node-group", WaiterConfig={"Delay": 0.2})


def test_karpenters_nodes_boot_with_their_images(bakes, baked, pushed):
    values = {"SNAPSHOT_ID": bakes.published(), "NODE_ROLE": NODE, "CLUSTER_NAME": NAME}
    text = string.Template((EXAMPLES / "ec2nodeclass.yaml").read_text()).safe_substitute(values)
    assert "${" not in text
    spec = yaml.safe_load(text)["spec"]
    mappings = [as_ec2(mapping) for mapping in spec["blockDeviceMappings"]]
    assert [mapping["DeviceName"] for mapping in mappings] == ["/dev/xvda", "/dev/xvdb"]
    boots_with(bakes, [pushed["app"], pushed["multi"]], BlockDeviceMappings=mappings, UserData=spec["userData"])


def test_two_architectures_have_a_snapshot_each(bakes, pushed):
    output = bakes.bake(architectures=["x86_64", "arm64"], images=["baked/multi:v1"])
    assert states_of(output) == {"x86_64": "baked", "arm64": "baked"}
    for architecture, bake in output.items():
        assert names(bake["images"]) == [pushed["multi"]]
        assert bakes.published(architecture) == bake["snapshotId"]
        assert bakes.details(bake["snapshotId"], architecture)["ami"] == bakes.cloud.ami(architecture)
        assert bakes.snapshots()[bake["snapshotId"]]["tags"]["bake-snapshot/architecture"] == architecture
    assert len(bakes.snapshots(execution=bakes.details(output["arm64"]["snapshotId"], "arm64")["execution"])) == 2
    bakes.until_clean()


def test_one_image_of_three_that_is_gone_by_the_time_it_is_pulled_fails_the_bake_by_its_reason(bakes):
    before = bakes.published()
    there = [bakes.push("others/there", tag, images.image(tag)) for tag in ("v1", "v2")]
    gone = bakes.push("others/gone", "v1", images.image("gone"))
    bakes.cloud.fault_state("LaunchBuilder", "pause", execution="one-gone")
    asked = [image.partition("/")[2].partition("@")[0] for image in (*there, gone)]
    execution = bakes.start("one-gone", images=asked, architectures=["x86_64"])
    bakes.until_in(execution, "LaunchBuilder")
    digest = {"imageDigest": gone.partition("@")[2]}
    bakes.cloud.client("ecr").batch_delete_image(repositoryName="others/gone", imageIds=[digest])
    bakes.cloud.release("LaunchBuilder", "one-gone")
    step, cause = bakes.failed(execution)
    assert step == "Verify"
    assert f"1 of 3 images are not there: {gone} failed not-found" in cause
    bakes.until_clean()
    assert bakes.published() == before


def test_what_ec2_takes_fifteen_seconds_to_list_is_cleaned_up_all_the_same(bakes, pushed):
    fault = {"times": 99, "error": "Injected.Error", "execution": "unlisted"}
    bakes.cloud.fault_state("CreateSnapshot", when="after", **fault)
    bakes.cloud.fault_state("Prune", **fault)  # which would find it later
    with bakes.cloud.lagging_ec2(FIFTEEN_SECONDS), bakes.cloud.holding_events("aws.states"):
        execution = bakes.start("unlisted", architectures=["x86_64"], images=["baked/multi:v1"], force=True)
        step, _ = bakes.failed(execution)
        assert step == "CreateSnapshot"
        time.sleep(FIFTEEN_SECONDS)
        assert bakes.left_behind() == []


def boots_with(bakes: Bakes, wanted: list[str], **launch: Any) -> None:
    """Asserts that an instance that is launched so has images, for which it asks no registry."""
    ec2, ssm = bakes.cloud.client("ec2"), bakes.cloud.client("ssm")
    [instance] = ec2.run_instances(
        ImageId=bakes.cloud.ami(),
        InstanceType="m6i.large",
        SubnetId=bakes.cluster["subnets"][0],
        IamInstanceProfile={"Name": NODE},
        MinCount=1,
        MaxCount=1,
        **launch,
    )["Instances"]
    node = instance["InstanceId"]
    until(lambda: bakes.cloud.state()["nodes"].get(node, {}).get("online"), 20, f"{node} to be online")
    requests = Path(bakes.cloud.folder, "registry/registry.log")
    before = requests.read_text().count("/v2/baked/")
    try:
        sent = ssm.send_command(
            DocumentName=bakes.resources["PrefetchImages"],
            InstanceIds=[node],
            Parameters={"images": [" ".join(wanted)]},
        )
        report = until(lambda: bakes.stack.report(sent["Command"]["CommandId"], node), 60, "the report")
        assert {row["image"]: row["status"] for row in report} == dict.fromkeys(wanted, "cached")
        for image in wanted:
            assert bakes.cloud.image_status(node, image.partition("@")[0])
        assert requests.read_text().count("/v2/baked/") == before
    finally:
        bakes.cloud.terminate(node)


def as_ec2(mapping: dict[str, Any]) -> dict[str, Any]:
    """Returns a block device mapping of Karpenter's as it launches instances with it."""
    ebs = {(name[0].upper() + name[1:]).replace("ID", "Id"): value for name, value in mapping["ebs"].items()}
    return {
        "DeviceName": mapping["deviceName"],
        "Ebs": {**ebs, "VolumeSize": int(ebs["VolumeSize"].removesuffix("Gi"))},
    }
