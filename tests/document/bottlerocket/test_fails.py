"""Tests that what a node of Bottlerocket lacks is waited for, or named."""

import time
from pathlib import Path

from local import images
from local.ecr.registry import Registry
from local.nodes.bottlerocket import HOST_CONTAINERS, BottlerocketNode

from ..command import A_DIGEST, GOOD, HOST, SCRIPT, Result, begin, install, parameters, run
from ..state import by_tag
from ..test_snapshotter import OLD
from .places import either, running


def test_an_image_that_does_not_exist_fails_once_and_the_next_is_pulled(node: BottlerocketNode, pushed) -> None:
    good, bad = pushed("team/app", "v1", images.image("good")), f"{HOST}/team/none:v1@{A_DIGEST}"

    result = run(node, bad, good)

    assert result.exit_code == 1
    assert (result.of(bad)["reason"], result.of(bad)["attempts"]) == ("not-found", 1)
    assert result.of(good)["status"] == "pulled"
    assert by_tag(bad) in result.stderr, "what people should know comes on standard error"


def test_a_wrong_password_is_denied_and_not_tried_again(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("secret"))
    node.set_password("wrong")

    result = run(node, reference)

    assert (result.exit_code, result.outcomes(), result.only()["attempts"]) == (1, [("failed", "denied")], 1)


def test_a_node_without_a_host_container_to_work_from_is_left_alone(tmp_path: Path, registry: Registry) -> None:
    with running(BottlerocketNode(tmp_path / "off", "off", registry, containers=[])) as node:
        result = run(node, GOOD)

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        for container in HOST_CONTAINERS:
            assert f"settings.host-containers.{container}" in result.stderr
        assert result.seconds < 5


@either
def test_a_host_container_that_only_starts_is_waited_for(
    tmp_path: Path, pushed, registry: Registry, container: str
) -> None:
    reference = pushed("team/app", "v1", images.image("early"))
    with running(BottlerocketNode(tmp_path / "early", "early", registry, containers=[])) as node:
        node.announce(container)
        command = begin(node, reference)
        time.sleep(2)
        assert command.pids(), "the command waits"

        node.switch_on(container)

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]
        node.switch_off(container)


def test_an_api_that_does_not_answer_yet_is_waited_for(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("before the API"))
    with running(BottlerocketNode(tmp_path / "api", "api", registry)) as node:
        install(node)
        node.silence(True)
        command = begin(node, reference)
        time.sleep(2)
        assert command.pids(), "the command waits"

        node.silence(False)

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]


def test_admin_does_not_stand_in_for_a_host_container_that_only_starts(
    tmp_path: Path, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("slow start"))
    with running(BottlerocketNode(tmp_path / "slow", "slow", registry)) as node:
        node.announce("prefetch")
        command = begin(node, reference)
        time.sleep(2)
        assert command.pids(), "the command waits"

        node.switch_on("prefetch")

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]
        node.switch_off("prefetch")


def test_admin_is_used_once_the_host_container_that_only_started_is_disabled(
    tmp_path: Path, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("given up"))
    with running(BottlerocketNode(tmp_path / "given", "given", registry)) as node:
        install(node)
        node.announce("prefetch")
        command = begin(node, reference)
        time.sleep(2)

        node.set("prefetch", "enabled", False)

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]


def test_a_host_container_that_does_not_start_is_named(tmp_path: Path, registry: Registry) -> None:
    with running(BottlerocketNode(tmp_path / "absent", "absent", registry)) as node:
        node.announce("prefetch")
        result = run(node, GOOD, limit=8)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "host container prefetch" in result.stderr and "does not start" in result.stderr
        assert 4 < result.seconds < 8


@either
def test_a_host_container_without_its_powers_is_refused(tmp_path: Path, registry: Registry, container: str) -> None:
    options = {"containers": {"admin", container}, "powerless": [container]}
    with running(BottlerocketNode(tmp_path / "weak", "weak", registry, **options)) as node:
        result = run(node, GOOD, limit=10)

        assert (result.exit_code, result.stdout) == (2, "")
        assert f"settings.host-containers.{container}.superpowered" in result.stderr
        assert result.seconds < 5, "nobody waits for what does not come"


def test_images_are_not_pulled_past_a_snapshotter_that_does_not_run(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("lazy"))
    with running(BottlerocketNode(tmp_path / "soci", "soci", registry, snapshotter="soci")) as node:
        node.shell(OLD)
        result = run(node, reference)

        assert (result.exit_code, result.outcomes()) == (0, [("skipped", "snapshotter")]), result.stderr
        assert node.images() == {}


def test_an_image_that_would_fill_containerds_disk_is_skipped(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/large", "v1", images.image("large", layer_bytes=17 << 20))
    with running(BottlerocketNode(tmp_path / "small", "small", registry, disk_mib=64)) as node:
        result = run(node, reference)

        assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")]), result.stderr
        assert node.images() == {}
        assert run(node, reference, imageGCHighThresholdPercent=100).outcomes() == [("pulled", "")]


def test_a_command_without_images_fails_where_its_program_cannot_be_fetched(node: BottlerocketNode) -> None:
    completed = node.begin(SCRIPT, parameters()).wait(60)

    assert (completed.exit_code, completed.stdout) == (1, "")
    assert "could not be fetched" in completed.stderr
