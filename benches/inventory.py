"""Measures commands without images: what a node tells of the images in use, beside what people ask."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benches.pods import push_pausing
from benches.pulls import RIVALS, VERSIONS, Bench, by_tag, finished, in_turn, program_of, push, registry_running
from benches.table import Below, Row
from local.ecr.registry import Registry
from local.nodes import cri
from local.nodes.node import Node
from local.nodes.pods import SANDBOX_IMAGES

IMAGES, PREFETCHED, PODS = 300, 100, 30
LAYERS = {"layers": 6, "layer_bytes": 1 << 10}
PER_COMMAND = 25
ROUNDS = 20
OURS, CTR = "ours", "ctr ls"

ABOUT = f"""\
- a command without images from its start on the node to its end, as the SSM agent runs it
- the node has {IMAGES} images of {LAYERS["layers"]} layers, of which {PREFETCHED} are prefetched and the others
  kubelet's, and runs {PODS} pods; no two images share a layer
- ctr ls: `ctr images ls` and `ctr containers ls`, what people can ask on EKS's AL2023 image
- both take turns; medians of {ROUNDS} rounds. CPU: containerd's and the command's own, the mean"""


def measure(build: Path) -> Iterator[Row]:
    """Measures on a node of each containerd, one after the other."""
    program, rival = program_of(build), (RIVALS / "images_and_containers.sh").read_text()
    with registry_running() as registry:
        references = [push(registry, f"app{number}", **LAYERS) for number in range(IMAGES)]
        app = push_pausing(registry, "app", layers=1)
        for containerd in VERSIONS:
            with node_running(registry, containerd, program) as bench:
                fill(bench, references)
                sandboxes = run_pods(bench.node, app)
                costs = in_turn(
                    ROUNDS,
                    {
                        OURS: lambda bench=bench: bench.cost(lambda: bench.document([])),
                        CTR: lambda bench=bench: bench.cost(lambda: bench.node.begin(rival, {})),
                    },
                )
                for sandbox in sandboxes:
                    cri.remove_sandbox(bench.node.socket, sandbox)
            what, ours, theirs = f"{containerd}: {IMAGES} images, {PODS} pods", costs[OURS], costs[CTR]
            yield Row(what, "ms", ours.seconds * 1000, {CTR: theirs.seconds * 1000}, Below(30))
            yield Row(f"{what}, CPU", "ms", ours.cpu_seconds * 1000, {CTR: theirs.cpu_seconds * 1000})


@contextlib.contextmanager
def node_running(registry: Registry, containerd: str, program_file: Path) -> Iterator[Bench]:
    """Runs a node that has the program and can run pods."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder, "node"), containerd, registry, containerd)
        node.start()
        try:
            yield Bench(node, program_file)
        finally:
            node.stop()


def fill(bench: Bench, references: Sequence[str]) -> None:
    """Brings the images onto the node: some by our document, the others as kubelet does."""
    for first in range(0, PREFETCHED, PER_COMMAND):
        finished(bench.document(references[first : first + PER_COMMAND], maxParallelImagePulls="4"))
    for reference in references[PREFETCHED:]:
        bench.node.kubelet_pulls(by_tag(reference))


def run_pods(node: Node, app: str) -> list[str]:
    """Runs pods of one container each and returns their sandboxes."""
    node.kubelet_pulls(by_tag(app))
    node.shell(f"ctr -n k8s.io images tag {by_tag(app)} {SANDBOX_IMAGES[node.containerd]}")
    sandboxes = [cri.run_sandbox(node.socket, f"app{number}") for number in range(PODS)]
    for number, sandbox in enumerate(sandboxes):
        cri.start_container(node.socket, sandbox, f"app{number}", by_tag(app))
    return sandboxes
