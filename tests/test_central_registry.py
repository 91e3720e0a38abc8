"""Images of a registry in another account, from its forwarded event to the nodes."""

import pytest
from jobs import Jobs
from uploaded import Uploaded

from local import images
from local.client import until

NAME = "central"
CLUSTER = {"aws:eks:cluster-name": NAME}
SECONDS = 60


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, NAME)
    stack.deploy(ClusterName=NAME, Repositories=f"{NAME}/app", CentralRegistries=cloud.central_account)
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def event(cloud):
    """The event of a push to the central registry, as it is forwarded."""
    digest = cloud.push(f"{NAME}/app", "v1", images.index([images.image("central", layer_bytes=1 << 20)]))

    def raised() -> list[dict]:
        events = cloud.events("ECR Image Action")
        return [event for event in events if event["detail"]["image-digest"] == digest and event["detail"]["image-tag"]]

    return {**until(raised, SECONDS, "the push's event")[-1], "account": cloud.central_account}


def test_a_push_there_is_pulled_from_there_by_running_nodes_and_by_a_new_one(cloud, stack, event):
    [node] = cloud.launch_many(1, CLUSTER, age=3600)
    cloud.until_online(node)
    cloud.send_event(event)
    image = f"{cloud.central_host}/{NAME}/app:v1"
    until(lambda: cloud.image_status(node, image), SECONDS, "the image on the node that runs")
    pushed = {command["Parameters"]["images"][0] for command in Jobs(cloud, stack).commands("push")}
    assert f"{image}@{event['detail']['image-digest']}" in pushed
    new = cloud.launch(CLUSTER, online_after=0)
    for host in (cloud.central_host, cloud.registry_host):
        until(
            lambda host=host: cloud.image_status(new, f"{host}/{NAME}/app:v1"), SECONDS, f"{host}'s image on a new node"
        )
    for launched in (node, new):
        cloud.terminate(launched)


def test_a_reconcile_brings_both_registries_newest(cloud, stack, event):
    [node] = cloud.launch_many(1, CLUSTER, age=3600)
    cloud.until_online(node)
    stack.invoke("Jobs", {"reconcile": True})
    named = {
        image
        for command in Jobs(cloud, stack).commands("reconcile")
        for image in command["Parameters"]["images"][0].split()
    }
    digest = event["detail"]["image-digest"]
    hosts = {cloud.registry_host, cloud.central_host}
    assert named == {f"{host}/{NAME}/app:v1@{digest}" for host in hosts}
    for host in hosts:
        until(lambda host=host: cloud.image_status(node, f"{host}/{NAME}/app:v1"), SECONDS, f"{host}'s image")
    cloud.terminate(node)


@pytest.mark.parametrize("change", [{"account": "310987654321"}, {"region": "us-east-1"}])
def test_a_registry_that_the_stack_does_not_name_is_not_taken_at_its_word(cloud, stack, event, change):
    answer = stack.invoke("ImagePush", {**event, **change})
    assert (answer["decision"], answer["reason"]) == ("ignored", "foreign-registry")
