"""Layers that are downloaded before containerd's own pull, in parts and over several connections."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from local import images
from local.ecr.front import Front
from local.images import Artifact
from local.nodes.node import Node

from .command import Result, begin, run
from .nodes import CTR
from .state import OWN_ARCHITECTURE, by_digest, by_tag, chain_id, eventually, image_id, layer_digests, node_finds

MIB = 1 << 20
LEASE = "prefetch-images-layers-"


def test_the_end_is_that_of_containerds_own_pull(fronted: Node, front: Front, pushed, kubelet) -> None:
    image = large("same", layers=4)
    reference = pushed("team/app", "v1", image)
    front.bytes_per_second = 16 * MIB
    assert run(fronted, reference, maxConnections=0).outcomes() == [("pulled", "")]
    fronted.shell(f"{CTR} leases create --id collected && {CTR} leases rm --sync collected")
    expected, alone = held(fronted), front.requests("team/app")
    wipe(fronted)

    result = run(fronted, reference, maxConnections=20)

    assert (result.outcomes(), result.stderr) == ([("pulled", "")], "")
    assert eventually(lambda: held(fronted), expected, 30), "collected, as after a pull of containerd's own"
    assert node_finds(fronted, by_tag(reference)) == node_finds(fronted, by_digest(reference)) == image_id(image)
    parts = [request for request in front.requests("team/app")[len(alone) :] if request.endswith(" 206")]
    assert len(parts) > 2 * len(layer_digests(image)), "in parts"
    assert fetched_again(front, image) == sum(len(image.blobs[digest]) for digest in layer_digests(image)), "once each"


def test_layers_that_are_elsewhere_are_asked_for_once_at_the_registry(fronted: Node, front: Front, pushed) -> None:
    front.redirects, front.bytes_per_second = True, 16 * MIB
    image = large("elsewhere", layers=1, layer_bytes=24 * MIB)
    reference = pushed("team/app", "v1", image)

    assert run(fronted, reference, maxConnections=20).outcomes() == [("pulled", "")]

    asked = [request for request in front.requests("team/app") if layer_digests(image)[0] in request]
    assert sum(request.endswith(" 307") for request in asked) < sum(request.endswith(" 206") for request in asked) / 2
    assert not any(request.endswith(" 400") for request in asked), "the login is not for the other host"


@pytest.mark.parametrize("connections", [1, 20])
def test_what_breaks_off_goes_on_from_there(fronted: Node, front: Front, pushed, connections: int) -> None:
    front.breaks_each_after, front.bytes_per_second = MIB + 7, 16 * MIB
    image = large("broken", layers=2)
    reference = pushed("team/app", "v1", image)

    result = run(fronted, reference, maxConnections=connections)

    assert result.outcomes() == [("pulled", "")], result.stderr
    assert result.only()["attempts"] == 1
    assert fetched_again(front, image) < MIB, "but for what was on its way"


def test_after_a_kill_no_byte_is_fetched_twice(fronted: Node, front: Front, pushed, kubelet) -> None:
    front.bytes_per_second = 2 * MIB
    image = large("killed", layers=3)
    reference = pushed("team/app", "v1", image)
    for _ in range(3):
        command = begin(fronted, reference, maxConnections=8)
        before = sent(front, image)
        assert eventually(lambda before=before: sent(front, image) > before + 5 * MIB, seconds=20)
        command.kill()
        assert eventually(lambda: len(front.being_pulled()), 0)

    result = run(fronted, reference, maxConnections=8)

    assert result.outcomes() == [("pulled", "")], result.stderr
    # What was on its way when the command died: a piece of some 64 KiB for each connection, or two.
    assert fetched_again(front, image) <= 3 * 8 * (192 << 10)
    assert LEASE not in fronted.shell(f"{CTR} leases ls -q")
    assert fronted.shell("ls /run/prefetch-images/download") == ""


def test_what_a_failed_command_has_is_there_for_the_retry(fronted: Node, front: Front, pushed, kubelet) -> None:
    image = large("later", layers=1, layer_bytes=24 * MIB)
    reference = pushed("team/app", "v1", image)
    front.bytes_per_second = 2 * MIB
    first = run(fronted, reference, maxConnections=4, limit=6)
    assert first.outcomes() == [("failed", "timeout")]
    front.bytes_per_second = None

    assert run(fronted, reference, maxConnections=4).outcomes() == [("pulled", "")]

    assert fetched_again(front, image) < 4 * (192 << 10)


def test_a_registry_without_parts_is_left_to_containerd(fronted: Node, front: Front, pushed) -> None:
    front.ignores_ranges = True
    image = large("whole", layers=2)
    reference = pushed("team/app", "v1", image)

    result = run(fronted, reference, maxConnections=8)

    assert result.outcomes() == [("pulled", "")]
    assert "gives no parts of a layer" in result.stderr
    assert node_finds(fronted, by_tag(reference)) == image_id(image)


def test_a_registry_that_lies_about_parts_harms_nothing(fronted: Node, front: Front, pushed, kubelet) -> None:
    image, other = large("truth", layers=1), large("lie", layers=1)
    reference = pushed("team/app", "v1", image)
    pushed("team/app", "v2", other)
    [digest], [lie] = layer_digests(image), layer_digests(other)
    front.takes_for = {digest: lie}

    result = run(fronted, reference, maxConnections=8, limit=40)

    assert result.only()["status"] == "failed", result.stderr
    assert fronted.images() == {}


@pytest.mark.parametrize("wants", ["another image", "the command's next image"])
def test_a_prefetch_gives_way_while_a_pod_pulls(fronted: Node, front: Front, pushed, kubelet, wants: str) -> None:
    front.bytes_per_second = 4 * MIB
    ours, pods = large("ours", layers=4), large("pod's", layers=1)
    reference, of_pod = pushed("team/app", "v1", ours), pushed("team/pod", "v1", pods)
    references = [reference, of_pod] if wants == "the command's next image" else [reference]
    command = begin(fronted, *references, maxConnections=4)
    assert eventually(lambda: sent(front, ours) > 4 * MIB, seconds=20)
    with ThreadPoolExecutor() as pool:
        pod = pool.submit(fronted.kubelet_pulls, by_tag(of_pod))
        assert eventually(lambda: sent(front, pods) > MIB, seconds=20)
        time.sleep(0.5)  # within which it is seen
        before = sent(front, ours)
        pod.result()
        after = sent(front, ours)

    assert after - before < 10 * MIB, "what was on its way; else some 40 MiB"
    assert set(Result(command.wait(60)).statuses()) <= {"pulled", "cached"}


def test_a_pod_that_wants_the_same_image_joins_the_download(fronted: Node, front: Front, pushed, kubelet) -> None:
    front.bytes_per_second = 8 * MIB
    image = large("both", layers=3)
    reference = pushed("team/app", "v1", image)
    command = begin(fronted, reference, maxConnections=4)
    assert eventually(lambda: sent(front, image) > 4 * MIB, seconds=20)

    fronted.kubelet_pulls(by_tag(reference))

    assert Result(command.wait(60)).only()["status"] in ("pulled", "cached")
    assert fetched_again(front, image) < 2 * MIB


def test_a_pod_that_wants_what_is_given_way_with_takes_it_over(fronted: Node, front: Front, pushed, kubelet) -> None:
    front.bytes_per_second = 4 * MIB
    ours, others = large("ours", layers=2), large("other's", layers=2, layer_bytes=24 * MIB)
    reference, of_other = pushed("team/app", "v1", ours), pushed("team/other", "v1", others)
    command = begin(fronted, reference, maxConnections=2)
    assert eventually(lambda: sent(front, ours) > 2 * MIB, seconds=20)
    with ThreadPoolExecutor() as pool:
        other = pool.submit(fronted.kubelet_pulls, by_tag(of_other))
        assert eventually(lambda: sent(front, others) > MIB, seconds=20)
        fronted.kubelet_pulls(by_tag(reference))
        assert not other.done(), "it did not wait for the other pod"
        other.result()

    assert Result(command.wait(60)).only()["status"] in ("pulled", "cached")


def test_bandwidth_is_kept_to(fronted: Node, pushed) -> None:
    reference = pushed("team/app", "v1", large("slow", layers=2, layer_bytes=12 * MIB))

    report = run(fronted, reference, maxConnections=8, maxBandwidthMiB=8).only()

    assert report["status"] == "pulled"
    assert 2.5 < report["seconds"] < 12


def test_layers_that_another_image_has_unpacked_are_not_fetched(fronted: Node, front: Front, pushed, kubelet) -> None:
    base = large("base", layers=2)
    image = images.image("app", architecture=OWN_ARCHITECTURE, layer_bytes=12 * MIB, base=base)
    assert run(fronted, pushed("team/base", "v1", base)).outcomes() == [("pulled", "")]
    front.sent.clear()

    assert run(fronted, pushed("team/app", "v1", image), maxConnections=8).outcomes() == [("pulled", "")]

    assert not set(front.sent) & set(layer_digests(base))
    assert chain_id(image) in fronted.shell(f"{CTR} snapshots ls")


def large(content: str, *, layers: int, layer_bytes: int = 12 * MIB) -> Artifact:
    """Returns an image that is no small one."""
    return images.image(content, architecture=OWN_ARCHITECTURE, layers=layers, layer_bytes=layer_bytes)


def sent(front: Front, image: Artifact) -> int:
    """Returns how many bytes of an image's layers were sent."""
    return sum(front.sent[digest] for digest in layer_digests(image))


def fetched_again(front: Front, image: Artifact) -> int:
    """Returns how many of them were sent beyond those that there are."""
    return sent(front, image) - sum(len(image.blobs[digest]) for digest in layer_digests(image))


def held(node: Node) -> tuple:
    """Returns what containerd holds: names, blobs with their labels, snapshots; but for when that was pulled."""
    content = node.shell(f"{CTR} content ls | sed -E 's/prefetch-images[^=]*=[^,]*,?//g'").splitlines()[1:]
    blobs = {(line.split()[0], line.split()[-1]) for line in content}
    return set(node.images().items()), blobs, set(node.shell(f"{CTR} snapshots ls").splitlines())


def wipe(node: Node) -> None:
    """Removes all images and what they are made of."""
    node.shell(f"{CTR} images ls -q | xargs -r {CTR} images rm --sync")
    assert eventually(lambda: node.shell(f"{CTR} content ls -q"), "")
