"""The nodes' program is published by the deployment, fetched by nodes, and gone with the stack."""

import json
import re
import shutil
from pathlib import Path

import pytest
from account import inventory
from botocore.exceptions import WaiterError
from uploaded import Uploaded

from local import images
from local.client import ROOT, LocalCloud, until
from local.stack import TEMPLATE, Stack

pytestmark = pytest.mark.timeout(240)  # a deployment by SAM takes up to a minute of a busy machine

PARAMETERS = {"ClusterName": "programs", "ImageGCHighThresholdPercent": "100"}
"""This machine's disk, which is the nodes' too, may be quite full."""
CLUSTER = {"aws:eks:cluster-name": "programs"}
ELF = b"\x7fELF"
PADDING = 15
"""The byte of an ELF file that nobody reads (elf(5), EI_PAD)."""


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="Programs")
    stack.deploy(**PARAMETERS)
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    """The template of the same build but for one byte of the nodes' program."""
    return variant(tmp_path_factory.mktemp("other"), 1)


def test_the_document_names_what_the_repository_has_and_the_outputs_tell_it(cloud, stack):
    outputs = stack.outputs()
    host, _, name = outputs["NodeProgramRepository"].partition("/")
    [image] = cloud.client("ecr").describe_images(repositoryName=name)["imageDetails"]
    assert image["artifactMediaType"] == "application/vnd.eks-image-prefetch.program.v1"
    [tag] = image["imageTags"]
    [found] = cloud.client("ecr").batch_get_image(repositoryName=name, imageIds=[{"imageTag": tag}])["images"]
    layers = [layer["digest"] for layer in json.loads(found["imageManifest"])["layers"]]
    told = [outputs["NodeProgramX8664Digest"], outputs["NodeProgramArm64Digest"]]
    assert layers == [digest for digest in told if digest != "none"]
    assert name == name.lower(), "a repository's name, whatever the stack's is"
    script = content(cloud, stack)
    assert all(value in script for value in (f"REPOSITORY='{host}/{name}'", *layers))
    assert len(document(cloud, stack)) < 12 << 10


def test_the_repository_is_immutable_and_keeps_the_newest_twenty(cloud, stack):
    ecr, name = cloud.client("ecr"), repository(stack)
    [found] = ecr.describe_repositories(repositoryNames=[name])["repositories"]
    assert found["imageTagMutability"] == "IMMUTABLE"
    policy = json.loads(ecr.get_lifecycle_policy(repositoryName=name)["lifecyclePolicyText"])
    [rule] = policy["rules"]
    assert rule["selection"] == {"tagStatus": "any", "countType": "imageCountMoreThan", "countNumber": 20}


def test_no_rule_takes_the_program_for_an_image(cloud, stack):
    own = repository(stack)
    [event] = until(lambda: events_of(cloud, own), 10, "ECR's event")
    assert stack.invoke("ImagePush", event)["decision"] == "ignored"
    cloud.push("team/app", "v1", images.image("app"))
    node = cloud.launch(CLUSTER, online_after=0)
    [command] = until(lambda: sent_to(stack, node), 60, "the launch's command")
    assert "team/app:v1" in command["Parameters"]["images"][0]
    assert own not in command["Parameters"]["images"][0]
    lines = until(lambda: stack.report(command["CommandId"], node), 60, "the node's report")
    assert [line["status"] for line in lines if "/team/app:v1@" in line["image"]] == ["pulled"]
    cloud.terminate(node)


def test_another_program_is_another_version_and_the_one_before_stays_for_commands_on_their_way(cloud, stack, other):
    before = digests(stack)
    stack.deploy(template=other, **PARAMETERS)
    after = digests(stack)
    assert after != before
    assert named(cloud, stack) == after
    assert len(held(cloud, stack)) == 2
    stack.deploy(**PARAMETERS)
    assert digests(stack) == named(cloud, stack) == before
    assert len(held(cloud, stack)) == 2


def test_where_the_program_cannot_be_published_the_document_stays_as_it_was(cloud, stack, tmp_path):
    before, script = digests(stack), content(cloud, stack)
    cloud.throttle("ecr", "PutImage", 10_000, code="AccessDeniedException")
    try:
        with pytest.raises(WaiterError):
            stack.deploy(template=variant(tmp_path, 2), **PARAMETERS)
    finally:
        cloud.forget_faults()
    assert re.search(r"the manifest sha256:\w+ could not be put: .*AccessDeniedException", reasons(cloud, stack))
    assert status(cloud, stack) == "UPDATE_ROLLBACK_COMPLETE"
    assert (digests(stack), content(cloud, stack)) == (before, script)


def test_a_deployment_that_is_rolled_back_after_the_document_finds_its_program(cloud, stack, tmp_path):
    before = digests(stack)
    template = variant(tmp_path, 3)
    text = template.read_text()
    spoiled = (
        "  Spoiled:\n    Type: AWS::SSM::Document\n    DependsOn: PrefetchImages\n    Properties: {Content: nonsense}\n"
    )
    template.write_text(text.replace("\nResources:\n", f"\nResources:\n{spoiled}", 1))
    with pytest.raises(WaiterError):
        stack.deploy(template=template, **PARAMETERS)
    assert status(cloud, stack) == "UPDATE_ROLLBACK_COMPLETE"
    assert digests(stack) == before
    images_held = held(cloud, stack)
    assert len(images_held) == 3, "nothing is removed"
    # The local cloud sends the very document of before, which SSM refuses: the newest stays, and is served too.
    assert named(cloud, stack)[0] in "".join(images_held)


def test_a_first_deployment_that_cannot_publish_leaves_nothing(cloud):
    before = inventory(cloud)
    cloud.throttle("ecr", "PutImage", 10_000, code="AccessDeniedException")
    first = Stack(cloud, name="first-program")
    try:
        with pytest.raises(RuntimeError, match="could not be put"):
            first.deploy(ClusterName="first")
    finally:
        cloud.forget_faults()
    first.delete()
    assert inventory(cloud) == before


def test_a_stack_goes_with_its_repository_and_all_that_is_in_it(cloud):
    before = inventory(cloud)
    stack = Uploaded(cloud, name="doomed-program")
    stack.deploy(ClusterName="doomed")
    assert repository(stack) in inventory(cloud)["repositories"]
    stack.delete()
    assert inventory(cloud) == before


def variant(folder: Path, number: int) -> Path:
    """Returns the template of a copy of the build in which one byte of the nodes' program is another."""
    shutil.copytree(TEMPLATE.parent, folder, dirs_exist_ok=True)
    function = folder / "NodeProgram/bootstrap"
    content = bytearray(function.read_bytes())
    program = content.find(ELF, len(ELF))
    assert program > 0, "the build has a program; make local makes one"
    content[program + PADDING] = number
    function.write_bytes(content)
    template = folder / TEMPLATE.name
    template.write_text(template.read_text().replace("../../", f"{ROOT}/"))
    return template


def repository(stack: Stack) -> str:
    """Returns the name of the stack's own repository."""
    return stack.resources()["NodePrograms"]


def digests(stack: Stack) -> tuple[str, ...]:
    """Returns the digests of the programs that the stack names."""
    outputs = stack.outputs()
    return outputs["NodeProgramX8664Digest"], outputs["NodeProgramArm64Digest"]


def events_of(cloud: LocalCloud, repository: str) -> list[dict]:
    """Returns the events that ECR has raised of a repository."""
    return [event for event in cloud.events("ECR Image Action") if event["detail"]["repository-name"] == repository]


def held(cloud: LocalCloud, stack: Stack) -> list[str]:
    """Returns the manifests that the stack's repository has."""
    ecr, name = cloud.client("ecr"), repository(stack)
    ids = [{"imageDigest": image["imageDigest"]} for image in ecr.describe_images(repositoryName=name)["imageDetails"]]
    return [image["imageManifest"] for image in ecr.batch_get_image(repositoryName=name, imageIds=ids)["images"]]


def named(cloud: LocalCloud, stack: Stack) -> tuple[str, ...]:
    """Returns the digests that the document names, as nodes get it."""
    return re.search(r"X86_64='(.*?)' ARM64='(.*?)'", content(cloud, stack)).groups()


def document(cloud: LocalCloud, stack: Stack) -> str:
    """Returns the document as SSM has it."""
    return cloud.client("ssm").get_document(Name=stack.outputs()["Document"], DocumentVersion="$LATEST")["Content"]


def content(cloud: LocalCloud, stack: Stack) -> str:
    """Returns the script that nodes get."""
    return "\n".join(json.loads(document(cloud, stack))["mainSteps"][0]["inputs"]["runCommand"])


def status(cloud: LocalCloud, stack: Stack) -> str:
    """Returns the stack's status."""
    [row] = cloud.client("cloudformation").describe_stacks(StackName=stack.name)["Stacks"]
    return row["StackStatus"]


def reasons(cloud: LocalCloud, stack: Stack) -> str:
    """Returns why the published program failed, all reasons on a line each."""
    events = cloud.client("cloudformation").describe_stack_events(StackName=stack.name)["StackEvents"]
    ours = [event for event in events if event["LogicalResourceId"] == "PublishedProgram"]
    return "\n".join(event.get("ResourceStatusReason", "") for event in ours)


def sent_to(stack: Stack, node: str) -> list[dict]:
    """Returns the commands of launches to a node."""
    return [command for command in stack.commands("launch") if node in command["InstanceIds"]]
