"""Commands that are killed at random moments, many times: by the kernel, with their agent, by a person."""

import random
import signal
import time

import pytest

from local import images
from local.ecr.front import Front
from local.nodes.node import Node

from .command import begin, run
from .nodes import CTR
from .state import OWN_ARCHITECTURE, by_digest, by_tag, eventually, image_id, node_finds, snapshots

KILLS = 25
BEGUN = "/run/prefetch-images/begun"


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


@pytest.mark.parametrize("killed", ["after the pull", "long before it", "never"])
def test_what_a_killed_command_had_pulled_but_not_named_is_ours_and_what_others_pulled_is_not(
    node: Node, pushed, killed: str
) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    node.kubelet_pulls(by_digest(reference))
    if killed != "never":
        node.shell(f"mkdir -m 700 -p {BEGUN} && echo -n {reference} >{BEGUN}/pull")
    if killed == "long before it":
        node.shell(f"touch --date '5 seconds ago' {BEGUN}/pull")

    assert run(node, reference, keep=1, pin=True).outcomes() == [("cached", "")]

    assert node.pinned(by_tag(reference)) == (killed == "after the pull")
    assert node.shell(f"ls {BEGUN} 2>/dev/null || true") == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_what_kubelet_pulls_after_a_command_was_ended_is_not_ours(
    fronted: Node, front: Front, pushed, number: int
) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE, layer_bytes=1 << 20))
    front.hold()
    command = begin(fronted, reference)
    assert eventually(lambda: len(front.being_pulled()), 1)
    command.kill() if number == signal.SIGKILL else command.signal(number)
    command.wait(10)
    time.sleep(2.5)  # for so long it might be ours
    front.release()
    fronted.kubelet_pulls(by_tag(reference))

    assert run(fronted, reference, keep=1, pin=True).outcomes() == [("cached", "")]

    assert not fronted.pinned(by_tag(reference))
