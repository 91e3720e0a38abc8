"""Measures the document beside what people use today: cold pulls, and commands whose images are all there."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from benches.away import away
from benches.pulls import VERSIONS, Bench, Cost, bench_running, in_turn, program_of, push, registry_running
from benches.table import Above, Below, Exactly, Row, Target
from local.make import document
from local.nodes.running import Running

LARGE_ROUNDS = 7
SMALL_ROUNDS = 12
CACHED_ROUNDS = 12
LARGE = {"layers": 6, "layer_bytes": 160 << 20}
SMALL = {"layers": 3, "layer_bytes": 1 << 20}
MANY = 20
AWAY_MILLISECONDS = 10
OURS, CTR, CRI = "ours", "ctr pull", "PullImage"

ABOUT = f"""\
- one command from its start on the node to its end, as the SSM agent runs it; registry on loopback, with TLS and login
- ctr pull: the two shell lines people use, `aws ecr describe-images` and `ctr images pull --user`, image after image;
  the first line, and the login, are left out in its favour
- PullImage: what kubelet asks of CRI, by curl, image after image; the login is given
- nerdctl pull is missing: no Debian suite up to sid and no package index has it (npm's nerdctl is something else)
- 1 GB: one image of {LARGE["layers"]} layers of {LARGE["layer_bytes"] >> 20} MiB, {LARGE_ROUNDS} rounds
- {MANY} small: {SMALL["layers"]} layers of {SMALL["layer_bytes"] >> 20} MiB each, {SMALL_ROUNDS} rounds
- cold: the node is wiped before each pull
- away: the registry behind a relay whose round trip takes {AWAY_MILLISECONDS} ms, as to ECR; its CPU counts for none
- cached: each has images of its own, for ctr pulls again what CRI pulled; {CACHED_ROUNDS} rounds
- all take turns; medians. CPU: containerd's and the command's own, the mean. Requests: counted by the registry
- memory: the most that a command's processes have at once in a cold pull of {MANY} images, without containerd; what
  processes of one program share counts once"""


def measure(build: Path) -> Iterator[Row]:
    """Measures on a node of each containerd, one after the other."""
    program = program_of(build)
    yield Row("program", "MB", program.stat().st_size / 1e6, target=Below(2.5))
    yield Row("document", "KB", document.DOCUMENT.stat().st_size / 1024, target=Below(12))
    with registry_running() as registry:
        large = [push(registry, "large", **LARGE)]
        small = {who: [push(registry, f"{who}/app{n}", **SMALL) for n in range(MANY)] for who in (OURS, "ctr", "cri")}
        for containerd in VERSIONS:
            with bench_running(registry, containerd, program) as bench:
                for row in (
                    *cold(bench, "1 GB cold", large, LARGE_ROUNDS, Above("PullImage", seconds=0.1)),
                    *cold(bench, f"{MANY} small cold", small[OURS], SMALL_ROUNDS, Above("PullImage", part=1.02)),
                    *memory(bench, small[OURS]),
                    *cached(bench, *small.values()),
                ):
                    yield replace(row, what=f"{containerd}: {row.what}")
            with away(registry, AWAY_MILLISECONDS) as distant, bench_running(distant, containerd, program) as bench:
                for row in cold(
                    bench, f"{MANY} small cold, away", small[OURS], SMALL_ROUNDS, Above("PullImage", part=0.6)
                ):
                    yield replace(row, what=f"{containerd}: {row.what}")


def cold(bench: Bench, what: str, references: Sequence[str], rounds: int, target: Above) -> Iterator[Row]:
    """Measures pulls onto a node that has nothing."""

    def wiped(pull: Callable[[Sequence[str]], Running]) -> Callable[[], Cost]:
        def run() -> Cost:
            bench.wipe()
            return bench.cost(lambda: pull(references))

        return run

    costs = in_turn(rounds, {OURS: wiped(bench.document), CTR: wiped(bench.ctr), CRI: wiped(bench.cri)})
    yield row(what, "s", costs, lambda cost: cost.seconds, target)
    yield row(f"{what}, CPU", "s", costs, lambda cost: cost.cpu_seconds)
    yield row(f"{what}, requests", "", costs, lambda cost: cost.requests)


def cached(bench: Bench, ours: Sequence[str], ctr: Sequence[str], cri: Sequence[str]) -> Iterator[Row]:
    """Measures commands whose images are all there."""
    bench.wipe()
    pulls = {OURS: (bench.document, ours), CTR: (bench.ctr, ctr), CRI: (bench.cri, cri)}
    for pull, references in pulls.values():
        bench.cost(lambda pull=pull, references=references: pull(references))
    for count, limit in ((1, 20), (MANY, 25)):
        costs = in_turn(
            CACHED_ROUNDS,
            {
                who: lambda pull=pull, some=references[:count]: bench.cost(lambda: pull(some))
                for who, (pull, references) in pulls.items()
            },
        )
        yield row(f"{count} cached", "ms", costs, lambda cost: cost.seconds * 1000, Below(limit))
    yield row(f"{MANY} cached, CPU", "ms", costs, lambda cost: cost.cpu_seconds * 1000)
    yield row(f"{MANY} cached, requests", "", costs, lambda cost: cost.requests, Exactly(0))


def memory(bench: Bench, references: Sequence[str]) -> Iterator[Row]:
    """Measures what the commands themselves have of memory while they pull."""
    peaks = {}
    for who, pull in ((OURS, bench.document), (CTR, bench.ctr), (CRI, bench.cri)):
        bench.wipe()
        peaks[who] = bench.memory(lambda pull=pull: pull(references))
    yield row(f"{MANY} small cold, memory", "MB", peaks, lambda peak: peak, Below(12))


def row(what: str, unit: str, measured: dict, value: Callable, target: Target | None = None) -> Row:
    """Returns one measurement of ours and of the rivals."""
    values = {who: value(measure) for who, measure in measured.items()}
    return Row(what, unit, values.pop(OURS), values, target)
