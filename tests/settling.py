"""A deployed stack whose commands end by script, and what it has made of them."""

import itertools
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from local.client import LocalCloud, until
from local.cloudwatch import dashboards
from local.outcomes import Outcomes
from local.stack import Stack

DIGEST = f"sha256:{'0123456789abcdef' * 4}"
NAMESPACE = "EKSImagePrefetch"
SECONDS = 60
"""Limits how long anything may take to be settled, in seconds."""

_numbers = itertools.count(1)


class Settling:
    """Has commands end on nodes that need not exist, and waits for what the stack says of them."""

    def __init__(self, cloud: LocalCloud, stack: Stack):
        self.cloud, self.stack = cloud, stack
        self.resources = stack.resources()
        self.outcomes = Outcomes(stack)
        # What is handed back comes again in 0.6 seconds instead of 2.4.
        queue = {"QueueUrl": self.resources["ResultQueue"]}
        cloud.client("sqs").set_queue_attributes(**queue, Attributes={"VisibilityTimeout": "30"})

    def image(self, name: str = "app") -> str:
        """Returns an image of the registry, as commands name it."""
        return f"{self.cloud.registry_host}/team/{name}:v1@{DIGEST}"

    def command(
        self,
        nodes: Mapping[str, Mapping | None],
        *images: str,
        comment: str = "push rule=default attempt=1",
        age: float = 0,
    ) -> str:
        """Makes a command whose nodes end as said; returns its id."""
        parameters = {"images": [" ".join(images or [self.image()])]}
        return self.cloud.stage_command(self.resources["PrefetchImages"], parameters, comment, nodes, age)

    def job(self, command_id: str, **expected: Any) -> dict[str, Any]:
        """Waits until a job's row says what is expected, and nothing more is about to be written of it."""

        def row() -> dict | None:
            found = self.outcomes.job(command_id) or {}
            return found if expected.items() <= found.items() else None

        try:
            found = until(row, SECONDS, f"job {command_id} to be {expected}")
        except TimeoutError as error:
            raise AssertionError(f"{error} It is {self.outcomes.job(command_id)}.") from error
        self.until_quiet()
        return found

    def in_order(self, order: Sequence[int]) -> dict[str, dict]:
        """Settles a job of two nodes, one of which comes through at the second try, by its events in this order."""
        image, early, late = self.image(), node(), node()
        with self.cloud.holding_events("aws.ssm") as take:
            job = self.command({late: ended(line(image, "failed", "registry")), early: ended(line(image))}, age=300)
            self.command({late: ended(line(image))}, comment=f"push rule=default attempt=2 job={job}", age=100)
            events = take()
        assert len(events) == 5
        for index in order:
            self.cloud.send_event(events[index])
            self.until_quiet()
        return self.state(job, {late: "late", early: "early"})

    def until_quiet(self) -> None:
        """Waits until no report waits or is at work, and nothing written is still to be passed on."""
        sqs, queue = self.cloud.client("sqs"), self.resources["ResultQueue"]
        counts = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]

        def quiet() -> bool:
            attributes = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=counts)["Attributes"]
            return all(attributes[name] == "0" for name in counts) and not self.outcomes.outbox()

        until(quiet, SECONDS, "the reports to be settled")

    def let_usage_pass(self, seconds: int = 15 * 60) -> None:
        """Has the nodes have told what they run so many seconds earlier: what the first says counts once all have."""
        table = self.cloud.client("dynamodb")
        rows = table.query(
            TableName=self.outcomes.table,
            KeyConditionExpression="pk = :usage",
            ExpressionAttributeValues={":usage": {"S": "usage#default"}},
        )["Items"]
        assert rows
        for row in rows:
            table.update_item(
                TableName=self.outcomes.table,
                Key={name: row[name] for name in ("pk", "sk")},
                UpdateExpression="ADD told_at :seconds",
                ExpressionAttributeValues={":seconds": {"N": str(-seconds)}},
            )

    def letters(self) -> list[str]:
        """Returns what is in the dead-letter queue."""
        queue = {"QueueUrl": self.resources["ResultDeadLetters"], "VisibilityTimeout": 0, "MaxNumberOfMessages": 10}
        return [message["Body"] for message in self.cloud.client("sqs").receive_message(**queue).get("Messages", [])]

    def state(self, command_id: str, names: Mapping[str, str]) -> dict[str, dict]:
        """Returns a job's rows without what differs from run to run, under the nodes' names."""
        own = {"pk", "sk", "version", "outbox", "command", "slowest_node"}
        own |= {"requested_at", "ended_at", "warm_at", "expires_at"}
        job, nodes = self.outcomes.job(command_id), self.outcomes.nodes(command_id)
        age = datetime.now(UTC) - datetime.fromisoformat(job["requested_at"])
        # To the nearest ten seconds: the rest is how long the test took.
        times = {"age": round(age.total_seconds(), -1), "slowest_seconds": round(job.get("slowest_seconds", 0), -1)}
        rows = {"job": job | times, **{names[node]: row for node, row in nodes.items()}}
        return {name: {key: row[key] for key in row if key not in own} for name, row in rows.items()}

    def function(self, name: str) -> str:
        """Returns a function's name by its logical id."""
        return self.resources[name]

    def arn(self, queue: str) -> str:
        """Returns a queue's ARN by its logical id."""
        request = {"QueueUrl": self.resources[queue], "AttributeNames": ["QueueArn"]}
        return self.cloud.client("sqs").get_queue_attributes(**request)["Attributes"]["QueueArn"]

    def metric(self, name: str, statistic: str = "Sum", **dimensions: str) -> float:
        """Returns what CloudWatch has of a metric of ours, 0 where it has nothing."""
        now = datetime.now(UTC)
        points = self.cloud.client("cloudwatch").get_metric_statistics(
            Namespace=NAMESPACE,
            MetricName=name,
            Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
            StartTime=now - timedelta(days=2),
            EndTime=now + timedelta(days=1),
            Period=60 * 60 * 24 * 30,
            Statistics=[statistic],
        )["Datapoints"]
        return sum(point[statistic] for point in points)

    def alarm(self, name: str) -> str:
        """Returns the state of an alarm by its logical id."""
        alarms = self.cloud.client("cloudwatch").describe_alarms(AlarmNames=[self.resources[name]])
        return alarms["MetricAlarms"][0]["StateValue"]

    def dashboard(self) -> str:
        """Returns the body of the stack's dashboard."""
        return self.cloud.client("cloudwatch").get_dashboard(DashboardName=self.resources["Dashboard"])["DashboardBody"]

    def watched(self) -> set[dashboards.Metric]:
        """Returns the metrics that the dashboard and the alarms name."""
        alarms = self.cloud.client("cloudwatch").describe_alarms()["MetricAlarms"]
        ours = [alarm for alarm in alarms if alarm["AlarmName"] in self.resources.values()]
        return dashboards.metrics(self.dashboard()) | {_metric(alarm) for alarm in ours}

    def measured(self) -> set[dashboards.Metric]:
        """Returns the metrics that CloudWatch has."""
        pages = self.cloud.client("cloudwatch").get_paginator("list_metrics").paginate()
        return {_metric(metric) for page in pages for metric in page["Metrics"]}


def node() -> str:
    """Returns the id of a node that nobody else has."""
    return f"i-{next(_numbers):017x}"


def hybrid() -> str:
    """Returns the id of a node outside EC2 that nobody else has."""
    return f"m{node()}"


def not_for_it() -> list[dict[str, str]]:
    """Returns how a Windows node may end: three forms of the same."""
    plugin = "unsupported plugin: aws:runShellScript"
    precondition = "unsatisfied preconditions: '\"StringEquals\": [platformType, Linux]'"
    said = [f"Step execution skipped due to {why}. Step name: prefetch" for why in (plugin, precondition)]
    return [{"details": "InvalidPlatform"}, *({"details": "Success", "stdout": stdout} for stdout in said)]


def report(*lines: str | Mapping[str, Any]) -> str:
    """Returns what a node prints: lines as they are, or the members that make them."""
    return "".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines)


def line(image: str, status: str = "pulled", reason: str = "", **members: Any) -> dict[str, Any]:
    """Returns the members of the line that the document prints of an image."""
    pulled = {"seconds": 1.5, "bytes": 1000, "attempts": 1} if status == "pulled" else {}
    outcome = {"image": image, "digest": image.partition("@")[2], "status": status, "reason": reason}
    return {**outcome, "seconds": 0.1, "bytes": 0, "attempts": 0, **pulled, **members}


def used(image: str, running: int = 1, **members: Any) -> dict[str, Any]:
    """Returns the members of the line that the document prints of an image that the node runs."""
    return {"usage": image, "running": running, "prefetched": False, "bytes": 1000, **members}


def totals(**members: int) -> dict[str, Any]:
    """Returns the members of the line with which the document ends what the node runs."""
    none = {"images": 0, "leftOut": 0, "podImages": 0, "podImagesPresent": 0, "firstUsedBytes": 0}
    return {"usageTotals": none | members}


def ended(*lines: Mapping[str, Any] | str, details: str = "") -> dict[str, str]:
    """Returns how a node ends that prints these lines."""
    failed = any(isinstance(line, dict) and line.get("status") == "failed" for line in lines)
    return {"details": details or ("Failed" if failed else "Success"), "stdout": report(*lines)}


def outcomes(row: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Returns status and reason of each image of a node, in the images' order."""
    return [(image["status"], image["reason"]) for _, image in sorted(row["images"].items())]


def _metric(named: Mapping[str, Any]) -> dashboards.Metric:
    """Returns namespace, name and names of dimensions of a metric, or of the one that an alarm watches."""
    return named["Namespace"], named["MetricName"], frozenset(row["Name"] for row in named["Dimensions"])
