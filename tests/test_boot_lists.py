"""Boot lists of a deployed stack: what the user data of a rule's nodes reads."""

import copy
import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from uploaded import Uploaded

from local import images
from local.client import ROOT, until

PUSH = json.loads((ROOT / "events" / "image-push.tagged.json").read_text())
LIST = "/booting/boot/default"
BARE = {"online_after": 0, "containerd": "none"}


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="booting")
    stack.deploy(ClusterName="booting", Repositories="booting/*", BootList="Enabled", MaxImageGiB="20")
    yield stack
    stack.delete()


def test_a_push_brings_a_list_with_what_a_launch_sends(cloud, stack):
    first = cloud.push("booting/app", "v1", images.image("boot 1"))
    second = cloud.push("booting/web", "v1", images.image("boot 2"))
    until(lambda: {first, second} == set(digests(cloud)), 30, "both images in the list")

    node = cloud.launch({"aws:eks:cluster-name": "booting"}, **BARE)
    # A node without containerd is tried again, with what it still lacks.
    command = until(lambda: launches(stack, node), 60, "the launch's command")[-1]
    cloud.terminate(node)

    held = listed(cloud)
    sent = {name: value for name, [value] in command["Parameters"].items() if name in held["parameters"]}
    assert (held["images"], held["parameters"]) == (command["Parameters"]["images"][0], sent)
    assert sent["maxImageGiB"] == "20" and sent["maxConnections"] == "12"


def test_pushes_that_meet_lose_none_of_their_images(cloud, stack):
    names = ["booting/left", "booting/right"]
    pushed = {name: cloud.push(name, "v1", images.image(name)) for name in names}
    until(lambda: set(pushed.values()) <= set(digests(cloud)), 30, "both images in the list")
    newer = {name: cloud.push(name, "v2", images.image(f"{name} newer")) for name in names}
    until(lambda: set(newer.values()) <= set(digests(cloud)), 30, "both newer images in the list")
    cloud.client("ssm").put_parameter(Name=LIST, Value="{}", Overwrite=True)

    cloud.slow_down("ssm", "PutParameter", 1)
    with ThreadPoolExecutor() as pool:
        answers = list(pool.map(lambda name: stack.invoke("ImagePush", event(name, newer[name])), names))
    cloud.forget_faults()

    assert {kept["decision"] for answer in answers for kept in answer["boot"]} == {"written"}, answers
    assert set(newer.values()) <= set(digests(cloud)), answers


def test_a_reconcile_mends_a_list_and_removes_that_of_a_rule_that_is_no_more(cloud, stack):
    cloud.push("booting/app", "v1", images.image("boot 1"))
    ssm = cloud.client("ssm")
    for name in (LIST, "/booting/boot/gone"):
        ssm.put_parameter(Name=name, Value="garbage", Type="String", Overwrite=True)

    answer = stack.invoke("Jobs", {"reconcile": True})

    assert {kept["rule"]: kept["decision"] for kept in answer["boot"]} == {"default": "written", "gone": "removed"}
    assert listed(cloud)["images"]
    assert [row["Name"] for row in ssm.get_parameters_by_path(Path="/booting/boot")["Parameters"]] == [LIST]


def launches(stack: Uploaded, node: str) -> list[dict]:
    """Returns the commands of a node's launch, newest first; the cloud has those of other stacks, too."""
    return [command for command in stack.commands("launch") if command["InstanceIds"] == [node]]


def event(repository: str, digest: str) -> dict:
    """Returns the event of a push."""
    event = copy.deepcopy(PUSH)
    event["detail"] |= {"repository-name": repository, "image-tag": "v2", "image-digest": digest}
    return event


def listed(cloud) -> dict:
    """Returns the rule's list."""
    return json.loads(cloud.client("ssm").get_parameter(Name=LIST)["Parameter"]["Value"])


def digests(cloud) -> list[str]:
    """Returns the digests of the images in the rule's list; none where there is no list yet."""
    ssm = cloud.client("ssm")
    try:
        return [image.partition("@")[2] for image in listed(cloud)["images"].split()]
    except ssm.exceptions.ParameterNotFound:
        return []
