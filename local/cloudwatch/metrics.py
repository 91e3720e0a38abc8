"""Adds the metrics that functions print in embedded format and those of queues, and evaluates alarms on them."""

import json
import logging
import time
from collections.abc import Iterable
from typing import Any

from botocore.loaders import Loader

from local import background
from local.api import Response
from local.cloudwatch import dashboards
from local.ministack import cloudwatch, lambda_runtime, sqs
from local.settings import scaled

log = logging.getLogger("local.metrics")

MAX_DIMENSIONS, MAX_METRICS, MAX_VALUES = 30, 100, 100
"""Limits the dimensions of one set, the metrics of one directive and the values of one metric (CloudWatch,
embedded metric format specification)."""
PAST_SECONDS, FUTURE_SECONDS = 14 * 24 * 60 * 60, 2 * 60 * 60
"""Says how old and how far ahead a data point may be (CloudWatch, PutMetricData)."""
UNITS = frozenset(Loader().load_service_model("cloudwatch", "service-2")["shapes"]["StandardUnit"]["enum"])
LEVELS = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
QUEUE_SECONDS = 60
"""Says how often SQS measures its queues."""

_pump_output = lambda_runtime.ProvidedWorker._pump_output
_put_dashboard = cloudwatch._put_dashboard
_keep_dashboard = cloudwatch.cloudformation_put_dashboard


Counted = tuple[list[float], list[float]]


class Unusable(ValueError):
    """A line of embedded metrics of which CloudWatch makes no metric."""


def install() -> None:
    """Listens to what functions print, measures queues and evaluates alarms."""
    lambda_runtime.ProvidedWorker._pump_output = lambda worker, stream, lines: _pump_output(
        worker, _Overheard(stream, worker), lines
    )
    cloudwatch._evaluate_alarm = evaluate
    # It puts new lists in the place of those that others append to at that moment, and no cloud lives for two weeks.
    cloudwatch._evict_old_metrics = lambda: None
    cloudwatch._put_dashboard = _checked_put_dashboard
    cloudwatch.cloudformation_put_dashboard = _checked_dashboard
    background.start(_measure_queues)


class _Overheard:
    """A function's output, of which every line is looked at as it comes."""

    def __init__(self, stream, worker: lambda_runtime.ProvidedWorker):
        logging = worker.config.get("LoggingConfig") or {}
        self._stream = stream
        self._group = logging.get("LogGroup", f"/aws/lambda/{worker.func_name}")
        self._level = logging.get("ApplicationLogLevel", "TRACE") if logging.get("LogFormat") == "JSON" else "TRACE"

    def readline(self) -> bytes:
        """Returns the next line."""
        line = self._stream.readline()
        if b'"_aws"' in line:
            _take(line, self._group, self._level)
        return line

    def close(self) -> None:
        """Closes the stream."""
        self._stream.close()


def _take(line: bytes, group: str, level: str) -> None:
    """Stores the metrics of a line that Lambda lets pass; what is wrong with it is a metric too, as on AWS."""
    try:
        content = json.loads(line)
        # Lambda drops what is below the function's level, and takes a line without one for INFO.
        if LEVELS.index(content.get("level", "INFO")) >= LEVELS.index(level):
            for metric in embedded(content, time.time()):
                _store(*metric)
    except json.JSONDecodeError as error:
        log.warning("%s: %s", group, error)
        cloudwatch.record_metric("AWS/Logs", "EMFParsingErrors", 1, "Count", {"LogGroupName": group})
    except (KeyError, TypeError, ValueError) as error:
        log.warning("%s: %r", group, error)
        cloudwatch.record_metric("AWS/Logs", "EMFValidationErrors", 1, "Count", {"LogGroupName": group})
    cloudwatch._evaluate_all_alarms()


def embedded(line: dict, now: float) -> Iterable[tuple[str, str, dict[str, str], str, float, Counted]]:
    """Yields namespace, name, dimensions, unit, time and values of the metrics of a line, one per dimension set."""
    seconds = line["_aws"]["Timestamp"] / 1000
    if not now - PAST_SECONDS <= seconds <= now + FUTURE_SECONDS:
        raise Unusable(f"the timestamp {seconds} is not one of these days")
    for directive in line["_aws"]["CloudWatchMetrics"]:
        if len(directive["Metrics"]) > MAX_METRICS:
            raise Unusable(f"{len(directive['Metrics'])} metrics are too many")
        for names in directive["Dimensions"]:
            dimensions = {name: _dimension(line, name) for name in names}
            if len(dimensions) > MAX_DIMENSIONS:
                raise Unusable(f"{len(dimensions)} dimensions are too many")
            for metric in directive["Metrics"]:
                unit = metric.get("Unit", "None")
                if unit not in UNITS:
                    raise Unusable(f"{unit} is no unit")
                if metric["Name"] in line:
                    values = _values(metric["Name"], line[metric["Name"]])
                    yield directive["Namespace"], metric["Name"], dimensions, unit, seconds, values


def _dimension(line: dict, name: str) -> str:
    value = line.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= 1024:
        raise Unusable(f"the dimension {name} is {value!r}")
    return value


def _values(name: str, value: Any) -> Counted:
    """Returns the values and how often each was seen: a number, a list of them, or as AWS's own libraries write it."""
    if isinstance(value, dict):
        values, counts = value["Values"], value["Counts"]
    else:
        values = value if isinstance(value, list) else [value]
        counts = [1] * len(values)
    if len(values) > MAX_VALUES or len(counts) != len(values):
        raise Unusable(f"{len(values)} values and {len(counts)} counts of {name}")
    if not all(isinstance(number, int | float) and not isinstance(number, bool) for number in [*values, *counts]):
        raise Unusable(f"{name} is no number")
    return values, counts


def _store(namespace: str, name: str, dimensions: dict, unit: str, seconds: float, counted: Counted) -> None:
    cloudwatch._store_datum(namespace, name, dimensions, seconds, unit, None, *counted, None)


def _measure_queues() -> None:
    while True:
        time.sleep(scaled(QUEUE_SECONDS))
        for queue in list(sqs._queues.values()):
            dimensions = {"QueueName": queue["name"]}
            for name, (value, unit) in _queue_metrics(queue).items():
                cloudwatch.record_metric("AWS/SQS", name, value, unit, dimensions)
        cloudwatch._evaluate_all_alarms()


def _queue_metrics(queue: dict) -> dict[str, tuple[float, str]]:
    now = time.time()
    messages = list(queue["messages"])
    visible = [message for message in messages if message["visible_at"] <= now]
    in_flight = [message for message in messages if message["visible_at"] > now and message.get("receive_count")]
    oldest = min((message["sent_at"] for message in messages), default=now)
    return {
        "ApproximateNumberOfMessagesVisible": (len(visible), "Count"),
        "ApproximateNumberOfMessagesNotVisible": (len(in_flight), "Count"),
        "ApproximateNumberOfMessagesDelayed": (len(messages) - len(visible) - len(in_flight), "Count"),
        "ApproximateAgeOfOldestMessage": (now - oldest, "Seconds"),
    }


def evaluate(alarm: dict) -> None:
    """Moves an alarm of one metric to the state that its last periods give it."""
    dimensions = {dimension["Name"]: dimension["Value"] for dimension in alarm.get("Dimensions") or []}
    key = (alarm["Namespace"], alarm["MetricName"], cloudwatch._dims_key(dimensions))
    points = list(cloudwatch._metrics.get(key, []))
    old, new = alarm["StateValue"], _state(alarm, points)
    if old != new:
        alarm["StateValue"], alarm["StateReason"] = new, f"{alarm['MetricName']} has made it so."
        alarm["StateUpdatedTimestamp"] = int(time.time())
        cloudwatch._record_history(alarm["AlarmName"], old, new, alarm["StateReason"])
        cloudwatch._dispatch_alarm_actions(alarm, old, new, alarm["StateReason"])


def _state(alarm: dict, points: list[dict]) -> str:
    # The period that goes on counts as soon as it breaches, so that nobody waits for its end.
    since = time.time() // alarm["Period"] - alarm["EvaluationPeriods"]
    periods: dict[float, list[dict]] = {}
    for point in points:
        periods.setdefault(point["Timestamp"] // alarm["Period"], []).append(point)
    values = [_statistic(alarm, found) for period, found in periods.items() if period >= since]
    if not values:
        missing = {"notBreaching": "OK", "breaching": "ALARM", "ignore": alarm["StateValue"]}
        return missing.get(alarm.get("TreatMissingData"), "INSUFFICIENT_DATA")
    breaching = sum(_breaches(alarm, value) for value in values)
    return "ALARM" if breaching >= (alarm.get("DatapointsToAlarm") or alarm["EvaluationPeriods"]) else "OK"


def _statistic(alarm: dict, points: list[dict]) -> float:
    statistic = alarm.get("ExtendedStatistic") or alarm["Statistic"]
    return cloudwatch._stat_value(cloudwatch._calc_stats(points), statistic, points)


def _breaches(alarm: dict, value: float) -> bool:
    threshold = alarm["Threshold"]
    return {
        "GreaterThanOrEqualToThreshold": value >= threshold,
        "GreaterThanThreshold": value > threshold,
        "LessThanThreshold": value < threshold,
        "LessThanOrEqualToThreshold": value <= threshold,
    }[alarm["ComparisonOperator"]]


def _checked_put_dashboard(params: dict, request: dict, is_cbor: bool, is_json: bool = False) -> Response:
    """PutDashboard, refused where CloudWatch would refuse it."""
    body = request.get("DashboardBody", "") if is_cbor or is_json else cloudwatch._p(params, "DashboardBody")
    if refusal := _refusal(body):
        return cloudwatch._error("InvalidParameterInput", refusal, 400, use_json=is_json, use_cbor=is_cbor)
    return _put_dashboard(params, request, is_cbor, is_json)


def _checked_dashboard(name: str, body: str) -> str:
    """The dashboard of a stack, likewise."""
    if refusal := _refusal(body):
        raise ValueError(f"{refusal} (Service: CloudWatch, Status Code: 400)")
    return _keep_dashboard(name, body)


def _refusal(body: str) -> str:
    faults = dashboards.faults(body)
    count = f"{len(faults)} validation error{'s' * (len(faults) > 1)}"
    return f"The dashboard body is invalid, there are {count}: {'; '.join(faults)}" if faults else ""
