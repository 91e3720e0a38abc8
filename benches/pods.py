"""Measures pods with a real containerd and runc: from kubelet's first call until the container runs."""

import os
import platform
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from benches.download import KUBELET
from benches.pulls import HOST, Bench, by_tag, finished
from local import images
from local.ecr.registry import Registry
from local.nodes import cri
from local.nodes.boots import Boot
from local.nodes.node import Node
from local.nodes.pods import SANDBOX_IMAGES, pausing

CONTAINERD = "2.1"
APP = {"layers": 6, "layer_bytes": 50 << 20}
ROUNDS, SSM_ROUNDS = 30, 10
SCALE = 60
DELAYS = {"SSM 30 s ÷ 60": 30 / SCALE, "SSM 6 min ÷ 60": 360 / SCALE}
OURS, KUBELET_ALONE = "ours", "kubelet alone"


def pods(host: Registry, program_file: Path) -> tuple[Mapping[str, list[float]], Mapping[str, list[float]]]:
    """Runs pods on a node and returns their seconds, from kubelet's start and from the node's, of each way."""
    content = program_file.read_bytes()
    from_kubelet, from_boot = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder, "node"), "pods", host, CONTAINERD)
        node.start()
        try:
            bench, boot = Bench(node, program_file), Boot(node, host, {platform.machine(): content})
            pause, app = push_pausing(host, "pause", layers=1), push_pausing(host, "app", **APP)
            boot.set_images(app)
            for number in range(ROUNDS):
                for who in (OURS, KUBELET_ALONE, *(DELAYS if number % (ROUNDS // SSM_ROUNDS) == 0 else ())):
                    bench.wipe()
                    node.kubelet_pulls(by_tag(pause))
                    node.shell(f"ctr -n k8s.io images tag {by_tag(pause)} {SANDBOX_IMAGES[CONTAINERD]}")
                    os.sync()
                    booted = finished(boot.begin(BOOT_TIMEOUT="300")).seconds if who == OURS else 0
                    seconds = pod(bench, app, DELAYS.get(who))
                    from_kubelet.setdefault(who, []).append(seconds)
                    from_boot.setdefault(who, []).append(booted + seconds)
        finally:
            node.stop()
    return from_kubelet, from_boot


def pod(bench: Bench, reference: str, delay: float | None) -> float:
    """Runs a pod as kubelet does, beside a command that comes after a delay, and returns the seconds until it runs."""
    node, commands = bench.node, []
    kubelet = node.begin(KUBELET, {})
    timer = threading.Timer(delay or 0, lambda: commands.append(bench.document([reference])))
    began = time.monotonic()
    if delay is not None:
        timer.start()
    sandbox = cri.run_sandbox(node.socket, "app")
    if not node.image_status(by_tag(reference)):
        node.kubelet_pulls(by_tag(reference))
    container = cri.start_container(node.socket, sandbox, "app", by_tag(reference))
    runs = cri.container_runs(node.socket, container)
    seconds = time.monotonic() - began
    if not runs:
        raise RuntimeError("the container does not run")
    if delay is not None:
        timer.join()
        finished(commands[0])
    kubelet.kill()
    cri.remove_sandbox(node.socket, sandbox)
    return seconds


def push_pausing(registry: Registry, repository: str, layers: int, layer_bytes: int = 0) -> str:
    """Pushes an image whose containers wait for ever and returns its full reference."""
    image = pausing(repository, layers=layers, layer_bytes=layer_bytes)
    images.push(registry.url, registry.ca, registry.password, repository, "v1", image)
    return f"{HOST}/{repository}:v1@{image.digest}"
