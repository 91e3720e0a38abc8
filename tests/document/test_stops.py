"""Commands, and containerds, that are ended by force."""

import signal
import time

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import Result, begin, run
from .nodes import CTR, assert_clean, leftovers
from .relay import PULL, relaying
from .state import OWN_ARCHITECTURE, by_digest, by_tag, eventually, image_id, node_finds, wait_for_file

LAYER = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 1 << 20}


def test_a_terminated_command_reports_what_it_did_not_finish(fronted: Node, front: Front, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"ended {number}", **LAYER)) for number in range(3)]
    before = leftovers(fronted)
    command = held(fronted, front, *references)

    command.signal(signal.SIGTERM)
    result = Result(command.wait(10))

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")] * 3)
    assert result.seconds < 8
    assert_clean(fronted, before)
    front.release()
    assert run(fronted, *references).statuses() == ["pulled"] * 3


@pytest.mark.parametrize("containerd", ["2.1"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_command_that_waits_for_another_can_be_ended(node: Node, pushed, number: signal.Signals) -> None:
    reference = pushed("team/app", "v1", images.image("waiting"))
    holder = node.begin("mkdir -p /run/prefetch-images; flock /run/prefetch-images/lock sleep 30", {})
    wait_for_file(node, "/run/prefetch-images/lock")
    command = begin(node, reference)
    assert eventually(lambda: "waiting for another command" in command.errors())

    command.signal(number)

    assert Result(command.wait(5)).outcomes() == [("failed", "interrupted")]
    holder.kill()


def test_a_killed_command_leaves_nothing_at_work_and_nothing_that_the_next_does_not_clear(
    fronted: Node, front: Front, pushed
) -> None:
    image = images.image("killed", **LAYER)
    reference = pushed("team/app", "v1", image)
    command = held(fronted, front, reference)

    command.kill()

    assert eventually(lambda: set(fronted.processes().values()), {"containerd"})
    front.release()
    assert run(fronted, reference).outcomes() == [("pulled", "")]
    assert node_finds(fronted, by_tag(reference)) == image_id(image)


def test_a_containerd_that_is_killed_in_mid_pull_comes_back_to_the_same_command(
    fronted: Node, front: Front, pushed
) -> None:
    image = images.image("resumed", **LAYER)
    reference = pushed("team/app", "v1", image)
    command = held(fronted, front, reference)

    fronted.kill_containerd()
    front.release()
    result = Result(command.wait(60))

    assert result.outcomes() == [("pulled", "")]
    assert result.only()["attempts"] > 1
    assert node_finds(fronted, by_tag(reference)) == node_finds(fronted, by_digest(reference)) == image_id(image)
    other = pushed("team/other", "v1", images.image("other"))
    assert run(fronted, other).statuses() == ["pulled"], "and clears what the containerd has left"


def test_a_node_that_loses_power_in_mid_pull_is_cleared_by_the_next_command(
    fronted: Node, front: Front, pushed
) -> None:
    image = images.image("power", **LAYER)
    reference = pushed("team/app", "v1", image)
    command = held(fronted, front, reference)

    fronted.kill_running()
    command.wait(10)
    then = int(time.time())
    assert eventually(lambda: time.time() >= then + 1), "leases tell seconds only"
    fronted.start()
    front.release()

    assert run(fronted, reference).outcomes() == [("pulled", "")]
    assert node_finds(fronted, by_tag(reference)) == image_id(image)


def test_a_snapshot_of_a_command_that_was_killed_in_its_clean_up_is_removed(node: Node, pushed) -> None:
    ours, theirs = "prefetch-images-4000000", "4000000"
    node.shell(f"for key in {ours} {theirs}; do {CTR} snapshots prepare $key; done")

    assert run(node, pushed("team/app", "v1", images.image("after"))).statuses() == ["pulled"]

    held = node.shell(f"{CTR} snapshots ls").split()
    assert (ours in held, theirs in held) == (False, True)


def test_a_lease_of_somebody_else_stays(node: Node, pushed) -> None:
    node.shell(f"{CTR} leases create --id mine")
    node.kill_containerd()

    assert run(node, pushed("team/app", "v1", images.image("leased"))).statuses() == ["pulled"]
    assert node.shell(f"{CTR} leases ls -q").split() == ["mine"]
    node.shell(f"{CTR} leases rm mine")


@pytest.mark.parametrize("end", ["failure", "signal"])
def test_what_kubelet_pulled_meanwhile_stays(node: Node, pushed, registry: Registry, end: str) -> None:
    reference = pushed("team/app", "v1", images.image("by kubelet"))
    with relaying(node.socket) as relay:
        relay.hold(PULL)
        command = begin(node, reference)
        relay.wait_for(PULL)
        node.kubelet_pulls(by_tag(reference), relay.behind)
        registry.pause()
        if end == "signal":
            command.signal(signal.SIGTERM)
        else:
            relay.release(PULL)
        result = Result(command.wait(60))

    outcome = {"failure": (0, [("cached", "")]), "signal": (1, [("failed", "interrupted")])}[end]
    assert (result.exit_code, result.outcomes()) == outcome
    assert by_tag(reference) in node.images()
    assert run(node, reference).outcomes() == [("cached", "")]


def test_an_end_by_force_at_the_second_tag_leaves_the_first(fronted: Node, front: Front, pushed) -> None:
    image = images.image("two tags")
    assert run(fronted, pushed("team/app", "v1.0", images.image("older"))).outcomes() == [("pulled", "")]
    first, second = pushed("team/app", "v1", image), pushed("team/app", "v1.0", image)
    front.keeps_back = lambda path: path.endswith("/manifests/v1.0")
    front.hold()
    command = begin(fronted, first, second, maxParallelImagePulls=1)
    assert eventually(front.is_asked_in_vain, seconds=20)
    assert eventually(lambda: by_tag(first) in fronted.images())
    time.sleep(0.2)  # it is labelled, too

    command.signal(signal.SIGTERM)
    result = Result(command.wait(10))

    front.release()
    assert sorted(result.outcomes()) == [("failed", "interrupted"), ("pulled", "")]
    assert {by_tag(first), by_digest(first)} <= fronted.images().keys()
    assert run(fronted, first).outcomes() == [("cached", "")]


def held(node: Node, front: Front, *references: str):
    """Starts a command and returns it once the layers of its first images are being pulled, but do not come."""
    front.hold()
    command = begin(node, *references)
    assert eventually(lambda: bool(front.being_pulled())), "nothing is being pulled"
    return command
