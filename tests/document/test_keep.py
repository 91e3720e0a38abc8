"""Tests which images are ours, which are kept and pinned, and which are let go."""

import re

import pytest

from local import images
from local.images import Artifact
from local.nodes.node import Node

from .command import Result, begin, run
from .nodes import CTR
from .relay import PULL, relaying
from .state import OWN_ARCHITECTURE, by_digest, by_tag, chain_id, eventually, labels, names, snapshots

OURS = "prefetch-images/pulled-at"


def test_what_was_pulled_is_labelled_with_the_moment_and_what_was_there_is_not(node: Node, pushed) -> None:
    ours, theirs = release("ours"), release("theirs")
    our_reference, their_reference = pushed("team/ours", "v1", ours), pushed("team/theirs", "v1", theirs)
    node.kubelet_pulls(by_tag(their_reference))
    node.shell(f"{CTR} images rm {by_digest(their_reference)}")

    result = run(node, our_reference, their_reference)

    assert (result.of(our_reference)["status"], result.of(their_reference)["status"]) == ("pulled", "cached")

    moments = {labels(node, name)[OURS] for name in (by_tag(our_reference), by_digest(our_reference))}
    assert len(moments) == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", moments.pop())
    for name in names(node, theirs):
        assert OURS not in labels(node, name)
    assert {by_tag(their_reference), by_digest(their_reference)} <= names(node, theirs)


def test_containerd_adopts_what_was_pulled(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", release("v1"))
    run(node, reference)

    for name in (by_tag(reference), by_digest(reference)):
        assert eventually(lambda name=name: labels(node, name).get("io.cri-containerd.image"), "managed")


def test_of_several_releases_the_newest_are_kept(node: Node, pushed) -> None:
    releases = [release(f"v{number}") for number in range(4)]
    references = [pushed("team/app", f"v{number}", image) for number, image in enumerate(releases)]
    other = pushed("team/app2", "v0", release("other"))
    deeper = pushed("team/app/deeper", "v0", release("deeper"))
    run(node, other, deeper, keep=1)

    for number, reference in enumerate(references):
        result = later(node, reference, keep=2)
        assert result.outcomes() == [("pulled", "")]
        assert ("removing" in result.stderr) is (number >= 2)

    for image in releases[:2]:
        assert eventually(lambda image=image: names(node, image), set())
    for reference, image in [*zip(references[2:], releases[2:], strict=True)]:
        assert {by_tag(reference), by_digest(reference)} <= names(node, image)
    assert {by_tag(other), by_tag(deeper)} <= node.images().keys()
    assert eventually(lambda: snapshots(node, "overlayfs"), 4)


def test_without_keep_nothing_is_removed(node: Node, pushed) -> None:
    releases = [release(f"v{number}") for number in range(3)]
    for number, image in enumerate(releases):
        run(node, pushed("team/app", f"v{number}", image))

    assert all(len(names(node, image)) == 3 for image in releases)


def test_images_that_a_command_names_are_kept(node: Node, pushed) -> None:
    releases = [release(f"v{number}") for number in range(4)]
    references = [pushed("team/app", f"v{number}", image) for number, image in enumerate(releases)]

    assert run(node, *references[:3], keep=1).statuses() == ["pulled"] * 3
    assert all(names(node, image) for image in releases[:3])

    later(node, references[3], keep=2)
    assert [bool(names(node, image)) for image in releases].count(True) == 2
    assert names(node, releases[3])


def test_a_late_command_removes_nothing_that_came_after_its_image(node: Node, pushed) -> None:
    releases = [release(f"v{number}") for number in range(3)]
    references = [pushed("team/app", f"v{number}", image) for number, image in enumerate(releases)]
    for reference in references:
        run(node, reference, keep=3)

    assert later(node, references[0], keep=1).outcomes() == [("cached", "")]

    assert [bool(names(node, image)) for image in releases] == [True, False, True]


@pytest.mark.parametrize("by", ["kubelet", "person"])
def test_what_others_pulled_is_never_removed_and_does_not_count(node: Node, pushed, by: str) -> None:
    theirs, old, new = release("theirs"), release("old"), release("new")
    their_reference = pushed("team/app", "theirs", theirs)
    if by == "kubelet":
        node.kubelet_pulls(by_tag(their_reference))
    else:
        node.shell(f"{CTR} images pull --user AWS:{node.registry.password} {by_tag(their_reference)}")
    assert run(node, their_reference, keep=1, pin=True).outcomes() == [("cached", "")]
    old_reference, new_reference = pushed("team/app", "old", old), pushed("team/app", "new", new)
    for reference in (old_reference, new_reference):
        later(node, reference, keep=1, pin=True)

    assert eventually(lambda: names(node, old), set())
    assert {by_tag(their_reference), by_digest(their_reference)} <= names(node, theirs)
    assert not node.pinned(by_tag(their_reference))
    assert node.pinned(by_tag(new_reference))


@pytest.mark.parametrize("use", ["snapshot", "container"])
def test_an_image_that_a_container_uses_stays_but_is_no_longer_pinned(node: Node, pushed, use: str) -> None:
    old, new = release("old", layers=3), release("new")
    if use == "container":
        old = images.index([old, images.attestation(old)])
    old_reference = pushed("team/app", "old", old)
    run(node, old_reference, keep=1, pin=True)
    if use == "snapshot":
        node.shell(f"{CTR} snapshots prepare web {chain_id(old)}")
    else:
        node.shell(f"{CTR} containers create {by_tag(old_reference)} web")

    result = later(node, pushed("team/app", "new", new), keep=1, pin=True)

    assert "a container uses it" in result.stderr
    assert {by_tag(old_reference), by_digest(old_reference)} <= names(node, old)
    assert eventually(lambda: node.pinned(by_tag(old_reference)), False)
    node.shell(f"{CTR} containers rm web" if use == "container" else f"{CTR} snapshots rm web")
    later(node, pushed("team/app", "newer", release("newer")), keep=1, pin=True)
    assert eventually(lambda: names(node, old), set()), "let go with the next release"


def test_an_image_that_a_person_has_named_stays(node: Node, pushed) -> None:
    old = release("old")
    old_reference = pushed("team/app", "old", old)
    run(node, old_reference, keep=1, pin=True)
    node.shell(f"{CTR} images tag {by_tag(old_reference)} docker.io/mine/own:v1")

    later(node, pushed("team/app", "new", release("new")), keep=1, pin=True)

    assert {by_tag(old_reference), by_digest(old_reference), "docker.io/mine/own:v1"} <= names(node, old)


def test_a_tag_that_kubelet_moved_is_no_longer_ours(node: Node, pushed) -> None:
    ours, theirs, new = release("ours"), release("theirs"), release("new")
    our_reference = pushed("team/app", "latest", ours)
    run(node, our_reference, keep=1, pin=True)
    assert node.pinned(by_tag(our_reference))
    their_reference = pushed("team/app", "latest", theirs)
    node.kubelet_pulls(by_tag(their_reference))

    later(node, pushed("team/app", "new", new), keep=1, pin=True)

    assert eventually(lambda: names(node, ours), set())
    assert by_tag(their_reference) in names(node, theirs)
    assert not labels(node, by_tag(their_reference)).keys() & {OURS, "io.cri-containerd.pinned"}
    assert eventually(lambda: node.pinned(by_tag(their_reference)), False)


def test_ours_are_pinned_by_both_names_while_they_are_kept(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", release("v1"))
    assert run(node, reference, keep=1).statuses() == ["pulled"]
    assert not node.pinned(by_tag(reference))

    assert run(node, reference, keep=1, pin=True).statuses() == ["cached"]

    for name in (by_tag(reference), by_digest(reference)):
        assert eventually(lambda name=name: node.pinned(name), True)


def test_an_image_of_ours_in_two_repositories_stays_in_the_other(node: Node, pushed) -> None:
    shared = release("shared")
    here, there = pushed("team/here", "v1", shared), pushed("team/there", "v1", shared)
    for reference in (here, there):
        run(node, reference, keep=1, pin=True)

    later(node, pushed("team/here", "v2", release("new")), keep=1, pin=True)

    assert eventually(lambda: {by_tag(here), by_digest(here)} & names(node, shared), set())
    assert {by_tag(there), by_digest(there)} <= names(node, shared)
    assert eventually(lambda: node.pinned(by_tag(there)), True)


def test_a_tag_that_kubelet_gave_while_we_pulled_stays_kubelets(node: Node, pushed) -> None:
    image = release("by both")
    reference = pushed("team/app", "v1", image)
    with relaying(node.socket) as relay:
        relay.hold(PULL)
        command = begin(node, reference)
        relay.wait_for(PULL)
        node.kubelet_pulls(by_tag(reference), relay.behind)
        relay.release(PULL)
        assert Result(command.wait(60)).outcomes() == [("pulled", "")]
    assert OURS not in labels(node, by_tag(reference))

    later(node, pushed("team/app", "v2", release("new")), keep=1)

    assert by_tag(reference) in names(node, image)


def test_a_second_tag_of_ours_goes_with_its_image(node: Node, pushed) -> None:
    old = release("old")
    references = [pushed("team/app", tag, old) for tag in ("v1", "v1.0")]
    for reference in references:
        run(node, reference, keep=1)

    later(node, pushed("team/app", "v2", release("new")), keep=1)

    assert eventually(lambda: names(node, old), set())


def later(node: Node, *references: str, **how: object) -> Result:
    """Runs the document once it is forgotten what the commands before named, which is left to pods that start."""
    node.shell("rm -rf /run/prefetch-images/named")
    return run(node, *references, **how)


def release(content: str, layers: int = 1) -> Artifact:
    """Builds an image with layers of its own."""
    return images.image(content, architecture=OWN_ARCHITECTURE, layers=layers)
