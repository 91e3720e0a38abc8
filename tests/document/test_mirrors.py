"""Registry hosts that the node's containerd is configured with."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.images import Artifact
from local.nodes.node import Node

from .command import HOST, run
from .nodes import free_address, running
from .state import OWN_ARCHITECTURE, by_digest, by_tag, image_id, layer_digests, node_finds

MIRROR = "mirror.example.com"
OTHER = "registry-proxy.corp.example"
SETTINGS = f"/etc/containerd/certs.d/{HOST}"


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[Registry]:
    """A registry that holds what others have, for anybody."""
    mirror = Registry(tmp_path / "mirror", free_address(), [MIRROR], "", anonymous=True)
    mirror.start()
    yield mirror
    mirror.stop()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Front]:
    """Another registry's host, which asks for a login."""
    registry = Registry(tmp_path / "other", free_address(), [OTHER], "", anonymous=True)
    registry.start()
    front = Front(registry, free_address())
    front.anonymous, front.password = False, "of its own"
    front.start()
    yield front
    front.stop()
    registry.stop()


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


@pytest.mark.parametrize("in_parts", [True, False])
def test_the_layers_of_a_large_image_come_from_the_mirror_whether_it_gives_parts_or_not(
    tmp_path: Path, containerd: str, registry: Registry, mirror: Registry, pushed, in_parts: bool
) -> None:
    image = images.image("large", architecture=OWN_ARCHITECTURE, layers=2, layer_bytes=12 << 20)
    reference = pushed("team/app", "v1", image)
    push(mirror, image)
    front = Front(mirror, free_address())
    front.ignores_ranges = not in_parts
    front.start()
    node = Node(tmp_path / "node", "node", registry, containerd, neighbours=[front], mirrors={HOST: front})
    with running(node) as node:
        assert run(node, reference).outcomes() == [("pulled", "")]
    front.stop()

    assert set(layer_digests(image)) <= set(front.sent)
    assert not any("/blobs/" in request for request in registry.requests("team/app") if request.startswith("GET"))


def test_what_the_mirror_lacks_comes_from_the_registry(mirrored: Node, mirror: Registry, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("original", architecture=OWN_ARCHITECTURE))

    assert run(mirrored, reference).outcomes() == [("pulled", "")]
    assert len(mirror.requests("team/app")) > 0


def test_a_mirror_that_is_down_is_passed_over(mirrored: Node, mirror: Registry, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("original", architecture=OWN_ARCHITECTURE))
    mirror.pause()

    assert run(mirrored, reference).outcomes() == [("pulled", "")]


@pytest.mark.timeout(200)
@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_mirror_that_swallows_what_it_is_asked_is_passed_over(
    tmp_path: Path, containerd: str, registry: Registry, mirror: Registry, pushed
) -> None:
    reference = pushed("team/app", "v1", images.image("original", architecture=OWN_ARCHITECTURE))
    mirror.pause(stall=True)  # containerd gives it 10 seconds for each question
    node = Node(tmp_path / "node", "node", registry, containerd, neighbours=[mirror], mirrors={HOST: mirror})
    with running(node) as node:
        assert run(node, reference, limit=150).outcomes() == [("pulled", "")]
    mirror.resume()


OTHER_SERVERS = {
    "single quotes": "server = 'https://{other}'\n",
    "a path": "server = 'https://{other}/v2/ecr-eu'\n[host.'https://{other}/v2/ecr-eu']\noverride_path = true\n",
    "a comment": 'server = "https://{other}" # was "https://{host}"\n',
    "a comment before": '# server = "https://{host}"\n  server="https://{other}"\n',
    "escapes": '"serv\\u0065r" = "https:\\u002f/{other}"\n',
    "several lines": 'server = """https://{other}"""\n',
    "tables first": "[host.'https://{other}']\ncapabilities = ['pull', 'resolve']\n",
    "a header of another's": "[host.'https://{other}']\n[host.'https://{other}'.header]\nx-from = '[header]'\n",
}


@pytest.mark.parametrize("settings", OTHER_SERVERS)
def test_another_server_gets_no_login(
    tmp_path: Path, containerd: str, registry: Registry, other: Front, settings: str
) -> None:
    image = images.image("elsewhere", architecture=OWN_ARCHITECTURE)
    images.push(other.registry.url, other.registry.ca, "", "team/app", "v1", image)
    reference = f"{HOST}/team/app:v1@{image.digest}"
    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[other])) as node:
        text = OTHER_SERVERS[settings].format(other=OTHER, host=HOST)
        node.shell(f"mkdir -p {SETTINGS} && cat >{SETTINGS}/hosts.toml <<'END'\n{text}END")

        result = run(node, reference)

    assert other.requests(), "it is asked"
    assert other.authorizations == set(), "and gets no login, also where it wants one"
    assert result.exit_code == 1


def test_a_page_of_a_mirror_is_no_image_and_nothing_is_cached_by_it(
    tmp_path: Path, containerd: str, registry: Registry, other: Front, pushed
) -> None:
    image = images.image("twice", architecture=OWN_ARCHITECTURE)
    there, here = pushed("team/there", "v1", image), pushed("team/here", "v1", image)
    other.page = b"<html><body>Sign in to go on</body></html>"
    node = Node(tmp_path / "node", "node", registry, containerd, neighbours=[other])
    with running(node) as node:
        assert run(node, there).outcomes() == [("pulled", "")]
        text = f'server = "https://{OTHER}"\n[host]\n'  # without a table, 1.7 reads none of it
        node.shell(f"mkdir -p {SETTINGS} && echo '{text}' >{SETTINGS}/hosts.toml")

        results = [run(node, here) for _ in range(2)]

        assert [result.outcomes() for result in results] == [[("failed", "registry")]] * 2
        assert {by_tag(here), by_digest(here)} & node.images().keys() == set()
        assert node.image_status(by_digest(here)) is None
        assert run(node, there).outcomes() == [("cached", "")]


def push(registry: Registry, image: Artifact) -> None:
    """Puts an image into a registry as team/app:v1."""
    images.push(registry.url, registry.ca, registry.password, "team/app", "v1", image)
