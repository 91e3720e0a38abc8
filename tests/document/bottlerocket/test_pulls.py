"""Images are pulled, kept and reported on Bottlerocket as on every node."""

from pathlib import Path

from local import images
from local.ecr.registry import Registry
from local.nodes.bottlerocket import HOST_CONTAINERS, BottlerocketNode

from ..command import HOST, Result, begin, run
from ..nodes import free_address
from ..state import by_digest, by_tag, eventually, image_id, node_finds
from .places import running


def test_an_image_is_pulled_and_then_cached(node: BottlerocketNode, pushed, registry: Registry) -> None:
    image = images.multi_platform("cold")
    reference = pushed("team/app", "v1", image)

    first = run(node, reference)

    assert (first.exit_code, first.outcomes(), first.stderr) == (0, [("pulled", "")], "")
    assert first.only()["bytes"] > 0
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(image)
    registry.pause()
    second = run(node, reference)
    assert (second.exit_code, second.outcomes(), second.only()["attempts"]) == (0, [("cached", "")], 0)
    assert second.seconds < 5


def test_images_are_pulled_from_a_host_container_of_its_own_name(tmp_path: Path, pushed, registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"own {number}")) for number in range(2)]
    with running(BottlerocketNode(tmp_path / "own", "own", registry, containers=["prefetch"])) as node:
        result = run(node, *references)

        assert (result.exit_code, result.statuses(), result.stderr) == (0, ["pulled"] * 2, "")
        assert run(node, *references).statuses() == ["cached"] * 2


def test_the_host_container_of_its_own_name_is_used_where_admin_runs_too(
    tmp_path: Path, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("both"))
    options = {"containers": HOST_CONTAINERS, "powerless": ["admin"]}
    with running(BottlerocketNode(tmp_path / "both", "both", registry, **options)) as node:
        assert run(node, reference).outcomes() == [("pulled", "")]


def test_admin_is_used_where_the_host_container_of_its_own_name_is_off(node: BottlerocketNode, pushed) -> None:
    node.set("prefetch", "superpowered", True)
    node.set("prefetch", "enabled", False)

    assert run(node, pushed("team/app", "v1", images.image("off"))).outcomes() == [("pulled", "")]


def test_several_images_come_with_one_login_of_kubelets_plugin(node: BottlerocketNode, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}")) for number in range(5)]

    result = run(node, *references, maxParallelImagePulls=3)

    assert (result.exit_code, result.statuses()) == (0, ["pulled"] * 5), result.stderr
    assert sorted(report["image"] for report in result.reports) == sorted(references)


def test_of_two_commands_at_once_one_pulls_and_the_other_finds_it_cached(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("twice", layer_bytes=20_000_000))

    first, second = begin(node, reference), begin(node, reference)
    results = [Result(command.wait(60)) for command in (first, second)]

    assert sorted(result.statuses()[0] for result in results) == ["cached", "pulled"]


def test_an_older_image_of_ours_is_let_go_and_the_newer_one_is_pinned(node: BottlerocketNode, pushed) -> None:
    old, new = pushed("team/app", "v1", images.image("old")), pushed("team/app", "v2", images.image("new"))

    assert run(node, old, keep=1, pin=True).outcomes() == [("pulled", "")]
    assert node_finds(node, by_tag(old)) and eventually(lambda: node.pinned(by_tag(old)), True)
    node.shell("rm -rf /run/prefetch-images/named")
    result = run(node, new, keep=1, pin=True)

    assert (result.exit_code, result.outcomes()) == (0, [("pulled", "")]), result.stderr
    assert old.partition("@")[2] in result.stderr, "a removal is told"
    assert not {by_tag(old), by_digest(old)} & node.images().keys()
    assert eventually(lambda: node.pinned(by_tag(new)) and node.pinned(by_digest(new)), True)


def test_a_mirror_of_containerds_is_asked_first(tmp_path: Path, registry: Registry) -> None:
    mirror = Registry(tmp_path / "mirror", free_address(), ["mirror.example.com"], "", anonymous=True)
    mirror.start()
    image = images.image("mirrored")
    images.push(mirror.url, mirror.ca, "", "team/app", "v1", image)
    reference = f"{HOST}/team/app:v1@{image.digest}"
    options = {"mirrors": {HOST: mirror}, "neighbours": [mirror]}
    with running(BottlerocketNode(tmp_path / "node", "mirrored", registry, **options)) as node:
        assert run(node, reference).outcomes() == [("pulled", "")]
        assert node_finds(node, by_tag(reference)) == image_id(image)
    assert registry.requests("team/app") == []
    mirror.stop()


def test_a_command_that_only_reports_changes_nothing(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("reported"))

    result = run(node, reference, reportOnly=True)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "report-only")]), result.stderr
    assert node.images() == {}


def test_a_command_without_images_tells_usage(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("theirs"))
    node.kubelet_pulls(by_tag(reference))

    result = run(node)

    assert (result.exit_code, result.stderr) == (0, "")
    assert [line["usage"] for line in result.usage] == [reference]
    assert result.totals["images"] == 1
