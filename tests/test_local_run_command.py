"""The local cloud's documents and Run Command answer as AWS's do, wherever the product relies on it."""

import json
import time

import pytest
from botocore.config import Config
from probe import BARE, CONTENT, credentials, refused

from local.client import until

# ── Documents ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"schemaVersion": "0.3"}, "InvalidDocumentSchemaVersion"),
        ({"mainSteps": []}, "InvalidDocumentContent"),
        ({"mainSteps": [{"action": "aws:runShellScrip", "name": "x", "inputs": {}}]}, "InvalidDocumentContent"),
        ({"parameters": {"word": {"type": "Text"}}}, "InvalidDocumentContent"),
        ({"parameters": {}}, "InvalidDocumentContent"),
        (
            {"parameters": {**CONTENT["parameters"], "code": {"type": "String", "allowedPattern": "("}}},
            "InvalidDocumentContent",
        ),
        (
            {
                "parameters": {
                    **CONTENT["parameters"],
                    "code": {"type": "String", "default": "2", "allowedValues": ["0"]},
                }
            },
            "InvalidDocumentContent",
        ),
        ({"description": "x" * 65_536}, "MaxDocumentSizeExceeded"),
    ],
)
def test_a_broken_document_is_refused(ssm, change, code):
    with refused(code):
        ssm.create_document(Name="broken", DocumentType="Command", Content=json.dumps({**CONTENT, **change}))


def test_a_document_has_versions_and_a_default_one(ssm):
    ssm.create_document(Name="versioned", DocumentType="Command", Content=json.dumps(CONTENT))
    with refused("DocumentAlreadyExists"):
        ssm.create_document(Name="versioned", DocumentType="Command", Content=json.dumps(CONTENT))
    with refused("DuplicateDocumentContent"):
        ssm.update_document(Name="versioned", Content=json.dumps(CONTENT), DocumentVersion="$LATEST")
    newer = json.dumps({**CONTENT, "description": "newer"})
    ssm.update_document(Name="versioned", Content=newer, DocumentVersion="$LATEST")
    described = ssm.describe_document(Name="versioned")["Document"]
    assert (described["DefaultVersion"], described["LatestVersion"]) == ("1", "2")
    assert ssm.get_document(Name="versioned", DocumentVersion="$LATEST")["Content"] == newer
    ssm.update_document_default_version(Name="versioned", DocumentVersion="2")
    assert ssm.describe_document(Name="versioned")["Document"]["DocumentVersion"] == "2"
    with refused("InvalidDocumentVersion"):
        ssm.get_document(Name="versioned", DocumentVersion="3")
    ssm.delete_document(Name="versioned")
    with refused("InvalidDocument"):
        ssm.describe_document(Name="versioned")


def test_a_document_of_a_stack_is_made_from_an_included_file(ssm, probe_stack):
    assert json.loads(ssm.get_document(Name=probe_stack["Document"])["Content"]) == CONTENT
    tags = ssm.list_tags_for_resource(ResourceType="Document", ResourceId=probe_stack["Document"])["TagList"]
    assert {"Key": "project", "Value": "prefetch"} in tags


# ── SendCommand ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"DocumentName": "no-such-document"}, "InvalidDocument"),
        ({"DocumentVersion": "7"}, "InvalidDocumentVersion"),
        ({"Parameters": {"word": ["a"], "extra": ["b"]}}, "InvalidParameters"),
        ({"Parameters": {}}, "InvalidParameters"),
        ({"Parameters": {"word": ["$(reboot)"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["fine\nreboot"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a" * 21]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a", "b"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a"], "code": ["2"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a" * 65_000]}}, "MaxDocumentSizeExceeded"),
        ({"Comment": "x" * 101}, "ValidationException"),
        ({"MaxConcurrency": "0"}, "ValidationException"),
        ({"MaxErrors": "101%"}, "ValidationException"),
        ({"TimeoutSeconds": 29}, "ValidationException"),
        ({"InstanceIds": ["i-0000000000000000z0"]}, "ValidationException"),
        ({"InstanceIds": [f"i-{n:017x}" for n in range(51)]}, "ValidationException"),
        ({"InstanceIds": []}, "ValidationException"),
        ({"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceId"),
        ({"Targets": [{"Key": "InstanceIds", "Values": ["i-0123456789abcdef0"]}]}, "InvalidInstanceId"),
        ({"Targets": [{"Key": f"tag:{n}", "Values": ["x"]} for n in range(6)]}, "ValidationException"),
        ({"Targets": [{"Key": "tag:a", "Values": [str(n) for n in range(51)]}]}, "ValidationException"),
    ],
)
def test_a_send_command_that_aws_would_refuse_is_refused(ssm, document, any_node, request_, code):
    request_ = {"DocumentName": document, "InstanceIds": [any_node], "Parameters": {"word": ["a"]}} | request_
    if "Targets" in request_:
        del request_["InstanceIds"]
    with refused(code):
        ssm.send_command(**request_)


def test_one_instance_that_cannot_be_reached_refuses_the_whole_call(cloud, ssm, document, node):
    stranger = cloud.launch({}, online_after=3600, containerd="none")
    with refused("InvalidInstanceId"):
        ssm.send_command(DocumentName=document, InstanceIds=[node, stranger], Parameters={"word": ["a"]})
    with refused("DuplicateInstanceId"):
        ssm.send_command(DocumentName=document, InstanceIds=[node, node], Parameters={"word": ["a"]})


@pytest.mark.parametrize(("agent", "how"), [("new", "environment"), ("old", "text")])
def test_a_command_runs_and_its_output_is_kept(cloud, ssm, document, node, agent, how):
    cloud.turn(node, agent=agent)
    invocation = result(ssm, send(ssm, document, [node], word="good day"), node)
    assert invocation["Status"] == invocation["StatusDetails"] == "Success"
    assert invocation["StandardOutputContent"] == f"good day by {how}\n"
    assert invocation["StandardErrorContent"] == "to the operator\n"
    assert (invocation["ResponseCode"], invocation["PluginName"]) == (0, "say")


@pytest.mark.parametrize("containerd", ["1.7", "2.1"])
def test_a_command_runs_beside_a_real_containerd(cloud, ssm, document, containerd):
    node = cloud.launch({}, online_after=0.0, containerd=containerd)
    cloud.until_online(node)
    assert result(ssm, send(ssm, document, [node], word="a"), node)["Status"] == "Success"
    assert cloud.images(node) == {}
    assert cloud.image_status(node, f"{cloud.registry_host}/team/app:v1") is None


def test_every_change_of_status_is_an_event(cloud, ssm, document, node):
    command = send(ssm, document, [node], word="a", code="3")
    assert result(ssm, command, node)["ResponseCode"] == 3

    def events(detail_type: str) -> list[dict]:
        found = cloud.events(f"EC2 Command {detail_type}Status-change Notification")
        return [event for event in found if event["detail"]["command-id"] == command]

    until(lambda: len(events("")) == 2, 5, "the command's events")
    invocation = events("Invocation ")
    assert [event["detail"]["status"] for event in invocation] == ["InProgress", "Failed"]
    assert invocation[0]["source"] == "aws.ssm"
    assert invocation[0]["resources"] == [f"arn:aws:ec2:{cloud.region}:{cloud.account}:instance/{node}"]
    assert invocation[0]["detail"].keys() == {
        "command-id", "document-name", "instance-id", "requested-date-time", "status",
    }  # fmt: skip
    assert [event["detail"]["status"] for event in events("")] == ["InProgress", "Failed"]


def test_tag_targets_are_anded_and_their_values_ored(cloud, ssm, document):
    tags = [{"pool": "a", "arch": "x"}, {"pool": "b", "arch": "x"}, {"pool": "b", "arch": "y"}, {"pool": "c"}]
    nodes = [cloud.launch(tag, **BARE) for tag in tags]
    cloud.until_online(*nodes)
    targets = [{"Key": "tag:pool", "Values": ["a", "b"]}, {"Key": "tag:arch", "Values": ["x"]}]
    command = ssm.send_command(DocumentName=document, Targets=targets, Parameters={"word": ["a"]})["Command"]
    assert command["InstanceIds"] == []
    done = settled(ssm, command["CommandId"])
    assert (done["TargetCount"], done["CompletedCount"]) == (2, 2)
    listed = ssm.list_command_invocations(CommandId=command["CommandId"])["CommandInvocations"]
    assert {row["InstanceId"] for row in listed} == set(nodes[:2])


def test_a_tag_target_that_matches_nothing_is_a_success_without_instances(ssm, document):
    targets = [{"Key": "tag:pool", "Values": ["nowhere"]}]
    command = ssm.send_command(DocumentName=document, Targets=targets, Parameters={"word": ["a"]})["Command"]
    done = settled(ssm, command["CommandId"])
    assert (done["Status"], done["StatusDetails"], done["TargetCount"]) == ("Success", "NoInstancesInTag", 0)


def test_the_first_failure_stops_a_command_unless_max_errors_says_otherwise(cloud, ssm, document):
    fleet = [cloud.launch({}, **BARE) for _ in range(4)]
    cloud.until_online(*fleet)
    command = send(ssm, document, fleet, "1", word="a", code="1")
    assert settled(ssm, command)["StatusDetails"] == "Failed"
    details = [row["StatusDetails"] for row in ssm.list_command_invocations(CommandId=command)["CommandInvocations"]]
    assert sorted(details) == ["Failed", "Terminated", "Terminated", "Terminated"]

    command = send(ssm, document, fleet, "1", "50%", word="a", code="1")
    details = [settled(ssm, command)["ErrorCount"]]
    assert details == [3]

    command = send(ssm, document, fleet, "25%", "100%", word="a", code="1")
    assert settled(ssm, command)["ErrorCount"] == 4


def test_max_concurrency_limits_how_many_nodes_work_at_a_time(cloud, ssm, document):
    fleet = [cloud.launch({}, **BARE) for _ in range(4)]
    cloud.until_online(*fleet)
    command = send(ssm, document, fleet, "2", word="a", seconds="0.3")
    at_a_time = set()
    while ssm.list_commands(CommandId=command)["Commands"][0]["Status"] in ("Pending", "InProgress"):
        rows = ssm.list_command_invocations(CommandId=command)["CommandInvocations"]
        at_a_time.add(sum(row["Status"] == "InProgress" for row in rows))
    assert max(at_a_time) == 2


def test_a_node_runs_five_commands_at_a_time(ssm, document, node):
    commands = [send(ssm, document, [node], word="a", seconds="0.5") for _ in range(7)]
    running = set()
    while any(invocation_of(ssm, command, node)["Status"] in ("Pending", "InProgress") for command in commands):
        rows = ssm.list_command_invocations(InstanceId=node)["CommandInvocations"]
        running.add(sum(row["Status"] == "InProgress" for row in rows))
    assert max(running) == 5


def test_a_node_that_is_offline_gets_its_command_when_it_is_back(cloud, ssm, document, node):
    cloud.turn(node, online=False)
    command = send(ssm, document, [node], word="a")
    time.sleep(0.3)
    assert invocation_of(ssm, command, node)["Status"] == "Pending"
    cloud.turn(node, online=True)
    assert result(ssm, command, node)["Status"] == "Success"


def test_a_node_that_stays_offline_is_a_delivery_timeout_and_no_error(cloud, ssm, document):
    gone = cloud.launch({}, **BARE)
    cloud.until_online(gone)
    cloud.turn(gone, online=False)
    command = send(ssm, document, [gone], word="a", TimeoutSeconds=30)
    invocation = result(ssm, command, gone)
    assert (invocation["Status"], invocation["StatusDetails"]) == ("TimedOut", "DeliveryTimedOut")
    done = settled(ssm, command)
    assert (done["ErrorCount"], done["DeliveryTimedOutCount"]) == (0, 1)


def test_a_script_is_killed_at_its_execution_timeout(ssm, document, node):
    command = send(ssm, document, [node], word="a", seconds="30", executionTimeout="1")
    invocation = result(ssm, command, node)
    assert (invocation["Status"], invocation["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")


def test_a_node_that_dies_in_mid_command_is_noticed_by_its_silence(cloud, ssm, document):
    dying = cloud.launch({}, die_on_command=True, **BARE)
    cloud.until_online(dying)
    command = send(ssm, document, [dying], word="a", seconds="30", TimeoutSeconds=30)
    until(lambda: not cloud.state()["nodes"][dying]["online"], 5, "the node to die")
    assert invocation_of(ssm, command, dying)["Status"] == "InProgress"
    assert result(ssm, command, dying)["StatusDetails"] == "ExecutionTimedOut"


def test_a_terminated_node_is_undeliverable(cloud, ssm, document):
    gone = cloud.launch({}, **BARE)
    cloud.until_online(gone)
    cloud.turn(gone, online=False)
    command = send(ssm, document, [gone], word="a", TimeoutSeconds=30)
    cloud.terminate(gone)
    assert result(ssm, command, gone)["StatusDetails"] == "Undeliverable"


def test_a_cancelled_command_does_not_start(cloud, ssm, document, node):
    cloud.turn(node, online=False)
    command = send(ssm, document, [node], word="a")
    ssm.cancel_command(CommandId=command)
    assert result(ssm, command, node)["Status"] == "Cancelled"
    assert settled(ssm, command)["Status"] == "Cancelled"


def test_listed_invocations_are_paged_and_their_output_is_cut(cloud, ssm, document, node):
    for _ in range(3):
        result(ssm, send(ssm, document, [node], word="a"), node)
    first = ssm.list_command_invocations(InstanceId=node, MaxResults=2, Details=True)
    assert len(first["CommandInvocations"]) == 2
    assert first["CommandInvocations"][0]["CommandPlugins"][0]["Output"].startswith("a by environment\n")
    rest = ssm.list_command_invocations(InstanceId=node, MaxResults=2, NextToken=first["NextToken"])
    assert rest["CommandInvocations"][0]["CommandPlugins"] == []


def test_an_unknown_invocation_does_not_exist(ssm, any_node):
    with refused("InvocationDoesNotExist"):
        invocation_of(ssm, "00000000-0000-0000-0000-000000000000", any_node)


def test_send_command_needs_both_the_document_and_the_instance(cloud, ssm, probe_stack, document):
    ours = cloud.launch({"cluster": "blue"}, **BARE)
    foreign = cloud.launch({"cluster": "green"}, **BARE)
    cloud.until_online(ours, foreign)
    sender = cloud.client("ssm", **credentials(cloud, probe_stack["Sender"]))
    parameters = {"word": ["a"]}

    sender.send_command(DocumentName=probe_stack["Document"], InstanceIds=[ours], Parameters=parameters)
    targets = [{"Key": "tag:cluster", "Values": ["blue"]}]
    sender.send_command(DocumentName=probe_stack["Document"], Targets=targets, Parameters=parameters)
    with refused("AccessDeniedException"):
        sender.send_command(DocumentName=document, InstanceIds=[ours], Parameters=parameters)
    with refused("AccessDeniedException") as error:
        sender.send_command(DocumentName=probe_stack["Document"], InstanceIds=[ours, foreign], Parameters=parameters)
    resource = f"arn:aws:ec2:{cloud.region}:{cloud.account}:instance/{foreign}"
    assert f"is not authorized to perform: ssm:SendCommand on resource: {resource} " in str(error.value)
    everywhere = [{"Key": "tag:cluster", "Values": ["blue", "green"]}]
    sent = sender.send_command(DocumentName=probe_stack["Document"], Targets=everywhere, Parameters=parameters)
    details = {id_: result(ssm, sent["Command"]["CommandId"], id_)["StatusDetails"] for id_ in (ours, foreign)}
    assert details == {ours: "Success", foreign: "AccessDenied"}
    with refused("AccessDeniedException"):
        sender.describe_instance_information()


def test_calls_are_counted_and_can_be_made_to_fail(cloud, ssm):
    cloud.forget_calls()
    cloud.throttle("ssm", "ListCommands", 2)
    ssm.list_commands()
    assert cloud.calls("ssm") == {"ssm:ListCommands": 3}


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def ssm(cloud):
    """A client that leaves it to the cloud to refuse a request."""
    return cloud.client("ssm", config=Config(parameter_validation=False))


@pytest.fixture(scope="module")
def document(ssm):
    """The name of a document that is not the stack's."""
    ssm.create_document(Name="say-something", DocumentType="Command", Content=json.dumps(CONTENT))
    return "say-something"


@pytest.fixture
def node(cloud):
    """A node of its own for one test."""
    return launched(cloud)


@pytest.fixture(scope="module")
def any_node(cloud):
    """A node for tests that leave it as it is."""
    return launched(cloud)


def launched(cloud) -> str:
    instance_id = cloud.launch({}, **BARE)
    cloud.until_online(instance_id)
    return instance_id


def send(ssm, document, nodes, max_concurrency="50", max_errors="0", TimeoutSeconds=600, **parameters) -> str:
    """Sends a command and returns its id."""
    return ssm.send_command(
        DocumentName=document,
        InstanceIds=nodes,
        MaxConcurrency=max_concurrency,
        MaxErrors=max_errors,
        TimeoutSeconds=TimeoutSeconds,
        Parameters={name: [value] for name, value in parameters.items()},
    )["Command"]["CommandId"]


def invocation_of(ssm, command: str, node: str) -> dict:
    return ssm.get_command_invocation(CommandId=command, InstanceId=node)


def result(ssm, command: str, node: str) -> dict:
    """Waits for the end of an invocation and returns it."""

    def ended() -> dict | None:
        row = invocation_of(ssm, command, node)
        return None if row["Status"] in ("Pending", "InProgress", "Cancelling") else row

    return until(ended, 10, "the invocation to end")


def settled(ssm, command: str) -> dict:
    """Waits for the end of a command and returns it."""

    def ended() -> dict | None:
        [row] = ssm.list_commands(CommandId=command)["Commands"]
        return None if row["Status"] in ("Pending", "InProgress", "Cancelling") else row

    return until(ended, 10, "the command to end")
