"""The document on nodes with a real containerd: what it costs when there is nothing to do, and a cold pull."""

import contextlib
import json
import os
import random
import secrets
import socket
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from benches.table import Below, PartOfRival, Row
from local import images
from local.document import DOCUMENT
from local.node import Completed, Node
from local.registry import Registry

CACHED_RUNS = 12
COLD_PAIRS = 5
LAYERS = 6
LAYER_BYTES = 160 << 20
LIMIT_SECONDS = 600
HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"

SCRIPT = "\n".join(json.loads(DOCUMENT.read_text())["mainSteps"][0]["inputs"]["runCommand"])
TWO_LINES = (Path(__file__).parent / "rivals/two_lines.sh").read_text()

# A left-over lease keeps what no image names, so that the next pull would be none.
WIPE = """
set -e
ctr="ctr -n k8s.io"
$ctr leases ls -q | xargs -r -n 1 $ctr leases rm --sync
$ctr images ls -q | xargs -r $ctr images rm --sync
until [ -z "$($ctr content ls -q)" ] && [ "$($ctr snapshots ls | wc -l)" = 1 ]; do sleep 0.1; done
"""

ABOUT = f"""\
- one command from its start on the node to its end, as the SSM agent runs it; registry on loopback, with TLS and login
- rival: the two shell lines people use, `aws ecr describe-images` and `ctr images pull --user`; the first, and the
  login, are left out in its favour. Each has images of its own, for ctr pulls again what CRI pulled
- cached: medians of {CACHED_RUNS} runs; cold: medians of {COLD_PAIRS} runs, the node wiped before each; both take turns
- the cold image has {LAYERS} layers of {LAYER_BYTES >> 20} MiB of random bytes"""


def measure(build: Path) -> Iterator[Row]:
    """Measures on a node of each containerd, one after the other."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        registry = Registry(folder / "registry", free_address(), [HOST], secrets.token_hex(900))
        registry.start()
        stack.callback(registry.stop)
        small = {who: [push_small(registry, f"{who}/app{number}") for number in range(20)] for who in ("ours", "rival")}
        large = push(registry, "large", images.image("large", layers=LAYERS, layer_bytes=LAYER_BYTES))
        for containerd in ("2.1", "1.7"):
            with running(Node(folder / containerd, containerd, registry, containerd)) as node:
                for row in (*cached(node, small["ours"], small["rival"]), cold(node, large)):
                    yield replace(row, what=f"containerd {containerd}: {row.what}")


def cached(node: Node, ours: list[str], rival: list[str]) -> Iterator[Row]:
    """Measures commands whose images are all there."""
    prefetch(node, ours, "pulled")
    two_lines(node, rival)
    for what, count in (("one image, cached", 1), ("twenty images, cached", 20)):
        measured = in_turn(
            CACHED_RUNS,
            lambda count=count: prefetch(node, ours[:count], "cached"),
            lambda count=count: two_lines(node, rival[:count]),
        )
        yield Row(what, "ms", *(statistics.median(seconds) * 1000 for seconds in measured), Below(150))


def cold(node: Node, reference: str) -> Row:
    """Measures the pull of a large image onto a node that has nothing."""

    def wiped(pull: Callable[[], float]) -> float:
        node.shell(WIPE)
        os.sync()
        return pull()

    measured = in_turn(
        COLD_PAIRS,
        lambda: wiped(lambda: prefetch(node, [reference], "pulled")),
        lambda: wiped(lambda: two_lines(node, [reference])),
    )
    return Row("1 GB image, cold", "s", *map(statistics.median, measured), PartOfRival(1))


def in_turn(runs: int, ours: Callable[[], float], rival: Callable[[], float]) -> tuple[list[float], list[float]]:
    """Runs both so many times, each being the first every other time."""
    measured: dict[Callable, list[float]] = {ours: [], rival: []}
    for number in range(runs):
        for run in (ours, rival) if number % 2 == 0 else (rival, ours):
            measured[run].append(run())
    return measured[ours], measured[rival]


def prefetch(node: Node, references: list[str], status: str) -> float:
    """Runs the document and returns its seconds; every image must end with the status."""
    parameters = {"SSM_images": " ".join(references), "SSM_executionTimeout": str(LIMIT_SECONDS)}
    ran = node.run(SCRIPT, parameters, LIMIT_SECONDS)
    statuses = [json.loads(line)["status"] for line in ran.stdout.splitlines()]
    return seconds_of(ran, statuses == [status] * len(references))


def two_lines(node: Node, references: list[str]) -> float:
    """Runs the rival and returns its seconds; it pulls by tag, as people do."""
    tags = " ".join(reference.partition("@")[0] for reference in references)
    return seconds_of(node.run(TWO_LINES, {"IMAGES": tags, "PASSWORD": node.registry.password}, LIMIT_SECONDS))


def seconds_of(ran: Completed, as_expected: bool = True) -> float:
    """Returns how long a command took; raises where it failed."""
    if ran.exit_code != 0 or not as_expected:
        raise RuntimeError(f"a command ended with {ran.exit_code}:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return ran.seconds


def push_small(registry: Registry, repository: str) -> str:
    """Pushes an image of its own layers and returns its reference."""
    return push(registry, repository, images.image(repository, layers=3, layer_bytes=1 << 20))


def push(registry: Registry, repository: str, image: images.Artifact) -> str:
    """Pushes an image and returns its full reference."""
    images.push(registry.url, registry.ca, registry.password, repository, "v1", image)
    return f"{HOST}/{repository}:v1@{image.digest}"


@contextlib.contextmanager
def running(node: Node) -> Iterator[Node]:
    """Starts the node, and stops it."""
    node.start()
    try:
        yield node
    finally:
        node.stop()


def free_address() -> str:
    """Returns a loopback address whose port 443 nobody has."""
    while True:
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        with contextlib.suppress(OSError), socket.create_server((address, 443)):
            return address
