"""Tests what the deployed stack makes of reports: jobs, nodes, records, metrics, retries."""

import json
import re
import time
from collections import Counter

import pytest
from jobs import Jobs
from settling import NAMESPACE, Settling, ended, hybrid, line, node, not_for_it, outcomes, report, totals
from uploaded import Uploaded

from local import images
from local.client import ROOT, until

CLUSTER = {"aws:eks:cluster-name": "results"}
EVENTS = ROOT / "events"
OF_CLUSTER = {"ClusterName": "results"}
OF_RULE = {**OF_CLUSTER, "Rule": "default", "Trigger": "push"}
CUT = "---Output truncated---"

# StatusDetails, the reason it becomes, whether a retry is worth it.
ENDS = [
    ("Failed", "unreported", True),
    ("DeliveryTimedOut", "delivery-timed-out", True),
    ("ExecutionTimedOut", "execution-timed-out", True),
    ("Undeliverable", "undeliverable", True),
    ("Terminated", "terminated", True),
    ("RateExceeded", "rate-exceeded", True),
    ("Cancelled", "cancelled", False),
    ("AccessDenied", "access-denied", False),
]


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="results")
    stack.deploy(ClusterName="results")
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def settling(cloud, stack):
    return Settling(cloud, stack)


# ── Reports ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_push_becomes_a_job_a_record_and_metrics(cloud, stack, settling):
    with cloud.holding_events("aws.ec2"):  # a launch's command would bring the image as well
        warm = cloud.launch(CLUSTER, online_after=0)
        cloud.until_online(warm)
    before = {name: settling.metric(name, **OF_RULE) for name in ("NodesPulled", "PulledBytes", "TimeToWarm")}
    digest = cloud.push("team/results", "v1", images.image("results", layer_bytes=1 << 20))
    [command] = until(lambda: [c for c in stack.commands("push") if digest in c["Parameters"]["images"][0]], 20)
    job = settling.job(command["CommandId"], targets=1, pulled=1)
    assert (job["cached"], job["skipped"], job["failed"], job["retried"]) == (0, 0, 0, 0)
    assert (job["trigger"], job["rule"], job["slowest_node"]) == ("push", "default", warm)
    assert job["bytes"] > 1 << 20
    assert job["images"] == [f"{cloud.registry_host}/team/results:v1@{digest}"]
    [record] = settling.outcomes.records(command["CommandId"])
    assert (record["node"], record["status"], record["bytes"]) == (warm, "pulled", job["bytes"])
    assert (record["repository"], record["tag"], record["digest"]) == ("team/results", "v1", digest)
    assert {"trigger", "date"}.isdisjoint(record)
    [key] = [key for key, lines in settling.outcomes.objects().items() if record in lines]
    assert re.fullmatch(r"records/trigger=push/date=\d{4}-\d\d-\d\d/.+\.jsonl", key)
    grown = {name: settling.metric(name, **OF_RULE) - value for name, value in before.items()}
    assert (grown["NodesPulled"], grown["PulledBytes"]) == (1, job["bytes"])
    assert 0 < grown["TimeToWarm"] < 60
    cloud.terminate(warm)


@pytest.fixture(scope="module")
def ends(settling):
    """Commands that end in every way, each on a node that says nothing and on one that has pulled one of two images."""
    pulled, missing = settling.image("a"), settling.image("b")
    staged = {}
    for details, *_ in ENDS:
        silent, half = node(), node()
        endings = {silent: {"details": details}, half: ended(line(pulled), details=details)}
        staged[details] = (settling.command(endings, pulled, missing), silent, half)
    return staged


@pytest.mark.parametrize(("details", "reason", "retried"), ENDS)
def test_every_way_to_end_is_told_and_tried_again_where_it_helps(settling, ends, details, reason, retried):
    command, silent, half = ends[details]
    settling.job(command, targets=2, failed=2, pulled=0)
    rows = settling.outcomes.nodes(command)
    assert outcomes(rows[silent]) == [("failed", reason)] * 2
    ran = details in ("Failed", "ExecutionTimedOut")
    assert outcomes(rows[half]) == [("pulled", "") if ran else ("failed", reason), ("failed", reason)]
    assert rows[silent]["retrying"] is rows[half]["retrying"] is retried
    records = settling.outcomes.records(command)
    assert (
        Counter((record["node"], record["reason"], record["retrying"]) for record in records)[silent, reason, retried]
        == 2
    )


@pytest.fixture(scope="module")
def reports(settling):
    """One node per strange report, all of one command with two images."""
    first, second = settling.image("a"), settling.image("b")
    long = report(line(first), *[line(f"{settling.image()}{n:060}") for n in range(100)], line(second))
    older = {"image": first, "digest": first.partition("@")[2], "status": "cached"}
    said = {
        "cut": {"stdout": long},
        "empty": {"stdout": ""},
        "garbled": {"stdout": report("{\x00\ufffd", '{"image": "', "null", "7", line(second))},
        "half a line": {"stdout": report(line(first)) + json.dumps(line(second))[:40]},
        "older": {"stdout": report(older, {**older, "image": second})},
        "newer": {"stdout": report(line(first, speed="fast", layers=[1, 2]), line(second, "skipped", "too-old"))},
        "foreign": {"stdout": report(line(first), line(second), line(settling.image("c"), "failed", "registry"))},
        "twice": {"stdout": report(line(first, "failed", "registry"), line(second), line(first))},
        "unsupported": {"details": "Failed", "exit_code": 2, "stderr": "prefetch-images: this node is not supported\n"},
    }
    nodes = {name: node() for name in said}
    command = settling.command({nodes[name]: ending for name, ending in said.items()}, first, second)
    settling.job(command, targets=len(said))
    settling.until_quiet()
    rows = settling.outcomes.nodes(command)
    return {name: rows[nodes[name]] for name in said}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cut", [("pulled", ""), ("failed", "unreported")]),
        ("empty", [("failed", "unreported"), ("failed", "unreported")]),
        ("garbled", [("failed", "unreported"), ("pulled", "")]),
        ("half a line", [("pulled", ""), ("failed", "unreported")]),
        ("older", [("cached", ""), ("cached", "")]),
        ("newer", [("pulled", ""), ("skipped", "too-old")]),
        ("twice", [("pulled", ""), ("pulled", "")]),
        ("unsupported", [("failed", "unsupported"), ("failed", "unsupported")]),
    ],
)
def test_a_report_is_read_as_far_as_it_can_be(reports, name, expected):
    assert outcomes(reports[name]) == expected


def test_a_line_of_another_image_is_no_outcome_of_the_command(settling, reports):
    known = {settling.image("a"), settling.image("b")}
    assert known <= reports["foreign"]["images"].keys()
    assert reports["cut"]["images"].keys() == known


def test_a_node_that_cannot_run_the_document_is_none_of_the_job(stack, settling):
    before = {name: settling.metric(name, **OF_CLUSTER) for name in ("NodesFailed", "NodesSkipped", "NodesRetried")}
    image = settling.image()
    windows = {node(): ending for ending in not_for_it()}
    outside = {hybrid(): ended(line(image)), hybrid(): {"details": "AccessDenied"}}
    command = settling.command({**windows, **outside, node(): ended(line(image))})
    job = settling.job(command, targets=6, pulled=1, not_applicable=5)
    assert (job["skipped"], job["failed"], job["retrying"]) == (0, 0, 0)
    rows = settling.outcomes.nodes(command)
    assert {outcomes(rows[id_])[0] for id_ in windows} == {("skipped", "invalid-platform")}
    assert {outcomes(rows[id_])[0] for id_ in outside} == {("skipped", "hybrid-node")}
    assert len(settling.outcomes.records(command)) == 6
    assert {name: settling.metric(name, **OF_CLUSTER) for name in before} == before
    assert settling.letters() == []
    told = stack.invoke("Jobs", {"route": f"GET /jobs/{command}"})
    assert (told["state"], told["nodes"]["done"], told["nodes"]["notApplicable"]) == ("done", 6, 5)


def test_a_push_to_a_cluster_with_a_windows_node_and_a_machine_outside_ec2_ends(cloud, stack, settling):
    with cloud.holding_events("aws.ec2"):
        [linux, windows] = [
            cloud.launch(CLUSTER, online_after=0, containerd="none", platform=platform, endings=endings)
            for platform, endings in (("Linux", [ended(line(settling.image()))]), ("Windows", []))
        ]
        outside = cloud.register(CLUSTER, online_after=0)
        cloud.until_online(linux, windows)
    digest = cloud.push("team/mixed", "v1", images.image("mixed"))
    [command] = until(lambda: [c for c in stack.commands("push") if digest in c["Parameters"]["images"][0]], 20)
    settling.job(command["CommandId"], targets=3, not_applicable=2, failed=0)
    rows = settling.outcomes.nodes(command["CommandId"])
    assert outcomes(rows[windows]) == [("skipped", "invalid-platform")]
    assert outcomes(rows[outside]) == [("skipped", "hybrid-node")]
    assert settling.letters() == []
    told = stack.invoke("Jobs", {"route": f"GET /jobs/{command['CommandId']}"})
    assert (told["state"], told["nodes"]["notApplicable"]) == ("done", 2)
    cloud.remove([linux, windows, outside])


def test_a_node_that_can_hold_some_of_the_images_is_warm_for_them_and_shows_why_it_lacks_the_others(stack, settling):
    first, second = settling.image("a"), settling.image("b")
    before = settling.metric("NodesSkipped", **OF_CLUSTER)
    arm, amd = node(), node()
    endings = {amd: ended(line(first), line(second)), arm: ended(line(first), line(second, "skipped", "platform"))}
    command = settling.command(endings, first, second)
    job = settling.job(command, targets=2, pulled=2)
    assert (job["skipped"], job["not_applicable"]) == (0, 0)
    assert outcomes(settling.outcomes.nodes(command)[arm]) == [("pulled", ""), ("skipped", "platform")]
    told = stack.invoke("Jobs", {"route": f"GET /jobs/{command}"})
    assert {outcome["node"]: outcome["status"] for outcome in told["outcomes"]} == {arm: "pulled", amd: "pulled"}
    lone = settling.command({arm: ended(line(second, "skipped", "platform")), amd: ended(line(second))}, second)
    settling.job(lone, targets=2, pulled=1, not_applicable=1)
    assert settling.metric("NodesSkipped", **OF_CLUSTER) == before


def test_a_boot_that_a_command_brings_along_is_a_job_of_its_own(stack, settling):
    found, brought, booted = settling.image("found"), settling.image("brought"), node()
    began = int(time.time()) - 90
    boot = {"rule": "default", "began": began, "ended": began + 42}
    ending = ended(line(found, "cached"), line(brought, boot=boot))
    command = settling.command({booted: ending}, found, comment="launch rule=default attempt=1")
    settling.job(command, targets=1, cached=1, pulled=0)
    assert outcomes(settling.outcomes.nodes(command)[booted]) == [("cached", "")]
    records = [record for lines in settling.outcomes.objects().values() for record in lines]
    [record] = [record for record in records if (record["node"], record["image"]) == (booted, brought)]
    told = stack.invoke("Jobs", {"route": f"GET /jobs/{record['job']}"})
    assert (told["trigger"], told["rule"], told["state"]) == ("boot", "default", "done")
    assert (told["nodes"]["pulled"], told["images"]) == (1, [brought])
    assert settling.metric("TimeToWarm", **OF_CLUSTER, Rule="default", Trigger="boot") == 42


def test_a_command_that_somebody_sent_by_hand_is_nobodys_job(cloud, settling):
    function, image = settling.function("NodeResult"), settling.image()
    cloud.forget_calls()
    command = settling.command({node(): ended(line(image, "failed", "registry"))}, comment="just looking")
    until(lambda: cloud.calls(function=function).get("ssm:ListCommands"), 10, "its event to be looked at")
    settling.until_quiet()
    assert settling.outcomes.job(command) is None
    assert settling.letters() == []


@pytest.mark.parametrize("path", sorted(EVENTS.glob("node-result.*.json")), ids=lambda path: path.stem)
def test_every_recorded_result_is_decided_of_by_the_real_function(stack, path):
    answer = stack.invoke("NodeResult", json.loads(path.read_text()))
    assert "error" not in answer or "no-event" in path.stem


# ── Events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_events_in_any_order_and_number_give_the_same_rows(settling):
    orders = [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (2, 2, 0, 4, 4, 1, 3, 0, 1, 2), (3, 1, 0, 2, 0, 2, 4, 3)]
    states = [settling.in_order(order) for order in orders]
    expected = {"targets": 2, "pulled": 2, "failed": 0, "retried": 1, "bytes": 2000, "age": 300, "slowest_seconds": 300}
    for state in states:
        assert expected.items() <= state["job"].items()
        assert state == states[0]


def test_a_thousand_nodes_that_end_at_once_are_each_counted_once(cloud, settling):
    image = settling.image()
    kinds = (
        [ended(line(image))] * 90 + [ended(line(image, "cached"))] * 8 + [ended(line(image, "failed", "denied"))] * 2
    )
    nodes = {node(): kinds[n % 100] for n in range(1000)}
    before = settling.outcomes.totals("push")
    cloud.forget_calls()
    command = settling.command(nodes)
    job = settling.job(command, targets=1000, pulled=900, cached=80, failed=20)
    calls = cloud.calls(function=settling.function("NodeResult"))
    assert (job["bytes"], job["retried"], job["skipped"]) == (900_000, 0, 0)
    assert settling.outcomes.nodes(command).keys() == nodes.keys()
    records = Counter(record["node"] for record in settling.outcomes.records(command))
    assert records == dict.fromkeys(nodes, 1)
    after = settling.outcomes.totals("push")
    assert [after[name] - before.get(name, 0) for name in ("pulled", "cached", "failed")] == [900, 80, 20]
    assert settling.letters() == []
    assert sum(calls.values()) <= 2.2 * len(nodes), calls


def test_a_command_that_found_no_node_is_loud_once(cloud, settling):
    before = settling.metric("CommandsWithoutNodes", **OF_CLUSTER)
    command = settling.command({})
    assert settling.job(command, targets=0)["images"] == [settling.image()]
    assert settling.metric("CommandsWithoutNodes", **OF_CLUSTER) == before + 1
    [event] = [event for event in cloud.events() if event["detail"].get("command-id") == command]
    cloud.send_event(event)
    settling.until_quiet()
    assert settling.metric("CommandsWithoutNodes", **OF_CLUSTER) == before + 1
    assert settling.alarm("CommandsWithoutNodes") == "ALARM"


def test_a_poison_message_and_only_it_ends_in_the_dead_letter_queue(cloud, settling):
    sqs, queue = cloud.client("sqs"), settling.resources["ResultQueue"]
    letters = {"deadLetterTargetArn": settling.arn("ResultDeadLetters"), "maxReceiveCount": 3}
    kept = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["RedrivePolicy"])["Attributes"]
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"RedrivePolicy": json.dumps(letters)})
    sqs.send_message(QueueUrl=queue, MessageBody='{"detail": "poison"}')
    command = settling.command({node(): ended(line(settling.image())) for _ in range(3)})
    settling.job(command, targets=3, pulled=3)
    until(lambda: settling.letters() == ['{"detail": "poison"}'], 30, "the poison alone to be put away")
    sqs.set_queue_attributes(QueueUrl=queue, Attributes=kept)
    until(lambda: settling.alarm("ResultDeadLettersNotEmpty") == "ALARM", 10, "the alarm")
    sqs.purge_queue(QueueUrl=settling.resources["ResultDeadLetters"])


# ── Sweep ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_no_event_told_is_settled_by_the_sweep_and_asked_for_once(cloud, settling):
    image, told, silent = settling.image(), node(), node()
    with cloud.holding_events("aws.ssm"):
        command = settling.command({told: ended(line(image)), silent: None}, age=6 * 3600)
        lonely = settling.command({}, age=6 * 3600)
    cloud.fire(settling.resources["NodeResultSweep"])
    settling.job(command, pulled=1, failed=1)
    settling.job(lonely, targets=0)
    assert outcomes(settling.outcomes.nodes(command)[silent]) == [("failed", "overdue")]
    cloud.forget_calls()
    cloud.fire(settling.resources["NodeResultSweep"])
    function = settling.function("NodeResult")
    until(lambda: cloud.calls(function=function).get("ssm:ListCommands"), 10, "the second sweep")
    settling.until_quiet()
    assert "ssm:ListCommandInvocations" not in cloud.calls(function=function)


def test_a_sweep_finds_nodes_that_are_none_of_the_job_as_it_finds_others(cloud, settling):
    image = settling.image()
    with cloud.holding_events("aws.ssm"):
        endings = {hybrid(): None, node(): not_for_it()[1], node(): ended(line(image))}
        command = settling.command(endings, age=6 * 3600)
    cloud.fire(settling.resources["NodeResultSweep"])
    settling.job(command, pulled=1, not_applicable=2, failed=0, retrying=0)
    assert settling.letters() == []


def test_a_throttled_sweep_is_taken_up_by_the_next(cloud, settling):
    with cloud.holding_events("aws.ssm"):
        command = settling.command({node(): ended(line(settling.image()))}, age=6 * 3600)
    function = settling.function("NodeResult")
    cloud.forget_calls()
    cloud.throttle("ssm", "ListCommandInvocations", 3, function=function)
    cloud.fire(settling.resources["NodeResultSweep"])
    until(lambda: cloud.calls(function=function).get("ssm:ListCommandInvocations") == 3, 20, "the sweep to give up")
    assert not settling.outcomes.nodes(command)
    cloud.fire(settling.resources["NodeResultSweep"])
    settling.job(command, pulled=1)


# ── Metrics ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_metric_that_the_dashboard_and_the_alarms_name_is_measured(cloud, stack, settling):
    image = settling.image()
    kinds = (
        ended(line(image), totals(podImages=2, podImagesPresent=1, firstUsedBytes=1000)),
        ended(line(image, "cached")),
        ended(line(image, "skipped", "no-space")),
        ended(line(image, "failed", "denied")),
        ended(line(image, "failed", "registry")),
    )
    settling.job(settling.command({node(): kind for kind in kinds}), targets=5, failed=2)
    settling.job(settling.command({}), targets=0)
    for function in ("ImagePush", "NodeLaunch"):
        stack.invoke(function, {})
    stack.invoke("Jobs", {"count": True})
    Jobs(cloud, stack).get("/jobs/stats")
    # One bake fails, for there is no such cluster, and one runs out of time.
    cloud.fault_state("TakeRow", "pause", execution="late")
    for name in ("late", "without-cluster"):
        machine = settling.resources["BakeSnapshot"]
        cloud.client("stepfunctions").start_execution(stateMachineArn=machine, name=name)
    cloud.expire("late")
    # Those of a stack that observes are measured there.
    named = {metric for metric in settling.watched() if metric[1] != "CommandsObserved"}
    assert len({name for namespace, name, _ in named if namespace == NAMESPACE}) >= 8
    until(lambda: settling.measured() >= named, 10, f"{named - settling.measured()} to be measured")


def test_every_dimension_that_the_dashboard_names_is_one_of_the_stack(settling):
    queues = {
        url.rpartition("/")[2] for name, url in settling.resources.items() if "Queue" in name or "Letters" in name
    }
    own = {"QueueName": queues, "FunctionName": set(settling.resources.values()), "ClusterName": {"results"}}
    for widget in json.loads(settling.dashboard())["widgets"]:
        for row in widget["properties"].get("metrics", []):
            texts = [part for part in row if isinstance(part, str)]
            for name, value in zip(texts[2::2], texts[3::2], strict=True):
                assert value in own[name]


def test_no_line_of_metrics_was_one_that_cloudwatch_cannot_read(cloud, settling):
    group = [{"Name": "LogGroupName", "Value": settling.resources["NodeResultLogs"]}]
    assert cloud.client("cloudwatch").list_metrics(Namespace="AWS/Logs", Dimensions=group)["Metrics"] == []
