"""Tests data that pods mount as an image: there before the pod, kept and pinned like any image."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.registry import Registry
from local.nodes.node import Node
from local.nodes.pods import Pods, pausing

from .command import run
from .nodes import running
from .state import OWN_ARCHITECTURE, by_digest, by_tag, eventually, names
from .test_keep import later

REPOSITORY = "models/llm"


@pytest.fixture
def node(tmp_path: Path, registry: Registry) -> Iterator[Node]:
    """A node that can run pods, with a containerd that mounts images."""
    with running(Node(tmp_path / "node", "node", registry, "2.1")) as node:
        yield node


@pytest.fixture
def pods(node: Node) -> Iterator[Pods]:
    """The node's pods."""
    pods = Pods(node)
    yield pods
    pods.remove()


def test_data_is_there_before_the_pod_that_mounts_it_and_stays_as_long_as_it_is_mounted(node, pods, pushed) -> None:
    app = pushed("team/app", "v1", pausing("app"))
    weights, newer = (images.image(content, architecture=OWN_ARCHITECTURE) for content in ("weights", "newer"))
    reference, newer_reference = pushed(REPOSITORY, "v1", weights), pushed(REPOSITORY, "v2", newer)
    assert run(node, app, reference, keep=1, pin=True).statuses() == ["pulled", "pulled"]
    assert eventually(lambda: node.pinned(by_tag(reference)))
    asked = len(node.registry.requests(REPOSITORY))

    pods.run(by_tag(app), volume=by_tag(reference))

    assert len(node.registry.requests(REPOSITORY)) == asked
    result = later(node, newer_reference, keep=1, pin=True)
    assert "it stays: a container uses it" in result.stderr
    assert {by_tag(reference), by_digest(reference)} <= names(node, weights)
    assert eventually(lambda: node.pinned(by_tag(newer_reference)))
    pods.remove()
    last = pushed(REPOSITORY, "v3", images.image("last", architecture=OWN_ARCHITECTURE))
    later(node, last, keep=1, pin=True)
    assert eventually(lambda: names(node, weights), set()), "let go with the next version"
