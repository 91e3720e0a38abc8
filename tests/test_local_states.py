"""The local cloud's Step Functions executes as AWS's does, wherever the product relies on it."""

import json
import time
from collections.abc import Callable

import pytest
from probe import refused
from roles import make_role
from statemachines import PASS, READ, READS, SECRET, SSM, Machines, each, entered, statuses, task

from local.client import LocalCloud, until

EC2, DYNAMODB = ":aws-sdk:ec2:", ":dynamodb:"

# ── Tasks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_task_calls_aws_as_the_role_of_its_machine(cloud, run):
    read = {**task(f"{SSM}getParameter", SECRET), "Output": "{% $states.result.Parameter %}"}
    cloud.client("ssm").put_parameter(**SECRET, Value="hidden", Type="String")
    denied = run({"Read": read})
    assert (denied["status"], denied["error"]) == ("FAILED", "Ssm.SsmException")
    assert "is not authorized to perform: ssm:GetParameter" in denied["cause"]
    output = run({"Read": read}, READS)["output"]
    assert output["Value"] == "hidden"
    assert output["Arn"].endswith(":parameter/states/secret")
    assert output["LastModifiedDate"].endswith("Z")


@pytest.mark.parametrize(
    ("resource", "arguments", "error", "cause"),
    [
        (f"{SSM}getParameter", {"Name": "/states/none"}, "Ssm.ParameterNotFoundException", "(Service: Ssm, Status"),
        (f"{SSM}sendCommand", {"DocumentName": "none"}, "Ssm.InvalidDocumentException", "Status Code: 400"),
        (f"{SSM}putParameter", {**SECRET, "Value": "{{x}}"}, "Ssm.SsmException", "can't nest"),
        (f"{EC2}stopInstances", {"InstanceIds": ["i-00000000"]}, "Ec2.Ec2Exception", "does not exist (Service: Ec2"),
        (":aws-sdk:sfn:describeExecution", {"ExecutionArn": "arn:none"}, "Sfn.ExecutionDoesNotExistException", ""),
        (":aws-sdk:eks:describeCluster", {"Name": "none"}, "Eks.ResourceNotFoundException", "none"),
        (f"{DYNAMODB}getItem", {"TableName": "none", "Key": {}}, "DynamoDB.ResourceNotFoundException", ""),
        (":lambda:invoke", {"FunctionName": "none"}, "Lambda.ResourceNotFoundException", ""),
    ],
)  # fmt: skip
def test_an_error_has_the_name_that_step_functions_gives_it(run, resource, arguments, error, cause):
    outcome = run({"Call": task(resource, arguments)}, {"Effect": "Allow", "Action": "*", "Resource": "*"})
    assert outcome["error"] == error
    assert cause in outcome["cause"]


@pytest.mark.parametrize("arguments", ["{'Nmae': '/x'}", "{'Name': 1}", "{}"])
def test_a_call_that_cannot_be_made_ends_the_execution_whatever_it_catches(run, arguments):
    catch = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    states = {"Read": {**task(f"{SSM}getParameter", f"{{% {arguments} %}}", "Caught"), "Catch": catch}, "Caught": PASS}
    assert run(states, READS)["error"] == "States.Runtime"


def test_a_row_is_written_on_a_condition(cloud, run, probe_stack):
    key = {"pk": {"S": "states"}, "sk": {"S": "lock"}}
    write = {
        "TableName": probe_stack["Table"],
        "Key": key,
        "UpdateExpression": "SET holder = :me",
        "ConditionExpression": "attribute_not_exists(holder)",
        "ExpressionAttributeValues": {":me": {"S": "{% $states.context.Execution.Name %}"}},
    }
    rows = {"Effect": "Allow", "Action": "dynamodb:*", "Resource": "*"}
    read = task(f"{DYNAMODB}getItem", {"TableName": probe_stack["Table"], "Key": key})
    outcome = run({"Write": task(f"{DYNAMODB}updateItem", write, "Read"), "Read": read}, rows)
    assert outcome["output"]["Item"]["holder"] == {"S": outcome["name"]}
    assert outcome["output"]["SdkHttpMetadata"]["HttpStatusCode"] == 200
    outcome = run({"Write": task(f"{DYNAMODB}updateItem", write)}, rows)
    assert outcome["error"] == "DynamoDB.ConditionalCheckFailedException"


def test_a_function_answers_or_fails_with_its_own_error(run, probe_stack):
    invokes = {"Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": probe_stack["FunctionArn"]}
    call = {"FunctionName": probe_stack["FunctionArn"], "Payload": "{% $states.input %}"}
    answered = run({"Call": task(":lambda:invoke", call)}, invokes)["output"]
    assert (answered["StatusCode"], answered["Payload"]["batchItemFailures"]) == (200, [])
    failed = run({"Call": task(":lambda:invoke", call)}, invokes, input={"a": "poison"})
    assert failed["error"] == "Poison"
    assert json.loads(failed["cause"])["errorMessage"] == "this event cannot be handled"


def test_an_event_starts_another_machine_as_the_role_of_the_rule(cloud, run, make):
    role = make_role(cloud, "states-rule", "events.amazonaws.com", {"Effect": "Allow", "Action": "*", "Resource": "*"})
    events = cloud.client("events")
    events.put_rule(Name="states", EventPattern=json.dumps({"source": ["states-test"]}))
    target = {
        "Id": "machine",
        "Arn": (machine := make({"End": PASS})),
        "RoleArn": role,
        "InputTransformer": {"InputPathsMap": {"who": "$.detail.who"}, "InputTemplate": '{"from": <who>}'},
    }
    entry = {"Source": "states-test", "DetailType": "Said", "Detail": {"who": "{% $states.context.State.Name %}"}}
    bus = f"arn:aws:events:{cloud.region}:{cloud.account}:event-bus/default"
    puts = {"Effect": "Allow", "Action": "events:PutEvents", "Resource": bus}
    single = {**puts, "Condition": {"StringEquals": {"events:source": "states-test"}}}
    puts["Condition"] = {"ForAllValues:StringEquals": {"events:source": "states-test"}}
    say = {"Say": task(":events:putEvents", {"Entries": [entry]})}
    assert "is not authorized to perform: events:PutEvents" in run(say, single)["cause"]

    other = {"Say": task(":events:putEvents", {"Entries": [{**entry, "Source": "states-other"}]})}
    assert "is not authorized to perform: events:PutEvents" in run(other, puts)["cause"]
    events.put_targets(Rule="states", Targets=[{**target, "RoleArn": role.replace("states-rule", "nobody")}])
    assert run(say, puts)["output"]["FailedEntryCount"] == 0
    assert cloud.executions(machine) == []
    events.put_targets(Rule="states", Targets=[target])
    run(say, puts)
    [started] = until(lambda: cloud.executions(machine), 5, "the other machine")
    described = cloud.client("stepfunctions").describe_execution(executionArn=started["arn"])
    assert json.loads(described["input"]) == {"from": "Say"}
    events.remove_targets(Rule="states", Ids=["machine"])
    events.delete_rule(Name="states")


def test_an_execution_has_no_more_events_than_aws_keeps_of_one(run):
    again = {"Type": "Pass", "Next": "Again"}
    states = {"Again": {**again, "Next": "And"}, "And": again}
    outcome = run(states)
    assert outcome["error"] == "States.Runtime"
    assert "maximum number of history events (25000)" in outcome["cause"]


# ── States ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_an_item_of_a_map_assigns_ends_with_it(run):
    item = {**PASS, "Assign": {"seen": "inner"}, "Output": "{% $seen & $string($states.context.Map.Item.Value) %}"}
    outcome = run(
        {
            "Begin": {"Type": "Pass", "Assign": {"seen": "outer"}, "Next": "Each"},
            "Each": {**each({"Item": item}), "Items": [1, 2], "Next": "Last"},
            "Last": {**PASS, "Output": {"seen": "{% $seen %}", "items": "{% $states.input %}"}},
        }
    )
    assert outcome["output"] == {"seen": "outer", "items": ["outer1", "outer2"]}


def test_an_expression_knows_its_context_and_fails_where_it_yields_nothing(run):
    context = run({"Look": {**PASS, "Output": "{% $states.context %}"}}, input={"a": None})["output"]
    assert context.keys() == {"Execution", "StateMachine", "State"}
    assert context["Execution"]["Input"] == {"a": None}
    assert context["State"]["Name"] == "Look"
    assert run({"Null": {**PASS, "Output": "{% $states.input.a %}"}}, input={"a": None})["output"] is None
    assert run({"None": {**PASS, "Output": "{% $states.input.b %}"}})["error"] == "States.QueryEvaluationError"
    assert run({"Soon": {**PASS, "Output": "{% $states.result %}"}})["error"] == "States.QueryEvaluationError"


def test_an_item_that_fails_ends_the_others_which_catch_nothing(cloud, run):
    caught = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    slow = {**task(f"{EC2}describeSubnets", {}), "Catch": caught}
    one = {
        "Which": {
            "Type": "Choice",
            "Choices": [{"Condition": "{% $states.input = 1 %}", "Next": "Broken"}],
            "Default": "Slow",
        },
        "Broken": {"Type": "Fail", "Error": "Mine", "Cause": "{% 'item ' & $states.input %}"},
        "Slow": slow,
        "Caught": PASS,
    }
    cloud.fault_state("Slow", "pause")
    map_ = {**each(one), "Items": [1, 2], "Catch": [{"ErrorEquals": ["Mine"], "Next": "Handled"}], "Next": "Handled"}
    outcome = run({"Each": map_, "Handled": PASS})
    assert outcome["output"] == {"Error": "Mine", "Cause": "item 1"}
    assert "Caught" not in entered(cloud, outcome)


@pytest.mark.parametrize(("does", "tries"), [("fail", 3), ("hang", 1)])
def test_a_task_is_tried_again_and_a_hanging_one_times_out(cloud, run, does, tries):
    cloud.fault_state("Read", does, times=tries)
    retry = [{"ErrorEquals": ["Ssm.SsmException"], "IntervalSeconds": 20, "MaxAttempts": 3, "BackoffRate": 1.5}]
    caught = [{"ErrorEquals": ["States.Timeout"], "Output": "{% $states.errorOutput %}", "Next": "Caught"}]
    read = {**READ, "TimeoutSeconds": 60, "Retry": retry, "Catch": caught}
    started = time.monotonic()
    outcome = run({"Read": read, "Caught": PASS}, READS)
    assert time.monotonic() - started > {"fail": (20 + 30 + 45) / 50, "hang": 60 / 50}[does]
    if does == "hang":
        assert outcome["output"] == {"Error": "States.Timeout", "Cause": ""}
    else:
        assert outcome["output"]["Parameter"]["Value"] == "hidden"


def test_an_answer_that_is_lost_is_an_error_of_a_call_that_was_made(cloud, run, make):
    cloud.fault_state("Write", when="after", error="Ssm.SsmException")
    write = task(f"{SSM}putParameter", {"Name": "/states/lost", "Value": "there", "Type": "String"})
    writes = {"Effect": "Allow", "Action": "ssm:PutParameter", "Resource": "*"}
    outcome = run({"Write": write}, writes)
    assert (outcome["status"], outcome["error"]) == ("FAILED", "Ssm.SsmException")
    assert cloud.client("ssm").get_parameter(Name="/states/lost")["Parameter"]["Value"] == "there"
    assert cloud.calls("ssm", outcome["machine"].rpartition(":")[2]) == {"ssm:PutParameter": 1}


# ── The end of an execution ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_stopped_enters_no_further_state_and_catches_nothing(cloud, make, when):
    caught = [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]
    item = {"Read": {**READ, "Catch": caught}, "Caught": PASS}
    map_ = {**each(item), "Items": [1, 2], "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Last"}], "Next": "Last"}
    cloud.fault_state("Read", "pause", when=when, times=2)
    machine = make({"Each": map_, "Last": PASS}, READS)
    sfn = cloud.client("stepfunctions")
    arn = sfn.start_execution(stateMachineArn=machine)["executionArn"]
    until(lambda: cloud.executions(machine)[0]["paused"] == ["Read", "Read"], 10, "both items to pause")
    assert cloud.executions(machine)[0]["states"] == ["Each", "Read", "Read"]
    sfn.stop_execution(executionArn=arn, error="Enough", cause="seen")
    time.sleep(0.3)
    [row] = cloud.executions(machine)
    assert (row["status"], row["error"], row["cause"], row["paused"]) == ("ABORTED", "Enough", "seen", [])
    assert set(entered(cloud, row)) == {"Each", "Read"}
    assert statuses(cloud, arn) == ["RUNNING", "ABORTED"]


def test_what_takes_too_long_times_out_and_waiting_counts_in_full(cloud, run):
    loop = {"Wait": {"Type": "Wait", "Seconds": 30, "Next": "Again"}, "Again": {"Type": "Pass", "Next": "Wait"}}
    outcome = run(loop, TimeoutSeconds=100)
    assert outcome["status"] == "TIMED_OUT"
    assert entered(cloud, outcome).count("Wait") == 4
    assert statuses(cloud, outcome["arn"]) == ["RUNNING", "TIMED_OUT"]


def test_time_can_be_up_at_once(cloud, make):
    machine = make({"Read": {**READ, "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "Caught"}]}, "Caught": PASS})
    cloud.fault_state("Read", "pause")
    cloud.client("stepfunctions").start_execution(stateMachineArn=machine)
    [row] = until(lambda: [row for row in cloud.executions(machine) if row["paused"]], 10)
    cloud.expire(row["name"])
    until(lambda: cloud.executions(machine)[0]["status"] == "TIMED_OUT", 5)
    assert entered(cloud, row) == ["Read"]


def test_a_machine_that_is_deleted_takes_its_executions_along(cloud, make):
    machine = make({"Wait": {"Type": "Wait", "Seconds": 1000, "Next": "Last"}, "Last": PASS})
    sfn = cloud.client("stepfunctions")
    arn = sfn.start_execution(stateMachineArn=machine)["executionArn"]
    until(lambda: cloud.executions(machine)[0]["states"] == ["Wait"], 5)
    sfn.delete_state_machine(stateMachineArn=machine)
    assert statuses(cloud, arn) == ["RUNNING", "ABORTED"]
    with refused("ExecutionDoesNotExist"):
        sfn.describe_execution(executionArn=arn)


def test_how_executions_end_is_counted(cloud, run):
    outcome = run({"End": {"Type": "Fail", "Error": "Mine"}})
    request = {
        "Namespace": "AWS/States",
        "MetricName": "ExecutionsFailed",
        "Dimensions": [{"Name": "StateMachineArn", "Value": outcome["machine"]}],
        "StartTime": time.time() - 600,
        "EndTime": time.time() + 600,
        "Period": 3600,
        "Statistics": ["Sum"],
    }
    [point] = cloud.client("cloudwatch").get_metric_statistics(**request)["Datapoints"]
    assert point["Sum"] == 1


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def make(cloud: LocalCloud, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes state machines, the first of the states first, whose role is allowed some statements."""
    return Machines(cloud, request.node.name).make


@pytest.fixture
def run(cloud: LocalCloud, make: Callable[..., str]) -> Callable[..., dict]:
    """Makes a state machine, executes it, and returns what became of it."""

    def run_one(states: dict, *statements: dict, input: dict | None = None, **options) -> dict:
        sfn = cloud.client("stepfunctions")
        machine = make(states, *statements, **options)
        arn = sfn.start_execution(stateMachineArn=machine, input=json.dumps(input or {}))["executionArn"]
        until(lambda: cloud.executions(machine)[0]["status"] != "RUNNING", 30, "the execution to end")
        [row] = cloud.executions(machine)
        output = sfn.describe_execution(executionArn=arn).get("output")
        return {**row, "output": json.loads(output) if output else None}

    return run_one
