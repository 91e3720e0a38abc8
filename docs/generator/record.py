"""`make record`: has a stack work for some minutes on a local cloud, and records the data of the dashboard.

The data differ from run to run; `make docs` draws docs/dashboard.svg from those of the last one.
"""

import contextlib
import dataclasses
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from widgets import RECORDING, Row, rows, widgets

from local import images
from local.client import ROOT, LocalCloud, until
from local.settings import scaled
from local.stack import Stack

CLUSTER = "demo"
TAGS = {"aws:eks:cluster-name": CLUSTER}
PARAMETERS = {"ClusterName": CLUSTER, "MaxImageGiB": "1", "ImageGCHighThresholdPercent": "100"}
"""Sets the stack up: how full this machine's disk is has no part in it."""
PERIOD = 10
"""Says how long a period of the recording is in seconds; the dashboard's is 300, and waits are fifty times shorter."""
COUNT_SECONDS = 300
"""Says how often the nodes are counted on AWS."""
SECONDS = 60
"""Limits how long anything may take to be seen."""
MIB = 1 << 20
TOLD = (
    "Recorded on the local cloud, {minutes} minutes, where what AWS waits is waited fifty times faster: {nodes} nodes"
    " were launched, one of which SSM never reaches, and one without a login for the registry; the stack observed for a"
    " while and then sent; images were pushed, one of them deleted at once, one too large, one while the registry was"
    " down; make produce sent pushes, launches and reports, a fifth of them twice; a reconcile at the"
    " beginning and at the end."
)


class Life:
    """Has things happen in the stack while it is recorded."""

    def __init__(self, cloud: LocalCloud, stack: Stack):
        self.cloud, self.stack = cloud, stack
        self.nodes: list[str] = []

    def observed(self) -> None:
        """Two pushes and two launches in a stack that sends nothing yet, and then does."""
        self.push("team/app", "v1", 24)
        self.launch()
        self.push("team/web", "v1", 8)
        self.launch()
        time.sleep(10)
        self.stack.deploy(**PARAMETERS, Mode="send")
        self.stack.invoke("Jobs", {"reconcile": True})
        self.settle()

    def pushed_and_launched(self) -> None:
        """A push, and a node that SSM reaches late."""
        self.push("team/app", "v2", 48)
        self.settle()
        self.launch(online_after=8)
        self.push("team/web", "v2", 16)
        self.settle()
        self.produce("push", 15)
        self.produce("launch", 10)

    def failed(self) -> None:
        """A push of an image that is gone when nodes pull it, and one of an image while the registry is down."""
        self.delay(3)
        digest = self.push("team/gone", "v1", 1)
        self.commanded(digest)
        self.cloud.client("ecr").batch_delete_image(repositoryName="team/gone", imageIds=[{"imageDigest": digest}])
        self.settle()
        self.commanded(self.push("team/app", "v3", 32))
        self.cloud.turn_registry(up=False)
        time.sleep(25)
        self.cloud.turn_registry(up=True)
        self.delay(0)
        self.settle()

    def skipped(self) -> None:
        """A push of an image that is too large, and of a smaller one in its place."""
        self.cloud.push("team/model", "v1", large())
        self.settle()
        self.push("team/model", "v2", 64)
        self.settle()

    def lost(self) -> None:
        """A node without a login, one that SSM never reaches, and all that is produced beside them."""
        self.launch(login="none")
        self.settle()
        self.launch(online=False)
        self.produce("report", 30)
        self.produce("push", 6)
        self.stack.invoke("Jobs", {"reconcile": True})
        self.settle()

    def push(self, repository: str, tag: str, mib: int) -> str:
        """Pushes an image of random content; returns its digest."""
        return self.cloud.push(repository, tag, images.image(f"{repository}:{tag}", layer_bytes=mib * MIB))

    def launch(self, **knobs: Any) -> None:
        """Launches a node of the cluster."""
        self.nodes.append(self.cloud.launch(TAGS, **knobs))
        if knobs.get("online", True):
            self.cloud.until_online(self.nodes[-1], seconds=SECONDS)

    def delay(self, seconds: float) -> None:
        """Has every command take so much longer on every node."""
        for node in self.nodes:
            self.cloud.turn(node, delay=seconds)

    def commanded(self, digest: str) -> None:
        """Waits until a command names an image."""
        ssm = self.cloud.client("ssm")
        until(lambda: digest in json.dumps(ssm.list_commands()["Commands"], default=str), SECONDS, "the push's command")

    def settle(self) -> None:
        """Waits until no command runs and no report waits, and then a moment."""
        time.sleep(6)
        ssm = self.cloud.client("ssm")
        ended = {"Success", "Failed", "TimedOut", "Cancelled", "Undeliverable", "Terminated"}
        until(lambda: {row["Status"] for row in ssm.list_commands()["Commands"]} <= ended, SECONDS, "commands to end")
        time.sleep(6)

    def produce(self, kind: str, events: int) -> None:
        """Sends events of a kind, a fifth of which are duplicates, as `make produce` does."""
        options = ["--kind", kind, "--events", str(events), "--per-second", "1.5", "--duplicates", "20%"]
        command = [sys.executable, "-m", "local.make.produce", self.stack.name, *options]
        subprocess.run(command, cwd=ROOT, env=self.cloud.env(), check=True)


def large() -> images.Artifact:
    """Returns an image that says that it has more than a gibibyte."""
    image = images.image("team/model:v1")
    body = json.loads(image.manifest)
    body["layers"][0]["size"] = 3 << 29
    return dataclasses.replace(image, manifest=images.as_json(body))


@contextlib.contextmanager
def counting(cloud: LocalCloud, rule: str) -> Iterator[None]:
    """Has the nodes be counted as often as on AWS, in the local cloud's time."""
    end = threading.Event()

    def count() -> None:
        while not end.wait(scaled(COUNT_SECONDS)):
            cloud.fire(rule)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()


def recorded(stack: Stack, start: int, end: int) -> list[dict]:
    """Returns every series that the dashboard shows, by the names that the template has for it."""
    [body] = [stack.cloud.client("cloudwatch").get_dashboard(DashboardName=stack.resources()["Dashboard"])]
    theirs = [row for widget in json.loads(body["DashboardBody"])["widgets"] for row in rows(widget)]
    ours = [row for widget in widgets() for row in rows(widget)]
    found: dict[str, dict] = {}
    for our, their in zip(ours, theirs, strict=True):
        for series in _series(stack.cloud, our, their, start, end):
            found[json.dumps({**series, "points": []})] = series
    return list(found.values())


def _series(cloud: LocalCloud, our: Row, their: Row, start: int, end: int) -> Iterator[dict]:
    """Yields what there is of a row, under the names of the template's row."""
    cloudwatch = cloud.client("cloudwatch")
    listed = cloudwatch.get_paginator("list_metrics").paginate(Namespace=their.namespace, MetricName=their.name)
    metrics = [
        {row["Name"]: row["Value"] for row in metric["Dimensions"]} for page in listed for metric in page["Metrics"]
    ]
    for values in sorted(metrics, key=lambda values: sorted(values.items())):
        if values == {name: value or values.get(name) for name, value in their.dimensions.items()}:
            kind = "ExtendedStatistics" if their.stat.startswith("p") else "Statistics"
            answer = cloudwatch.get_metric_statistics(
                Namespace=their.namespace,
                MetricName=their.name,
                Dimensions=[{"Name": name, "Value": value} for name, value in values.items()],
                StartTime=datetime.fromtimestamp(start, UTC),
                EndTime=datetime.fromtimestamp(end, UTC),
                Period=PERIOD,
                **{kind: [their.stat]},
            )["Datapoints"]
            names = {name: value or values[name] for name, value in our.dimensions.items()}
            known = {"namespace": our.namespace, "name": our.name, "dimensions": names, "stat": our.stat}
            if answer:
                yield {**known, "unit": answer[0]["Unit"], "points": _points(answer, their.stat, start)}


def _points(answer: list[dict], stat: str, start: int) -> list[list[float]]:
    """Returns number of the period and value of each data point, in order."""
    points = []
    for point in answer:
        value = {**point, **point.get("ExtendedStatistics", {})}[stat]
        points.append([(int(point["Timestamp"].timestamp()) - start) // PERIOD, _rounded(value)])
    return sorted(points)


def _rounded(value: float) -> float:
    """Returns a number with four digits, a whole one without a fraction."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def alarms(stack: Stack) -> dict[str, str]:
    """Returns the states of the stack's alarms by their names in the template."""
    found = stack.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
    states = {alarm["AlarmName"]: alarm["StateValue"] for alarm in found}
    return {name: states[id_] for name, id_ in sorted(stack.resources().items()) if id_ in states}


def write(told: str, periods: int, states: dict[str, str], series: list[dict]) -> None:
    """Writes what was recorded, a line for each series."""
    head = json.dumps({"told": told, "periods": periods, "seconds": PERIOD, "alarms": states}, indent=1)
    lines = ",\n".join(f"  {json.dumps(row)}" for row in series)
    RECORDING.write_text(f'{head.removesuffix("}").rstrip()},\n "series": [\n{lines}\n ]\n}}\n')


def main() -> None:
    """Records."""
    with LocalCloud(LOCAL_SCHEDULES="off") as cloud:
        stack = Stack(cloud)
        stack.deploy(**PARAMETERS, Mode="observe")
        start = int(time.time()) // PERIOD * PERIOD
        life = Life(cloud, stack)
        steps: list[Callable[[], None]] = [
            life.observed,
            life.pushed_and_launched,
            life.failed,
            life.skipped,
            life.lost,
        ]
        with counting(cloud, stack.resources()["JobsCount"]):
            for step in steps:
                print(f"{time.time() - start:5.0f} s {step.__name__}", file=sys.stderr, flush=True)
                step()
        end = int(time.time()) // PERIOD * PERIOD
        told = TOLD.format(minutes=f"{(end - start) / 60:.1f}", nodes=len(life.nodes))
        write(told, (end - start) // PERIOD, alarms(stack), recorded(stack, start, end))


if __name__ == "__main__":
    main()
