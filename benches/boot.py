"""Measures boots with examples/boot: kubelet starts in time whatever is wrong, and its pods need no pull."""

import contextlib
import functools
import itertools
import math
import multiprocessing
import os
import platform
import random
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benches.limited import limited
from benches.pods import APP, CONTAINERD, KUBELET_ALONE, OURS, ROUNDS, SCALE, SSM_ROUNDS, pods
from benches.pulls import by_tag, free_address, program_of, registry_running
from benches.table import Above, Below, Exactly, PartOfRival, Row
from local import images
from local.ecr.front import Front
from local.nodes import program
from local.nodes.boots import BOOT_TIMEOUT, FAULTS, LATE, REPOSITORY, WAYS, Boot
from local.nodes.node import Node

BOOTS = int(os.environ.get("BOOTS", "200"))
SEED = 20
AT_ONCE = 5
RIVAL_EVERY = 4
USER_DATA = Path(__file__).parent / "rivals/user_data.sh"
CLEAN_WITHIN_SECONDS = BOOT_TIMEOUT + 10

RATE = 40
NAIVE = "no limits"

ABOUT = f"""\
- boots: {BOOTS}, on {AT_ONCE} nodes at once, each with a registry of its own; none, one or two faults, of different
  parts, drawn with seed {SEED}: {", ".join(FAULTS)},
  each {", ".join(WAYS)}; containerd's disk full; user data or program killed within a second
- delay: from user data's start to its end, which nodeadm waits for to start kubelet; BOOT_TIMEOUT is {BOOT_TIMEOUT} s
  instead of 300, and late is what takes more than {LATE} s
- no limits: the user data of benches/rivals/user_data.sh, in every {RIVAL_EVERY}th of the boots, given up when late
- pods: kubelet's calls (RunPodSandbox, ImageStatus, PullImage where there is no image, CreateContainer,
  StartContainer) until ContainerStatus says that it runs, with real runc on the node's network; an image of
  {APP["layers"]} layers of {APP["layer_bytes"] >> 20} MiB, {RATE} MB/s a connection; the node has the pause image alone
- ours: kubelet starts when user data has ended; kubelet alone: no user data, it pulls
- SSM: no user data; the pod is placed at kubelet's start and pulls at once; our command comes 30 s and 6 min later,
  **both divided by {SCALE}**, since a pull takes seconds here: 0.5 s is while the pod pulls, 6 s after it
- {ROUNDS} rounds in turn, {SSM_ROUNDS} of SSM; p99 by nearest rank, which is the longest of so few"""

Fault = tuple[str, str]
"""Names what is wrong, and how."""


@dataclass(frozen=True)
class Start:
    """A start of kubelet: after how many seconds, and whether its images were there, None where they need not be."""

    seconds: float
    has_images: bool | None


def measure(build: Path) -> Iterator[Row]:
    """Measures boots with faults, then pods on nodes that have booted."""
    draws = drawn(random.Random(SEED), BOOTS)
    with ProcessPoolExecutor(AT_ONCE, multiprocessing.get_context("spawn")) as pool:
        parts = pool.map(functools.partial(boots, program_of(build)), [draws[n::AT_ONCE] for n in range(AT_ONCE)])
        yield from rows_of_boots([pair for part in parts for pair in part])
    with registry_running() as registry, limited(registry, RATE) as host:
        yield from rows_of_pods(*pods(host, program_of(build)))


def drawn(generator: random.Random, count: int) -> list[list[Fault]]:
    """Draws the faults of so many boots, one after the other all that there are; some have none, half two."""
    draws: list[list[Fault]] = []
    while len(draws) < count:
        faults = [(what, how) for what in FAULTS for how in WAYS] + [("disk", "full")]
        for killed in itertools.product(("user-data", "program"), ("TERM", "KILL")):
            faults.append(("killed", f"{' '.join(killed)} {generator.uniform(0.05, 1):.2f}"))
        generator.shuffle(faults)
        for number, fault in enumerate(faults):
            others = [other for other in faults if part(other) != part(fault)]
            draws.append([fault, *generator.sample(others, generator.choice((0, 1)))])
            if number % 9 == 0:
                draws.append([])
    return draws[:count]


def part(fault: Fault) -> str:
    """Returns what is meddled with, which one fault can be at a time."""
    return {"parameter": "aws", "document": "aws", "imds": "aws", "program": "registry"}.get(fault[0], fault[0])


def boots(program_file: Path, draws: Sequence[Sequence[Fault]]) -> list[tuple[Start, Start | None]]:
    """Boots one node again and again, at times with the rival's user data, too."""
    programs = {platform.machine(): program_file.read_bytes()}
    pairs = []
    with tempfile.TemporaryDirectory() as folder, registry_running() as registry:
        images.push(registry.url, registry.ca, registry.password, REPOSITORY, None, program.artifact(programs))
        front = Front(registry, free_address())
        front.start()
        node = Node(Path(folder, "node"), "boot", front, CONTAINERD, disk_mib=384)
        node.start()
        try:
            boot = Boot(node, front, programs)
            script = (node.folder / "stand-ins/boot.sh").read_text()
            for number, faults in enumerate(draws):
                ours = start(boot, faults, script)
                rival = start(boot, faults, USER_DATA.read_text()) if number % RIVAL_EVERY == 0 else None
                pairs.append((ours, rival))
                if ours.seconds > LATE or ours.has_images is False:
                    print(f"{faults}: {ours}", flush=True)
        finally:
            node.stop()
            front.stop()
    return pairs


def start(boot: Boot, faults: Sequence[Fault], script: str) -> Start:
    """Boots once, until kubelet starts or is later than it may be, and waits until nothing runs any more."""
    boot.node.install(boot.program)
    boot.write("boot.sh", script)
    reference = boot.push()
    with contextlib.ExitStack() as stack:
        for what, how in faults:
            stack.enter_context(OWN_FAULTS.get(what, FAULTS.get(what))(boot, what, how))
        ended = boot.begin(PASSWORD=boot.registry.password).wait(LATE + 1)
        has_images = None
        if all(how == "slow" for _, how in faults):
            # Containerd has the name now, or not at all; CRI finds it a little later.
            has_images = by_tag(reference) in boot.node.images() and boot.finds(reference)
    deadline = time.monotonic() + CLEAN_WITHIN_SECONDS
    while left := set(boot.node.processes().values()) - {"containerd"}:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{faults}: there are still {left}")
        time.sleep(0.05)
    return Start(ended.seconds if ended.stdout else math.inf, has_images)


@contextlib.contextmanager
def disk_full(boot: Boot, _: str, how: str) -> Iterator[None]:
    """Containerd's disk has no room."""
    boot.node.shell("cat /dev/zero >/var/lib/containerd/full 2>/dev/null || true")
    yield
    boot.node.shell("rm /var/lib/containerd/full")


@contextlib.contextmanager
def killed(boot: Boot, _: str, how: str) -> Iterator[None]:
    """User data or the program is killed at some time, where it still runs."""
    who, number, seconds = how.split()
    name = images.digest(boot.program).removeprefix("sha256:")[:15]
    pid = "cat /run/boot.pid" if who == "user-data" else f"grep -lx {name} /proc/[0-9]*/comm | cut -d / -f 3"
    timer = threading.Timer(float(seconds), boot.node.shell, [f"kill -{number} $({pid}) || true"])
    timer.start()
    yield
    timer.cancel()
    timer.join()


OWN_FAULTS = {"disk": disk_full, "killed": killed}


def rows_of_boots(pairs: Sequence[tuple[Start, Start | None]]) -> Iterator[Row]:
    """Returns what is to be told of kubelet's starts."""
    starts = [ours for ours, _ in pairs]
    both = [(ours, rival) for ours, rival in pairs if rival]
    rivals = [rival for _, rival in both]
    yield Row(f"late starts of {len(starts)}", "", late(starts), target=Exactly(0))
    what = f"late starts of the {len(both)} of both"
    yield Row(what, "", late([ours for ours, _ in both]), {NAIVE: late(rivals)}, Exactly(0))
    have = [start.has_images for start in starts if start.has_images is not None]
    yield Row(
        f"starts without images, of {len(have)} without fault or only slow", "", have.count(False), target=Exactly(0)
    )
    for name, percent in {"p50": 50, "p99": 99, "longest": 100}.items():
        ours, rival = (nearest_rank([start.seconds for start in group], percent) for group in (starts, rivals))
        yield Row(f"kubelet's start delay, {name}", "s", ours, {NAIVE: min(LATE, rival)}, Below(LATE))


def late(starts: Sequence[Start]) -> int:
    """Counts the starts of kubelet that come too late."""
    return sum(start.seconds > LATE for start in starts)


def rows_of_pods(from_kubelet: Mapping[str, list[float]], from_boot: Mapping[str, list[float]]) -> Iterator[Row]:
    """Returns what is to be told of pods."""
    for name, percent in {"p50": 50, "p99": 99}.items():
        rivals = {who: nearest_rank(seconds, percent) for who, seconds in from_kubelet.items()}
        yield Row(f"kubelet's start to container running, {name}", "s", rivals.pop(OURS), rivals, PartOfRival(10))
        rivals = {who: nearest_rank(seconds, percent) for who, seconds in from_boot.items()}
        target = Above(KUBELET_ALONE, seconds=1)
        yield Row(f"user data's start to container running, {name}", "s", rivals.pop(OURS), rivals, target)


def nearest_rank(values: Sequence[float], percent: int) -> float:
    """Returns the value that so many percent do not exceed."""
    return sorted(values)[math.ceil(len(values) * percent / 100) - 1]
