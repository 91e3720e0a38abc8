"""Tests what SSM returns of a command: 24,000 characters of its output, 8,000 of its errors."""

import pytest

from local.ecr.registry import Registry
from local.nodes.node import Node

from .command import A_DIGEST, HOST, run

NAMES = [f"{HOST}/team/some-service-{number}/application:release-2026.11.{number}@{A_DIGEST}" for number in range(50)]


def test_fifty_images_that_do_not_exist_are_told_within_the_limits(quick_node: Node) -> None:
    result = run(quick_node, *NAMES, maxParallelImagePulls=8)

    assert result.outcomes() == [("failed", "not-found")] * 50
    assert (len(result.stdout) < 20_000, len(result.stderr) < 7_500) == (True, True)
    assert all(f"release-2026.11.{number}" in result.stderr for number in range(50)), "each is told of"


@pytest.mark.parametrize("containerd", ["2.1"])
def test_fifty_images_of_a_registry_that_is_down_are_told_within_the_limits(node: Node, registry: Registry) -> None:
    registry.pause()

    result = run(node, *NAMES, maxParallelImagePulls=16, limit=300)

    assert result.outcomes() == [("failed", "registry")] * 50
    assert (len(result.stdout) < 20_000, len(result.stderr) < 7_500) == (True, True)
    assert all(f"release-2026.11.{number}" in result.stderr for number in range(50)), "each is told of"
