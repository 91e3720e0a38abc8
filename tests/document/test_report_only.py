"""A command that only reports says what would be done, and changes nothing."""

from pathlib import Path

import pytest

from local import images
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import A_DIGEST, HOST, Result, begin, run
from .nodes import CTR, is_ours, running
from .state import OTHER_ARCHITECTURE, OWN_ARCHITECTURE, by_tag, eventually, own, wait_for_file


def test_a_command_that_only_reports_tells_every_outcome_and_changes_nothing(node: Node, pushed) -> None:
    new = images.multi_platform("new", layer_bytes=1000)
    cached, unnamed, old = (images.image(content) for content in ("cached", "unnamed", "old"))
    references = {
        "new": pushed("team/new", "v1", new),
        "cached": pushed("team/cached", "v1", cached),
        "unnamed": pushed("team/unnamed", "v1", unnamed),
        "foreign": pushed("team/foreign", "v1", images.image("foreign", architecture=OTHER_ARCHITECTURE)),
        "missing": f"{HOST}/team/none:v1@{A_DIGEST}",
        "old": pushed("team/kept", "old", old),
    }
    run(node, references["cached"], references["unnamed"], references["old"])
    forget_names(node, references["unnamed"])
    references["successor"] = pushed("team/kept", "new", images.image("successor"))
    named = [reference for name, reference in references.items() if name != "old"]
    before = state(node)

    result = run(node, *named, reportOnly=True, keep=1, pin=True)

    assert state(node) == before
    outcomes = outcomes_of(result, references)
    assert outcomes == {
        "new": ("skipped", "report-only", own(new).size - len(own(new).manifest)),
        "cached": ("cached", "", 0),
        "unnamed": ("cached", "", 0),
        "foreign": ("skipped", "platform", 0),
        "missing": ("failed", "not-found", 0),
        "successor": ("skipped", "report-only", outcomes["successor"][2]),
    }
    assert "report only: removing" in result.stderr and "team/kept@" + old.digest in result.stderr
    assert result.exit_code == 1


def test_a_command_that_only_reports_tells_what_there_is_no_room_for(
    tmp_path: Path, containerd: str, registry: Registry, pushed
) -> None:
    reference = pushed("team/large", "v1", images.image("large", layer_bytes=20 << 20, architecture=OWN_ARCHITECTURE))
    with running(Node(tmp_path / "node", "node", registry, containerd, disk_mib=64)) as node:
        assert run(node, reference, reportOnly=True).outcomes() == [("skipped", "no-space")]


@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_command_that_only_reports_does_not_wait_for_another(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    holder = node.begin("mkdir -p /run/prefetch-images; flock /run/prefetch-images/lock sleep 30", {})
    wait_for_file(node, "/run/prefetch-images/lock")

    result = run(node, reference, limit=5, reportOnly=True)

    assert result.outcomes() == [("skipped", "report-only")]
    holder.kill()


@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_command_that_only_reports_does_not_try_a_registry_again_that_is_down(
    node: Node, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    registry.pause()

    command = begin(node, reference, reportOnly=True)

    assert eventually(lambda: command.errors() != "" or not command.pids())
    assert command.wait(30).seconds < 20


def forget_names(node: Node, reference: str) -> None:
    """Takes an image's tag away, and the list of the images that commands have named."""
    node.shell(f"{CTR} images rm {by_tag(reference)}")
    node.shell(f"{CTR} leases create --id collected && {CTR} leases rm --sync collected")  # what nothing holds goes now
    node.shell("rm -rf /run/prefetch-images/named")


def outcomes_of(result: Result, references: dict[str, str]) -> dict[str, tuple[str, str, int]]:
    """Returns status, reason and bytes of what was reported, by the names of the images."""
    return {
        name: (report["status"], report["reason"], report["bytes"])
        for name, reference in references.items()
        for report in result.reports
        if report["image"] == reference
    }


def state(node: Node) -> dict[str, object]:
    """Returns all that a command could have changed."""
    assert eventually(lambda: node.shell(f"{CTR} leases ls -q"), "")
    files = node.shell("find /run /tmp /etc /var/lib -xdev 2>/dev/null; find /etc /var/lib/containerd -type f")
    return {
        "images": sorted(node.shell(f"{CTR} images ls").splitlines()),
        "content": sorted(line.split()[0] for line in node.shell(f"{CTR} content ls").splitlines()),
        "ingests": node.shell(f"{CTR} content active"),
        "snapshots": sorted(node.shell(f"{CTR} snapshots ls").splitlines()),
        "files": sorted(file for file in files.splitlines() if is_ours(node, file)),
    }
