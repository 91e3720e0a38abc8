"""Runs pods on a node with runc: sandboxes and containers as kubelet makes them."""

import itertools
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from local import images
from local.images import Artifact
from local.nodes import cri
from local.nodes.node import Node

PAUSES = b"#include <unistd.h>\nint main(void) { for (;;) pause(); }\n"
SANDBOX_IMAGES = {"1.7": "registry.k8s.io/pause:3.8", "2.1": "registry.k8s.io/pause:3.10"}
"""Says of which image each version of containerd makes sandboxes."""


class Pods:
    """The pods of one node."""

    def __init__(self, node: Node) -> None:
        """Brings the image of sandboxes, which has no digest that a registry gave, as on EKS."""
        self._node = node
        self._numbers = itertools.count(1)
        self._sandboxes: list[str] = []
        file = node.folder / "pause.tar"
        file.write_bytes(images.oci_archive(SANDBOX_IMAGES[node.containerd], pausing("pause")))
        node.shell(f"ctr -n k8s.io images import {file}")
        file.unlink()

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

    def schedule(self, reference: str) -> tuple[str, bool]:
        """Runs a pod as kubelet does, which pulls what is not there; returns its container and whether it was there."""
        sandbox = self.make()
        is_present = self._node.image_status(reference) is not None
        if not is_present:
            self._node.kubelet_pulls(reference)
        image = self._node.image_status(reference)
        assert image, f"kubelet has pulled {reference} and does not find it"
        return self.start(sandbox, image, reference), is_present

    def stop(self, container: str) -> None:
        """Ends a container, which its pod keeps."""
        cri.stop_container(self._node.socket, container)

    def remove(self) -> None:
        """Removes all pods."""
        while self._sandboxes:
            cri.remove_sandbox(self._node.socket, self._sandboxes.pop())


def pausing(content: str, **options: int) -> Artifact:
    """Builds an image whose containers wait for ever."""
    return images.image(content, architecture=images.OWN_ARCHITECTURE, program=_pauses(), **options)


@cache
def _pauses() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "pause")
        subprocess.run(["cc", "-static", "-Os", "-s", "-x", "c", "-o", file, "-"], input=PAUSES, check=True)
        return file.read_bytes()
