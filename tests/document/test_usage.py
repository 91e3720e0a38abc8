"""Tests what a command tells of the images in use, and of what pods found on the node."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from local import images
from local.ecr.registry import Registry
from local.nodes.node import Node
from local.nodes.pods import Pods, pausing

from .command import HOST, Result, begin, run
from .nodes import CTR
from .relay import relaying
from .state import OWN_ARCHITECTURE, by_digest, by_tag, eventually, wait_for_file

CONTAINERS = "/runtime.v1.RuntimeService/ListContainers"
NOTHING = {"images": 0, "leftOut": 0, "podImages": 0, "podImagesPresent": 0, "firstUsedBytes": 0}
ON_ONE_CONTAINERD = pytest.mark.parametrize("containerd", ["2.1"])


@pytest.fixture
def pods(node: Node) -> Iterator[Pods]:
    """The node's pods."""
    pods = Pods(node)
    yield pods
    pods.remove()


def test_images_of_containers_are_told_whoever_brought_them(node: Node, pods: Pods, pushed) -> None:
    ours, theirs = pausing("ours"), pausing("theirs")
    our_reference, their_reference = pushed("team/ours", "v1", ours), pushed("team/theirs", "v1", theirs)
    early = pods.make()
    assert run(node, our_reference).statuses() == ["pulled"]
    node.kubelet_pulls(by_tag(their_reference))
    pods.start(early, by_tag(their_reference))
    for _ in range(2):
        pods.run(by_tag(our_reference))

    result = inventory(node)

    assert (result.exit_code, result.reports, result.stderr) == (0, [], "")
    assert result.usage == [
        {"usage": our_reference, "running": 2, "prefetched": True, "bytes": ours.size},
        {"usage": their_reference, "running": 1, "prefetched": False, "bytes": theirs.size},
    ]
    totals = {"images": 2, "leftOut": 0, "podImages": 3, "podImagesPresent": 2, "firstUsedBytes": ours.size}
    assert result.totals == totals


def test_a_command_tells_usage_after_its_own_lines(node: Node, pods: Pods, pushed) -> None:
    first, second = (pushed(f"team/app{number}", "v1", pausing(f"{number}")) for number in range(2))
    for _ in ("pulled", "cached"):
        run(node, first)
    pods.run(by_tag(first))

    result = run(node, second, first)

    assert result.of(second)["status"] == "pulled"
    assert [line["usage"] for line in result.usage] == [first], "the other is in no use yet"
    assert result.totals["firstUsedBytes"] > 0


def test_a_container_is_counted_once(node: Node, pods: Pods, pushed) -> None:
    image = pausing("app")
    reference = pushed("team/app", "v1", image)
    run(node, reference)
    pods.run(by_tag(reference))
    assert inventory(node).totals["podImages"] == 1

    second = inventory(node)

    assert [line["running"] for line in second.usage] == [1]
    assert second.totals == {**NOTHING, "images": 1}
    node.kubelet_pulls(by_tag(reference))  # as for a pod that always pulls: its name is written anew
    pods.run(by_tag(reference))
    third = inventory(node)
    assert third.usage == [{"usage": reference, "running": 2, "prefetched": True, "bytes": image.size}]
    assert third.totals == {**NOTHING, "images": 1, "podImages": 1, "podImagesPresent": 1}


@ON_ONE_CONTAINERD
def test_looks_at_one_time_count_a_container_once(node: Node, pods: Pods, pushed) -> None:
    image = pausing("app")
    reference = pushed("team/app", "v1", image)
    run(node, reference)
    pods.run(by_tag(reference))

    with ThreadPoolExecutor() as pool:
        totals = [result.totals for result in pool.map(inventory, [node] * 6)]

    assert sum(these["podImages"] for these in totals) == 1
    assert sum(these["firstUsedBytes"] for these in totals) == image.size


def test_a_look_that_only_reports_writes_nothing(node: Node, pods: Pods, pushed) -> None:
    image = pausing("app")
    reference = pushed("team/app", "v1", image)
    run(node, reference)
    pods.run(by_tag(reference))
    before = labels_of(node, image.digest)

    for _ in range(2):
        totals = inventory(node, reportOnly=True).totals
        assert (totals["podImages"], totals["firstUsedBytes"]) == (1, image.size)

    assert labels_of(node, image.digest) == before and "prefetch-images/used" not in before
    assert inventory(node).totals == totals
    assert "prefetch-images/used" in labels_of(node, image.digest)


def test_an_image_with_several_tags_is_told_by_the_one_that_the_pod_names(node: Node, pods: Pods, pushed) -> None:
    image = pausing("app")
    references = [pushed("team/app", tag, image) for tag in ("v1", "v2")]
    for reference in references:
        node.kubelet_pulls(by_tag(reference))
    container = pods.run(node.image_status(by_tag(references[0])))
    assert [line["usage"] for line in inventory(node).usage] == references, "none is known: all are told"
    pods.stop(container)
    pods.remove()

    pods.run(node.image_status(by_tag(references[0])), by_tag(references[1]))

    assert [line["usage"] for line in inventory(node).usage] == references[1:]


def test_an_image_is_told_by_its_digest_where_its_tag_stands_for_another(node: Node, pods: Pods, pushed) -> None:
    old, new = (pushed("team/app", "latest", pausing(content)) for content in ("old", "new"))
    node.kubelet_pulls(by_digest(old))
    pods.run(by_digest(old))
    node.kubelet_pulls(by_tag(new))
    pods.run(node.image_status(by_digest(old)), by_tag(old))

    told = {line["usage"]: line["running"] for line in inventory(node).usage}

    assert told == {by_digest(old): 2, new: 0}


def test_an_ended_container_still_tells_that_its_image_is_used(node: Node, pods: Pods, pushed) -> None:
    ours, theirs = (pushed(f"team/{name}", "v1", pausing(name)) for name in ("ours", "theirs"))
    run(node, ours)
    node.kubelet_pulls(by_tag(theirs))
    for container in [pods.run(by_tag(reference)) for reference in (ours, theirs)]:
        pods.stop(container)

    ended = inventory(node)

    assert [(line["usage"], line["running"]) for line in ended.usage] == [(ours, 0), (theirs, 0)]
    pods.remove()
    assert [line["usage"] for line in inventory(node).usage] == [theirs], "what kubelet pulled is told, ours is not"


def test_what_never_ran_is_told_only_where_kubelet_pulled_it(node: Node, pushed) -> None:
    ours, theirs, by_hand = (
        pushed(f"team/{name}", "v1", images.image(name, architecture=OWN_ARCHITECTURE))
        for name in ("ours", "theirs", "by-hand")
    )
    run(node, ours)
    node.kubelet_pulls(by_tag(theirs))
    node.shell(f"{CTR} images pull --user AWS:{node.registry.password} {by_tag(by_hand)}")
    assert eventually(lambda: node.image_status(by_tag(by_hand)) is not None)

    result = inventory(node)

    assert [line["usage"] for line in result.usage] == [theirs], "a registry gave no digest to what came by hand"
    assert result.totals == {**NOTHING, "images": 1}


@ON_ONE_CONTAINERD
def test_what_a_pod_has_mounted_is_used(node: Node, pods: Pods, pushed) -> None:
    app, weights = pausing("app"), images.image("weights", architecture=OWN_ARCHITECTURE)
    references = [pushed("team/app", "v1", app), pushed("team/weights", "v1", weights)]
    run(node, *references)
    pods.run(by_tag(references[0]), volume=by_tag(references[1]))

    result = inventory(node)

    assert [(line["usage"], line["running"]) for line in result.usage] == [(references[0], 1), (references[1], 0)]
    assert result.totals["firstUsedBytes"] == app.size + weights.size


@ON_ONE_CONTAINERD
def test_more_images_than_ssm_returns_are_left_out_and_counted(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    node.kubelet_pulls(by_tag(reference))
    names = [f"{HOST}/team/app:{number:0100}" for number in range(200)]
    node.shell(f"{CTR} images tag {by_tag(reference)} {' '.join(names)} >/dev/null")
    assert eventually(lambda: node.image_status(names[-1]) is not None)

    result = inventory(node)

    assert result.totals["images"] == 201
    assert result.totals["leftOut"] == 201 - len(result.usage) > 0
    assert 23_000 < len(result.stdout) < 24_000
    assert f"of 201 images in use {result.totals['leftOut']} are left out" in result.stderr
    told = [line["usage"] for line in result.usage]
    assert len(set(told)) == len(told) and told != sorted(told)  # the order is the hour's


@ON_ONE_CONTAINERD
def test_where_containerd_does_not_answer_nothing_is_told_and_the_command_ends_as_it_would(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    run(node, reference)
    with relaying(node.socket) as relay:
        relay.refuse(CONTAINERS, 14, "not now")
        for result in (run(node, reference), inventory(node)):
            assert (result.exit_code, result.usage, result.totals) == (0, [], None)
            assert "which images are in use cannot be told" in result.stderr and "not now" in result.stderr

    node.shell("mv /run/containerd/containerd.sock /run/containerd/away")
    stopped = inventory(node)
    node.shell("mv /run/containerd/away /run/containerd/containerd.sock")
    assert (stopped.exit_code, stopped.stdout, "cannot be told" in stopped.stderr) == (0, "", True)


@ON_ONE_CONTAINERD
def test_an_inventory_of_a_containerd_that_hangs_ends(node: Node) -> None:
    inventory(node)
    node.freeze()

    result = inventory(node)

    node.thaw()
    assert (result.exit_code, result.stdout, "too long" in result.stderr) == (0, "", True)
    assert result.seconds < 15


@ON_ONE_CONTAINERD
def test_an_inventory_waits_for_no_other_command_and_a_command_that_gives_way_tells_no_usage(
    node: Node, pushed
) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    locks = [f"/run/prefetch-images/{name}" for name in ("lock", "waiting")]
    holders = [node.begin(f"mkdir -p /run/prefetch-images; flock {lock} sleep 60", {}) for lock in locks]
    for lock in locks:
        wait_for_file(node, lock)
    time.sleep(0.2)

    result, busy = inventory(node), run(node, reference)

    assert (result.exit_code, result.totals, result.seconds < 5) == (0, NOTHING, True)
    assert (busy.outcomes(), busy.totals) == ([("failed", "busy")], None)
    for holder in holders:
        holder.kill()
    assert run(node, reference).statuses() == ["pulled"], "and what was queued is done"


@ON_ONE_CONTAINERD
def test_a_command_that_is_ended_tells_no_usage(node: Node, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("app", architecture=OWN_ARCHITECTURE))
    registry.pause()
    command = begin(node, reference)
    wait_for_file(node, "/run/prefetch-images/lock")
    time.sleep(1)

    command.signal(signal.SIGTERM)

    ended = Result(command.wait(15))
    assert (ended.outcomes(), ended.totals) == ([("failed", "interrupted")], None)


def inventory(node: Node, **parameters: object) -> Result:
    """Runs the document without images."""
    return run(node, **parameters)


def labels_of(node: Node, digest: str) -> str:
    """Returns the labels of a blob."""
    [row] = [line for line in node.shell(f"{CTR} content ls").splitlines() if line.startswith(digest)]
    return row.split()[-1]
