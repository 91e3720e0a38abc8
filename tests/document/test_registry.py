"""Registries that lack an image, are down, break off, refuse, or come back."""

import pytest

from local import images
from local.front import Front
from local.node import Node
from local.registry import Registry

from .command import A_DIGEST, HOST, Client, Result, begin, changed, run
from .nodes import each_in_turn
from .state import OWN_ARCHITECTURE, eventually, image_id, layer_digests, node_finds

LAYER = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 4 << 20}
HURRIED = changed("base=$((1000 << (attempts - 1)))", "base=$((100 << (attempts - 1)))")


def test_an_image_that_does_not_exist_fails_once_and_the_next_is_pulled(node: Node, pushed, client: Client) -> None:
    good = pushed("team/app", "v1", images.image("good"))
    references = [f"{HOST}/team/none:v1@{A_DIGEST}", f"{HOST}/team/app:v2@{A_DIGEST}", good]

    result = run(node, *references, client=client)

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

    result = run(node, reference, script=HURRIED)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "registry")])
    assert result.only()["attempts"] == 4
    assert result.stderr.count("attempt") == 4


def test_a_registry_that_comes_back_is_pulled_from(fronted: Node, front: Front, pushed, client: Client) -> None:
    reference = pushed("team/app", "v1", images.image("back"))
    front.stop()
    command = begin(fronted, reference, client=client)
    assert eventually(lambda: "attempt 1" in command.errors())
    front.start()

    result = Result(command.wait(60))

    assert (result.exit_code, result.statuses()) == (0, ["pulled"])
    assert result.only()["attempts"] > 1


def test_a_registry_that_dies_in_mid_layer_and_comes_back_goes_on_where_it_ended(
    fronted: Node, front: Front, pushed, client: Client
) -> None:
    image = images.image("broken", **LAYER)
    reference = pushed("team/app", "v1", image)
    front.breaks_after = 1 << 20
    command = begin(fronted, reference, client=client)
    assert eventually(lambda: "attempt 1" in command.errors(), seconds=20)
    front.breaks_after = None

    result = Result(command.wait(60))

    assert result.outcomes() == [("pulled", "")]
    assert result.only()["attempts"] > 1
    assert node_finds(fronted, reference.partition("@")[0]) == image_id(image)


def test_a_registry_that_always_dies_in_mid_layer_is_reported(
    fronted: Node, front: Front, pushed, client: Client
) -> None:
    image = images.image("broken", **LAYER)
    reference = pushed("team/app", "v1", image)
    front.breaks_after = 1 << 20

    result = run(fronted, reference, script=HURRIED, client=client)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "registry")])
    assert result.only()["attempts"] == 4
    assert fronted.images() == {}
    assert any(layer in request for layer in layer_digests(image) for request in front.requests())


@each_in_turn
@pytest.mark.parametrize(
    ("status", "reason", "attempts"),
    [(403, "denied", 1), (404, "not-found", 1), (429, "registry", 4), (500, "registry", 4), (503, "registry", 4)],
)
@pytest.mark.parametrize("of", ["manifests", "blobs"])
def test_what_a_registry_answers_is_told(
    fronted: Node, front: Front, pushed, client: Client, status: int, reason: str, attempts: int, of: str
) -> None:
    reference = pushed("team/app", "v1", images.image("refused", architecture=OWN_ARCHITECTURE))
    front.refusals = lambda path: status if f"/{of}/" in path else None

    report = run(fronted, reference, script=HURRIED, client=client).only()

    if of == "blobs":  # what is there and cannot be fetched may be had later
        reason, attempts = "registry", 4
    assert (report["status"], report["reason"], report["attempts"]) == ("failed", reason, attempts)
    assert fronted.images() == {}
