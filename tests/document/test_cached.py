"""Tests that images on the node are found without the registry, and that those there in part are repaired."""

from collections import Counter

import pytest

from local import images
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import run
from .nodes import CTR
from .relay import STATUS, relaying
from .state import OWN_ARCHITECTURE, by_digest, by_tag, chain_id, image_id, names, node_finds


def test_a_cached_image_costs_no_request_to_the_registry(node: Node, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.multi_platform("cached"))
    run(node, reference)
    registry.pause()

    result = run(node, reference)

    assert (result.exit_code, result.statuses(), result.stderr) == (0, ["cached"], "")
    assert (result.only()["attempts"], result.only()["bytes"]) == (0, 0)


def test_twenty_cached_images_cost_no_more_questions_than_one(node: Node, pushed, registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}")) for number in range(20)]
    assert run(node, *references, maxParallelImagePulls=4).statuses() == ["pulled"] * 20
    registry.pause()

    with relaying(node.socket) as relay:
        run(node, *references)  # which learns how this containerd is set
        questions = []
        for some in (references[:1], references):
            before = len(relay.calls())
            assert run(node, *some).statuses() == ["cached"] * len(some)
            questions.append(Counter(relay.calls()[before:]))
            questions[-1].pop(STATUS, None)  # kubelet's own question, for each name

    one, twenty = questions
    assert one == twenty and one


@pytest.mark.parametrize("missing", ["tag", "digest"])
def test_a_missing_name_is_added_without_the_registry(node: Node, pushed, registry: Registry, missing: str) -> None:
    reference = pushed("team/app", "v1", images.image("named"))
    run(node, reference)
    node.shell(f"ctr -n k8s.io images rm {(by_tag if missing == 'tag' else by_digest)(reference)}")
    registry.pause()

    assert run(node, reference).statuses() == ["cached"]
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference))


def test_what_kubelet_pulled_by_tag_is_cached_and_gets_its_other_name(node: Node, pushed, registry: Registry) -> None:
    image = images.image("by kubelet", architecture=OWN_ARCHITECTURE)
    reference = pushed("team/app", "v1", image)
    node.kubelet_pulls(by_tag(reference))
    node.shell(f"{CTR} images rm {by_digest(reference)}")
    registry.pause()

    assert run(node, reference).outcomes() == [("cached", "")]
    assert {by_tag(reference), by_digest(reference)} <= names(node, image)


@pytest.mark.parametrize("lack", ["layers", "snapshots", "content"])
def test_an_image_that_is_there_in_part_is_repaired(node: Node, pushed, lack: str) -> None:
    image = images.image("in part", architecture=OWN_ARCHITECTURE, layers=2)
    reference = pushed("team/app", "v1", image)
    login = f"--user AWS:{node.registry.password}"
    if lack == "snapshots":
        node.kubelet_pulls(by_tag(reference))
        node.shell(f"{CTR} snapshots rm {chain_id(image)}")
    elif lack == "layers":
        node.shell(f"{CTR} content fetch --metadata-only {login} {by_tag(reference)}")
    else:
        node.shell(f"{CTR} content fetch {login} {by_tag(reference)}")
    assert by_tag(reference) in node.images()

    assert run(node, reference).outcomes() == [("pulled", "")]
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(image)
    node.shell(f"{CTR} snapshots prepare container {chain_id(image)}")
    assert run(node, reference).outcomes() == [("cached", "")]
