"""Nodes that must be left as they were found, but for images."""

import contextlib
import random
import secrets
import socket
from collections.abc import Iterator

from local.nodes.node import Node

from .state import eventually

CTR = "ctr -n k8s.io"
CLEAN_WITHIN_SECONDS = 5


@contextlib.contextmanager
def running(node: Node) -> Iterator[Node]:
    """Boots a node and, once its test has passed, looks that nothing is left on it."""
    node.start()
    try:
        before = leftovers(node)
        yield node
        assert_clean(node, before)
    finally:
        node.stop()


def assert_clean(node: Node, before: set[str] | None = None) -> None:
    """Fails where something of a command is left on the node that was not there `before`."""
    seen: set[str] = set()

    def look() -> set[str]:
        nonlocal seen
        seen = leftovers(node) - (before or set())
        return seen

    assert eventually(look, set(), CLEAN_WITHIN_SECONDS), f"left on the node: {sorted(seen)}"


def leftovers(node: Node) -> set[str]:
    """Returns what commands may have left behind: leases, ingests, files, mounts, processes, locks."""
    left = {f"lease {line}" for line in node.shell(f"{CTR} leases ls -q").splitlines()}
    left |= {f"ingest {line.split()[0]}" for line in node.shell(f"{CTR} content active").splitlines()[1:]}
    files = node.shell("find /tmp /run /var/lib/containerd/tmpmounts -mindepth 1 2>/dev/null || true")
    left |= {f"file {line}" for line in files.splitlines() if is_ours(node, line)}
    left |= {f"mount {line.split()[1]}" for line in node.shell("cat /proc/mounts").splitlines()}
    left |= {f"process {pid} {name}" for pid, name in node.processes().items() if name != "containerd"}
    if node.shell("flock -n /run/prefetch-images/lock echo free 2>/dev/null || true").strip() != "free":
        left |= {"lock"} if node.shell("ls /run/prefetch-images/lock 2>/dev/null || true") else set()
    return left


def is_ours(node: Node, file: str) -> bool:
    """Tells whether a file can be left over: not what commands keep, the node's own folder, or containerd's state."""
    names = ("", "/lock", "/waiting", "/queue", "/config", "/leases-checked", "/begun", "/download", "/usage")
    kept = {f"/run/prefetch-images{name}" for name in names}
    return file not in kept and not file.startswith(("/run/containerd", "/run/prefetch-images/named", str(node.folder)))


def a_password() -> str:
    """Returns a password as long as ECR's."""
    return secrets.token_hex(900)


def free_address() -> str:
    """Returns a loopback address that nobody listens on."""
    while True:
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, 443))
            return address
