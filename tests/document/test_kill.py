"""Commands that are killed at random moments, many times: by the kernel, with their agent, by a person."""

import hashlib
import random
import signal
import time

import pytest

from local import images
from local.ecr.front import Front
from local.nodes.node import Node

from .command import HOST, Result, begin, run
from .nodes import CTR
from .relay import IMAGES, relaying
from .state import (
    OWN_ARCHITECTURE,
    by_digest,
    by_tag,
    eventually,
    image_id,
    labels,
    layer_digests,
    node_finds,
    snapshots,
)
from .tags import resolve

KILLS = 25
RUN = "/run/prefetch-images"
BEGUN = f"{RUN}/begun"
GONE = 4_000_000
"""Is the id of no process."""
PULLED_AT = "prefetch-images/pulled-at"


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


@pytest.mark.parametrize("labelled", ["digest", "tag"])
def test_what_a_command_was_killed_at_labelling_is_ours_by_both_names(node: Node, pushed, labelled: str) -> None:
    image = images.image("app", architecture=OWN_ARCHITECTURE)
    reference = pushed("team/app", "v1", image)
    names = {"digest": by_digest(reference), "tag": by_tag(reference)}
    node.kubelet_pulls(names["digest"])
    if labelled == "tag":
        node.shell(f"{CTR} images tag {names['digest']} {names['tag']}")
    node.shell(f"{CTR} images label {names[labelled]} {PULLED_AT}=2026-01-01T00:00:00.000000Z")
    node.shell(f"mkdir -m 700 -p {BEGUN} && echo -n {reference} >{BEGUN}/pull")

    assert run(node, reference).outcomes() == [("cached", "")]

    assert {labels(node, name)[PULLED_AT] for name in names.values()} == {"2026-01-01T00:00:00.000000Z"}
    [manifest] = [line for line in node.shell(f"{CTR} content ls").splitlines() if line.startswith(image.digest)]
    for name in (f"{HOST}/team/app", f"{HOST}/team/app:v1"):
        assert f"{PULLED_AT}/{name}=2026-01-01T00:00:00.000000Z 20" in manifest


def test_a_tag_that_a_killed_command_gives_at_last_tells_the_moment_of_the_next(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    ctr = "ctr --address /run/containerd/containerd.sock.behind -n k8s.io"
    with relaying(node.socket) as relay:
        relay.hold(f"{IMAGES}/Create")
        command = begin(node, reference)
        relay.wait_for(f"{IMAGES}/Create")
        node.shell(f"{ctr} images tag {by_digest(reference)} {by_tag(reference)}")
        node.shell(f"{ctr} images label {by_tag(reference)} {PULLED_AT}=2026-01-01T00:00:00.000000Z")
        relay.release(f"{IMAGES}/Create")
        assert Result(command.wait(60)).outcomes() == [("pulled", "")]

    moments = {labels(node, name)[PULLED_AT] for name in (by_tag(reference), by_digest(reference))}
    assert len(moments) == 1 and "2026-01-01T00:00:00.000000Z" not in moments


def test_what_a_killed_command_left_goes_though_the_next_finds_its_images_there(node: Node, pushed) -> None:
    image = images.image("app", architecture=OWN_ARCHITECTURE, zeros=9 << 20, compressed=False)
    reference = pushed("team/app", "v1", image)
    assert run(node, reference).statuses() == ["pulled"]
    name = hashlib.sha256(by_digest(reference).encode()).hexdigest()[:32]
    chunk = f"{layer_digests(image)[0].removeprefix('sha256:')}.0"
    node.shell(f"{CTR} leases create --id prefetch-images-layers-{name}.{GONE}")
    node.shell(f"{CTR} leases create --id prefetch-images-{GONE}.1 && touch {RUN}/config.{GONE} {RUN}/download/{chunk}")
    node.shell(f"mkdir -m 700 -p {BEGUN} && echo -n {reference} >{BEGUN}/pull")

    assert run(node, reference).outcomes() == [("cached", "")]

    assert node.shell(f"{CTR} leases ls -q") == ""
    assert node.shell(f"ls {RUN}/config.* {BEGUN} {RUN}/download 2>/dev/null || true").split() == [
        f"{BEGUN}:",
        f"{RUN}/download:",
    ]


def test_a_command_that_finds_its_images_leaves_what_another_is_at(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    run(node, reference)
    holder = node.begin(f"flock {RUN}/lock sleep 30", {})
    assert eventually(lambda: node.shell(f"flock -n {RUN}/lock echo free || true"), "")
    node.shell(f"mkdir -m 700 -p {BEGUN} && echo -n {reference} >{BEGUN}/pull")

    result = run(node, reference)

    assert (result.outcomes(), result.seconds < 5) == ([("cached", "")], True)
    assert node.shell(f"ls {BEGUN}") == "pull\n"
    holder.kill()
    run(node, reference)
    assert node.shell(f"ls {BEGUN}") == ""


@pytest.mark.parametrize("containerd", ["2.1"])
@pytest.mark.parametrize("command", ["usage", "tags"])
def test_a_command_that_pulls_nothing_removes_what_a_killed_one_was_writing(node: Node, pushed, command: str) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    node.shell(f"mkdir -m 700 -p {RUN} && touch {RUN}/config.{GONE}")

    ended = run(node) if command == "usage" else resolve(node, by_tag(reference))

    assert (ended.exit_code, node.shell(f"ls {RUN}/config.* 2>/dev/null || true")) == (0, "")


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
