"""The roles of a bake allow what its states and its functions do, and nothing else."""

import json
import re
from pathlib import Path
from typing import Any

import botocore
import botocore.session
import pytest
from machine import SOURCES, State, tasks
from ministack.core.iam_evaluator import EvalContext, evaluate, parse_policy_document
from template import RESOURCES

from local.client import ROOT

LOG_DELIVERY = {
    *(f"logs:{action}LogDelivery" for action in ("Create", "Get", "Update", "Delete")),
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
}
"""Lists what a role needs for a machine that logs (Step Functions, logging in CloudWatch Logs)."""


def test_the_machine_may_do_what_its_states_do_and_nothing_else():
    calls = {action(task) for task in tasks()}
    besides = {"iam:PassRole", "ec2:CreateTags"}  # for RunInstances, and for the tags that come with what is made
    assert allowed("BakeSnapshotRole") == calls | besides | LOG_DELIVERY


@pytest.mark.parametrize(("role", "function"), [("BakePlanRole", "Plan"), ("BakeSweepRole", "Sweep")])
def test_a_function_may_do_what_its_source_does_and_nothing_else(role, function):
    logs = {"logs:CreateLogStream", "logs:PutLogEvents"}
    actions = allowed(role)
    assert actions >= logs
    # Which nodes tell what tags are, and what they told, is asked by prefetch::ssm; SendResolveTags lets it ask them.
    of_tags = {"DescribeInstanceInformation", "GetCommandInvocation"} if function == "Plan" else set()
    called = operations_of(SOURCES[function]) | of_tags
    assert {action.partition(":")[2] for action in actions - logs} == called


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
    names = set(re.findall(r"\w+", used))
    sdks += ["dynamodb"] * ("usage" in names)  # the shared source asks the table for it
    shared = [file for file in (ROOT / "shared" / "src").rglob("*.rs") if "tests" not in file.with_suffix("").parts]
    source += "".join(code(file) for file in shared if module_of(file) in names)
    called = set(re.findall(r"\.(\w+)\(\)", source))
    models = [botocore.session.get_session().get_service_model({"sfn": "stepfunctions"}.get(sdk, sdk)) for sdk in sdks]
    return {name for model in models for name in model.operation_names if botocore.xform_name(name) in called}


def module_of(file: Path) -> str:
    """Returns the module of the shared source that a file belongs to, whichever folder it stands in."""
    return file.relative_to(ROOT / "shared" / "src").with_suffix("").parts[0]


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
