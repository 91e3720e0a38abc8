"""Images are unpacked where CRI looks for them, or not pulled at all."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes.node import SOCI, Node

from .command import Result, begin, run
from .nodes import running
from .relay import SNAPSHOTS, relaying
from .state import OWN_ARCHITECTURE, by_tag, image_id, node_finds, snapshots
from .test_time import STALL_SECONDS

OWN = {"architecture": OWN_ARCHITECTURE}
OLD = "touch --date '2 minutes ago' /run/containerd/containerd.sock"
"""A containerd that has just begun may only not reach its snapshotter yet, which is waited for."""


@pytest.fixture
def soci(tmp_path: Path, containerd: str, registry: Registry) -> Iterator[Node]:
    """A node with the SOCI snapshotter, which runs beside containerd."""
    with running(Node(tmp_path / "soci", "soci", registry, containerd, snapshotter="soci")) as node:
        yield node


def test_images_are_unpacked_into_the_snapshotter_that_cri_uses(
    tmp_path: Path, containerd: str, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("native", architecture=OWN_ARCHITECTURE))
    with running(Node(tmp_path / "native", "native", registry, containerd, snapshotter="native")) as node:
        assert run(node, reference).outcomes() == [("pulled", "")]
        assert (snapshots(node, "native"), snapshots(node, "overlayfs")) == (1, 0)
        assert run(node, reference).outcomes() == [("cached", "")]


def test_a_containerd_that_begins_with_another_snapshotter_is_asked_for_it(node: Node, pushed) -> None:
    references = [pushed("team/app", f"v{number}", images.image(f"{number}", **OWN)) for number in range(3)]
    assert run(node, references[0]).outcomes() == [("pulled", "")]
    assert run(node, references[1]).outcomes() == [("pulled", "")]
    assert (snapshots(node, "native"), snapshots(node, "overlayfs")) == (0, 2)
    node.shell("sed -i 's/^discard_unpacked_layers.*/&\\nsnapshotter = \"native\"/' /etc/containerd/config.toml")
    node.kill_containerd()

    assert run(node, references[2]).outcomes() == [("pulled", "")]
    assert (snapshots(node, "native"), snapshots(node, "overlayfs")) == (1, 2)


def test_a_snapshotter_beside_containerd_is_pulled_into_through_cri(soci: Node, pushed) -> None:
    image = images.image("soci", architecture=OWN_ARCHITECTURE, layers=2)
    reference = pushed("team/app", "v1", image)

    assert run(soci, reference).outcomes() == [("pulled", "")]
    assert (snapshots(soci, "soci"), snapshots(soci, "overlayfs")) == (2, 0)
    assert node_finds(soci, by_tag(reference)) == image_id(image)
    assert run(soci, reference).outcomes() == [("cached", "")]


@pytest.mark.parametrize("when", ["before any pull", "after one"])
def test_a_snapshotter_that_does_not_work_is_told_and_leaves_no_name(soci: Node, pushed, when: str) -> None:
    first = pushed("team/first", "v1", images.image("first", architecture=OWN_ARCHITECTURE))
    second = pushed("team/second", "v1", images.image("second", architecture=OWN_ARCHITECTURE))
    if when == "after one":
        assert run(soci, first).outcomes() == [("pulled", "")]
    before = soci.images()
    soci.kill_snapshotter()
    soci.shell(OLD)

    result = run(soci, second)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "snapshotter")])
    assert soci.images() == before


def test_without_a_working_snapshotter_nothing_counts_as_cached(soci: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    assert run(soci, reference).outcomes() == [("pulled", "")]
    soci.kill_snapshotter()
    soci.shell(OLD)

    assert run(soci, reference).outcomes() == [("skipped", "snapshotter")]


@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_snapshotter_that_fetches_by_itself_and_blocks_meanwhile_is_waited_for(soci: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("blocking", **OWN))
    prepare = f"{SNAPSHOTS}/Prepare"
    with relaying(soci.socket.parents[1] / SOCI.removeprefix("/run/")) as relay:
        relay.hold(prepare)
        command = begin(soci, reference, limit=100)
        relay.wait_for(prepare)
        time.sleep(STALL_SECONDS + 8)
        relay.release(prepare)
        result = Result(command.wait(60))

    assert (result.outcomes(), result.only()["attempts"]) == ([("pulled", "")], 1), result.stderr


def test_a_snapshotter_with_a_disk_of_its_own_fills_that(node: Node, pushed) -> None:
    root = "/var/lib/snapshots"
    large = pushed("team/large", "v1", images.image("large", **OWN, layer_bytes=12 << 20))
    small = pushed("team/small", "v1", images.image("small", **OWN))
    settings = f"[plugins.'io.containerd.snapshotter.v1.overlayfs']\nroot_path = '{root}'"
    node.shell(f"""mkdir {root} && mount -t tmpfs -o size=20m snapshots {root} &&
        echo "{settings}" >>/etc/containerd/config.toml""")
    node.kill_containerd()

    result = run(node, large, small)

    node.shell(f"umount --lazy {root}")
    assert result.of(small)["status"] == "pulled"
    assert (result.of(large)["status"], result.of(large)["reason"]) == ("skipped", "no-space")
    assert f"of {20 << 20} are used" in result.stderr, "of that disk"


RUNTIME = "[plugins.'io.containerd.grpc.v1.cri'.containerd.runtimes.kata]\nruntime_type = 'io.containerd.runc.v2'"
KATA = {
    "1.7": f"{RUNTIME}\nsnapshotter = 'native'",
    "2.1": "[plugins.'io.containerd.cri.v1.images'.runtime_platforms.kata]\nsnapshotter = 'native'",
}


def test_an_image_is_brought_for_a_runtime_class_with_another_snapshotter_too(
    fronted: Node, front: Front, pushed, containerd: str
) -> None:
    reference = pushed("team/app", "v1", images.image("for kata too", layers=2, **OWN))
    configure(fronted, KATA[containerd])
    refused = []
    front.refusals = lambda path: 503 if "/blobs/" in path and len(refused) < 2 and not refused.append(path) else None

    result = run(fronted, reference)

    assert result.outcomes() == [("pulled", "")], "not cached by the half that came first"
    assert (snapshots(fronted, "native"), snapshots(fronted, "overlayfs")) == (2, 2)
    assert "kata" in result.stderr and "native" in result.stderr


@pytest.mark.parametrize("containerd", ["2.1"])
def test_a_runtime_class_for_which_containerd_pulls_nothing_is_told(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("not for kata", **OWN))
    table = "plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.kata"
    configure(node, f"[{table}]\nruntime_type = 'io.containerd.runc.v2'\nsnapshotter = 'native'")

    result = run(node, reference)

    assert result.outcomes() == [("pulled", "")]
    assert "kata" in result.stderr and "runtime_platforms" in result.stderr


def test_a_runtime_class_whose_snapshotter_does_not_run_costs_nothing(node: Node, pushed, containerd: str) -> None:
    reference = pushed("team/app", "v1", images.image("without devmapper", **OWN))
    configure(node, KATA[containerd].replace("native", "none"))

    result = run(node, reference)

    assert (result.exit_code, result.outcomes()) == (0, [("pulled", "")]), result.stderr
    assert run(node, reference).outcomes() == [("cached", "")]


def configure(node: Node, table: str) -> None:
    """Adds a table to containerd's settings, and starts it anew."""
    node.shell(f"""echo "{table}" >>/etc/containerd/config.toml""")
    node.kill_containerd()
