"""Tests what kubelet does with images and is told of, by CRI's calls and its settings, for there is none here."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.nodes.node import ANY_DISK, Node

from .command import run
from .nodes import running
from .state import OWN_ARCHITECTURE, by_digest, by_tag, eventually, names, set_kubelet
from .test_keep import later, release

MIB = 1 << 20
SMALL = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 12 * MIB}  # needs 36 MiB: 12 compressed, 24 unpacked
DROP_INS = "/etc/kubernetes/kubelet/config.json.d"


@pytest.fixture
def small(tmp_path: Path, containerd: str, front: Front) -> Iterator[Node]:
    """A node whose containerd stores on a file system of 64 MiB."""
    with running(Node(tmp_path / "node", "node", front, containerd, disk_mib=64)) as node:
        yield node


@pytest.mark.parametrize("containerd", ["2.1"])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"imageGCHighThresholdPercent": 56, "evictionHard": ANY_DISK["evictionHard"]}, "56 %"),
        ({"evictionHard": {"imagefs.available": "50%"}}, "imagefs.available"),
        ({"evictionHard": {"imagefs.available": "40Mi"}}, "imagefs.available"),
    ],
    ids=["threshold", "eviction", "eviction in bytes"],
)
def test_a_limit_of_kubelets_that_is_lower_than_ours_holds(small: Node, pushed, settings: dict, says: str) -> None:
    reference = pushed("team/app", "v1", images.image("small", **SMALL))
    set_kubelet(small, **settings)

    result = run(small, reference, imageGCHighThresholdPercent=95)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")])
    assert says in result.stderr
    small.shell(
        f"mkdir -p {DROP_INS} && cd {DROP_INS} &&"
        """ echo '{"imageGCHighThresholdPercent":90,"evictionHard":{"imagefs.available":"1%"}}' >50-ours.conf"""
    )
    assert run(small, reference, imageGCHighThresholdPercent=56).outcomes() == [("skipped", "no-space")]
    assert run(small, reference, imageGCHighThresholdPercent=95).outcomes() == [("pulled", "")]


def test_a_pod_that_always_pulls_takes_no_image_of_ours_away(node: Node, pushed) -> None:
    old, new = release("old"), release("new")
    reference = pushed("team/app", "latest", old)
    assert run(node, reference, keep=1, pin=True).outcomes() == [("pulled", "")]
    assert eventually(lambda: node.pinned(by_tag(reference)))

    node.kubelet_pulls(by_tag(reference))  # imagePullPolicy: Always, which writes the names anew

    assert run(node, reference, keep=1, pin=True).outcomes() == [("cached", "")]
    for name in (by_tag(reference), by_digest(reference)):
        assert eventually(lambda name=name: node.pinned(name)), "what it should carry is set right"
    node.kubelet_pulls(by_tag(reference))
    assert later(node, pushed("team/app", "latest", new), keep=1, pin=True).outcomes() == [("pulled", "")]
    assert eventually(lambda: names(node, old), set()), "and it is let go of as ours"


@pytest.mark.parametrize("containerd", ["2.1"])
def test_what_kubelet_pulled_alone_does_not_become_ours(node: Node, pushed) -> None:
    theirs, new = release("theirs"), release("new")
    reference = pushed("team/app", "v1", theirs)
    for _ in range(2):
        node.kubelet_pulls(by_tag(reference))
        assert run(node, reference, keep=1, pin=True).outcomes() == [("cached", "")]

    assert later(node, pushed("team/app", "v2", new), keep=1, pin=True).outcomes() == [("pulled", "")]

    assert by_tag(reference) in names(node, theirs)
    assert not node.pinned(by_tag(reference))


def test_where_kubelet_removes_by_age_what_is_kept_is_pinned(node: Node, pushed) -> None:
    set_kubelet(node, imageMaximumGCAge="168h", **ANY_DISK)
    reference = pushed("team/app", "v1", release("aged"))

    result = run(node, reference, keep=1)

    assert result.outcomes() == [("pulled", "")]
    assert "imageMaximumGCAge" in result.stderr
    assert eventually(lambda: node.pinned(by_tag(reference)))


@pytest.mark.parametrize("containerd", ["2.1"])
def test_where_kubelet_removes_by_age_and_nothing_is_kept_nothing_is_brought(node: Node, pushed) -> None:
    set_kubelet(node, imageMaximumGCAge="168h", **ANY_DISK)
    reference = pushed("team/app", "v1", release("aged"))

    result = run(node, reference)

    assert (result.exit_code, result.statuses()) == (0, ["skipped"])
    assert "imageMaximumGCAge" in result.stderr
    assert node.images() == {}


def test_an_image_that_a_command_named_a_moment_ago_is_not_taken_from_a_pod_that_starts(node: Node, pushed) -> None:
    old = release("old")
    reference = pushed("team/app", "v1", old)
    assert run(node, reference, keep=1, pin=True).outcomes() == [("pulled", "")]
    assert run(node, pushed("team/app", "v2", release("new")), keep=1, pin=True).outcomes() == [("pulled", "")]
    assert {by_tag(reference), by_digest(reference)} <= names(node, old)
    assert node.pinned(by_tag(reference))

    later(node, pushed("team/app", "v3", release("newest")), keep=1, pin=True)

    assert eventually(lambda: names(node, old), set())
