"""A registry, and nodes that leave nothing behind."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.images import Artifact
from local.nodes.node import Node
from local.nodes.running import Running

from .command import HOST
from .nodes import a_password, free_address, running

KUBELET = "mkdir -p /var/lib/k && cp /bin/sleep /var/lib/k/kubelet && exec /var/lib/k/kubelet 60"


@pytest.fixture(params=["1.7", "2.1"])
def containerd(request: pytest.FixtureRequest) -> str:
    """Each version of containerd that EKS nodes run."""
    return request.param


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """An empty registry that asks for a login as ECR does."""
    registry = Registry(tmp_path / "registry", free_address(), [HOST], a_password())
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture
def pushed(registry: Registry) -> Callable[[str, str | None, Artifact], str]:
    """Pushes an image and returns its full reference."""

    def push(repository: str, tag: str | None, image: Artifact) -> str:
        images.push(registry.url, registry.ca, registry.password, repository, tag, image)
        return f"{HOST}/{repository}{f':{tag}' if tag else ''}@{image.digest}"

    return push


@pytest.fixture
def node(tmp_path: Path, containerd: str, registry: Registry) -> Iterator[Node]:
    """A node of its own for one test."""
    with running(Node(tmp_path / "node", "node", registry, containerd)) as node:
        yield node


@pytest.fixture
def front(registry: Registry) -> Iterator[Front]:
    """A host before the registry that can misbehave."""
    front = Front(registry, free_address())
    front.start()
    yield front
    front.stop()


@pytest.fixture
def fronted(tmp_path: Path, containerd: str, front: Front) -> Iterator[Node]:
    """A node of its own for one test, which takes the front for the registry."""
    with running(Node(tmp_path / "node", "node", front, containerd)) as node:
        yield node


@pytest.fixture(scope="module")
def quick_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node with an empty registry, for tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("quick")
    registry = Registry(folder / "registry", free_address(), [HOST], a_password())
    registry.start()
    with running(Node(folder / "node", "quick", registry, "2.1")) as node:
        yield node
    registry.stop()


@pytest.fixture
def kubelet(fronted: Node) -> Iterator[Running]:
    """A process that is called kubelet: pods may come."""
    process = fronted.begin(KUBELET, {})
    yield process
    process.kill()
    process.wait(5)
