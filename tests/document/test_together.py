"""Tests that several images are looked up and named at once, and what becomes of an image where that fails."""

import json

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import HOST, Result, begin, run
from .nodes import CTR
from .relay import IMAGES, PULL, relaying
from .state import (
    OTHER_ARCHITECTURE,
    OWN_ARCHITECTURE,
    by_digest,
    by_tag,
    image_id,
    labels,
    names,
    node_finds,
    tags,
)
from .test_keep import OURS

BEHIND = "/run/containerd/containerd.sock.behind"
OWN = {"architecture": OWN_ARCHITECTURE}
ON_ONE_CONTAINERD = pytest.mark.parametrize("containerd", ["2.1"])


@pytest.mark.parametrize("kind", ["manifest", "docker manifest", "index", "docker list"])
def test_images_of_every_kind_are_named_and_labelled(node: Node, pushed, kind: str) -> None:
    singles = [images.image(f"{kind} {number}", docker="docker" in kind, **OWN) for number in range(4)]
    pushes = singles if "manifest" in kind else [images.index([one], docker="docker" in kind) for one in singles]
    references = [pushed(f"team/app{number}", "v1", image) for number, image in enumerate(pushes)]

    result = run(node, *references)

    assert (result.outcomes(), result.stderr) == ([("pulled", "")] * 4, "")
    for reference, single in zip(references, singles, strict=True):
        assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(single)
        ours = [labels(node, name) for name in (by_tag(reference), by_digest(reference))]
        assert ours[0] == ours[1] and ours[0].keys() == {OURS, "io.cri-containerd.image"}
    listed = node.shell(f"{CTR} images ls").splitlines()[1:]
    kinds = {tuple(line.split()[1:5]) for line in listed if line.startswith(by_tag(references[0]))}
    assert kinds == {tuple(line.split()[1:5]) for line in listed if line.startswith(by_digest(references[0]))}
    assert run(node, *references).outcomes() == [("cached", "")] * 4


@ON_ONE_CONTAINERD
def test_an_image_that_containerd_does_not_name_is_no_pulled_one(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("unnamed", **OWN))
    with relaying(node.socket) as relay:
        relay.refuse(f"{IMAGES}/Create", 14, "not now")

        result = run(node, reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")])
    assert "not now" in result.stderr
    assert run(node, reference).statuses()[0] in ("pulled", "cached")
    assert OURS in labels(node, by_tag(reference)) and OURS in labels(node, by_digest(reference))


def test_a_label_of_somebody_elses_stays(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("labelled", **OWN))
    with relaying(node.socket) as relay:
        relay.hold(f"{IMAGES}/Create")
        command = begin(node, reference)
        relay.wait_for(f"{IMAGES}/Create")
        node.shell(f"ctr --address {BEHIND} -n k8s.io images label {by_digest(reference)} x=y")
        relay.release(f"{IMAGES}/Create")
        assert Result(command.wait(60)).outcomes() == [("pulled", "")]

    assert labels(node, by_digest(reference)).keys() == {OURS, "io.cri-containerd.image", "x"}


@pytest.mark.parametrize("of_kubelet", ["the same image", "another image"])
def test_a_tag_that_kubelet_gives_before_ours_is_left_alone(node: Node, pushed, of_kubelet: str) -> None:
    image, other = images.image("ours", **OWN), images.image("theirs", **OWN)
    reference = pushed("team/app", "v1", image)
    with relaying(node.socket) as relay:
        relay.hold(f"{IMAGES}/Create")
        command = begin(node, reference)
        relay.wait_for(f"{IMAGES}/Create")
        if of_kubelet == "another image":
            pushed("team/app", "v1", other)
        node.kubelet_pulls(by_tag(reference), relay.behind)
        relay.release(f"{IMAGES}/Create")
        result = Result(command.wait(60))

    assert result.outcomes() == [("pulled", "" if of_kubelet == "the same image" else "tag-moved")]
    assert OURS not in labels(node, by_tag(reference))
    theirs = image if of_kubelet == "the same image" else other
    assert by_tag(reference) in names(node, theirs)


@ON_ONE_CONTAINERD
def test_manifests_of_every_kind_are_read_together(node: Node, pushed, registry: Registry) -> None:
    references = [
        pushed("team/foreign", "v1", images.image("foreign", architecture=OTHER_ARCHITECTURE)),
        pushed("team/foreign-index", "v1", images.index([images.image("foreign 2", architecture=OTHER_ARCHITECTURE)])),
        pushed("team/chart", "v1", images.chart("hello")),
        pushed("team/app", "v1", images.image("app", **OWN)),
        pushed("team/app-index", "v1", images.multi_platform("app 2")),
    ]

    result = run(node, *references)

    outcomes = [(result.of(reference)["status"], result.of(reference)["reason"]) for reference in references]
    assert outcomes == [("skipped", "platform")] * 3 + [("pulled", "")] * 2
    assert not [
        request
        for request in registry.requests("team/foreign-index")
        if request.startswith("GET /v2/team/foreign-index/blobs")
    ]
    assert all(result.of(reference)["bytes"] > 0 for reference in references[3:])


def test_a_tag_that_two_images_claim_stands_for_the_registrys(node: Node, pushed) -> None:
    old, new = images.image("old", **OWN), images.image("new", **OWN)
    references = [pushed("team/app", "latest", image) for image in (old, new)]

    for order in (references, references[::-1]):
        assert run(node, *order).statuses() in (["pulled", "pulled"], ["cached", "pulled"])
        assert tags(node, references[1]) == new.digest
        for name in node.images():
            node.shell(f"{CTR} images rm --sync {name}")


@ON_ONE_CONTAINERD
def test_a_tag_that_cannot_be_settled_is_told_with_its_cause(fronted: Node, front: Front, pushed) -> None:
    old, new = images.image("old", **OWN), images.image("new", **OWN)
    reference = pushed("team/app", "latest", old)
    with relaying(fronted.socket) as relay:
        relay.hold(f"{IMAGES}/Create")
        command = begin(fronted, reference)
        relay.wait_for(f"{IMAGES}/Create")
        pushed("team/app", "latest", new)
        fronted.kubelet_pulls(by_tag(reference), relay.behind)
        front.refusals = lambda path: 503 if path.endswith("/manifests/latest") else None
        relay.release(f"{IMAGES}/Create")
        result = Result(command.wait(60))

    assert result.outcomes() == [("failed", "registry")]
    assert "attempt 1: registry" in result.stderr and "503" in result.stderr
    assert tags(fronted, reference) == new.digest


def test_a_tag_that_kubelet_moves_while_we_pull_is_told(node: Node, pushed) -> None:
    old, new = images.image("old", **OWN), images.image("new", **OWN)
    reference = pushed("team/app", "latest", old)
    with relaying(node.socket) as relay:
        relay.hold(PULL)
        command = begin(node, reference)
        relay.wait_for(PULL)
        pushed("team/app", "latest", new)
        node.kubelet_pulls(by_tag(reference), relay.behind)
        relay.release(PULL)
        assert Result(command.wait(60)).outcomes() == [("pulled", "tag-moved")]

    assert tags(node, reference) == new.digest
    assert run(node, reference).outcomes() == [("cached", "tag-moved")]


@ON_ONE_CONTAINERD
@pytest.mark.parametrize("how", ["a round sum", "an endless sum"])
def test_a_size_beyond_all_disks_is_skipped_and_harms_no_other_image(
    fronted: Node, front: Front, pushed, how: str
) -> None:
    single = images.image("huge", **OWN)
    body = json.loads(single.manifest)
    body["layers"] = [{**body["layers"][0], "size": 5 * 10**14 if how == "a round sum" else 7 * 10**12}] * 1_500
    if how == "a round sum":
        body["layers"] = body["layers"][:100]
    digest = front.offer("team/huge", "v1", single.media_type, images.as_json(body))
    good = [pushed(f"team/app{number}", "v1", images.image(f"{number}", **OWN)) for number in range(2)]

    result = run(fronted, good[0], f"{HOST}/team/huge:v1@{digest}", good[1])

    assert [result.of(reference)["status"] for reference in good] == ["pulled"] * 2
    assert len(result.reports) == 3
    if how != "a round sum":
        assert ("skipped", "no-space") in result.outcomes()


@ON_ONE_CONTAINERD
@pytest.mark.parametrize(
    "text", ["\n" * (3 << 20), "[" * 100_000, " " * (1 << 20) + "{}"], ids=["lines", "depth", "blanks"]
)
def test_a_document_that_is_hard_to_read_holds_nothing_up(fronted: Node, front: Front, pushed, text: str) -> None:
    digest = front.offer("team/odd", "v1", f"{images.OCI}.manifest.v1+json", text.encode())
    good = pushed("team/app", "v1", images.image("app", **OWN))
    odd = f"{HOST}/team/odd:v1@{digest}"

    result = run(fronted, odd, good)

    assert result.of(good)["status"] == "pulled"
    assert result.of(odd)["status"] in ("skipped", "failed")
    assert result.of(good)["seconds"] < 10


@ON_ONE_CONTAINERD
@pytest.mark.parametrize("pretty", ["single", "index"])
def test_a_manifest_with_lines_and_indentation_is_read(fronted: Node, front: Front, pushed, pretty: str) -> None:
    single = images.image("pretty", **OWN)
    pushed("team/app", "v1", images.index([single]))
    document = single if pretty == "single" else images.index([single])
    digest = front.offer(
        "team/app", "v2", document.media_type, json.dumps(json.loads(document.manifest), indent=3).encode()
    )

    result = run(fronted, f"{HOST}/team/app:v2@{digest}")

    assert result.outcomes() == [("pulled", "")]
    assert result.only()["bytes"] > 0


@ON_ONE_CONTAINERD
def test_an_answer_that_is_not_what_was_asked_for_tells_nothing(fronted: Node, front: Front, pushed) -> None:
    image = images.image("app", **OWN)
    reference = pushed("team/app", "v1", image)
    foreign = images.image("foreign", architecture=OTHER_ARCHITECTURE)
    front.offer("team/app", image.digest, foreign.media_type, foreign.manifest)

    result = run(fronted, reference)

    assert result.only()["status"] == "failed", "containerd takes no other content for the digest"
    assert fronted.images() == {}


@ON_ONE_CONTAINERD
def test_images_of_several_registries_are_pulled_with_one_at_a_time(node: Node, pushed, registry: Registry) -> None:
    first = pushed("team/app", "v1", images.image("first", **OWN))
    second = first.replace(HOST, "123456789012.dkr.ecr.us-east-1.amazonaws.com")

    result = run(node, second, first, second, maxParallelImagePulls=1)

    assert result.of(first)["status"] == "pulled"
    assert len(result.reports) == 3
