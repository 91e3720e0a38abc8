"""The deployed stack's count of warm nodes: what the dashboard shows of now."""

import itertools
import json
from datetime import UTC, datetime, timedelta

import pytest
from jobs import SECONDS, Jobs, fails, pulls
from uploaded import Uploaded

from local.client import LocalCloud, until
from local.stack import EVERYTHING

CLUSTER = {"aws:eks:cluster-name": "count"}
METRICS = {"warm": "NodesWarm", "cold": "NodesCold", "unreachable": "NodesUnreachable"}
RULES = [{"name": "default", "repositories": ["count/*"], **EVERYTHING}]

_versions = itertools.count(1)


@pytest.fixture(scope="module")
def jobs(cloud):
    stack = Uploaded(cloud, name="count")
    stack.deploy(ClusterName="count", Rules=json.dumps(RULES), JobsRateLimit="10000")
    with cloud.holding_events("aws.ecr"):  # what is pushed is brought by jobs only
        yield Jobs(cloud, stack)
    stack.delete()


@pytest.fixture
def app(jobs):
    """The newest image of the one repository."""
    return jobs.push("count/app", f"v{next(_versions)}")


@pytest.fixture(autouse=True)
def nothing_is_left(cloud, jobs):
    yield
    cloud.forget_faults()
    jobs.clear()


def test_three_nodes_are_three_however_often_they_were_reconciled(cloud, jobs, app):
    jobs.nodes(3, *[pulls(app)] * 4)
    before = metrics(cloud, "NodesPulled")
    for _ in range(4):
        reconciled(jobs)
    assert metrics(cloud, "NodesPulled") == before + 12
    assert scheduled_count(cloud, jobs) == {"warm": 3, "cold": 0, "unreachable": 0}


def test_a_push_that_fails_on_all_nodes_leaves_none_warm(cloud, jobs, app):
    nodes = jobs.nodes(3, *[pulls(app)] * 3)
    for _ in range(3):
        reconciled(jobs)
    assert scheduled_count(cloud, jobs) == {"warm": 3, "cold": 0, "unreachable": 0}
    tag = f"v{next(_versions)}"
    newer = jobs.push("count/app", tag)
    assert counted(jobs) == {"warm": 0, "cold": 3, "unreachable": 0, "leftOut": 0}
    for node in nodes:
        cloud.turn(node, endings=[fails(newer, reason="denied")])
    jobs.job(jobs.submitted(images=[f"count/app:{tag}"]), state="done", failed=3)
    assert scheduled_count(cloud, jobs) == {"warm": 0, "cold": 3, "unreachable": 0}


def test_a_node_that_cannot_be_reached_is_told_apart_and_one_that_cannot_run_it_counts_nowhere(cloud, jobs, app):
    warm, lost, _ = jobs.nodes(3, pulls(app))
    reconciled(jobs)
    others = [cloud.launch_many(1, CLUSTER, containerd="none", online_after=0, **knobs) for knobs in UNLIKE]
    cloud.client("ssm").describe_instance_information()
    cloud.turn(lost, online=False)
    assert counted(jobs) == {"warm": 2, "cold": 1, "unreachable": 2, "leftOut": 2}
    cloud.remove([node for nodes in others for node in nodes])
    assert counted(jobs) == {"warm": 2, "cold": 0, "unreachable": 1, "leftOut": 0}
    cloud.remove([warm])
    assert counted(jobs) == {"warm": 1, "cold": 0, "unreachable": 1, "leftOut": 0}


UNLIKE = ({}, {"managed": False}, {"platform": "Windows"}, {"operator": "eks.amazonaws.com"})
"""A node that has said nothing, one that never registered, and two that cannot run the document."""


def test_a_count_that_fails_leaves_no_number_and_no_dead_letter(cloud, jobs, app):
    jobs.nodes(1)
    before = metrics(cloud, "NodesCold", "SampleCount")
    cloud.forget_calls()
    cloud.throttle("ec2", "DescribeInstances", times=100, code="RequestLimitExceeded")
    answer = jobs.invoke({"count": True})
    assert (answer["status"], "nodes" in answer) == (503, False)
    tries = asked(cloud, jobs)
    cloud.fire(jobs.resources["JobsCount"])
    until(lambda: asked(cloud, jobs) == 2 * tries, SECONDS, "the count")
    cloud.forget_faults()
    assert scheduled_count(cloud, jobs) == {"warm": 0, "cold": 1, "unreachable": 0}
    assert metrics(cloud, "NodesCold", "SampleCount") == before + 1
    assert jobs.letters() == []


def test_alarms_are_named_for_the_stack_and_what_they_watch(cloud, jobs):
    pages = cloud.client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix="count-")
    names = {alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"]}
    assert {"count-nodes-failed", "count-jobs-dead-letters-not-empty", "count-bakes-timed-out"} <= names
    assert {jobs.resources[name] for name in ("NodesFailed", "JobsErrors", "BakesFailed")} <= names


def reconciled(jobs: Jobs) -> None:
    """Has every rule's newest images brought, and waits until each node has said so."""
    [rule] = jobs.invoke({"reconcile": True})["rules"]
    for command in rule["commands"]:
        jobs.job(command, state="done")

    def has_ended() -> bool:
        return all(command["Status"] not in ("Pending", "InProgress") for command in jobs.commands("reconcile"))

    until(has_ended, SECONDS, "the reconcile to end")


def asked(cloud: LocalCloud, jobs: Jobs) -> int:
    """Returns how often the function has asked EC2."""
    return cloud.calls("ec2", jobs.resources["Jobs"])["ec2:DescribeInstances"]


def counted(jobs: Jobs) -> dict[str, int]:
    """Returns what is answered to whoever asks for a count."""
    return jobs.invoke({"count": True})["nodes"]


def scheduled_count(cloud: LocalCloud, jobs: Jobs) -> dict[str, float]:
    """Returns what the schedule's next count adds to each metric."""
    before = {key: metrics(cloud, name) for key, name in METRICS.items()}
    samples = metrics(cloud, "NodesWarm", "SampleCount")
    cloud.fire(jobs.resources["JobsCount"])
    until(lambda: metrics(cloud, "NodesUnreachable", "SampleCount") > samples, SECONDS, "the count")
    return {key: metrics(cloud, name) - before[key] for key, name in METRICS.items()}


def metrics(cloud: LocalCloud, name: str, statistic: str = "Sum") -> float:
    """Returns what CloudWatch has of a metric of the cluster, 0 where it has nothing."""
    now = datetime.now(UTC)
    points = cloud.client("cloudwatch").get_metric_statistics(
        Namespace="EKSImagePrefetch",
        MetricName=name,
        Dimensions=[{"Name": "ClusterName", "Value": "count"}],
        StartTime=now - timedelta(days=1),
        EndTime=now + timedelta(days=1),
        Period=60 * 60 * 24 * 30,
        Statistics=[statistic],
    )["Datapoints"]
    return sum(point[statistic] for point in points)
