"""Measures the document's parallel pulls beside its own, one image at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benches.pulls import VERSIONS, Bench, Cost, bench_running, in_turn, program_of, push, registry_running
from benches.table import Row

ROUNDS = 3
AT_ONCE = (1, 2, 4)
SMALL = {"layers": 3, "layer_bytes": 1 << 20}
MEDIUM = {"layers": 4, "layer_bytes": 24 << 20}

ABOUT = f"""\
- one command for all images, cold; ours: so many at once (maxParallelImagePulls), rival: one at a time
- small: {SMALL["layers"]} layers of {SMALL["layer_bytes"] >> 20} MiB each; medium: {MEDIUM["layers"]} layers of \
{MEDIUM["layer_bytes"] >> 20} MiB each; no two share a layer
- medians of {ROUNDS} rounds, the node wiped before each pull; all take turns
- the registry is on loopback: a distant one has latency that pulls at once would share"""


def measure(build: Path) -> Iterator[Row]:
    """Measures on a node of each containerd, one after the other."""
    with registry_running() as registry:
        sets = {
            "20 small": [push(registry, f"small{number}", **SMALL) for number in range(20)],
            "4 medium": [push(registry, f"medium{number}", **MEDIUM) for number in range(4)],
        }
        for containerd in VERSIONS:
            with bench_running(registry, containerd, program_of(build)) as bench:
                for what, references in sets.items():
                    for row in at_once(bench, references):
                        yield replace(row, what=f"{containerd}: {what}, {row.what}")


def at_once(bench: Bench, references: Sequence[str]) -> Iterator[Row]:
    """Measures one set of images, pulled by so many at once."""

    def run(count: int) -> Cost:
        bench.wipe()
        return bench.cost(lambda: bench.document(references, maxParallelImagePulls=str(count)))

    costs = in_turn(ROUNDS, {str(count): lambda count=count: run(count) for count in AT_ONCE})
    for count in AT_ONCE[1:]:
        yield Row(f"{count} at once", "s", costs[str(count)].seconds, costs["1"].seconds)
