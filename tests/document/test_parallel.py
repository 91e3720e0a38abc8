"""Several images, and several commands, at once."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from local import images
from local.ecr.front import Front
from local.nodes.node import Node

from .command import Result, begin, run
from .state import OWN_ARCHITECTURE, by_digest, by_tag, eventually, image_id, layer_digests, node_finds

LAYER = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 1 << 20}


def test_of_two_commands_at_once_one_pulls_and_the_other_finds_it_cached(fronted: Node, front: Front, pushed) -> None:
    image = images.image("twice", architecture=OWN_ARCHITECTURE, layer_bytes=20_000_000)
    reference = pushed("team/app", "v1", image)

    first, second = begin(fronted, reference), begin(fronted, reference)
    results = [Result(command.wait(60)) for command in (first, second)]

    assert sorted(result.statuses()[0] for result in results) == ["cached", "pulled"]
    [layer] = layer_digests(image)
    assert front.sent[layer] == len(image.blobs[layer]), "once"


def test_of_many_commands_two_occupy_the_agent_and_no_image_is_lost(fronted: Node, front: Front, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}", **LAYER)) for number in range(5)]
    front.hold()
    working = begin(fronted, references[0])
    assert eventually(lambda: len(front.being_pulled()), 1)
    waiting = begin(fronted, references[1])
    assert eventually(lambda: "waiting for another command" in waiting.errors())

    others = [run(fronted, reference) for reference in references[2:]]

    assert [(other.exit_code, other.outcomes()) for other in others] == [(1, [("failed", "busy")])] * 3
    assert all(other.seconds < 5 for other in others)
    front.release()
    assert [Result(command.wait(60)).outcomes() for command in (working, waiting)] == [[("pulled", "")]] * 2
    assert eventually(lambda: {by_tag(reference) for reference in references} <= fronted.images().keys())
    assert run(fronted, *references).outcomes() == [("cached", "")] * 5


def test_a_command_of_cached_images_does_not_wait_for_another(fronted: Node, front: Front, pushed) -> None:
    cached = pushed("team/cached", "v1", images.image("cached", architecture=OWN_ARCHITECTURE))
    run(fronted, cached)
    front.hold()
    command = begin(fronted, pushed("team/slow", "v1", images.image("slow", **LAYER)))
    assert eventually(lambda: len(front.being_pulled()), 1)

    assert run(fronted, cached).outcomes() == [("cached", "")]

    front.release()
    assert Result(command.wait(60)).outcomes() == [("pulled", "")]


@pytest.mark.parametrize(
    ("size", "allowed", "connections", "at_once"),
    [
        (9 << 20, 1, 0, {1}),
        (9 << 20, 2, 0, {2}),
        (9 << 20, 3, 0, {3}),
        (9 << 20, 3, 3, {1}),
        (1 << 20, 1, 3, {3, 4}),
    ],
)
def test_no_more_images_are_pulled_at_once_than_allowed_and_one_over_our_own_connections(
    fronted: Node, front: Front, pushed, kubelet, size: int, allowed: int, connections: int, at_once: set[int]
) -> None:
    # Of all that it is asked for, containerd 2 downloads three layers at a time.
    layer = {"architecture": OWN_ARCHITECTURE, "layer_bytes": size}
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}", **layer)) for number in range(6)]
    front.hold()
    command = begin(fronted, *references, maxParallelImagePulls=allowed, maxConnections=connections)
    assert eventually(lambda: len(front.being_pulled()) in at_once)
    front.bytes_per_second = 2 * size
    front.release()

    assert Result(command.wait(60)).outcomes() == [("pulled", "")] * 6
    assert front.most_at_once() in at_once


def test_a_small_image_does_not_come_beside_a_large_one(fronted: Node, front: Front, pushed) -> None:
    references = [
        pushed(f"team/{size}", "v1", images.image(f"{size}", architecture=OWN_ARCHITECTURE, layer_bytes=size << 20))
        for size in (1, 9)
    ]
    front.bytes_per_second = 5 << 20

    assert run(fronted, *references).outcomes() == [("pulled", "")] * 2
    assert front.most_at_once() == 1


def test_kubelet_and_a_command_may_pull_the_same_image_at_once(fronted: Node, front: Front, pushed) -> None:
    image = images.image("both", **LAYER)
    reference = pushed("team/app", "v1", image)
    front.hold()
    with ThreadPoolExecutor() as pool:
        kubelet = pool.submit(fronted.kubelet_pulls, by_tag(reference))
        assert eventually(lambda: len(front.being_pulled()), 1)
        command = begin(fronted, reference)
        assert eventually(lambda: len([line for line in front.requests() if "/manifests/" in line]) >= 6)
        front.release()
        kubelet.result()

    assert Result(command.wait(60)).only()["status"] in ("pulled", "cached")
    assert node_finds(fronted, by_tag(reference)) == node_finds(fronted, by_digest(reference)) == image_id(image)


def test_an_image_that_is_named_twice_is_pulled_once(fronted: Node, front: Front, pushed) -> None:
    image = images.image("twice", **LAYER)
    first, second = pushed("team/app", "v1", image), pushed("team/app", "v2", image)

    result = run(fronted, first, second, first, maxParallelImagePulls=3)

    assert sorted(result.statuses()) in (["cached", "cached", "pulled"], ["cached", "pulled", "pulled"], ["pulled"] * 3)
    [layer] = layer_digests(image)
    assert sum(layer in request and request.startswith("GET") for request in front.requests()) == 1
    assert [run(fronted, reference).outcomes() for reference in (first, second)] == [[("cached", "")]] * 2


def test_lines_come_as_images_are_done(fronted: Node, front: Front, pushed) -> None:
    slow = pushed("team/slow", "v1", images.image("slow", **LAYER))
    quick = pushed("team/quick", "v1", images.image("quick", architecture=OWN_ARCHITECTURE))
    front.bytes_per_second = 500_000

    assert [report["image"] for report in run(fronted, slow, quick, maxParallelImagePulls=2).reports] == [quick, slow]
