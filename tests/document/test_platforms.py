"""Images for other platforms, and manifests that are no image."""

import dataclasses
import json

import pytest

from local import images
from local.ecr.front import Front
from local.nodes import cri
from local.nodes.node import Node

from .command import HOST, run
from .state import OTHER_ARCHITECTURE, OWN_ARCHITECTURE, by_tag, image_id, node_finds

SCHEMA_1 = {
    "schemaVersion": 1,
    "name": "team/old",
    "tag": "v1",
    "architecture": OWN_ARCHITECTURE,
    "fsLayers": [{"blobSum": "sha256:" + "a" * 64}],
    "history": [{"v1Compatibility": "{}"}],
    "signatures": [],
}
NO_IMAGES = {
    "schema 1": ("application/vnd.docker.distribution.manifest.v1+prettyjws", images.as_json(SCHEMA_1)),
    "schema 1 without signature": ("application/vnd.docker.distribution.manifest.v1+json", images.as_json(SCHEMA_1)),
    "empty object": (f"{images.OCI}.manifest.v1+json", b"{}"),
    "empty index": (f"{images.OCI}.index.v1+json", b'{"schemaVersion":2,"manifests":[]}'),
    "other types": (f"{images.OCI}.manifest.v1+json", b'{"schemaVersion":2,"config":[],"layers":{},"manifests":7}'),
    "no JSON": (f"{images.OCI}.manifest.v1+json", b"\x00\xff<html>"),
    "nothing": (f"{images.OCI}.manifest.v1+json", b""),
}


NYDUS = "application/vnd.oci.image.layer.nydus.blob.v1"
DIGEST = "sha256:" + "a" * 64
COMMAND = "a[$(touch /run/touched)]"
SAYS_MORE = {
    "lines in its type": lambda body: body.update(mediaType=f"x\nmanifest {DIGEST} 1\n{DIGEST} 1 {COMMAND}"),
    "an end in its type": lambda body: body.update(mediaType="x\n\x04\n\x04000001\n\x04000002\nindex none\n\x04000003"),
    "a line in a digest": lambda body: body["layers"][0].update(digest=f"{DIGEST}\n"),
    "a path for a digest": lambda body: body["config"].update(digest="sha256:../../../../touched"),
    "a command for a size": lambda body: body["layers"][0].update(size=COMMAND),
    "no size at all": lambda body: [row.pop("size") for row in (body["config"], *body["layers"])],
}


@pytest.mark.parametrize("kind", ["index", "manifest", "windows"])
def test_an_image_for_other_platforms_is_skipped_and_leaves_no_name(node: Node, pushed, kind: str) -> None:
    single = images.image("foreign", architecture=OTHER_ARCHITECTURE, layer_bytes=1000)
    if kind == "windows":
        single = images.image("foreign", architecture=OWN_ARCHITECTURE, system="windows")
    reference = pushed("team/foreign", "v1", images.index([single]) if kind == "index" else single)

    result = run(node, reference)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "platform")])
    assert node.images() == {}


@pytest.mark.parametrize("kind", ["chart", "signature", "attestation", "no layers"])
def test_an_artifact_is_skipped(node: Node, pushed, kind: str) -> None:
    subject = images.image("subject")
    artifact = {
        "chart": images.chart("hello"),
        "signature": images.signature(subject),
        "attestation": images.attestation(subject),
        "no layers": images.image("nothing", architecture=OWN_ARCHITECTURE, layers=0),
    }[kind]
    reference = pushed("team/artifact", "v1", artifact)

    assert run(node, reference).outcomes() == [("skipped", "platform")]
    assert node.images() == {}


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_a_manifest_that_is_no_image_is_skipped(fronted: Node, front: Front, kind: str) -> None:
    reference = f"{HOST}/team/odd:v1@{front.offer('team/odd', 'v1', *NO_IMAGES[kind])}"

    result = run(fronted, reference)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "platform")])
    assert fronted.images() == {}


@pytest.mark.parametrize("kind", SAYS_MORE)
def test_a_manifest_says_nothing_beyond_its_members(fronted: Node, front: Front, pushed, kind: str) -> None:
    single = images.image("hostile", architecture=OWN_ARCHITECTURE)
    manifest = json.loads(single.manifest)
    SAYS_MORE[kind](manifest)
    digest = front.offer("team/hostile", "v1", single.media_type, images.as_json(manifest))
    hostile = f"{HOST}/team/hostile:v1@{digest}"
    app = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))

    result = run(fronted, hostile, app)

    assert result.of(app)["status"] == "pulled"
    assert result.of(hostile)["status"] in ("failed", "skipped")
    assert fronted.shell("ls /run").split().count("touched") == 0


def test_what_the_registry_tells_only_containerd_the_pull_reveals(fronted: Node, front: Front, pushed) -> None:
    foreign = pushed("team/foreign", "v1", images.image("foreign", architecture=OTHER_ARCHITECTURE))
    app = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    front.only_containerd = True

    result = run(fronted, foreign, app)

    assert (result.of(foreign)["status"], result.of(foreign)["reason"]) == ("skipped", "platform")
    assert (result.of(app)["status"], result.of(app)["bytes"] > 0) == ("pulled", True)
    assert "team/foreign" not in str(fronted.images())


def test_an_index_that_names_no_platform_is_pulled_as_kubelet_pulls_it(node: Node, pushed) -> None:
    single = dataclasses.replace(images.image("plain", architecture=OWN_ARCHITECTURE), platform=None)
    reference = pushed("team/app", "v1", images.index([single]))

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, by_tag(reference)) == image_id(single)


@pytest.mark.parametrize("named", [True, False], ids=["of a platform", "of none"])
def test_an_index_in_an_index_is_pulled_as_kubelet_pulls_it(node: Node, pushed, named: bool) -> None:
    single = images.image("nested", architecture=OWN_ARCHITECTURE)
    inner = dataclasses.replace(images.index([single]), platform=single.platform if named else None)
    reference = pushed("team/app", "v1", images.index([inner]))

    assert run(node, reference).outcomes() == [("pulled", "")]
    assert node_finds(node, by_tag(reference)) == image_id(single)


def test_other_words_for_an_architecture_are_understood(node: Node, pushed) -> None:
    single = images.image("alias", architecture=OWN_ARCHITECTURE)
    alias = {"os": "linux", "architecture": {"amd64": "x86_64", "arm64": "aarch64"}[OWN_ARCHITECTURE]}
    reference = pushed("team/app", "v1", images.index([dataclasses.replace(single, platform=alias)]))

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, by_tag(reference)) == image_id(single)


def test_a_system_in_other_letters_is_understood(node: Node, pushed) -> None:
    single = images.image("capital", architecture=OWN_ARCHITECTURE)
    capital = {"os": "Linux", "architecture": OWN_ARCHITECTURE.upper()}
    reference = pushed("team/app", "v1", images.index([dataclasses.replace(single, platform=capital)]))

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, by_tag(reference)) == image_id(single)


@pytest.mark.parametrize("order", [["v2", "v3"], ["v3", "v2"], ["v3", None], [None, "v2"], ["v3"]], ids=str)
def test_bytes_are_of_the_variant_that_containerd_takes(node: Node, pushed, order: list[str | None]) -> None:
    singles = [
        dataclasses.replace(
            images.image(f"{variant}", architecture=OWN_ARCHITECTURE, layer_bytes=10_000 * number),
            platform={"os": "linux", "architecture": OWN_ARCHITECTURE} | ({"variant": variant} if variant else {}),
        )
        for number, variant in enumerate(order, 1)
    ]
    reference = pushed("team/app", "v1", images.index(singles))

    result = run(node, reference)

    if result.outcomes() == [("skipped", "platform")]:  # then kubelet has no success with it either
        with pytest.raises(cri.NotReady):
            node.kubelet_pulls(by_tag(reference))
        return
    assert result.outcomes() == [("pulled", "")]
    [taken] = [single for single in singles if image_id(single) == node_finds(node, by_tag(reference))]
    assert result.only()["bytes"] == taken.size - len(taken.manifest)


def test_a_nydus_image_is_skipped_before_any_layer_is_pulled(fronted: Node, front: Front, pushed) -> None:
    single = images.image("nydus", architecture=OWN_ARCHITECTURE, layers=2)
    pushed("team/nydus", "plain", single)
    body = json.loads(single.manifest)
    blob, bootstrap = body["layers"]
    blob |= {"mediaType": NYDUS, "annotations": {"containerd.io/snapshot/nydus-blob": "true"}}
    bootstrap |= {"annotations": {"containerd.io/snapshot/nydus-bootstrap": "true"}}
    digest = front.offer("team/nydus", "v1", single.media_type, images.as_json(body))

    assert run(fronted, f"{HOST}/team/nydus:v1@{digest}").outcomes() == [("skipped", "platform")]
    assert not [layer for layer in (blob, bootstrap) if layer["digest"] in str(front.requests())]
    assert fronted.images() == {}
