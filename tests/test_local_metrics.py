"""The local cloud's metrics, alarms and dashboards are as CloudWatch's, wherever the product relies on it."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from probe import invoke, refused

from local.client import LocalCloud, until
from local.cloudwatch import dashboards

DASHBOARD = {
    "type": "metric",
    "properties": {"region": "eu-central-1", "metrics": [["Probe", "Failed", "Cluster", "blue"], ["...", "red"]]},
}


def test_what_a_function_prints_in_embedded_format_is_a_metric_per_dimension_set(cloud, probe_stack):
    line = embedded([["Cluster"], ["Cluster", "Rule"]], Cluster="green", Rule="gpu", Failed=2, Seconds=[1.5, 2.5])
    invoke(cloud, probe_stack, {"print": [line]})
    assert until(lambda: statistics(cloud, "Failed", Cluster="green"), 5)["Sum"] == 2
    counted = embedded([["Cluster"]], Cluster="blue-green", Seconds={"Values": [1, 4], "Counts": [3, 1]})
    invoke(cloud, probe_stack, {"print": [counted]})
    assert until(lambda: statistics(cloud, "Seconds", Cluster="blue-green"), 5)["Sum"] == 7
    seconds = statistics(cloud, "Seconds", Cluster="green", Rule="gpu")
    assert (seconds["SampleCount"], seconds["Maximum"]) == (2, 2.5)
    assert statistics(cloud, "Failed", Rule="gpu") is None
    listed = cloud.client("cloudwatch").list_metrics(Namespace="Probe", MetricName="Seconds")["Metrics"]
    assert {"Name": "Rule", "Value": "gpu"} in [dimension for metric in listed for dimension in metric["Dimensions"]]


@pytest.mark.parametrize(
    "line",
    [
        lambda: embedded([["Cluster"]], Failed=1),
        lambda: embedded([["Cluster"]], Cluster="", Failed=1),
        lambda: embedded([["Cluster"]], Cluster="x", Failed="many"),
        lambda: embedded([["Cluster"]], Cluster="x", Failed=[1] * 101),
        lambda: embedded([["Cluster"]], Cluster="x", Failed=1).replace('"Count"', '"Nodes"'),
        lambda: embedded([["Cluster"]], Cluster="x", Failed=1, age=timedelta(days=15)),
    ],
    ids=["no dimension", "empty dimension", "no number", "too many values", "no unit", "too old"],
)
def test_a_line_that_cloudwatch_makes_no_metric_of_is_counted(cloud, probe_stack, line):
    group = {"LogGroupName": probe_stack["LogGroup"]}
    before = statistics(cloud, "EMFValidationErrors", "AWS/Logs", **group) or {"Sum": 0}
    invoke(cloud, probe_stack, {"print": [line()]})

    def counted() -> bool:
        return (statistics(cloud, "EMFValidationErrors", "AWS/Logs", **group) or before)["Sum"] == before["Sum"] + 1

    until(counted, 5, "the error to be counted")
    assert statistics(cloud, "Failed", Cluster="x") is None


def test_a_line_below_the_functions_log_level_is_dropped_by_lambda(cloud, probe_stack):
    lines = [embedded([["Cluster"]], Cluster="levels", Failed=1, level=level) for level in ("TRACE", "DEBUG", "ERROR")]
    invoke(cloud, probe_stack, {"print": lines})
    until(lambda: (statistics(cloud, "Failed", Cluster="levels") or {}).get("SampleCount") == 2, 5, "two of three")


def test_an_alarm_looks_at_its_own_dimensions_and_at_nothing_else(cloud, probe_stack):
    def state() -> str:
        [alarm] = cloud.client("cloudwatch").describe_alarms(AlarmNames=[probe_stack["Alarm"]])["MetricAlarms"]
        return alarm["StateValue"]

    invoke(cloud, probe_stack, {"print": [embedded([["Cluster"]], Cluster="yellow", Failed=1)]})
    until(lambda: statistics(cloud, "Failed", Cluster="yellow"), 5)
    assert state() == "OK"
    invoke(cloud, probe_stack, {"print": [embedded([["Cluster"]], Cluster="blue", Failed=1)]})
    until(lambda: state() == "ALARM", 5, "the alarm")


def test_queues_and_functions_are_measured(cloud, probe_stack):
    cloud.client("sqs").send_message(QueueUrl=probe_stack["ClosedQueue"], MessageBody="a letter")
    alarm = {"AlarmNames": [probe_stack["LettersAlarm"]], "StateValue": "ALARM"}
    until(lambda: cloud.client("cloudwatch").describe_alarms(**alarm)["MetricAlarms"], 10, "the alarm")
    invoke(cloud, probe_stack, {"a": "poison"})
    function = {"FunctionName": probe_stack["Function"]}
    assert statistics(cloud, "Errors", "AWS/Lambda", **function)["Sum"] >= 1
    assert statistics(cloud, "Invocations", "AWS/Lambda", **function)["Sum"] >= 1


@pytest.mark.parametrize(
    "change",
    [
        {"type": "chart"},
        {"x": 24},
        {"x": 20, "width": 6},
        {"height": 0},
        {"properties": {}},
        {"properties": DASHBOARD["properties"] | {"region": ""}},
        {"properties": DASHBOARD["properties"] | {"view": "pretty"}},
        {"properties": DASHBOARD["properties"] | {"periods": 60}},
        {"properties": DASHBOARD["properties"] | {"metrics": [["Probe", "Failed", "Cluster"]]}},
        {"properties": DASHBOARD["properties"] | {"metrics": [[{"label": "nothing"}]]}},
    ],
)
def test_a_dashboard_that_cloudwatch_would_refuse_is_refused(cloud, change):
    cloudwatch = cloud.client("cloudwatch")
    cloudwatch.put_dashboard(DashboardName="fine", DashboardBody=json.dumps({"widgets": [DASHBOARD]}))
    with refused("InvalidParameterInput"):
        cloudwatch.put_dashboard(DashboardName="wrong", DashboardBody=json.dumps({"widgets": [DASHBOARD | change]}))
    with refused("InvalidParameterInput"):
        cloudwatch.put_dashboard(DashboardName="wrong", DashboardBody="{")


def test_a_dashboard_says_which_metrics_it_shows():
    search = """SEARCH('{Probe,Cluster,Reason} MetricName="Skipped" Cluster="blue"', 'Sum')"""
    widget = {"properties": {"metrics": [*DASHBOARD["properties"]["metrics"], [{"expression": search}]]}}
    assert dashboards.metrics(json.dumps({"widgets": [DASHBOARD | widget]})) == {
        ("Probe", "Failed", frozenset({"Cluster"})),
        ("Probe", "Skipped", frozenset({"Cluster", "Reason"})),
    }


def embedded(dimensions: list[list[str]], age: timedelta = timedelta(), **members) -> str:
    """Returns a line in embedded metric format, of the numbers among its members."""
    metrics = [{"Name": name, "Unit": "Count"} for name in ("Failed", "Seconds") if name in members]
    directive = {"Namespace": "Probe", "Dimensions": dimensions, "Metrics": metrics}
    moment = round((time.time() - age.total_seconds()) * 1000)
    return json.dumps({"_aws": {"Timestamp": moment, "CloudWatchMetrics": [directive]}, **members})


def statistics(cloud: LocalCloud, name: str, namespace: str = "Probe", **dimensions: str) -> dict | None:
    """Returns what CloudWatch says of the last ten minutes, None where it has nothing."""
    now = datetime.now(UTC)
    found = cloud.client("cloudwatch").get_metric_statistics(
        Namespace=namespace,
        MetricName=name,
        Dimensions=[{"Name": key, "Value": value} for key, value in dimensions.items()],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=10),
        Period=3600 * 24,
        Statistics=["Sum", "SampleCount", "Maximum"],
    )["Datapoints"]
    return found[0] if found else None
