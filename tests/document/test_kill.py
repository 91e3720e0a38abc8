"""Commands that are killed at random moments, many times: by the kernel, with their agent, by a person."""

import random
import time

import pytest

from local import images
from local.front import Front
from local.node import Node

from .command import begin, run
from .nodes import CTR
from .state import OWN_ARCHITECTURE, by_digest, by_tag, image_id, node_finds, snapshots

KILLS = 25


@pytest.mark.timeout(180)
def test_commands_killed_at_any_moment_leave_nothing_that_the_next_does_not_clear(
    fronted: Node, front: Front, pushed
) -> None:
    singles = [images.image(f"{number}", architecture=OWN_ARCHITECTURE, layer_bytes=1 << 20) for number in range(3)]
    references = [pushed(f"team/app{number}", "v1", single) for number, single in enumerate(singles)]
    front.bytes_per_second = 4 << 20
    seed = time.time_ns()
    moments = random.Random(seed)
    for _ in range(KILLS):
        command = begin(fronted, *references, keep=1, pin=True, maxParallelImagePulls=2)
        time.sleep(moments.uniform(0, 1))
        command.kill()
        if len(fronted.images()) == 3 * len(references):
            for name in fronted.images():
                fronted.shell(f"{CTR} images rm {name}")

    result = run(fronted, *references, keep=1, pin=True)

    assert result.exit_code == 0, f"seed {seed}: {result.stderr}"
    for reference, single in zip(references, singles, strict=True):
        found = {node_finds(fronted, name) for name in (by_tag(reference), by_digest(reference))}
        assert found == {image_id(single)}, f"seed {seed}"
        assert fronted.pinned(by_tag(reference)), f"seed {seed}"
    fronted.shell(f"{CTR} leases create --id collected && {CTR} leases rm --sync collected")
    assert snapshots(fronted, "overlayfs") == len(references), f"seed {seed}"


@pytest.mark.parametrize("is_begun", [True, False])
def test_what_a_killed_command_had_pulled_but_not_named_is_ours(node: Node, pushed, is_begun: bool) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    node.kubelet_pulls(by_digest(reference))
    if is_begun:
        node.shell(f"mkdir -m 700 -p /run/prefetch-images && echo {reference} >>/run/prefetch-images/begun")

    assert run(node, reference, keep=1, pin=True).outcomes() == [("cached", "")]

    assert node.pinned(by_tag(reference)) == is_begun
    assert node.shell("ls /run/prefetch-images/begun 2>/dev/null || true") == ""
