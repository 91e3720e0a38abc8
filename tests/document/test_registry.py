"""Registries that lack an image, are down, break off, refuse, or come back."""

import re
from pathlib import Path

import pytest

from local import images
from local.ecr.front import BLOB_HOST, Front
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import A_DIGEST, HOST, Result, begin, run
from .nodes import free_address, running
from .state import OWN_ARCHITECTURE, eventually, image_id, layer_digests, node_finds

INGESTS = "/var/lib/containerd/io.containerd.content.v1.content/ingest"
OWN = {"architecture": OWN_ARCHITECTURE}
LAYER = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 4 << 20}


def test_an_image_that_does_not_exist_fails_once_and_the_next_is_pulled(node: Node, pushed) -> None:
    good = pushed("team/app", "v1", images.image("good"))
    references = [f"{HOST}/team/none:v1@{A_DIGEST}", f"{HOST}/team/app:v2@{A_DIGEST}", good]

    result = run(node, *references)

    assert result.exit_code == 1
    assert [(result.of(reference)["status"], result.of(reference)["reason"]) for reference in references] == [
        ("failed", "not-found"),
        ("failed", "not-found"),
        ("pulled", ""),
    ]
    assert [report["attempts"] for report in result.reports] == [1, 1, 1]


@pytest.mark.parametrize(("repository", "tag"), [("team/app", "v1"), ("team/denied-page", "denied")])
def test_a_registry_that_is_down_is_tried_again_and_then_reported(
    node: Node, pushed, registry: Registry, repository: str, tag: str
) -> None:
    reference = pushed(repository, tag, images.image("down"))
    registry.pause()

    result = run(node, reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "registry")])
    assert result.only()["attempts"] == 4
    assert result.stderr.count("attempt") == 4


def test_a_registry_that_comes_back_is_pulled_from(fronted: Node, front: Front, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("back"))
    front.stop()
    command = begin(fronted, reference)
    assert eventually(lambda: "attempt 1" in command.errors())
    front.start()

    result = Result(command.wait(60))

    assert (result.exit_code, result.statuses()) == (0, ["pulled"])
    assert result.only()["attempts"] > 1


def test_a_registry_that_dies_in_mid_layer_and_comes_back_goes_on_where_it_ended(
    fronted: Node, front: Front, pushed
) -> None:
    image = images.image("broken", **LAYER)
    reference = pushed("team/app", "v1", image)
    front.breaks_after = 1 << 20
    command = begin(fronted, reference)
    assert eventually(lambda: "attempt 1" in command.errors(), seconds=20)
    front.breaks_after = None

    result = Result(command.wait(60))

    assert result.outcomes() == [("pulled", "")]
    assert result.only()["attempts"] > 1
    assert node_finds(fronted, reference.partition("@")[0]) == image_id(image)


def test_a_registry_that_always_dies_in_mid_layer_is_reported(fronted: Node, front: Front, pushed) -> None:
    image = images.image("broken", **LAYER)
    reference = pushed("team/app", "v1", image)
    front.breaks_after = 1 << 20

    result = run(fronted, reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "registry")])
    assert result.only()["attempts"] == 4
    assert fronted.images() == {}
    assert any(layer in request for layer in layer_digests(image) for request in front.requests())


ANSWERS = {403: ("denied", 1), 404: ("not-found", 1), 429: ("registry", 4), 500: ("registry", 4), 503: ("registry", 4)}


def test_what_a_registry_answers_for_a_manifest_is_told(fronted: Node, front: Front, pushed) -> None:
    references = {status: pushed(f"team/app{status}", "v1", images.image(f"{status}", **OWN)) for status in ANSWERS}
    front.refusals = lambda path: answer_for(path, "manifests")

    result = run(fronted, *references.values(), maxParallelImagePulls=5)

    for status, reference in references.items():
        report = result.of(reference)
        assert (report["status"], report["reason"], report["attempts"]) == ("failed", *ANSWERS[status])
    assert fronted.images() == {}


def test_what_a_registry_answers_for_layers_is_told(fronted: Node, front: Front, pushed) -> None:
    references = {status: pushed(f"team/app{status}", "v1", images.image(f"{status}", **OWN)) for status in ANSWERS}
    front.refusals = lambda path: answer_for(path, "blobs")

    result = run(fronted, *references.values(), maxParallelImagePulls=5)

    for status, reference in references.items():
        report = result.of(reference)
        # What is there and cannot be fetched may be had later.
        expected = ("denied", 1) if status == 403 else ("registry", 4)
        assert (report["status"], report["reason"], report["attempts"]) == ("failed", *expected)
    assert fronted.images() == {}


@pytest.mark.parametrize("containerd", ["2.1"])
def test_of_two_registries_one_of_which_fails_the_others_image_comes_and_the_rest_is_told(
    tmp_path: Path, containerd: str, registry: Registry, pushed
) -> None:
    image = images.image("theirs", **OWN)
    other = Registry(tmp_path / "other", free_address(), ["registry.example.com"], "", anonymous=True)
    other.start()
    images.push(other.url, other.ca, "", "team/app", "v1", image)
    theirs = Front(other, free_address())
    theirs.refusals = lambda path: 500
    theirs.start()
    fails = f"{other.hosts[0]}/team/app:v1@{image.digest}"
    comes = pushed("team/app", "v1", images.image("ours", **OWN))

    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[theirs])) as node:
        result = run(node, fails, comes)
    theirs.stop()
    other.stop()

    outcomes = {report["image"]: (report["status"], report["reason"]) for report in result.reports}
    assert (result.exit_code, outcomes) == (1, {fails: ("failed", "registry"), comes: ("pulled", "")})
    assert theirs.requests("team/app") and "registry.example.com" in result.stderr


def test_a_bucket_that_refuses_layers_is_denied_and_named(fronted: Node, front: Front, pushed, containerd: str) -> None:
    reference = pushed("team/app", "v1", images.image("refused", **LAYER))
    front.redirects, front.refuses_at_blob_host = True, 403

    result = run(fronted, reference)

    assert (result.exit_code, result.outcomes(), result.only()["attempts"]) == (1, [("failed", "denied")], 1)
    # containerd 1.7 names the address that led there.
    assert (BLOB_HOST if containerd != "1.7" else f"https://{HOST}/v2/team/app/blobs/") in result.stderr
    assert "X-Amz-Signature" not in result.stderr, "what signs stays unsaid"


def test_a_page_instead_of_a_manifest_is_the_registrys_fault(fronted: Node, front: Front, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("paged", **OWN))
    front.page = b"<html>denied: 401 not found</html>"

    assert run(fronted, reference).outcomes() == [("failed", "registry")]
    assert fronted.images() == {}


@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_store_that_cannot_be_written_is_none_of_the_registrys_doing(
    tmp_path: Path, containerd: str, registry: Registry, pushed
) -> None:
    reference = pushed("team/app", "v1", images.image("unwritten", **LAYER))
    with running(Node(tmp_path / "node", "node", registry, containerd, disk_mib=64)) as node:
        assert run(node, pushed("team/first", "v1", images.image("first", **OWN))).outcomes() == [("pulled", "")]
        node.shell(f"chattr +i {INGESTS}")

        result = run(node, reference)

        node.shell(f"chattr -i {INGESTS}")
        assert result.exit_code == 1
        assert result.only()["reason"] == "interrupted"
        assert run(node, reference).outcomes() == [("pulled", "")]


VERIFIER = """
[plugins.'io.containerd.image-verifier.v1.bindir']
bin_dir = "/etc/containerd/verifiers"
"""


@pytest.mark.parametrize("containerd", ["2.1"])
def test_what_an_image_verifier_refuses_is_told_as_policy(node: Node, pushed) -> None:
    refused = pushed("team/app", "v1", images.image("unsigned", **OWN))
    node.shell(f"""mkdir /etc/containerd/verifiers && cd /etc/containerd &&
        sed -i 's/^discard_unpacked_layers.*//' config.toml && cat >>config.toml <<'END'\n{VERIFIER}END
        printf '#!/bin/sh\\necho it is not signed\\nexit 1\\n' >verifiers/signed && chmod 755 verifiers/signed""")
    node.kill_containerd()

    result = run(node, refused)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "policy")])
    assert "it is not signed" in result.stderr
    assert node.images() == {}


def answer_for(path: str, kind: str) -> int | None:
    """Returns the status in a repository's name, for its manifests or its blobs."""
    match = re.match(rf"/v2/team/app(\d+)/{kind}/", path)
    return int(match[1]) if match else None
