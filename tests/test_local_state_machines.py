"""The local cloud takes and refuses state machines as AWS's Step Functions does, a stack's included."""

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest
from probe import QUICK, refused
from roles import make_role
from statemachines import PASS, READ, SECRET, SSM, Machines

from local.client import LocalCloud, until


@pytest.mark.parametrize(
    ("states", "why"),
    [
        ({"A": {"Type": "Pass", "Next": "B"}}, "Missing 'Next' target: B"),
        ({"A": PASS, "B": PASS}, '"B" is not reachable'),
        ({"A": {"Type": "Pass"}}, "Next, End"),
        ({"A": {**PASS, "ResultPath": "$.x"}}, "'ResultPath' is not supported"),
        ({"A": {**PASS, "Output": "{% $states.input. %}"}}, "INVALID_JSONATA_EXPRESSION"),
        ({"A": {**READ, "Arguments": {**SECRET, "Nmae": "x"}}}, "'Nmae' is not supported"),
        ({"A": {**READ, "Arguments": {}}}, "'Name' is required"),
        ({"A": {"Type": "Task", "End": True}}, "'Resource' is required"),
        ({"A": {**READ, "Resource": f"arn:aws:states::{SSM}getParametr"}}, "no action getParametr"),
        ({"A": {**READ, "Retry": [{"ErrorEquals": ["States.ALL"], "MaxAtempts": 1}]}}, "'MaxAtempts' is not supported"),
        ({"A": {**READ, "Catch": [{"ErrorEquals": ["States.ALL"], "Next": "None"}]}}, "Missing 'Next' target: None"),
        ({"A": {**READ, "TimeoutSeconds": 0}}, "at least 1"),
        (
            {"A": {"Type": "Map", "ItemProcessor": {"StartAt": "A", "States": {"A": PASS}}, "End": True}},
            "Duplicate state name: A",
        ),
    ],
)
def test_a_definition_that_aws_would_refuse_is_refused(make, states, why):
    with refused("InvalidDefinition") as error:
        make(states)
    assert why in str(error.value)


def test_a_machine_needs_a_role_that_step_functions_may_assume_and_that_may_log(cloud, make):
    stranger = make_role(cloud, "states-stranger", "ec2.amazonaws.com")
    with refused("AccessDeniedException"):
        make({"End": PASS}, role=stranger)
    group = f"arn:aws:logs:{cloud.region}:{cloud.account}:log-group:states:*"
    logging = {"level": "ERROR", "destinations": [{"cloudWatchLogsLogGroup": {"logGroupArn": group}}]}
    with refused("AccessDeniedException"):
        make({"End": PASS}, loggingConfiguration=logging)
    make({"End": PASS}, {"Effect": "Allow", "Action": "logs:*", "Resource": "*"}, loggingConfiguration=logging)


def test_an_execution_of_the_same_name_and_input_is_the_one_that_runs(cloud, make):
    sfn = cloud.client("stepfunctions")
    start = {"stateMachineArn": make({"Wait": {"Type": "Wait", "Seconds": 100, "End": True}}), "name": "once"}
    first = sfn.start_execution(**start, input="{}")["executionArn"]
    assert sfn.start_execution(**start, input="{}")["executionArn"] == first
    with refused("ExecutionAlreadyExists"):
        sfn.start_execution(**start, input='{"other": 1}')
    with refused("InvalidExecutionInput"):
        sfn.start_execution(stateMachineArn=start["stateMachineArn"], input="{")
    sfn.stop_execution(executionArn=first)


def test_a_stack_makes_a_machine_that_its_schedule_starts(cloud):
    with deployed(cloud, {"QueryLanguage": "JSONata", "StartAt": "End", "States": {"End": PASS}}) as stack:
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        outputs = {row["OutputKey"]: row["OutputValue"] for row in stack["Outputs"]}
        cloud.fire(outputs["Rule"])
        until(lambda: [row["status"] for row in cloud.executions(outputs["Machine"])] == ["SUCCEEDED"], 5)
        [row] = cloud.executions(outputs["Machine"])
        described = cloud.client("stepfunctions").describe_execution(executionArn=row["arn"])
        assert json.loads(described["input"]) == {"trigger": "schedule"}
    assert cloud.executions(outputs["Machine"]) == []


def test_a_stack_with_a_broken_definition_is_rolled_back(cloud):
    with deployed(cloud, {"QueryLanguage": "JSONata", "StartAt": "Begin", "States": {"End": PASS}}) as stack:
        assert stack["StackStatus"] == "ROLLBACK_COMPLETE"


@contextlib.contextmanager
def deployed(cloud: LocalCloud, definition: dict) -> Iterator[dict]:
    """Creates a stack of a state machine and a schedule, yields what came of it, and deletes it."""
    cloudformation = cloud.client("cloudformation")
    request = {"StackName": "states", "TemplateBody": template(definition), "Capabilities": ["CAPABILITY_IAM"]}
    cloudformation.create_stack(**request)

    def stack() -> dict:
        return cloudformation.describe_stacks(StackName="states")["Stacks"][0]

    until(lambda: stack()["StackStatus"] in ("ROLLBACK_COMPLETE", "CREATE_COMPLETE"), 20)
    yield stack()
    cloudformation.delete_stack(StackName="states")
    cloudformation.get_waiter("stack_delete_complete").wait(StackName="states", WaiterConfig=QUICK)


def template(definition: dict) -> str:
    """Returns a template of a state machine and a schedule that starts it."""

    def role(service: str, *statements: dict) -> dict:
        trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
        policies = [{"PolicyName": "may", "PolicyDocument": {"Statement": list(statements)}}] if statements else []
        properties = {"AssumeRolePolicyDocument": {"Statement": [trust]}, "Policies": policies}
        return {"Type": "AWS::IAM::Role", "Properties": properties}

    starts = {"Effect": "Allow", "Action": "states:StartExecution", "Resource": {"Ref": "Machine"}}
    target = {
        "Id": "machine",
        "Arn": {"Ref": "Machine"},
        "RoleArn": {"Fn::GetAtt": ["RuleRole", "Arn"]},
        "Input": '{"trigger": "schedule"}',
    }
    machine = {"RoleArn": {"Fn::GetAtt": ["Role", "Arn"]}, "DefinitionString": json.dumps(definition)}
    resources = {
        "Role": role("states.amazonaws.com"),
        "Machine": {"Type": "AWS::StepFunctions::StateMachine", "Properties": machine},
        "RuleRole": role("events.amazonaws.com", starts),
        "Rule": {
            "Type": "AWS::Events::Rule",
            "Properties": {"ScheduleExpression": "rate(1 day)", "Targets": [target]},
        },
    }
    outputs = {name: {"Value": {"Ref": name}} for name in ("Machine", "Rule")}
    return json.dumps({"Resources": resources, "Outputs": outputs})


@pytest.fixture
def make(cloud: LocalCloud, request: pytest.FixtureRequest) -> Callable[..., str]:
    """Makes state machines, the first of the states first, whose role is allowed some statements."""
    return Machines(cloud, request.node.name).make
