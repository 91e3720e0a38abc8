"""Nodes of Bottlerocket that leave nothing behind."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.ecr.registry import Registry
from local.nodes.bottlerocket import BottlerocketNode

from ..command import HOST
from ..nodes import a_password, free_address
from .places import running


@pytest.fixture
def node(tmp_path: Path, registry: Registry) -> Iterator[BottlerocketNode]:
    """A node of its own for one test."""
    with running(BottlerocketNode(tmp_path / "node", "node", registry)) as node:
        yield node


@pytest.fixture(scope="module")
def quick_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BottlerocketNode]:
    """One node with an empty registry, for tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("quick")
    registry = Registry(folder / "registry", free_address(), [HOST], a_password())
    registry.start()
    with running(BottlerocketNode(folder / "node", "quick", registry)) as node:
        yield node
    registry.stop()
