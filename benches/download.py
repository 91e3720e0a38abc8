"""Measures layers downloaded over our own connections beside containerd's: on a new node, and beside a pod's pull."""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benches.limited import limited
from benches.pulls import (
    LIMIT_SECONDS,
    VERSIONS,
    Bench,
    Cost,
    bench_running,
    finished,
    in_turn,
    program_of,
    push,
    registry_running,
)
from benches.table import Above, Below, Row

ROUNDS = 3
RATES = {20: 0.35, 40: 0.5, 80: None, 0: 1.05}
"""MB per second that a connection brings, 0 for no limit, and what part of PullImage's time ours is to take."""
IMAGES = {
    "1 GB of 6 layers": {"layers": 6, "layer_bytes": 160 << 20},
    "1 GB of 100 layers": {"layers": 100, "layer_bytes": 10 << 20},
    "2 GB of one layer": {"layers": 1, "layer_bytes": 2000 << 20},
}
ONCE = "2 GB of one layer"
"""Names what takes minutes, and in which a second more or less is nothing."""
POD = {"layers": 3, "layer_bytes": 35 << 20}
PREFETCHED = {"layers": 4, "layer_bytes": 150 << 20}
CHUNKS_MIB = 46
POD_RATES = (40, 0)
POD_ROUNDS = 7
OURS, CTR, CRI, ALONE = "ours", "ctr pull", "PullImage", "alone"
# Whoever looks for kubelet finds it by its name.
KUBELET = "mkdir -p /var/lib/kubelet && cp /bin/sleep /var/lib/kubelet/kubelet && exec /var/lib/kubelet/kubelet 3600"

ABOUT = f"""\
- cold: one image onto an empty node that starts, from a host on loopback of which one connection brings so many MB per
  second (nginx, which serves the layers of the registry; the kernel keeps connections to the rate); {ROUNDS} rounds,
  medians, but {ONCE} once; other rows as in document's table
- the node, the registry and that host share the machine's processors: where they are the limit, more connections
  bring no more
- memory: the most that the command's own processes have, without containerd, and the {CHUNKS_MIB} MiB of chunks that
  may be in memory beside them
- beside a prefetch: PullImage for a pod's image of {POD["layers"]} layers of {POD["layer_bytes"] >> 20} MiB, on a
  node with a kubelet, that was begun a second after a command for two images of {PREFETCHED["layers"]} layers of
  {PREFETCHED["layer_bytes"] >> 20} MiB; alone without such a command, and beside PullImage for the two images;
  {POD_ROUNDS} rounds, medians"""


def measure(build: Path) -> Iterator[Row]:
    """Measures on a node of each containerd, one after the other."""
    with registry_running() as registry:
        references = {
            name: push(registry, f"large{number}", **image) for number, (name, image) in enumerate(IMAGES.items())
        }
        pod = push(registry, "pod", **POD)
        prefetched = [push(registry, f"prefetched{number}", **PREFETCHED) for number in range(2)]
        for containerd in VERSIONS:
            for rate, target in RATES.items():
                with limited(registry, rate) as host, bench_running(host, containerd, program_of(build)) as bench:
                    for name, reference in references.items():
                        row = cold(bench, reference, target, rounds=1 if name == ONCE else ROUNDS)
                        yield replace(row, what=f"{containerd}: {name}, {said(rate)}")
                    if rate == max(RATES):
                        yield replace(memory(bench, references["1 GB of 6 layers"]), what=f"{containerd}: memory")
            for rate in POD_RATES:
                with limited(registry, rate) as host, bench_running(host, containerd, program_of(build)) as bench:
                    row = beside(bench, pod, prefetched)
                    yield replace(row, what=f"{containerd}: a pod's pull beside a prefetch, {said(rate)}")


def cold(bench: Bench, reference: str, part: float | None, rounds: int) -> Row:
    """Measures pulls onto a node that has nothing."""

    def wiped(pull: Callable) -> Callable[[], Cost]:
        def run() -> Cost:
            bench.wipe()
            return bench.cost(lambda: pull([reference]))

        return run

    runs = {OURS: wiped(lambda images: bench.document(images, maxConnections="20")), CTR: wiped(bench.ctr)}
    costs = in_turn(rounds, runs | {CRI: wiped(bench.cri)})
    seconds = {who: cost.seconds for who, cost in costs.items()}
    return Row("", "s", seconds.pop(OURS), seconds, Above(CRI, part=part) if part else None)


def memory(bench: Bench, reference: str) -> Row:
    """Measures what a command has of memory while it downloads over as many connections as it may."""
    bench.wipe()
    own = bench.memory(lambda: bench.document([reference], maxConnections="20"))
    return Row("", "MB", own + CHUNKS_MIB * (1 << 20) / 1e6, target=Below(64 * (1 << 20) / 1e6))


def beside(bench: Bench, pod: str, prefetched: Sequence[str]) -> Row:
    """Measures a pod's pull, alone and beside those who bring other images."""
    kubelet = bench.node.begin(KUBELET, {})
    pulls = {
        OURS: lambda: bench.document(prefetched),
        ALONE: None,
        CRI: lambda: bench.cri(prefetched),
    }
    seconds: dict[str, list[float]] = {who: [] for who in pulls}
    for _ in range(POD_ROUNDS):
        for who, pull in pulls.items():
            bench.wipe()
            running = pull and pull()
            time.sleep(1)
            seconds[who].append(finished(bench.cri([pod])).seconds)
            if running:
                running.wait(LIMIT_SECONDS)
    kubelet.kill()
    medians = {who: statistics.median(of) for who, of in seconds.items()}
    return Row("", "s", medians.pop(OURS), medians, Above(ALONE, part=1.3))


def said(rate: float) -> str:
    """Returns a rate in words."""
    return f"{rate} MB/s a connection" if rate else "no limit"
