"""The template's dashboard and alarms show and watch what this stack emits."""

import itertools
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from template import FUNCTIONS, QUEUES, RESOURCES, TEMPLATE, reference

from local.cloudwatch import dashboards

ALARMS = {
    name: resource["Properties"] for name, resource in RESOURCES.items() if resource["Type"] == "AWS::CloudWatch::Alarm"
}

NAMESPACE = "EKSImagePrefetch"
BY_CLUSTER, BY_RULE, BY_REASON = {"ClusterName"}, {"ClusterName", "Rule", "Trigger"}, {"ClusterName", "Reason"}
METRICS = {
    "NodesPulled": [BY_CLUSTER, BY_RULE],
    "NodesCached": [BY_CLUSTER, BY_RULE],
    "NodesSkipped": [BY_CLUSTER, BY_RULE, BY_REASON],
    "NodesFailed": [BY_CLUSTER, BY_RULE, BY_REASON],
    "NodesRetried": [BY_CLUSTER, BY_RULE],
    "PullSeconds": [BY_CLUSTER, BY_RULE],
    "PulledBytes": [BY_CLUSTER, BY_RULE],
    "TimeToWarm": [BY_CLUSTER, BY_RULE],
    "PodImages": [BY_CLUSTER, BY_RULE],
    "PodImagesPresent": [BY_CLUSTER, BY_RULE],
    "FirstUsedBytes": [BY_CLUSTER, BY_RULE],
    "CommandsWithoutNodes": [BY_CLUSTER, BY_RULE],
    "CommandsObserved": [BY_CLUSTER, BY_RULE],
    "NodesWarm": [BY_CLUSTER],
    "NodesCold": [BY_CLUSTER],
    "NodesUnreachable": [BY_CLUSTER],
}
"""Lists what the functions emit, each with its sets of dimensions: node-result most of it, the senders what is
observed, jobs the nodes that it counts."""

COUNTS = {"NodesWarm", "NodesCold", "NodesUnreachable"}
"""Those that say how many there are now: a sum of them over time is no number of nodes."""

METRICS_OF_AWS = {
    "AWS/SQS": {
        "ApproximateAgeOfOldestMessage",
        "ApproximateNumberOfMessagesDelayed",
        "ApproximateNumberOfMessagesNotVisible",
        "ApproximateNumberOfMessagesVisible",
    },
    "AWS/Lambda": {"Duration", "Errors", "Throttles"},
    "AWS/States": {"ExecutionsFailed", "ExecutionsTimedOut"},
    "AWS/ApiGateway": {"5xx"},
}
"""Lists what is used of what SQS, Lambda, Step Functions and HTTP APIs emit (their developer guides)."""

DIMENSIONS_OF_AWS = {
    "AWS/SQS": [{"QueueName": f"{name}.QueueName"} for name in QUEUES],
    "AWS/Lambda": [{"FunctionName": name} for name in FUNCTIONS],
    "AWS/States": [{"StateMachineArn": "BakeSnapshot"}],
    "AWS/ApiGateway": [{"ApiId": "JobsApi"}],
}
"""The dimensions by which this stack's own are told from others, as the template refers to them."""


def test_the_dashboard_fits_on_its_grid():
    places = [
        {(x, y) for x in range(w["x"], w["x"] + w["width"]) for y in range(w["y"], w["y"] + w["height"])}
        for w in dashboard()["widgets"]
    ]
    assert all(x < 24 for place in places for x, _ in place)
    assert not any(one & other for one, other in itertools.combinations(places, 2))


def test_every_widget_shows_metrics_that_this_stack_emits():
    widgets = [widget["properties"] for widget in dashboard()["widgets"] if widget["type"] == "metric"]
    for widget in widgets:
        assert widget["region"] == "AWS::Region"
        metrics = list(metrics_of(widget))
        assert metrics
        for metric in metrics:
            assert is_emitted(*metric), f"{widget['title']}: {metric}"


def test_every_metric_of_ours_is_shown():
    widgets = [widget["properties"] for widget in dashboard()["widgets"] if widget["type"] == "metric"]
    shown = {name for widget in widgets for namespace, name, _ in metrics_of(widget) if namespace == NAMESPACE}
    assert shown == set(METRICS)


def test_what_is_counted_now_is_never_summed_and_what_is_reported_is_never_called_nodes():
    [schedule] = [e["Properties"] for name, e in RESOURCES["Jobs"]["Properties"]["Events"].items() if name == "Count"]
    assert (schedule["Schedule"], json.loads(schedule["Input"])) == ("rate(5 minutes)", {"count": True})
    for widget in [widget["properties"] for widget in dashboard()["widgets"] if widget["type"] == "metric"]:
        shown = {name for namespace, name, _ in metrics_of(widget) if namespace == NAMESPACE}
        if shown & COUNTS:
            assert shown <= COUNTS, widget["title"]
            assert (widget["stat"], widget.get("setPeriodToTimeRange")) == ("Average", None)
            # A count that fails leaves nothing to be seen after three of them.
            assert widget["view"] == "timeSeries" or (widget["start"], widget["period"]) == ("-PT15M", 60)
        elif shown & {"NodesPulled", "NodesCached"}:
            assert widget["title"].startswith("Reports")


def test_the_share_of_warm_nodes_is_of_those_that_are_counted():
    shown, ids = gauge("Warm nodes, %")
    assert ids == {"warm": "NodesWarm", "cold": "NodesCold", "unreachable": "NodesUnreachable"}
    for values, share in (
        ({"warm": 0, "cold": 50, "unreachable": 0}, 0),
        ({"warm": 36, "cold": 9, "unreachable": 3}, 75),
        # A metric that has never been has no data, and so has all that is reckoned with it.
        ({"warm": 3, "cold": 1}, 75),
        ({"warm": 2}, 100),
        ({"cold": 2}, 0),
        ({"warm": 0, "cold": 0, "unreachable": 0}, None),
        ({}, None),
    ):
        assert dashboards.shown(shown["metrics"], values) == share, values


def test_the_share_of_images_that_were_there_is_of_all_images_of_new_pods():
    shown, ids = gauge("Images of pods that were there before, %")
    assert ids == {"present": "PodImagesPresent", "images": "PodImages"}
    assert (shown["stat"], shown["setPeriodToTimeRange"]) == ("Sum", True)
    for values, share in (({"images": 8, "present": 6}, 75), ({"images": 8, "present": 0}, 0), ({}, None)):
        assert dashboards.shown(shown["metrics"], values) == share, values


def test_the_share_of_bytes_that_are_used_is_of_all_that_came_within_a_week():
    shown, ids = gauge("Prefetched bytes used within 7 days, %")
    assert ids == {"used": "FirstUsedBytes", "pulled": "PulledBytes"}
    assert (shown["stat"], shown["setPeriodToTimeRange"], shown["start"]) == ("Sum", True, "-P7D")
    for values, share in (({"pulled": 400, "used": 300}, 75), ({"pulled": 400}, 0), ({"used": 300}, None)):
        assert dashboards.shown(shown["metrics"], values) == share, values


def test_every_alarm_is_shown():
    [shown] = [widget["properties"]["alarms"] for widget in dashboard()["widgets"] if widget["type"] == "alarm"]
    assert sorted(shown) == sorted(f"{name}.Arn" for name in ALARMS)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_watches_what_this_stack_emits_and_calls_only_where_there_is_a_topic(name):
    alarm = ALARMS[name]
    dimensions = {dimension["Name"]: reference(dimension["Value"]) for dimension in alarm["Dimensions"]}
    assert is_emitted(alarm["Namespace"], alarm["MetricName"], dimensions)
    assert alarm["TreatMissingData"] == "notBreaching"
    assert alarm["AlarmActions"] == {"Fn::If": ["HasAlarmTopic", [{"Ref": "AlarmTopicArn"}], {"Ref": "AWS::NoValue"}]}
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("GreaterThanThreshold", 0)


@pytest.mark.parametrize("name", ALARMS)
def test_an_alarm_has_its_resources_name_after_the_stacks(name):
    words = re.sub("(?<!^)(?=[A-Z])", "-", name).lower()
    assert ALARMS[name]["AlarmName"] == {"Fn::Sub": f"${{AWS::StackName}}-{words}"}
    # A stack's name has up to 128 characters, an alarm's 255 (CloudFormation, CloudWatch).
    assert len(words) < 255 - 128


OF_OTHERS = ("BakePlan", "NodeProgram", "SettingsCheck")
"""Names functions without alarms: bake-plan's errors fail its bake, and those of the other two the deployment."""


def test_every_dead_letter_queue_every_function_and_the_bakes_have_an_alarm():
    watched = {(alarm["MetricName"], reference(alarm["Dimensions"][0]["Value"])) for alarm in ALARMS.values()}
    for queue in QUEUES:
        letters = ("ApproximateNumberOfMessagesVisible", f"{queue}.QueueName")
        assert (letters in watched) is queue.endswith("DeadLetters")
    assert {("Errors", name) for name in FUNCTIONS if name not in OF_OTHERS} <= watched
    assert {(name, "BakeSnapshot") for name in ("ExecutionsFailed", "ExecutionsTimedOut")} <= watched
    assert {(name, "ClusterName") for name in ("NodesFailed", "CommandsWithoutNodes")} <= watched


@pytest.mark.parametrize("function", [name for name in FUNCTIONS if name not in OF_OTHERS])
def test_an_error_that_a_later_try_heals_is_no_alarm(function):
    """It is one where all have failed, for longer than the tries of an event or a message take."""
    [alarm] = [ALARMS[f"{function}Errors"]]
    properties = RESOURCES[function]["Properties"]
    timeout = properties.get("Timeout", TEMPLATE["Globals"]["Function"]["Timeout"])
    queues = [event["Properties"]["Queue"] for event in properties["Events"].values() if event["Type"] == "SQS"]
    queues = [RESOURCES[queue["Fn::GetAtt"][0]]["Properties"] for queue in queues]
    # Lambda tries an event three times, after one minute and two (Lambda's developer guide).
    tries = [3 * timeout + 180, *(q["VisibilityTimeout"] * q["RedrivePolicy"]["maxReceiveCount"] for q in queues)]
    assert alarm["Statistic"] == "Minimum"
    assert alarm["Period"] * (alarm["EvaluationPeriods"] - 1) >= max(tries)


def gauge(title: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Returns a gauge by its title, and which metrics it reckons with, by their ids."""
    widgets = [widget["properties"] for widget in dashboard()["widgets"]]
    [found] = [widget for widget in widgets if (widget.get("view"), widget["title"]) == ("gauge", title)]
    return found, {row[-1]["id"]: row[1] for row in found["metrics"] if isinstance(row[0], str)}


def dashboard() -> dict:
    """Returns the dashboard's body as CloudWatch gets it, with the template's references in place of their values."""
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    known = RESOURCES.keys() | TEMPLATE["Parameters"].keys() | {"AWS::Region"}

    def value(match: re.Match) -> str:
        literal, name = match.groups()
        assert literal or name.partition(".")[0] in known, name
        return f"${{{name}}}" if literal else name

    return json.loads(re.sub(r"\$\{(!?)([^}]+)\}", value, body))


def metrics_of(widget: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, str] | set[str]]]:
    """Yields the metrics of a widget: namespace, name and dimensions, of a search their names alone."""
    ids = {metric[-1].get("id") for metric in widget["metrics"] if isinstance(metric[-1], dict)}
    for *metric, options in widget["metrics"]:
        expression = options.get("expression", "")
        if metric:
            namespace, name, *dimensions = metric
            yield namespace, name, dict(zip(dimensions[::2], dimensions[1::2], strict=True))
        elif expression.startswith("SEARCH"):
            yield search(expression)
        else:
            assert set(re.findall(r"[a-z]\w*", expression)) <= ids


def search(expression: str) -> tuple[str, str, set[str]]:
    """Returns what a search finds, which must be this cluster's alone (CloudWatch user guide, search expressions)."""
    form = r"""SEARCH\('\{([\w,]+)\} MetricName="(\w+)" ClusterName="ClusterName"', '(?:Sum|p90)'\)"""
    schema, name = re.fullmatch(form, expression).groups()
    namespace, *dimensions = schema.split(",")
    return namespace, name, set(dimensions)


def is_emitted(namespace: str, name: str, dimensions: dict[str, str] | set[str]) -> bool:
    """Tells whether this stack's functions and queues emit the metric under these dimensions."""
    if namespace == NAMESPACE:
        named = isinstance(dimensions, set) or dimensions["ClusterName"] == "ClusterName"
        return named and set(dimensions) in METRICS[name]
    return name in METRICS_OF_AWS[namespace] and dimensions in DIMENSIONS_OF_AWS[namespace]
