"""Measures the cold start: the first event's wait, at full CPU and at the share of a 128 MB function."""

import contextlib
import io
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import boto3

from benches.aws_endpoint import AwsEndpoint
from benches.cpu_quota import PERIOD_SECONDS, CpuQuota, Unavailable
from benches.rivals import PYTHON_RIVAL
from benches.runtime_api import Function, environment
from benches.table import Below, PartOfRival, Row
from local.client import ROOT

RUNS = 12
ROUNDS = 6
PAUSE = 1.2 * PERIOD_SECONDS
MEMORY = 128

PYTHON = f"Python {sys.version_info.major}.{sys.version_info.minor} with boto3 {boto3.__version__}"
ABOUT = f"""\
- init: spawn to first GET /next; never throttled, as Lambda does not throttle it
- first invocation: event handed out to answer received, with the TLS handshake to an endpoint on loopback;
  NodeLaunch makes seven AWS calls in it
- warm invocation: one right after another; woken: after a pause of {PAUSE * 1000:.0f} ms, which cools the caches
- {MEMORY} MB: after init the process enters a cgroup with {MEMORY}/1769 of one CPU
- rival: {PYTHON}, the same commands under a runtime loop lighter than Lambda's, bytecode cached
- medians of {RUNS} processes, {2 * RUNS} for init and memory; {2 * ROUNDS} warm and {ROUNDS} woken invocations in each;
  all take turns"""


@dataclass(frozen=True)
class Run:
    """One process from its start to its end: milliseconds, and MB."""

    init: float
    first: float
    warm: float
    woken: float
    memory: float


class Subject:
    """A function, the event it is given, and its runs."""

    def __init__(self, command: Sequence[str | Path], event: str):
        self.command = command
        self.event = (ROOT / "events" / event).read_bytes()
        self.full: list[Run] = []
        self.throttled: list[Run] = []

    def run(self, endpoint: AwsEndpoint, log: Path, quota: CpuQuota | None) -> Run:
        """Starts it, invokes it, ends it."""
        with Function(self.command, environment(**endpoint.environment()), log) as function:
            if quota:
                quota.add(function.pid)
            first, warm, woken = self._invoke(function), [], []
            for _ in range(ROUNDS):
                woken.append(self._invoke(function))
                warm += [self._invoke(function, pause=0), self._invoke(function, pause=0)]
            return Run(
                init=function.init_seconds * 1e3,
                first=first,
                warm=statistics.median(warm),
                woken=statistics.median(woken),
                memory=function.peak_memory() / 1e6,
            )

    def _invoke(self, function: Function, pause: float = PAUSE) -> float:
        time.sleep(pause)
        invocation = function.invoke(self.event)
        if invocation.answer["decision"] != "sent":
            raise RuntimeError(f"{self.command} has sent nothing: {invocation.answer}")
        return invocation.seconds * 1e3


def measure(build: Path) -> Iterator[Row]:
    """Measures both functions beside their rivals."""
    functions = {
        "ImagePush": (
            Subject([build / "ImagePush/bootstrap"], "image-push.tagged.json"),
            Subject([*PYTHON_RIVAL, "image_push"], "image-push.tagged.json"),
        ),
        "NodeLaunch": (
            Subject([build / "NodeLaunch/bootstrap"], "node-launch.running.json"),
            Subject([*PYTHON_RIVAL, "node_launch"], "node-launch.running.json"),
        ),
    }
    unavailable = _run_all(list(functions.values()))
    for name, (ours, rival) in functions.items():
        for row in _rows(ours, rival, unavailable, one_call=name == "ImagePush"):
            yield replace(row, what=f"{name}: {row.what}")


def _run_all(pairs: Sequence[tuple[Subject, Subject]]) -> str:
    """Runs every subject, ours and the rival in turn; returns why the quota could not be set, if so."""
    subjects = [subject for pair in pairs for subject in pair]
    unavailable = ""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        log = Path(folder, "function.log")
        endpoint = stack.enter_context(AwsEndpoint(Path(folder)))
        quota = None
        try:
            quota = stack.enter_context(CpuQuota(MEMORY))
        except Unavailable as error:
            unavailable = str(error)
        for pair in pairs:
            _check_same_commands(endpoint, log, *pair)
        for _ in range(RUNS):
            for subject in subjects:
                subject.full.append(subject.run(endpoint, log, None))
            for subject in subjects if quota else ():
                subject.throttled.append(subject.run(endpoint, log, quota))
    return unavailable


def _check_same_commands(endpoint: AwsEndpoint, log: Path, *pair: Subject) -> None:
    """Raises where ours and the rival do not send the same; it also fills the page cache for both."""
    sent = []
    for subject in pair:
        endpoint.commands.clear()
        subject.run(endpoint, log, None)
        sent.append(list(endpoint.commands))
    if sent[0] != sent[1]:
        raise RuntimeError(f"ours and the rival do not send the same:\n{sent[0][0]}\n{sent[1][0]}")


def _rows(ours: Subject, rival: Subject, unavailable: str, one_call: bool) -> Iterator[Row]:
    """Yields one function's rows; the limits of invocations are those of one AWS call."""
    everything = [[*subject.full, *subject.throttled] for subject in (ours, rival)]
    yield Row("init", "ms", *_medians("init", everything), PartOfRival(50))
    invocations = [
        ("first invocation", "first", Below(20) if one_call else None),
        ("warm invocation", "warm", Below(0.5)),
        ("woken invocation", "woken", None),
    ]
    for what, field, target in invocations if one_call else invocations[:1]:
        yield Row(f"{what}, full CPU", "ms", *_medians(field, [ours.full, rival.full]), target)
        if unavailable:
            yield Row(f"{what}, {MEMORY} MB", "ms", None, None, target, unavailable)
        else:
            yield Row(f"{what}, {MEMORY} MB", "ms", *_medians(field, [ours.throttled, rival.throttled]), target)
    yield Row("peak memory", "MB", *_medians("memory", everything), Below(12))
    yield Row("zip", "MB", _zipped(Path(ours.command[0])), None, Below(3))


def _medians(field: str, runs: Sequence[Sequence[Run]]) -> list[float]:
    return [statistics.median(getattr(run, field) for run in group) for group in runs]


def _zipped(file: Path) -> float:
    """Returns the MB of a deployment package, packed as SAM packs it."""
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(file, file.name)
    return len(package.getvalue()) / 1e6
