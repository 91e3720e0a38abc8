"""Tests what a pull ends with: both names, the right size, whatever the image is made of."""

from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import Result, install, run, substituted
from .nodes import free_address, running
from .state import OWN_ARCHITECTURE, by_digest, by_tag, image_id, node_finds, own


def test_a_pulled_image_is_found_by_tag_and_by_digest(node: Node, pushed) -> None:
    image = images.multi_platform("cold")
    reference = pushed("team/app", "v1", image)

    report = run(node, reference).only()

    assert report == {
        "image": reference,
        "digest": image.digest,
        "status": "pulled",
        "reason": "",
        "seconds": report["seconds"],
        "bytes": own(image).size - len(own(image).manifest),
        "attempts": 1,
    }
    assert 0 < report["seconds"] < 20
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(image)


def test_an_image_without_a_tag_is_found_by_digest(node: Node, pushed) -> None:
    image = images.image("untagged")
    reference = pushed("team/app", None, image)

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, reference) == image_id(image)
    assert run(node, reference).statuses() == ["cached"]


@pytest.mark.parametrize("kind", ["docker manifest", "docker list", "index with attestation", "layers uncompressed"])
def test_every_kind_of_image_is_pulled(node: Node, pushed, kind: str) -> None:
    single = images.image(
        kind, architecture=OWN_ARCHITECTURE, docker="docker" in kind, compressed="uncompressed" not in kind
    )
    image = {
        "docker list": lambda: images.index([single], docker=True),
        "index with attestation": lambda: images.index([single, images.attestation(single)]),
    }.get(kind, lambda: single)()
    reference = pushed("team/app", "v1", image)

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, by_tag(reference)) == image_id(single)


def test_an_image_of_fifty_layers_is_pulled(node: Node, pushed) -> None:
    image = images.image("deep", architecture=OWN_ARCHITECTURE, layers=50, layer_bytes=1000)
    reference = pushed("team/deep", "v1", image)

    report = run(node, reference).only()

    assert (report["status"], report["bytes"]) == ("pulled", image.size - len(image.manifest))
    assert node_finds(node, by_tag(reference)) == image_id(image)


@pytest.mark.parametrize(
    ("repository", "tag"),
    [
        ("0a.b_c-d/e__f/g--h/i---j/9", "_A.z-9__..--"),
        ("denied/not-found/401-unauthorized", "no_space_left_on_device"),
        ("/".join(["a" * 100, "b" * 100, "c" * 53]), "T" * 128),
    ],
    ids=["every character", "words of errors", "longest"],
)
def test_every_legal_name_is_pulled(node: Node, pushed, repository: str, tag: str) -> None:
    image = images.image("named", architecture=OWN_ARCHITECTURE)
    reference = pushed(repository, tag, image)

    assert run(node, reference).outcomes() == [("pulled", "")]
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(image)
    assert run(node, reference).outcomes() == [("cached", "")]


@pytest.mark.parametrize("kind", ["one layer twice", "no architecture"])
def test_an_odd_image_is_pulled_as_kubelet_pulls_it(node: Node, pushed, kind: str) -> None:
    plain = images.image("odd", architecture=OWN_ARCHITECTURE, layer_bytes=1000)
    image = {
        "one layer twice": images.image("odd", architecture=OWN_ARCHITECTURE, layer_bytes=1000, base=plain),
        "no architecture": images.image("odd", architecture=""),
    }[kind]
    reference = pushed("team/odd", "v1", image)

    assert run(node, reference).outcomes() == [("pulled", "")]
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(image)
    assert run(node, reference).outcomes() == [("cached", "")]


def test_a_registry_with_a_port_is_pulled_from(tmp_path: Path, containerd: str, registry: Registry) -> None:
    other = Registry(tmp_path / "other", free_address(), ["images.example.com"], "", anonymous=True)
    other.start()
    image = images.image("port", architecture=OWN_ARCHITECTURE)
    images.push(other.url, other.ca, "", "team/app", "v1", image)
    reference = f"images.example.com:443/team/app:v1@{image.digest}"
    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[other])) as node:
        assert run(node, reference).outcomes() == [("pulled", "")]
        assert node_finds(node, by_digest(reference)) == node_finds(node, by_tag(reference)) == image_id(image)
        assert run(node, reference).outcomes() == [("cached", "")]
    other.stop()


def test_layers_that_the_registry_has_elsewhere_are_fetched_without_the_login(
    fronted: Node, front: Front, pushed
) -> None:
    front.redirects = True
    reference = pushed("team/app", "v1", images.image("redirected", architecture=OWN_ARCHITECTURE, layers=3))

    assert run(fronted, reference).outcomes() == [("pulled", "")]
    assert any(request.endswith("307") for request in front.requests("team/app"))
    assert not any(request.endswith("400") for request in front.requests("team/app"))


def test_an_agent_that_substitutes_text_runs_the_same(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("old agent"))
    script = substituted(reference, keep=1, pin=True, imageGCHighThresholdPercent=100)
    install(node)

    assert Result(node.run(script, {}, 60)).outcomes() == [("pulled", "")]
    assert node.pinned(by_tag(reference))
