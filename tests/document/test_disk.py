"""The disk guard, on file systems of 64 MiB that really fill."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.images import Artifact
from local.nodes.node import Node

from .command import HOST, Result, begin, run
from .nodes import running
from .state import (
    OWN_ARCHITECTURE,
    by_digest,
    by_tag,
    eventually,
    image_id,
    layer_digests,
    node_finds,
    set_kubelet,
    used_bytes,
)

FILLER = "/var/lib/containerd/filler"
MIB = 1 << 20
SMALL = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 12 * MIB}  # needs 36 MiB: 12 compressed, 24 unpacked
LARGE = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 17 * MIB}


@pytest.fixture
def small(tmp_path: Path, containerd: str, front: Front) -> Iterator[Node]:
    """A node whose containerd stores on a file system of 64 MiB, of which 85 percent are 54."""
    with running(Node(tmp_path / "node", "node", front, containerd, disk_mib=64)) as node:
        yield node


def test_an_image_that_would_fill_the_disk_is_skipped_before_any_of_it_is_pulled(
    small: Node, front: Front, pushed
) -> None:
    image = images.image("large", **LARGE)
    reference = pushed("team/large", "v1", image)

    result = run(small, reference)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")])
    [layer] = layer_digests(image)
    assert "85 %" in result.stderr
    assert not any(layer in request for request in front.requests())
    assert small.images() == {}
    assert run(small, reference, imageGCHighThresholdPercent=100).outcomes() == [("pulled", "")]


def test_the_threshold_is_what_the_node_is_told(small: Node, pushed) -> None:
    reference = pushed("team/small", "v1", images.image("small", **SMALL))

    assert run(small, reference, imageGCHighThresholdPercent=56).outcomes() == [("skipped", "no-space")]
    assert run(small, reference, imageGCHighThresholdPercent=75).outcomes() == [("pulled", "")]
    assert run(small, reference, imageGCHighThresholdPercent=1).outcomes() == [("cached", "")]


@pytest.mark.parametrize("how", ["annotation", "media type"])
def test_what_the_manifest_tells_of_the_unpacked_size_is_believed(small: Node, pushed, how: str) -> None:
    how_told = {"tells_size": True} if how == "annotation" else {"compressed": False}
    reference = pushed("team/told", "v1", images.image("told", **SMALL, **how_told))

    assert run(small, reference, imageGCHighThresholdPercent=56).outcomes() == [("pulled", "")]


def test_layers_that_are_there_already_need_no_room(small: Node, pushed) -> None:
    base = images.image("base", architecture=OWN_ARCHITECTURE, layer_bytes=14 * MIB)
    above = images.image("above", architecture=OWN_ARCHITECTURE, layer_bytes=MIB, base=base)
    assert run(small, pushed("team/base", "v1", base)).outcomes() == [("pulled", "")]

    assert run(small, pushed("team/above", "v1", above)).outcomes() == [("pulled", "")]


def test_two_pulls_that_fit_one_after_the_other_are_not_made_at_once(small: Node, front: Front, pushed) -> None:
    size = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 9 * MIB}
    references = [pushed(f"team/app{number}", "v1", images.image(f"half {number}", **size)) for number in range(2)]

    assert run(small, *references, maxParallelImagePulls=2).outcomes() == [("pulled", "")] * 2
    assert front.most_at_once() == 1


def test_of_two_images_that_fit_only_singly_one_is_skipped(small: Node, pushed) -> None:
    size = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 15 * MIB}
    references = [pushed(f"team/app{number}", "v1", images.image(f"single {number}", **size)) for number in range(2)]

    result = run(small, *references, maxParallelImagePulls=2)

    assert (result.exit_code, sorted(result.outcomes())) == (0, [("pulled", ""), ("skipped", "no-space")])


def test_a_disk_that_others_fill_meanwhile_ends_the_pull(small: Node, front: Front, pushed) -> None:
    reference = pushed("team/small", "v1", images.image("small", **SMALL))
    front.hold()
    command = begin(small, reference)
    assert eventually(lambda: len(front.being_pulled()), 1)
    small.shell(f"fallocate -l 50M {FILLER}")

    result = Result(command.wait(30))

    front.release()
    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")])
    assert result.seconds < 10
    assert small.images() == {}
    small.shell(f"rm {FILLER}")
    assert run(small, reference).outcomes() == [("pulled", "")]


def test_a_pull_that_fills_the_disk_is_cut_off_and_what_it_brought_goes(small: Node, pushed) -> None:
    empty = used_bytes(small)
    bomb = pushed("team/bomb", "v1", bomb_image())
    good = images.image("good", architecture=OWN_ARCHITECTURE, layer_bytes=MIB)

    result = run(small, bomb)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")])
    assert result.only()["attempts"] == 1
    assert small.images() == {}
    assert eventually(lambda: used_bytes(small) < empty + 2 * MIB), "what was pulled in vain takes room"
    reference = pushed("team/good", "v1", good)
    assert run(small, reference).outcomes() == [("pulled", "")]
    assert node_finds(small, by_tag(reference)) == node_finds(small, by_digest(reference)) == image_id(good)


def test_a_disk_without_any_room_left_is_reported_and_no_name_stays(small: Node, pushed) -> None:
    result = run(small, pushed("team/bomb", "v1", bomb_image()), imageGCHighThresholdPercent=100)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")])
    assert result.only()["attempts"] == 1
    assert small.images() == {}


def test_the_disk_is_the_one_that_containerd_stores_on(small: Node, pushed) -> None:
    reference = pushed("team/large", "v1", images.image("large", **LARGE))
    small.shell("sed -i 's|^root = .*|root = \"/var/lib/elsewhere\"|' /etc/containerd/config.toml")
    small.kill_containerd()

    assert run(small, reference).outcomes() == [("pulled", "")]


@pytest.mark.parametrize(("limit", "outcome"), [(1, "too-large"), (2, "no-space"), (0, "no-space")])
def test_an_image_above_the_size_limit_is_skipped(
    tmp_path: Path, front: Front, pushed, limit: int, outcome: str
) -> None:
    image = images.image("huge", architecture=OWN_ARCHITECTURE)
    pushed("team/huge", "v1", image)
    body = json.loads(image.manifest)
    body["layers"][0]["size"] = 3 << 29
    reference = f"{HOST}/team/huge:v1@{front.offer('team/huge', 'v1', image.media_type, images.as_json(body))}"
    with running(Node(tmp_path / "node", "node", front, "2.1", disk_mib=64)) as node:
        assert run(node, reference, maxImageGiB=limit).outcomes() == [("skipped", outcome)]


def test_the_disk_is_filled_to_just_below_what_kubelet_counts(small: Node, pushed) -> None:
    image = images.image("small", **SMALL)
    reference = pushed("team/small", "v1", image)
    [layer] = json.loads(image.manifest)["layers"]
    need = image.size - len(image.manifest) + 2 * layer["size"]
    capacity, available = disk(small)
    rest = (available - need) * 100 % capacity
    filler = (rest + capacity // 2) % capacity // 100  # so that half a percent is left to either side
    small.shell(f"fallocate -l {filler} {FILLER}")
    capacity, available = disk(small)
    kubelets = 100 - (available - need) * 100 // capacity  # image_gc_manager.go

    result = run(small, reference, imageGCHighThresholdPercent=kubelets)

    assert result.outcomes() == [("skipped", "no-space")], "from there on kubelet removes images"
    assert f"{kubelets} %" in result.stderr
    assert run(small, reference, imageGCHighThresholdPercent=kubelets + 1).outcomes() == [("pulled", "")]


@pytest.mark.parametrize("when", ["before the pull", "while it is unpacked"])
def test_inodes_that_run_short_are_no_space(tmp_path: Path, containerd: str, front: Front, pushed, when: str) -> None:
    files = {"before the pull": 1, "while it is unpacked": 4_000}[when]
    reference = pushed("team/app", "v1", images.image("files", architecture=OWN_ARCHITECTURE, small_files=files))
    with running(Node(tmp_path / "node", "node", front, containerd, disk_mib=64, disk_inodes=3_000)) as node:
        set_kubelet(node, evictionHard={"nodefs.inodesFree": "5%", "imagefs.inodesFree": "5%"})
        if when == "before the pull":
            node.shell(f"mkdir {FILLER} && cd {FILLER} && seq 2880 | xargs touch")

        result = run(node, reference)

        assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")])
        assert node.images() == {}
        node.shell(f"rm -rf {FILLER}")
        other = pushed("team/other", "v1", images.image("other", architecture=OWN_ARCHITECTURE))
        assert run(node, other).outcomes() == [("pulled", "")]


def disk(node: Node) -> tuple[int, int]:
    """Returns the bytes of containerd's file system: all, and those that are free."""
    block, blocks, free = map(int, node.shell("stat --file-system --format '%S %b %a' /var/lib/containerd").split())
    return block * blocks, block * free


def bomb_image() -> Artifact:
    """Builds an image that is small to download and, unpacked, larger than the small disk."""
    return images.image("bomb", architecture=OWN_ARCHITECTURE, zeros=120 * MIB)
