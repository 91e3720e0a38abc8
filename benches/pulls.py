"""Measures pulls on nodes with a real containerd: ours, those of the rivals, and what each costs."""

import contextlib
import json
import os
import platform
import random
import re
import resource
import secrets
import socket
import statistics
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local import images
from local.ecr.registry import Registry
from local.make import document
from local.nodes import program
from local.nodes.node import Node
from local.nodes.running import Completed, Running

VERSIONS = ("2.1", "1.7")
LIMIT_SECONDS = 600
HOST = "123456789012.dkr.ecr.eu-central-1.amazonaws.com"
SAMPLE_SECONDS = 0.005

PARAMETERS_OF_DOCUMENT = json.loads(document.DOCUMENT.read_text())["parameters"]
# The machine's disk may be as full as it likes: it is no node's.
PARAMETERS = {"executionTimeout": str(LIMIT_SECONDS), "imageGCHighThresholdPercent": "100"}
RIVALS = Path(__file__).parent / "rivals"
TWO_LINES = (RIVALS / "two_lines.sh").read_text()
PULL_IMAGE = (RIVALS / "pull_image.sh").read_text()

# A left-over lease keeps what no image names, so that the next pull would be none; to remove one collects the rest.
WIPE = """
set -e
ctr="ctr -n k8s.io"
$ctr images ls -q | xargs -r $ctr images rm --sync
$ctr leases create --id bench
$ctr leases ls -q | xargs -r -n 1 $ctr leases rm --sync
until [ -z "$($ctr content ls -q)" ] && [ "$($ctr snapshots ls | wc -l)" = 1 ]; do sleep 0.1; done
"""


@dataclass(frozen=True)
class Cost:
    """Tells what one command took: time, the CPU of containerd and of its own processes, requests to the registry."""

    seconds: float
    cpu_seconds: float
    requests: int


Pull = Callable[[], Running]


class Bench:
    """A registry, and a node on which commands pull from it."""

    def __init__(self, node: Node, program_file: Path) -> None:
        self.node = node
        self.registry = node.registry
        content = program_file.read_bytes()
        node.install(content)
        self._script = document.script(program.attributes(f"{HOST}/program", {platform.machine(): content}))

    def document(self, references: Sequence[str], **parameters: str) -> Running:
        """Starts our document as the SSM agent does, with its defaults for parameters that are not given."""
        defaults = {name: about["default"] for name, about in PARAMETERS_OF_DOCUMENT.items() if "default" in about}
        given = defaults | PARAMETERS | parameters | {"images": " ".join(references)}
        return self.node.begin(self._script, {f"SSM_{name}": value for name, value in given.items()})

    def ctr(self, references: Sequence[str]) -> Running:
        """Starts the two lines that people send to their nodes; they pull by tag, as people do."""
        environment = {"IMAGES": " ".join(map(by_tag, references)), "PASSWORD": self.registry.password}
        return self.node.begin(TWO_LINES, environment)

    def cri(self, references: Sequence[str]) -> Running:
        """Starts kubelet's calls; they pull by tag, as most pods do."""
        folder = self.node.folder / "requests" / secrets.token_hex(4)
        folder.mkdir(parents=True)
        for number, reference in enumerate(references):
            request = pull_image_request(by_tag(reference), "AWS", self.registry.password)
            (folder / f"{number:02}").write_bytes(request)
        return self.node.begin(PULL_IMAGE, {"REQUESTS": str(folder)})

    def cost(self, pull: Pull) -> Cost:
        """Runs a command to its end and returns what it cost; raises where it failed."""
        requests, containerd = len(self.registry.requests()), self._containerd_seconds()
        children = children_seconds()
        ran = finished(pull())
        children = children_seconds() - children
        containerd = self._containerd_seconds() - containerd
        return Cost(ran.seconds, containerd + children, len(self.registry.requests()) - requests)

    def memory(self, pull: Pull) -> float:
        """Runs a command to its end and returns the most MB its processes had at once, sampled: which slows it down."""
        running, ended = pull(), threading.Event()
        peaks = [0.0]

        def sample() -> None:
            while not ended.wait(SAMPLE_SECONDS):
                peaks.append(together((executable(pid), *resident(pid)) for pid in processes(running)))

        sampler = threading.Thread(target=sample)
        sampler.start()
        try:
            finished(running)
        finally:
            ended.set()
            sampler.join()
        return max(peaks)

    def wipe(self) -> None:
        """Removes everything that containerd holds, and waits until the disk has it all."""
        self.node.shell(WIPE)
        os.sync()

    def _containerd_seconds(self) -> float:
        """Returns the CPU that containerd has used."""
        stat = self.node.shell("cat /proc/$(grep -lx containerd /proc/[0-9]*/comm | cut -d / -f 3)/stat")
        return sum(map(int, stat.rpartition(")")[2].split()[11:15])) / os.sysconf("SC_CLK_TCK")


def program_of(build: Path) -> Path:
    """Returns the nodes' program for this machine, as `sam build` has put it into a function."""
    processor = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
    return build.parent.parent / f"target/node-program/{processor}/lambda/prefetch-images/bootstrap"


@contextlib.contextmanager
def registry_running() -> Iterator[Registry]:
    """Runs a registry, with TLS and a login as long as ECR's, on loopback."""
    with tempfile.TemporaryDirectory() as folder:
        registry = Registry(Path(folder, "registry"), free_address(), [HOST], secrets.token_hex(900))
        registry.start()
        try:
            yield registry
        finally:
            registry.stop()


@contextlib.contextmanager
def bench_running(registry: Registry, containerd: str, program_file: Path) -> Iterator[Bench]:
    """Runs a node with a containerd of this version, which has the program."""
    with tempfile.TemporaryDirectory() as folder:
        node = Node(Path(folder, "node"), containerd, registry, containerd)
        node.start()
        try:
            yield Bench(node, program_file)
        finally:
            node.stop()


def push(registry: Registry, repository: str, layers: int, layer_bytes: int) -> str:
    """Pushes an image of random bytes that shares no layer with another and returns its full reference."""
    image = images.image(repository, layers=layers, layer_bytes=layer_bytes)
    images.push(registry.url, registry.ca, registry.password, repository, "v1", image)
    return f"{HOST}/{repository}:v1@{image.digest}"


def in_turn(rounds: int, runs: Mapping[str, Callable[[], Cost]]) -> dict[str, Cost]:
    """Makes each run so many times, another one first in each round, and returns what each costs in the middle.

    The CPU is a mean: the kernel counts containerd's in hundredths of a second.
    """
    costs: dict[str, list[Cost]] = defaultdict(list)
    names = list(runs)
    for number in range(rounds):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            costs[name].append(runs[name]())
    return {name: middle(costs[name]) for name in names}


def middle(costs: Sequence[Cost]) -> Cost:
    """Returns the median time, the mean CPU and the median requests."""
    return Cost(
        statistics.median(cost.seconds for cost in costs),
        statistics.fmean(cost.cpu_seconds for cost in costs),
        statistics.median_high(cost.requests for cost in costs),
    )


def finished(running: Running) -> Completed:
    """Waits for a command; raises where it failed or, ours, has an image that is neither pulled nor cached."""
    ran = running.wait(LIMIT_SECONDS)
    statuses = set(re.findall(r'"status":"(\w+)"', ran.stdout))
    if ran.exit_code != 0 or not statuses <= {"pulled", "cached"}:
        raise RuntimeError(f"a command ended with {ran.exit_code}:\n{ran.stdout[-2000:]}\n{ran.stderr[-2000:]}")
    return ran


def pull_image_request(image: str, user: str, password: str) -> bytes:
    """Returns gRPC's frame with CRI's PullImageRequest."""
    auth = field(1, user.encode()) + field(2, password.encode())
    message = field(1, field(1, image.encode())) + field(2, auth)
    return b"\0" + len(message).to_bytes(4, "big") + message


def field(number: int, content: bytes) -> bytes:
    """Returns a length-delimited field of a protobuf message."""
    length, rest = b"", len(content)
    while rest > 0x7F:
        length += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return bytes([number << 3 | 2]) + length + bytes([rest]) + content


def by_tag(reference: str) -> str:
    """Returns a reference without its digest."""
    return reference.partition("@")[0]


def children_seconds() -> float:
    """Returns the CPU of all commands that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def processes(running: Running) -> list[int]:
    """Returns a command's processes, none where one has ended meanwhile."""
    with contextlib.suppress(OSError):
        return running.pids()
    return []


def executable(pid: int) -> str:
    """Returns the name of the program that a process runs."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/exe").readlink().name
    return ""


def resident(pid: int) -> tuple[float, float]:
    """Returns the MB that a process has for itself, and those that it shares with others."""
    sizes = {"Private": 0, "Shared": 0}
    with contextlib.suppress(OSError):
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        for kind, kilobytes in re.findall(r"^(Private|Shared)_(?:Clean|Dirty): +(\d+) kB$", text, re.MULTILINE):
            sizes[kind] += int(kilobytes)
    return sizes["Private"] * 1024 / 1e6, sizes["Shared"] * 1024 / 1e6


def together(parts: Iterable[tuple[str, float, float]]) -> float:
    """Returns the MB of processes, given as program, own and shared; processes of one program share with each other."""
    own, shared = 0.0, defaultdict(float)
    for name, private, common in parts:
        own += private
        shared[name] = max(shared[name], common)
    return own + sum(shared.values())


def free_address() -> str:
    """Returns a loopback address whose port 443 nobody has."""
    while True:
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        with contextlib.suppress(OSError), socket.create_server((address, 443)):
            return address
