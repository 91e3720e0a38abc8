"""The local cloud's commands by script, its events in any order, and its faults."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from botocore.config import Config
from probe import credentials, invoke, refused

from local.client import LocalCloud, until
from local.ssm.scripted import STATUSES

WORD = {"word": ["a"]}
INVOCATION = "EC2 Command Invocation Status-change Notification"
COMMAND = "EC2 Command Status-change Notification"
TARGETS = [{"Key": "tag:pool", "Values": ["scripted"]}]


# ── Commands ────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("details", STATUSES)
def test_a_staged_command_ends_on_each_node_in_any_way_that_ssm_knows(cloud, ssm, probe_stack, details):
    node = "i-00000000000000001"
    ending = {"details": details, "stdout": "a line\n", "stderr": "why\n"}
    command = cloud.stage_command(probe_stack["Document"], WORD, "by script", {node: ending})
    invocation = ssm.get_command_invocation(CommandId=command, InstanceId=node)
    assert (invocation["Status"], invocation["StatusDetails"]) == (STATUSES[details], details)
    ran = details in ("Success", "Failed", "ExecutionTimedOut")
    assert invocation["StandardOutputContent"] == ("a line\n" if ran else "")
    assert invocation["ResponseCode"] == {"Success": 0, "Failed": 1}.get(details, -1)
    event = event_of(cloud, INVOCATION, command)
    assert (event["detail"]["status"], event["detail"]["instance-id"]) == (STATUSES[details], node)


def test_a_node_ends_its_next_commands_by_script(cloud, ssm, probe_stack):
    node = cloud.launch({"pool": "scripted"}, online_after=0, containerd="none", endings=[{"details": "Terminated"}])
    cloud.until_online(node)
    sent = {"DocumentName": probe_stack["Document"], "Targets": TARGETS, "Parameters": WORD}
    first = ssm.send_command(**sent)["Command"]["CommandId"]
    until(lambda: details_of(ssm, first, node) == "Terminated", 5, "the first command to end")
    second = ssm.send_command(**sent)["Command"]["CommandId"]
    until(lambda: details_of(ssm, second, node) == "Success", 5, "the second command to end")
    assert event_of(cloud, INVOCATION, first)["resources"][0].endswith(node)
    assert event_of(cloud, COMMAND, first)["resources"] == []
    cloud.terminate(node)


@pytest.mark.parametrize(
    ("platform", "said"),
    [
        ("Windows", "unsupported plugin: aws:runShellScript. Step name: say"),
        ("MacOS", "unsatisfied preconditions: '\"StringEquals\": [platformType, Linux]'. Step name: say"),
    ],
)
def test_a_node_of_another_platform_says_with_success_that_the_step_is_not_for_it(
    cloud, ssm, probe_stack, platform, said
):
    node = cloud.launch({"pool": "scripted"}, online_after=0, containerd="none", platform=platform)
    cloud.until_online(node)
    sent = {"DocumentName": probe_stack["Document"], "Targets": TARGETS, "Parameters": WORD}
    command = ssm.send_command(**sent)["Command"]["CommandId"]
    until(lambda: details_of(ssm, command, node) == "Success", 5, "the command to end")
    invocation = ssm.get_command_invocation(CommandId=command, InstanceId=node)
    assert invocation["StandardOutputContent"] == f"Step execution skipped due to {said}"
    assert invocation["ResponseCode"] == 0
    cloud.terminate(node)


def test_a_machine_outside_ec2_is_found_by_its_tags_and_known_to_ssm_alone(cloud, ssm, probe_stack):
    node = cloud.register({"pool": "hybrid"}, online_after=0, endings=[{"stdout": "a line\n"}])
    until(lambda: known(ssm, node), 5, "it to be registered")
    assert {"ResourceType": "ManagedInstance", "PingStatus": "Online"}.items() <= known(ssm, node)[0].items()
    targets = [{"Key": "tag:pool", "Values": ["hybrid"]}]
    sent = {"DocumentName": probe_stack["Document"], "Targets": targets, "Parameters": WORD}
    command = ssm.send_command(**sent)["Command"]["CommandId"]
    until(lambda: details_of(ssm, command, node) == "Success", 5, "the command to end")
    assert event_of(cloud, INVOCATION, command)["resources"][0].endswith(f":managed-instance/{node}")
    assert not cloud.client("ec2").describe_instances(Filters=[{"Name": "instance-id", "Values": [node]}])[
        "Reservations"
    ]
    cloud.remove([node])
    assert not known(ssm, node)


def test_a_thousand_nodes_end_at_once(cloud, ssm, probe_stack):
    nodes = {f"i-{n:017x}": {} for n in range(1000)}
    command = cloud.stage_command(probe_stack["Document"], WORD, "many", nodes)
    [listed] = ssm.list_commands(CommandId=command)["Commands"]
    assert (listed["Status"], listed["TargetCount"], listed["CompletedCount"]) == ("Success", 1000, 1000)
    pages = list(ssm.get_paginator("list_command_invocations").paginate(CommandId=command))
    assert [len(page["CommandInvocations"]) for page in pages] == [50] * 20
    assert {row["InstanceId"] for page in pages for row in page["CommandInvocations"]} == nodes.keys()


def test_a_command_cancelled_in_mid_roll_out_ends_where_it_runs_and_begins_nowhere(cloud, ssm, probe_stack):
    slow = {"online_after": 0, "containerd": "none", "endings": [{"seconds": 1, "details": "Success"}]}
    nodes = [cloud.launch({"pool": "cancelled"}, **slow) for _ in range(3)]
    cloud.until_online(*nodes)
    targets = [{"Key": "tag:pool", "Values": ["cancelled"]}]
    sent = {"DocumentName": probe_stack["Document"], "Targets": targets, "Parameters": WORD, "MaxConcurrency": "1"}
    command = ssm.send_command(**sent)["Command"]["CommandId"]
    until(lambda: "InProgress" in [details_of(ssm, command, node) for node in nodes], 5, "a node to begin")
    [running] = ssm.list_commands(CommandId=command)["Commands"]
    assert (running["TargetCount"], running["CompletedCount"]) == (3, 0)
    assert command in listed(ssm, Status="InProgress")
    ssm.cancel_command(CommandId=command)
    assert command in listed(ssm, Status="Cancelling")
    until(lambda: command in listed(ssm, Status="Cancelled"), 5, "the command to end")
    assert sorted(details_of(ssm, command, node) for node in nodes) == ["Cancelled", "Cancelled", "Success"]
    told = [e["detail"] for e in cloud.events(INVOCATION) if e["detail"]["command-id"] == command]
    assert sum(detail["status"] == "Cancelled" for detail in told) == 2
    ssm.cancel_command(CommandId=command)  # what has ended stays as it has
    assert command in listed(ssm, Status="Cancelled")
    for node in nodes:
        cloud.terminate(node)


def test_commands_are_listed_from_a_moment_on(cloud, ssm, probe_stack):
    old, new = (cloud.stage_command(probe_stack["Document"], WORD, "aged", {}, age) for age in (7200, 60))
    since = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    found = listed(ssm, InvokedAfter=since)
    assert (old in found, new in found) == (False, True)
    with refused("InvalidNextToken"):
        ssm.list_commands(NextToken="garbage")


def test_ten_thousand_nodes_are_there_at_once_and_paged(cloud, ssm):
    ids = cloud.launch_many(10_000, {"fleet": "large"}, containerd="none", online_after=0)
    ec2 = cloud.client("ec2")
    large = [{"Name": "tag:fleet", "Values": ["large"]}]
    page = ec2.describe_instances(Filters=large, MaxResults=1000)
    assert (len(page["Reservations"]), "NextToken" in page) == (1000, True)
    wanted = [{"Key": "InstanceIds", "Values": ids[:60]}]
    page = ssm.describe_instance_information(Filters=wanted, MaxResults=50)
    assert (len(page["InstanceInformationList"]), "NextToken" in page) == (50, True)
    with refused("InvalidNextToken"):
        ec2.describe_instances(MaxResults=5, NextToken="garbage")
    with refused("InvalidNextToken"):
        ssm.describe_instance_information(NextToken="garbage")
    cloud.remove(ids)
    assert ec2.describe_instances(Filters=large)["Reservations"] == []


def test_an_instance_that_a_service_manages_says_so(cloud):
    [managed] = cloud.launch_many(1, {}, age=600, operator="eks.amazonaws.com", containerd="none")
    [reservation] = cloud.client("ec2").describe_instances(InstanceIds=[managed])["Reservations"]
    [instance] = reservation["Instances"]
    assert instance["Operator"] == {"Managed": True, "Principal": "eks.amazonaws.com"}
    assert timedelta(minutes=9) < datetime.now(UTC) - instance["LaunchTime"] < timedelta(minutes=11)
    cloud.remove([managed])


def test_of_a_node_nothing_is_heard_until_it_ends(cloud, ssm, probe_stack):
    nodes = dict.fromkeys(("i-00000000000000001", "i-00000000000000002"))
    command = cloud.stage_command(probe_stack["Document"], WORD, "silent", nodes, age=3600)
    [listed] = ssm.list_commands(CommandId=command)["Commands"]
    assert listed["Status"] == "InProgress"
    assert datetime.now(UTC) - listed["RequestedDateTime"] > timedelta(seconds=3590)
    cloud.end_command(command, {node: {} for node in nodes})
    [listed] = ssm.list_commands(CommandId=command)["Commands"]
    assert listed["Status"] == "Success"


def test_commands_are_listed_by_filter_and_in_pages_of_50_at_most(cloud, ssm, probe_stack):
    old = cloud.stage_command(probe_stack["Document"], WORD, "old", {"i-00000000000000003": {}}, age=7200)
    new = cloud.stage_command(probe_stack["Document"], WORD, "new", {"i-00000000000000003": None})

    def listed(**filters: str) -> list[str]:
        given = [{"key": key, "value": value} for key, value in filters.items()]
        pages = ssm.get_paginator("list_commands").paginate(Filters=given, PaginationConfig={"PageSize": 2})
        return [command["CommandId"] for page in pages for command in page["Commands"]]

    hour_ago = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert new in listed(InvokedAfter=hour_ago) and old not in listed(InvokedAfter=hour_ago)
    assert old in listed(InvokedBefore=hour_ago) and new not in listed(InvokedBefore=hour_ago)
    assert new in listed(ExecutionStage="Executing") and old in listed(ExecutionStage="Complete")
    assert {new, old} <= set(listed(DocumentName=probe_stack["Document"]))
    assert listed(DocumentName="another") == []
    with refused("ValidationException"):
        ssm.list_commands(MaxResults=51)
    with refused("ValidationException"):
        ssm.list_commands(Filters=[{"key": "Comment", "value": "old"}])


def test_an_invocation_may_not_be_known_just_after_it_was_sent(cloud, ssm, probe_stack):
    node = "i-00000000000000004"
    command = cloud.stage_command(probe_stack["Document"], WORD, "fresh", {node: {}})
    cloud.throttle("ssm", "GetCommandInvocation", 1, "InvocationDoesNotExist")
    with refused("InvocationDoesNotExist"):
        ssm.get_command_invocation(CommandId=command, InstanceId=node)
    assert details_of(ssm, command, node) == "Success"


# ── Events ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_rule_leaves_out_what_is_anything_but_wanted(cloud, probe_stack):
    node = "i-00000000000000005"
    cloud.client("sqs").purge_queue(QueueUrl=probe_stack["CommandQueue"])
    command = cloud.stage_command(probe_stack["Document"], WORD, "ends", {node: {"details": "Undeliverable"}})
    sqs, queue = cloud.client("sqs"), probe_stack["CommandQueue"]

    def arrived() -> set[tuple[str, str]]:
        batch = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, VisibilityTimeout=0).get("Messages", [])
        events = [json.loads(message["Body"]) for message in batch]
        mine = [event for event in events if event["detail"]["command-id"] == command]
        return {(event["detail-type"], event["detail"]["status"]) for event in mine}

    until(lambda: arrived() == {(INVOCATION, "Failed"), (COMMAND, "Failed")}, 5, "both events")


def test_events_can_be_lost_or_come_late_and_more_than_once(cloud, probe_stack):
    node = "i-00000000000000006"
    with cloud.holding_events("aws.ssm") as take:
        command = cloud.stage_command(probe_stack["Document"], WORD, "late", {node: {}})
        held = [event for event in take() if event["detail-type"] == INVOCATION]
    assert [event["detail"]["command-id"] for event in held] == [command]
    for _ in range(2):
        cloud.send_event(held[0])
    raised = [event for event in cloud.events(INVOCATION) if event["detail"]["command-id"] == command]
    assert raised == held * 2


def test_a_schedule_can_come_at_once(cloud, probe_stack):
    def seen() -> list[dict]:
        lines = Path(probe_stack["Record"]).read_text().splitlines()
        return [json.loads(line) for line in lines if "Scheduled Event" in line]

    before = len(seen())
    cloud.fire(probe_stack["Schedule"])
    [event] = until(lambda: seen()[before:], 10, "the function to run")
    assert (event["source"], event["detail"]) == ("aws.events", {})
    assert event["resources"] == [f"arn:aws:events:{cloud.region}:{cloud.account}:rule/{probe_stack['Schedule']}"]


# ── Faults ──────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("when", "written"), [("before", ["a"]), ("after", ["a", "b"])])
def test_a_function_can_be_killed_before_a_call_or_after_it(cloud, probe_stack, when, written):
    def put(sk: str) -> list:
        item = {"pk": {"S": f"killed {when}"}, "sk": {"S": sk}}
        return ["dynamodb", "put_item", {"TableName": probe_stack["Table"], "Item": item}]

    cloud.kill(probe_stack["Function"], "dynamodb", "PutItem", when, skip=1)
    cloud.client("dynamodb").put_item(**put("x")[2])  # not the function's: it is not counted
    answer = invoke(cloud, probe_stack, {"calls": [put("a"), put("b"), put("c")]})
    assert answer["errorType"] == "Runtime.ExitError"
    condition = {"KeyConditionExpression": "pk = :pk", "ExpressionAttributeValues": {":pk": {"S": f"killed {when}"}}}
    rows = cloud.client("dynamodb").query(TableName=probe_stack["Table"], **condition)["Items"]
    assert [row["sk"]["S"] for row in rows] == [*written, "x"]


def test_the_calls_of_one_function_are_told_from_those_of_others(cloud, probe_stack):
    cloud.forget_calls()
    message = {"QueueUrl": probe_stack["EventQueue"], "MessageBody": "{}"}
    cloud.client("sqs").send_message(**message)
    entries = {"QueueUrl": probe_stack["EventQueue"], "Entries": [{"Id": "1", "MessageBody": "{}"}]}
    cloud.throttle("sqs", "SendMessageBatch", 1, "ServiceUnavailable", function=probe_stack["Function"])
    answer = invoke(cloud, probe_stack, {"calls": [["sqs", "send_message_batch", entries]]})
    assert "errorMessage" not in answer  # its SDK tried again, and a batch takes the right to send a message
    assert cloud.calls("sqs", probe_stack["Function"]) == {"sqs:SendMessageBatch": 2}


def test_who_may_not_read_commands_is_refused(cloud, probe_stack):
    stranger = cloud.client("ssm", **credentials(cloud, probe_stack["Sender"]))
    for read in (stranger.list_commands, stranger.list_command_invocations):
        with refused("AccessDeniedException"):
            read()
    with refused("AccessDeniedException"):
        stranger.get_command_invocation(CommandId="0" * 36, InstanceId="i-00000000000000001")


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ssm(cloud):
    """A client that leaves it to the cloud to refuse a request."""
    return cloud.client("ssm", config=Config(parameter_validation=False))


def listed(ssm, **filters: str) -> list[str]:
    """Returns the ids of the commands that the filters let through."""
    pages = ssm.get_paginator("list_commands").paginate(
        Filters=[{"key": key, "value": value} for key, value in filters.items()]
    )
    return [command["CommandId"] for page in pages for command in page["Commands"]]


def known(ssm, node: str) -> list[dict]:
    """Returns what SSM tells of a node."""
    filters = [{"Key": "InstanceIds", "Values": [node]}]
    return ssm.describe_instance_information(Filters=filters)["InstanceInformationList"]


def details_of(ssm, command: str, node: str) -> str:
    return ssm.get_command_invocation(CommandId=command, InstanceId=node)["StatusDetails"]


def event_of(cloud: LocalCloud, detail_type: str, command: str) -> dict:
    """Returns the last event about a command."""
    return [event for event in cloud.events(detail_type) if event["detail"]["command-id"] == command][-1]
