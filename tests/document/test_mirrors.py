"""Registry hosts that the node's containerd is configured with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.images import Artifact
from local.node import Node
from local.registry import Registry

from .command import HOST, run
from .nodes import free_address, running
from .state import OWN_ARCHITECTURE, by_tag, image_id, node_finds

MIRROR = "mirror.example.com"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Registry]:
    """A registry that holds what others have, for anybody."""
    mirror = Registry(tmp_path / "mirror", free_address(), [MIRROR], "", anonymous=True)
    mirror.start()
    yield mirror
    mirror.stop()


@pytest.fixture(params=[HOST, "_default"], ids=["of one host", "of all hosts"])
def mirrored(
    request: pytest.FixtureRequest, tmp_path: Path, containerd: str, registry: Registry, mirror: Registry
) -> Iterator[Node]:
    """A node whose containerd asks the mirror first."""
    node = Node(tmp_path / "node", "node", registry, containerd, neighbours=[mirror], mirrors={request.param: mirror})
    with running(node) as node:
        yield node


def test_a_mirror_is_pulled_from_and_the_registry_is_not_asked(
    mirrored: Node, mirror: Registry, registry: Registry
) -> None:
    image = images.image("mirrored", architecture=OWN_ARCHITECTURE)
    push(mirror, image)
    reference = f"{HOST}/team/app:v1@{image.digest}"

    assert run(mirrored, reference).outcomes() == [("pulled", "")]
    assert node_finds(mirrored, by_tag(reference)) == image_id(image)
    assert len(mirror.requests("team/app")) > 0
    assert registry.requests("team/app") == []


def test_what_the_mirror_lacks_comes_from_the_registry(mirrored: Node, mirror: Registry, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("original", architecture=OWN_ARCHITECTURE))

    assert run(mirrored, reference).outcomes() == [("pulled", "")]
    assert len(mirror.requests("team/app")) > 0


def test_a_mirror_that_is_down_is_passed_over(mirrored: Node, mirror: Registry, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("original", architecture=OWN_ARCHITECTURE))
    mirror.pause()

    assert run(mirrored, reference).outcomes() == [("pulled", "")]


def push(registry: Registry, image: Artifact) -> None:
    """Puts an image into a registry as team/app:v1."""
    images.push(registry.url, registry.ca, registry.password, "team/app", "v1", image)
