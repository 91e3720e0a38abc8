"""Limits of time."""

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import Result, begin, run
from .state import OWN_ARCHITECTURE, eventually, wait_for_file

STALL_SECONDS = 30
LAYER = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 1 << 20}


@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_slow_pull_that_goes_on_outlasts_the_limit(fronted: Node, front: Front, pushed) -> None:
    front.bytes_per_second = 110_000  # containerd writes a MiB at a time: every 10 seconds
    reference = pushed("team/slow", "v1", images.image("slow", architecture=OWN_ARCHITECTURE, layer_bytes=4 << 20))

    result = run(fronted, reference)

    assert (result.outcomes(), result.only()["attempts"]) == ([("pulled", "")], 1)
    assert result.seconds > STALL_SECONDS


def test_a_pull_without_progress_is_cut_off_and_tried_again(fronted: Node, front: Front, pushed) -> None:
    reference = pushed("team/stalled", "v1", images.image("stalled", **LAYER))
    front.hold()
    command = begin(fronted, reference, limit=100)
    assert eventually(lambda: "no progress" in command.errors(), seconds=STALL_SECONDS + 15)
    front.release()

    result = Result(command.wait(60))

    assert (result.outcomes(), result.only()["attempts"]) == ([("pulled", "")], 2)


def test_one_image_that_stalls_does_not_keep_another(fronted: Node, front: Front, pushed) -> None:
    stalled = pushed("team/stalled", "v1", images.image("stalled", **LAYER))
    good = pushed("team/good", "v1", images.image("good", architecture=OWN_ARCHITECTURE))
    front.hold()

    result = run(fronted, stalled, good, limit=8, maxParallelImagePulls=2)

    assert (result.of(good)["status"], result.of(stalled)["reason"]) == ("pulled", "timeout")
    assert result.of(good)["seconds"] < 3 < result.of(stalled)["seconds"]


def test_a_registry_that_stalls_is_reported_before_ssm_ends_the_command(node: Node, pushed, registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"stalled {number}")) for number in range(3)]
    registry.pause(stall=True)

    result = run(node, *references, limit=8)

    registry.resume()
    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")] * 3)
    assert result.seconds < 8
    assert node.images() == {}


def test_a_containerd_that_hangs_is_reported_before_ssm_ends_the_command(fronted: Node, front: Front, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"hung {number}", **LAYER)) for number in range(2)]
    front.hold()
    command = begin(fronted, *references, limit=10, maxParallelImagePulls=2)
    assert eventually(lambda: len(front.being_pulled()), 2)
    fronted.freeze()

    result = Result(command.wait(10))

    fronted.thaw()
    front.release()
    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")] * 2)
    assert result.seconds < 10


def test_a_containerd_that_hangs_from_the_start_is_reported_before_ssm_ends_the_command(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("hung"))
    node.freeze()

    result = run(node, reference, limit=8)

    node.thaw()
    assert result.exit_code == 1
    assert result.outcomes() in ([("failed", "timeout")], [("failed", "interrupted")])
    assert result.seconds < 8


@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_command_that_waits_too_long_for_another_reports_timeout(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("locked"))
    holder = node.begin("mkdir -p /run/prefetch-images; flock /run/prefetch-images/lock sleep 6", {})
    wait_for_file(node, "/run/prefetch-images/lock")

    result = run(node, reference, limit=5)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")])
    assert result.seconds < 5
    holder.wait(10)
