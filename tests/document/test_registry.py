"""Registries that lack an image, are down, break off, refuse, or come back."""

import re

import pytest

from local import images
from local.front import Front
from local.node import Node
from local.registry import Registry

from .command import A_DIGEST, HOST, Result, begin, run
from .state import OWN_ARCHITECTURE, eventually, image_id, layer_digests, node_finds

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
    assert HOST in next(line for line in result.stderr.splitlines() if "app403" in line)
    assert fronted.images() == {}


def answer_for(path: str, kind: str) -> int | None:
    """Returns the status in a repository's name, for its manifests or its blobs."""
    match = re.match(rf"/v2/team/app(\d+)/{kind}/", path)
    return int(match[1]) if match else None
