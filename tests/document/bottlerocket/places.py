"""Runs nodes of Bottlerocket, and looks in each place where a command could leave something."""

import contextlib
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from local.nodes.bottlerocket import HOST_CONTAINERS, STATE, BottlerocketNode

from .. import nodes
from ..state import eventually, wait_for_file

RUN = "/run/prefetch-images"
either = pytest.mark.parametrize("container", HOST_CONTAINERS)


@contextlib.contextmanager
def running(node: BottlerocketNode) -> Iterator[BottlerocketNode]:
    """Boots a node and, once its test has passed, looks that nothing is left in any of its places."""
    node.start()
    try:
        before = remains(node)
        yield node
        assert eventually(lambda: remains(node) - before, Counter()), f"left: {remains(node) - before}"
    finally:
        node.stop()


def remains(node: BottlerocketNode) -> Counter[str]:
    """Returns what commands may have left behind, and of processes how many of a name."""
    files = everywhere(node, "find /tmp /var/tmp /run/prefetch-images -mindepth 1 2>/dev/null || true")[1:]
    left = [re.sub(r"^process \d+", "process", line) for line in nodes.leftovers(node) if STATE not in line]
    return Counter(left) + Counter(line for file in files for line in file.splitlines() if line != f"{RUN}/lock")


def everywhere(node: BottlerocketNode, command: str) -> list[str]:
    """Returns what a shell command says on the host, in the control container and in the host containers that run."""
    quoted = command.replace("'", "'\\''")
    return [
        node.shell(command),
        node.control(command).stdout,
        node.shell(
            f"for pid in $(cat {STATE}/*.pid 2>/dev/null); do"
            f" nsenter --mount=/proc/$pid/ns/mnt -- /run/machine/bin/sh -c '{quoted}'; done"
        ),
    ]


def wait_until_at_work(node: BottlerocketNode) -> None:
    """Returns once a command has taken the lock and had time to ask a registry that does not answer."""
    wait_for_file(node, f"{RUN}/lock")
    time.sleep(1)
