"""A command that ends before its time leaves nothing at work and reports every image."""

import signal
import time
from pathlib import Path

from local import images
from local.ecr.registry import Registry
from local.nodes.bottlerocket import BottlerocketNode

from ..command import GOOD, Result, begin, run
from ..state import eventually
from .places import either, running, wait_until_at_work


def test_a_killed_command_leaves_nothing_at_work(node: BottlerocketNode, pushed, registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"killed {number}")) for number in range(2)]
    before = node.processes().keys()
    registry.pause(stall=True)
    command = begin(node, *references)
    wait_until_at_work(node)

    command.signal(signal.SIGKILL)
    command.wait(10)

    assert eventually(lambda: node.processes().keys() - before, set(), 10), node.processes()
    registry.resume()
    assert run(node, *references).statuses() == ["pulled"] * 2


def test_a_command_killed_by_its_time_limit_leaves_nothing_at_work(
    node: BottlerocketNode, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("too late"))
    before = node.processes().keys()
    registry.pause(stall=True)

    result = begin(node, reference).wait(4)

    assert result.exit_code is None, "the group was killed, as the agent does"
    assert eventually(lambda: node.processes().keys() - before, set(), 10), node.processes()
    registry.resume()
    assert run(node, reference).statuses() == ["pulled"]


def test_a_terminated_command_reports_what_it_did_not_finish(
    node: BottlerocketNode, pushed, registry: Registry
) -> None:
    done = pushed("team/done", "v1", images.image("done"))
    assert run(node, done).statuses() == ["pulled"]
    references = [pushed(f"team/app{number}", "v1", images.image(f"ended {number}")) for number in range(2)]
    before = node.processes().keys()
    registry.pause(stall=True)
    command = begin(node, done, *references)
    assert eventually(lambda: done in command.output())
    wait_until_at_work(node)

    command.signal(signal.SIGTERM)
    result = Result(command.wait(15))

    assert result.exit_code == 1
    assert result.of(done)["status"] == "cached"
    assert [(result.of(image)["status"], result.of(image)["reason"]) for image in references] == [
        ("failed", "interrupted")
    ] * 2
    assert len(result.reports) == 3
    assert eventually(lambda: node.processes().keys() - before, set(), 10), node.processes()
    registry.resume()
    assert run(node, *references).statuses() == ["pulled"] * 2


@either
def test_images_are_interrupted_where_the_host_container_ends(
    tmp_path: Path, pushed, registry: Registry, container: str
) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"lost {number}")) for number in range(2)]
    with running(BottlerocketNode(tmp_path / "lost", "lost", registry, containers=[container])) as node:
        registry.pause(stall=True)
        command = begin(node, *references)
        wait_until_at_work(node)

        node.switch_off(container)
        result = Result(command.wait(15))

        registry.resume()
        assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")] * 2)
        node.switch_on(container)
        assert run(node, *references).statuses() == ["pulled"] * 2


def test_its_own_deadline_ends_it_in_the_host_container(node: BottlerocketNode, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("slow"))
    registry.pause(stall=True)

    result = run(node, reference, limit=10)

    registry.resume()
    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")])
    assert result.seconds < 10


def test_time_spent_waiting_for_the_host_container_counts(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("late"))
    registry.pause(stall=True)
    with running(BottlerocketNode(tmp_path / "late", "late", registry, containers=[])) as node:
        node.announce("admin")
        command = begin(node, reference, limit=15)
        time.sleep(6)
        node.switch_on("admin")

        result = Result(command.wait(15 - 7))

        assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")])
        registry.resume()
        node.switch_off("admin")


def test_a_command_terminated_while_it_waits_for_the_host_container_reports_every_image(
    tmp_path: Path, registry: Registry
) -> None:
    with running(BottlerocketNode(tmp_path / "waiting", "waiting", registry, containers=[])) as node:
        node.announce("admin")
        command = begin(node, GOOD, GOOD.replace("app", "other"))
        time.sleep(2)

        command.signal(signal.SIGTERM)
        result = Result(command.wait(10))

        assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")] * 2)


def test_a_containerd_that_hangs_is_reported(tmp_path: Path, registry: Registry) -> None:
    node = BottlerocketNode(tmp_path / "hung", "hung", registry)
    node.start()
    try:
        node.freeze()

        result = Result(begin(node, GOOD, limit=15).wait(15))

        assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")])
    finally:
        node.stop()
