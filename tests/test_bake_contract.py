"""Contracts of a bake's state machine that no linter sees: its ways, its errors, its variables, its calls, its role."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import botocore
import botocore.session
import pytest
from jsonata import Jsonata
from machine import ALL, FILE, MACHINE, Part, State, edges, expressions, last, parts, reachable, reads, states, tasks
from machine import assigned as assigned_by
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document
from samtranslator.yaml_helper import yaml_parse

from local import definitions
from local.client import ROOT
from local.integrations import Integration, from_states

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES = TEMPLATE["Resources"]
PROPERTIES = RESOURCES["BakeSnapshot"]["Properties"]
SOURCES = {name: ROOT / "functions" / folder for name, folder in (("Plan", "bake-plan"), ("Sweep", "bake-sweep"))}

TASKS = {task.name: task for task in tasks()}
ARCHITECTURE = next(part for part in parts() if part.outer and part.outer.name == "BakeEach")
"""What is done for one architecture."""

OF_STATES = {"States.ALL", "States.QueryEvaluationError", "States.TaskFailed", "States.Timeout"}
"""What is used of the errors of Step Functions' own (Amazon States Language, predefined error codes)."""
OF_STEP_FUNCTIONS = {"hash", "parse", "partition", "random", "range", "uuid"}
"""The functions that Step Functions adds to JSONata (Step Functions, JSONata functions)."""
LOG_DELIVERY = {
    *(f"logs:{action}LogDelivery" for action in ("Create", "Get", "Update", "Delete")),
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}
"""What a role needs for a machine that logs (Step Functions, logging in CloudWatch Logs)."""


# The machine


def test_step_functions_accepts_the_definition():
    assert definitions.faults(definition()) == []


def test_no_two_states_have_one_name():
    names = [state.name for state in states()]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize("state", states(), ids=lambda state: state.name)
def test_every_way_out_of_a_state_leads_to_one_beside_it(state):
    assert {edge.target for edge in edges(state)} <= state.part.states.keys()


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.start)
def test_every_state_is_reached_and_comes_to_an_end(part):
    assert reachable(part, part.start) == part.states.keys()
    for name in part.states:
        assert reachable(part, name) & last(part), name


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_call_has_a_time_limit_and_is_made_again(task):
    sweeps = "${BakeSweepArn}" in json.dumps(task.fields["Arguments"])
    assert 1 <= task.fields["TimeoutSeconds"] <= (330 if sweeps else 90)
    for error in ("States.TaskFailed", "States.Timeout"):
        [retrier] = [retrier for retrier in task.fields["Retry"] if error in retrier["ErrorEquals"]]
        assert retrier["MaxAttempts"] >= 3
        assert (retrier["BackoffRate"], retrier["JitterStrategy"]) == (2, "FULL")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_whatever_a_call_ends_with_is_caught_by_its_state_or_by_the_map_around_it(task):
    state = task
    while state and ALL not in caught(state):
        assert state.part.outer is not None and "Catch" not in state.fields, f"{state.name} catches some errors only"
        state = state.part.outer
    assert state, task.name


@pytest.mark.parametrize("map_", [state for state in states() if state.type == "Map"], ids=lambda state: state.name)
def test_a_map_catches_what_its_states_do_not(map_):
    assert caught(map_)[-1] == ALL


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_what_is_told_apart_is_not_tried_again_for_nothing_and_is_caught(task):
    apart = [error for error in caught(task) if error not in OF_STATES]
    for error in apart:
        retrier = next(retrier for retrier in task.fields["Retry"] if error in retrier["ErrorEquals"])
        assert retrier["MaxAttempts"] <= 2
    assert not set(apart) - named_errors(task)


def test_what_fails_for_an_architecture_is_cleaned_up_before_its_end():
    failures = {
        edge.target
        for state in states()
        if state.part == ARCHITECTURE and state.name != "CleanUp"
        for edge in edges(state)
        if ALL in edge.errors or ARCHITECTURE.states[edge.target].get("Assign", {}).get("failedStep")
    }
    assert failures
    assert not reachable(ARCHITECTURE, *failures, without=frozenset({"CleanUp"})) & last(ARCHITECTURE)


def test_every_step_that_fails_an_architecture_says_so_and_why():
    for state in states():
        if state.part == ARCHITECTURE and state.name not in ("BeginArchitecture", "CleanUp"):
            ways = [edge for edge in edges(state) if ALL in edge.errors or edge.target == "WaitForEc2"]
            assert all(edge.assigns >= {"failedStep", "failure"} for edge in ways), state.name


def test_a_builder_that_was_launched_is_terminated_whichever_way_is_taken():
    launched = ARCHITECTURE.states["LaunchBuilder"]["Next"]
    builder = {"TerminateBuilder", "CleanUp"}
    ways_without = frozenset(builder | {"IsThereABuilder"})
    assert not reachable(ARCHITECTURE, launched, without=ways_without) & last(ARCHITECTURE)
    there = ARCHITECTURE.states["IsThereABuilder"]
    assert there["Choices"] == [{"Condition": "{% $builder != '' %}", "Next": "TerminateBuilder"}]


def test_the_lock_is_let_go_whichever_way_is_taken():
    [top] = [part for part in parts() if part.outer is None]
    assert not reachable(top, "DescribeCluster", without=frozenset({"LetGo"})) & last(top)


# Errors


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_error_that_is_named_is_one_that_the_call_can_end_with(task):
    assert named_errors(task) <= OF_STATES | errors_of(task)


def test_what_no_other_try_can_mend_is_planned_once():
    [final, _] = TASKS["Plan"].fields["Retry"]
    assert set(final["ErrorEquals"]) == error_types("Plan") - {"AwsError"}
    assert final["MaxAttempts"] == 0


@pytest.mark.parametrize("function", SOURCES)
def test_every_error_of_a_function_is_in_the_readme_or_is_awss(function):
    readme = (ROOT / "README.md").read_text()
    for error in error_types(function) - {"AwsError", "BadRequest"}:
        assert f"`{error}`" in readme, error


def test_every_step_that_the_readme_tells_of_is_one():
    section = (ROOT / "README.md").read_text().partition("## Bake")[2].partition("\n## ")[0]
    rows = section.partition("| step | it says | then |")[2].splitlines()[2:]
    steps = {step for row in rows if row.startswith("|") for step in re.findall(r"`(\w+)`", row.split("|")[1])}
    assert steps and steps <= {state.name for state in states()}


# The template


def test_what_the_template_substitutes_is_what_the_definition_has():
    assert set(re.findall(r"\$\{(\w+)\}", FILE.read_text())) == PROPERTIES["DefinitionSubstitutions"].keys()


def test_everything_that_is_substituted_is_the_templates():
    known = RESOURCES.keys() | TEMPLATE["Parameters"].keys()
    for value in PROPERTIES["DefinitionSubstitutions"].values():
        for name in references(value):
            assert name.startswith("AWS::") or name in known, name


def test_numbers_stand_in_expressions_and_everything_else_in_texts():
    """A substitution that is a number would be a text in JSON, and a text in an expression would be a name."""
    numbers = {
        name
        for name, value in PROPERTIES["DefinitionSubstitutions"].items()
        if TEMPLATE["Parameters"].get(value.get("Ref"), {}).get("Type") == "Number"
    }
    within = {name for text in expressions(MACHINE) for name in re.findall(r"(?<!')\$\{(\w+)\}(?![/\w-]*')", text)}
    assert within == numbers


# Variables


def test_no_map_assigns_what_is_assigned_outside_of_it():
    for part in parts():
        outer = part.outer
        while outer:
            outside = {name for state in states() if state.part == outer.part for name in assigned_by(state)}
            inside = {name for state in states() if state.part == part for name in assigned_by(state)}
            assert not inside & outside, f"within {part.outer.name}"
            outer = outer.part.outer


@pytest.mark.parametrize("part", parts(), ids=lambda part: part.start)
def test_every_variable_is_assigned_on_every_way_to_where_it_is_read(part):
    for name, known in assigned_before(part).items():
        state = State(name, part, part.states[name])
        variables = {variable for variable in reads(state) if variable not in functions()}
        assert variables <= known, f"{name} reads {sorted(variables - known)}"


def test_every_variable_is_read():
    read = {name for state in states() for name in reads(state)}
    assert {name for state in states() for name in assigned_by(state)} <= read


# Calls


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_every_argument_is_one_that_the_call_takes(task):
    call, unknown = Integration(resource(task)), []
    given = from_states(task.fields["Arguments"], call.input, unknown, renamed=task.service != "dynamodb")
    assert unknown == []
    assert set(call.input.required_members) <= given.keys()


def test_a_misspelt_argument_would_be_found():
    broken = definition().replace('"MinCount"', '"MinimumCount"')
    assert any("MinimumCount" in fault for fault in definitions.faults(broken))


# Permissions


def test_the_machine_may_do_what_its_states_do_and_nothing_else():
    calls = {action(task) for task in TASKS.values()}
    besides = {"iam:PassRole", "ec2:CreateTags"}  # for RunInstances, and for the tags that come with what is made
    assert allowed("BakeSnapshotRole") == calls | besides | LOG_DELIVERY


@pytest.mark.parametrize(("role", "function"), [("BakePlanRole", "Plan"), ("BakeSweepRole", "Sweep")])
def test_a_function_may_do_what_its_source_does_and_nothing_else(role, function):
    logs = {"logs:CreateLogStream", "logs:PutLogEvents"}
    actions = allowed(role)
    assert actions >= logs
    assert {action.partition(":")[2] for action in actions - logs} == operations_of(SOURCES[function])


@pytest.mark.parametrize("role", ["BakeSnapshotRole", "BakeSweepRole"])
def test_what_is_changed_in_ec2_carries_the_stacks_tag_or_gets_it(role):
    ours = ("aws:RequestTag/bake-snapshot/stack", "aws:ResourceTag/bake-snapshot/stack")
    for statement in statements(role):
        actions = set(listed(statement["Action"]))
        if not any(re.match("ec2:(?!Describe)", action) for action in actions):
            continue
        condition = statement.get("Condition", {}).get("StringEquals", {})
        if actions == {"ec2:CreateTags"} and "ec2:CreateAction" in condition:
            assert condition["ec2:CreateAction"] == ["RunInstances", "CreateSnapshot"]
        elif any(kind in json.dumps(statement["Resource"]) for kind in (":image/", ":subnet/")):
            assert actions == {"ec2:RunInstances"}  # what a builder is made of and stands in, which is not changed
            assert not re.search(":(instance|volume|network-interface)/", json.dumps(statement["Resource"]))
        else:
            assert [condition[key] for key in ours if key in condition] == [{"Ref": "AWS::StackName"}]


def test_builders_are_given_their_own_role_or_one_that_was_named_and_ec2_only():
    [passing] = [s for s in statements("BakeSnapshotRole") if s["Action"] == "iam:PassRole"]
    own = {"Fn::GetAtt": ["BuilderRole", "Arn"]}
    named = {"Fn::Join": [",", {"Ref": "BakeRoleArns"}]}
    both = {"Fn::Split": [",", {"Fn::Join": [",", [own, named]]}]}
    assert passing["Resource"] == {"Fn::If": ["HasBakeRoles", both, [own]]}
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": {"Fn::Sub": "ec2.${AWS::URLSuffix}"}}}


def test_a_bake_says_what_it_has_made_whether_a_source_is_read_as_one_value_or_as_several_and_nothing_else():
    [saying] = [s for s in statements("BakeSnapshotRole") if s["Action"] == "events:PutEvents"]
    policies = [parse_policy_document({"Version": "2012-10-17", "Statement": [{**saying, "Resource": "*"}]})]

    def is_allowed(**keys: Any) -> bool:
        context = EvalContext("role", "AssumedRole", "1", "events:PutEvents", "*", "r", service_context=keys)
        return evaluate(context, policies).decision == "Allow"

    for own, other in (("eks-image-prefetch", "aws.ec2"), (["eks-image-prefetch"], ["eks-image-prefetch", "aws.ec2"])):
        assert is_allowed(**{"events:source": own})
        assert not is_allowed(**{"events:source": other})
    assert not is_allowed()


def test_a_builder_may_run_commands_and_pull_and_nothing_else():
    services = {action.partition(":")[0] for action in allowed("BuilderRole")}
    assert services == {"ssm", "ssmmessages", "ec2messages", "ecr"}
    assert {a for a in allowed("BuilderRole") if a.startswith(("ssm:", "ecr:"))} == {
        "ssm:UpdateInstanceInformation",
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:BatchGetImage",
        "ecr:GetDownloadUrlForLayer",
    }


# Helpers


def definition(**values: str) -> str:
    """Returns the definition as Step Functions gets it, with something in place of each substitution."""
    numbers = {"CollectMinutes": "10", "DeliveryTimeout": "600", "ExecutionTimeout": "3600"}
    values = {"Partition": "aws", **numbers, **values}
    return re.sub(r"\$\{(\w+)\}", lambda match: values.get(match[1], match[1]), FILE.read_text())


def resource(task: State) -> str:
    """Returns what a task calls."""
    return task.fields["Resource"].replace("${Partition}", "aws")


def caught(state: State) -> list[str]:
    """Returns the errors that a state catches, in their order."""
    return [error for catcher in state.fields.get("Catch", []) for error in catcher["ErrorEquals"]]


def named_errors(task: State) -> set[str]:
    """Returns the errors that a task's retriers and catchers name."""
    ways = [*task.fields["Retry"], *task.fields.get("Catch", [])]
    return {error for way in ways for error in way["ErrorEquals"]}


def errors_of(task: State) -> set[str]:
    """Returns the errors that a task's call can end with, by the names that Step Functions gives them."""
    if task.service == "lambda":
        return error_types("Plan" if "Plan" in task.fields["Arguments"]["FunctionName"] else "Sweep")
    prefix = {"dynamodb": "DynamoDB", "events": "EventBridge"}.get(task.service, task.service.capitalize())
    shapes = [shape.name for shape in Integration(resource(task)).operation.error_shapes]
    # The Java SDK's classes of errors end with Exception.
    return {f"{prefix}.{name if name.endswith('Exception') else f'{name}Exception'}" for name in shapes}


def error_types(function: str) -> set[str]:
    """Returns the types of a function's errors, which stand in its source where they become Lambda's."""
    found = set()
    for file in SOURCES[function].rglob("src/**/*.rs"):
        for body in re.findall(r"let error_type = match.*?\};", file.read_text(), re.DOTALL):
            found |= set(re.findall(r'=> "(\w+)"', body))
    assert found, function
    return found


def references(value: Any) -> Iterator[str]:
    """Yields the names that a value of the template refers to."""
    if isinstance(value, dict):
        if "Ref" in value:
            yield value["Ref"]
        elif "Fn::GetAtt" in value:
            yield value["Fn::GetAtt"][0]
        else:
            yield from re.findall(r"\$\{([\w:]+)", value["Fn::Sub"])


def assigned_before(part: Part) -> dict[str, set[str]]:
    """Returns the variables that are assigned on every way to each state of a sequence."""
    outside = assigned_before(part.outer.part)[part.outer.name] if part.outer else set()
    known: dict[str, set[str]] = {part.start: outside}
    open_ = [part.start]
    while open_:
        name = open_.pop()
        for edge in edges(State(name, part, part.states[name])):
            before = known[name] | edge.assigns
            if edge.target not in known or known[edge.target] - before:
                known[edge.target] = known.get(edge.target, before) & before
                open_.append(edge.target)
    return known


def functions() -> set[str]:
    """Returns the functions that an expression can call."""
    return set(Jsonata.static_frame.bindings) | OF_STEP_FUNCTIONS


def action(task: State) -> str:
    """Returns the action that allows a task's call (service authorization reference)."""
    service = {"sfn": "states"}.get(task.service, task.service)
    name = task.action[0].upper() + task.action[1:]
    return f"{service}:{ {'lambda:Invoke': 'InvokeFunction'}.get(f'{service}:{name}', name) }"


def operations_of(folder: Path) -> set[str]:
    """Returns the operations of AWS that a function's source calls, and those of what it uses of the shared source."""
    sdks = re.findall(r"^aws-sdk-(\w+)", (folder / "Cargo.toml").read_text(), re.MULTILINE)
    source = "".join(code(file) for file in folder.rglob("src/**/*.rs") if "tests" not in file.with_suffix("").parts)
    used = " ".join(re.findall(r"use prefetch::(?s:.*?);|prefetch::\w+", source))
    modules = {ROOT / "shared" / "src" / f"{module}.rs" for module in re.findall(r"\w+", used)}
    source += "".join(code(file) for file in modules if file.exists())
    called = set(re.findall(r"\.(\w+)\(\)", source))
    models = [botocore.session.get_session().get_service_model({"sfn": "stepfunctions"}.get(sdk, sdk)) for sdk in sdks]
    return {name for model in models for name in model.operation_names if botocore.xform_name(name) in called}


def code(file: Path) -> str:
    """Returns a source file without its tests."""
    return re.split(r"#\[cfg\((?:all\()?test\b", file.read_text())[0]


def statements(role: str) -> list[dict]:
    """Returns the statements of a role's policies."""
    policies = RESOURCES[role]["Properties"]["Policies"]
    return [statement for policy in policies for statement in policy["PolicyDocument"]["Statement"]]


def allowed(role: str) -> set[str]:
    """Returns the actions that a role may do."""
    return {action for statement in statements(role) for action in listed(statement["Action"])}


def listed(value: str | list[str]) -> list[str]:
    """Returns a value that may be one or a list of them as a list."""
    return value if isinstance(value, list) else [value]
