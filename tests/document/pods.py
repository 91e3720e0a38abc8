"""Pods on a node with runc: sandboxes and containers as kubelet makes them."""

import itertools
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from local import images
from local.ecr.registry import TOOLS
from local.images import Artifact
from local.nodes import cri
from local.nodes.node import Node

from .nodes import CTR
from .state import OWN_ARCHITECTURE, by_digest, by_tag

PAUSES = b"#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
SANDBOX_IMAGES = {"1.7": "registry.k8s.io/pause:3.8", "2.1": "registry.k8s.io/pause:3.10"}


class Pods:
    """The pods of one node."""

    def __init__(self, node: Node, push: Callable[[str, str, Artifact], str]) -> None:
        """Brings the image of sandboxes, which has no digest that a registry gave, as on EKS."""
        self._node = node
        self._numbers = itertools.count(1)
        self._sandboxes: list[str] = []
        pause = push("pause", "v1", pausing("pause"))
        node.kubelet_pulls(by_tag(pause))
        node.shell(f"{CTR} images tag {by_tag(pause)} {SANDBOX_IMAGES[node.containerd]}")
        node.shell(f"{CTR} images rm {by_tag(pause)} {by_digest(pause)}")

    def make(self) -> str:
        """Makes a pod without containers and returns its sandbox."""
        sandbox = cri.run_sandbox(self._node.socket, f"pod{next(self._numbers)}")
        self._sandboxes.append(sandbox)
        return sandbox

    def start(self, sandbox: str, reference: str, named: str = "", volume: str = "") -> str:
        """Starts a container in a pod, with an image as its volume where one is named, and returns its id."""
        name = f"container{next(self._numbers)}"
        return cri.start_container(self._node.socket, sandbox, name, reference, named, volume)

    def run(self, reference: str, named: str = "", volume: str = "") -> str:
        """Runs a pod of one container and returns the container's id."""
        return self.start(self.make(), reference, named, volume)

    def stop(self, container: str) -> None:
        """Ends a container, which its pod keeps."""
        cri.stop_container(self._node.socket, container)

    def remove(self) -> None:
        """Removes all pods."""
        while self._sandboxes:
            cri.remove_sandbox(self._node.socket, self._sandboxes.pop())


def able_to_run_pods(node: Node) -> Node:
    """Gives a node, before it starts, the program that runs containers."""
    (node.folder / "bin").mkdir(parents=True)
    shutil.copy(TOOLS / "runc/usr/sbin/runc", node.folder / "bin/runc")
    return node


def pausing(content: str, **options: int) -> Artifact:
    """Builds an image whose containers wait for ever."""
    return images.image(content, architecture=OWN_ARCHITECTURE, program=_pauses(), **options)


@cache
def _pauses() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pause")
        subprocess.run(["cc", "-static", "-Os", "-s", "-x", "c", "-o", file, "-"], input=PAUSES, check=True)
        return file.read_bytes()
