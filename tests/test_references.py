"""Tests that images of other registries are brought by their tags, through the deployed stack and real nodes."""

import json

import pytest
from jobs import SECONDS, Jobs, logged
from uploaded import Uploaded

from local import images
from local.client import until
from local.workload import push_foreign, turn_foreign_registry

CLUSTER = {"aws:eks:cluster-name": "references"}
NAMED = "quay.io/prometheus/node-exporter:v1.9.1"
RULES = [{"name": "default", "used": False, "neighbours": False, "images": [NAMED]}]


@pytest.fixture(scope="module")
def jobs(cloud):
    stack = Uploaded(cloud, name="references")
    stack.deploy(ClusterName="references", Rules=json.dumps(RULES))
    yield Jobs(cloud, stack)
    stack.delete()


@pytest.fixture(scope="module")
def node(cloud, jobs):
    node = cloud.launch(CLUSTER, online_after=0)
    cloud.until_online(node)
    yield node
    cloud.terminate(node)


def resolved(jobs, name):
    """Returns how many commands asked a node for a tag."""
    document = jobs.resources["ResolveTags"]
    commands = [command for command in jobs.stack.commands() if command["DocumentName"] == document]
    return sum(name in command["Parameters"]["tags"][0].split() for command in commands)


def test_a_job_brings_an_image_of_another_registry_by_the_digest_that_a_node_tells_of_its_tag(cloud, jobs, node):
    reference = push_foreign(cloud, "team/tool", "v1", images.image("tool"))
    name, digest = reference.split("@")
    answer = jobs.submit(images=[name], sameDigest=True)
    assert answer["images"] == [{"asked": name, "image": reference}]
    assert resolved(jobs, name) == 1
    jobs.job(answer["jobs"][0]["id"], state="done", failed=0, done=1)
    assert cloud.image_status(node, name) == cloud.image_status(node, f"{name.rsplit(':', 1)[0]}@{digest}") is not None


def test_a_tag_that_is_not_there_is_refused_and_one_whose_registry_is_down_can_be_asked_for_again(cloud, jobs, node):
    reference = push_foreign(cloud, "team/down", "v1", images.image("down"))
    commands = len(jobs.commands("job"))
    refused = jobs.refused({"images": ["quay.io/team/down:v9"]}, "images[0]")
    assert "not-found" in refused["accepted"]
    turn_foreign_registry(cloud, up=False)
    try:
        problem = jobs.submit(503, images=[reference.split("@")[0]])
    finally:
        turn_foreign_registry(cloud, up=True)
    assert "quay.io/team/down:v1" in problem["detail"]
    assert len(jobs.commands("job")) == commands
    # Without a registry it would be Docker Hub's, where nobody is.
    jobs.refused({"images": ["team/none:v1@sha256:0"]}, "images[0]")


def test_what_a_rule_names_comes_with_reconciles_and_to_new_nodes_by_what_its_tag_is(cloud, jobs, node):
    answer = until(lambda: jobs.stack.invoke("Jobs", {"reconcile": True}).get("error"), SECONDS, "a tag to be missed")
    assert answer["errorMessage"].startswith(
        "rules that could not be reconciled: default (images that rule default names"
    )
    assert f"{NAMED}: it takes" in answer["errorMessage"] and "not-found" in answer["errorMessage"]
    assert any(line.get("reason") == "unresolved" for line in logged(cloud, jobs))
    first = push_foreign(cloud, "prometheus/node-exporter", "v1.9.1", images.image("exporter"))
    assert reconciled(jobs, first)
    until(lambda: cloud.image_status(node, NAMED), SECONDS, "the node to have the image")

    second = push_foreign(cloud, "prometheus/node-exporter", "v1.9.1", images.image("exporter, moved"))
    assert first != second and reconciled(jobs, second)
    digest = second.split("@")[1]
    name = f"quay.io/prometheus/node-exporter@{digest}"
    until(lambda: cloud.image_status(node, name), SECONDS, "the node to have what the tag is now")

    before = resolved(jobs, NAMED)
    other = cloud.launch(CLUSTER, online_after=0)
    # By what a process has read in the last half minute.
    until(lambda: cloud.image_status(other, NAMED), SECONDS, "the new node to have it")
    assert resolved(jobs, NAMED) == before
    cloud.terminate(other)


def reconciled(jobs, image):
    """Reconciles, and returns whether the commands of that carry an image."""

    def sent():
        answer = jobs.stack.invoke("Jobs", {"reconcile": True})
        return [id_ for rule in answer.get("rules", []) for id_ in rule.get("commands", [])]

    commands = until(sent, SECONDS, "the reconcile before to end")
    carried = {c["CommandId"]: c["Parameters"]["images"][0].split() for c in jobs.stack.commands("reconcile")}
    return any(image in carried[command] for command in commands)
