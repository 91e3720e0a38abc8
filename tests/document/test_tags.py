"""Tags that move."""

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import run
from .state import (
    by_digest,
    by_tag,
    eventually,
    image_id,
    node_finds,
    tags,
)


def test_a_tag_that_moved_stands_for_the_new_image(node: Node, pushed) -> None:
    old, new = images.image("old"), images.image("new")
    old_reference = pushed("team/app", "latest", old)
    run(node, old_reference)
    new_reference = pushed("team/app", "latest", new)

    assert run(node, new_reference).statuses() == ["pulled"]
    assert eventually(lambda: node.image_status(by_tag(new_reference)), image_id(new))
    assert node_finds(node, by_digest(new_reference)) == image_id(new)
    assert node_finds(node, by_digest(old_reference)) == image_id(old)


def test_a_command_that_was_overtaken_leaves_the_tag_where_it_is(node: Node, pushed) -> None:
    old, new = images.image("old"), images.image("new")
    old_reference = pushed("team/app", "latest", old)
    new_reference = pushed("team/app", "latest", new)
    assert run(node, new_reference).outcomes() == [("pulled", "")]

    late = [run(node, old_reference) for _ in range(2)]

    assert [result.exit_code for result in late] == [0, 0]
    assert [result.outcomes() for result in late] == [[("pulled", "tag-moved")], [("cached", "tag-moved")]]
    assert "the tag stands for another image" in late[0].stderr
    assert tags(node, new_reference) == new.digest
    assert node_finds(node, by_digest(old_reference)) == image_id(old)
    assert run(node, new_reference).outcomes() == [("cached", "")]


def test_a_tag_that_the_registry_has_lost_stays_where_it_is(fronted: Node, front: Front, pushed) -> None:
    old, new = images.image("old"), images.image("new")
    old_reference = pushed("team/app", "latest", old)
    new_reference = pushed("team/app", "latest", new)
    assert run(fronted, new_reference).outcomes() == [("pulled", "")]
    front.refusals = lambda path: 404 if path.endswith("/manifests/latest") else None

    assert run(fronted, old_reference).outcomes() == [("pulled", "tag-moved")]
    assert tags(fronted, new_reference) == new.digest


def test_a_tag_is_not_moved_while_the_registry_cannot_be_asked(node: Node, pushed, registry: Registry) -> None:
    old, new = images.image("old"), images.image("new")
    for image in (old, new):
        new_reference = pushed("team/app", "latest", image)
        assert run(node, new_reference).outcomes() == [("pulled", "")]
    old_reference = pushed("team/app", "latest", old)
    registry.pause()

    result = run(node, old_reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "registry")])
    assert result.only()["attempts"] == 4
    assert tags(node, new_reference) == new.digest
    assert node_finds(node, by_digest(old_reference)) == image_id(old)
    registry.resume()
    assert run(node, old_reference).outcomes() == [("cached", "")]
    assert tags(node, old_reference) == old.digest
