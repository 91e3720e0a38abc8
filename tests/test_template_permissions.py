"""The template's roles allow what is needed and no more, and who observes sends nothing."""

import json
import re
from pathlib import Path

import contract
import pytest
from machine import edges, parts, reachable, states_of
from template import FUNCTIONS, RESOURCES, TEMPLATE

from local.client import ROOT

WITHOUT_RESOURCE = {
    "autoscaling:DescribeAutoScalingInstances",
    "ec2:DescribeFastSnapshotRestores",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeLaunchTemplates",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSnapshots",
    "ec2:DescribeSubnets",
    "ec2messages:AcknowledgeMessage",
    "ec2messages:DeleteMessage",
    "ec2messages:FailMessage",
    "ec2messages:GetEndpoint",
    "ec2messages:GetMessages",
    "ec2messages:SendReply",
    "ecr:GetAuthorizationToken",
    "logs:CreateLogDelivery",
    "logs:DeleteLogDelivery",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:GetLogDelivery",
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:UpdateLogDelivery",
    "scheduler:ListSchedules",
    "ssm:CancelCommand",
    "ssm:DescribeInstanceInformation",
    "ssm:GetCommandInvocation",
    "ssm:ListCommandInvocations",
    "ssm:ListCommands",
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}
"""The actions for which AWS has no finer resource."""


def test_no_statement_allows_a_wildcard_action_and_none_a_bare_resource_but_where_aws_has_no_finer():
    roles = [resource["Properties"] for resource in RESOURCES.values() if resource["Type"] == "AWS::IAM::Role"]
    policies = [policy["PolicyDocument"] for role in roles for policy in role.get("Policies", [])]
    policies += [r["Properties"]["PolicyDocument"] for r in RESOURCES.values() if r["Type"] == "AWS::IAM::Policy"]
    policies += [
        r["Properties"]["PolicyDocument"] for r in RESOURCES.values() if r["Type"] == "AWS::IAM::ManagedPolicy"
    ]
    policies = [json.loads(policy["Fn::Sub"]) if "Fn::Sub" in policy else policy for policy in policies]
    statements = [s for policy in policies for s in policy["Statement"] if s["Effect"] == "Allow"]
    assert not any("ManagedPolicyArns" in role for role in roles)
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        if statement["Resource"] == "*":
            assert set(actions) <= WITHOUT_RESOURCE


def test_where_the_stack_observes_nobody_may_send_a_command_or_launch_a_builder():
    sending = RESOURCES["SendPrefetchImages"]
    assert sending["Condition"] == RESOURCES["SendResolveTags"]["Condition"] == "Sends"
    allowing = {name for name, resource in RESOURCES.items() if "SendCommand" in json.dumps(resource)}
    assert allowing == {"SendPrefetchImages", "SendResolveTags", "SendToJoining", "BakeSnapshotRole", "BakeNothing"}
    assert RESOURCES["SendToJoining"]["Condition"] == "SendsToJoining"
    assert TEMPLATE["Conditions"]["SendsToJoining"]["Fn::And"][0] == {"Condition": "Sends"}
    denying = RESOURCES["BakeNothing"]
    assert (denying["Condition"], denying["Properties"]["Roles"]) == ("Observes", [{"Ref": "BakeSnapshotRole"}])
    statements = denying["Properties"]["PolicyDocument"]["Statement"]
    assert {(s["Effect"], s["Action"]) for s in statements} == {
        ("Deny", "ssm:SendCommand"),
        ("Deny", "ec2:RunInstances"),
    }
    conditions = TEMPLATE["Conditions"]
    assert [conditions[name] for name in ("Sends", "Observes")] == [
        {"Fn::Equals": [{"Ref": "Mode"}, mode]} for mode in TEMPLATE["Parameters"]["Mode"]["AllowedValues"]
    ]


def test_who_serves_launches_alone_may_send_by_tags_that_are_there_before_the_node_joins():
    joining = RESOURCES["SendToJoining"]["Properties"]
    assert joining["Roles"] == [{"Ref": "NodeLaunchRole"}]
    statements = json.loads(joining["PolicyDocument"]["Fn::Sub"])["Statement"]
    assert {(s["Effect"], s["Action"], s["Resource"].rpartition(":")[2]) for s in statements} == {
        ("Allow", "ssm:SendCommand", "instance/*")
    }
    assert [statement["Condition"].pop("StringEquals") for statement in statements] == [
        {"ssm:resourceTag/eks:cluster-name": "${ClusterName}"},
        {"ssm:resourceTag/eks:eks-cluster-name": "${ClusterName}"},
        {"ssm:resourceTag/kubernetes.io/cluster/${ClusterName}": "owned"},
    ]
    # A node that has joined another cluster is that one's, whatever else it carries.
    joined = {"StringEqualsIfExists": {"ssm:resourceTag/aws:eks:cluster-name": "${ClusterName}"}}
    assert all(statement["Condition"] == joined for statement in statements)
    default = TEMPLATE["Parameters"]["ClusterTagKey"]["Default"]
    assert TEMPLATE["Conditions"]["SendsToJoining"]["Fn::And"][1] == {"Fn::Equals": [{"Ref": "ClusterTagKey"}, default]}


def test_who_serves_launches_writes_rows_of_launches_and_no_others():
    [policy] = RESOURCES["NodeLaunchRole"]["Properties"]["Policies"]
    [writing] = [s for s in policy["PolicyDocument"]["Statement"] if "dynamodb:PutItem" in s["Action"]]
    assert writing["Action"] == ["dynamodb:PutItem", "dynamodb:DeleteItem"]
    assert writing["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["launch#*"]}}


@pytest.mark.parametrize("role", ["ImagePushRole", "NodeLaunchRole", "BakePlanRole"])
def test_who_asks_what_nodes_run_reads_those_rows_and_no_others(role):
    [policy] = RESOURCES[role]["Properties"]["Policies"]
    [reading] = [s for s in policy["PolicyDocument"]["Statement"] if s["Action"] == "dynamodb:Query"]
    assert reading["Condition"] == {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["usage#*", "images#*"]}}


def test_the_rules_that_fill_the_node_queue_are_let_and_their_events_are_not_lost():
    rules = {
        name: resource["Properties"]["Targets"]
        for name, resource in RESOURCES.items()
        if resource["Type"] == "AWS::Events::Rule" and "NodeQueue" in json.dumps(resource)
    }
    assert rules.keys() == {"NodeRunning", "NodeLaunched"}
    for [target] in rules.values():
        assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["NodeDeadLetters", "Arn"]}}
    [statement] = RESOURCES["NodeQueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    sources = [{"Fn::GetAtt": [name, "Arn"]} for name in rules]
    assert statement["Condition"]["ArnEquals"]["aws:SourceArn"] == sources


def test_only_the_sender_makes_a_request_that_sends_and_it_asks_for_the_mode():
    sends = re.compile(r"\bsend_command\(\)|\bsend_command::builders\b|\bsend_command_input\b|\bsend_with\(")
    sources = [
        *(ROOT / "functions").rglob("src/**/*.rs"),
        ROOT / "shared/src/lib.rs",
        *(ROOT / "shared/src").rglob("*.rs"),
    ]
    made = {file.relative_to(ROOT).as_posix() for file in sources if sends.search(code(file))}
    assert made == {"shared/src/sender/client.rs", "shared/src/sender/request.rs", "shared/src/tags.rs"}
    # What asks a node for tags changes nothing on it, and asks none where the stack observes.
    tags = code(ROOT / "shared/src/tags.rs")
    assert tags.count("send_command()") == 1
    assert "if self.mode == Mode::Observe {\n            return Err(TagsError::Observes(first.clone()));" in tags
    # In that file the request is made in one function, and that is called where the mode says so.
    sender = code(ROOT / "shared/src/sender/client.rs")
    assert re.findall(r"(.*\bsend\(client\b)[:,]", sender) == [
        "            Backend::Send(client) => send(client",
        "async fn send(client",
    ]
    assert sender.count("send_with(") == 1


def test_no_bake_begins_where_the_stack_observes():
    [machine, *_] = parts()
    [ways] = [edges(state) for state in states_of(machine) if state.name == machine.start]
    assert [(way.how, way.target) for way in ways] == [("Default", "Begin"), ("Choices", "Observed")]
    [choice] = machine.states[machine.start]["Choices"]
    assert choice["Condition"] == "{% '${Mode}' = 'observe' %}"
    assert RESOURCES["BakeSnapshot"]["Properties"]["DefinitionSubstitutions"]["Mode"] == {"Ref": "Mode"}
    assert reachable(machine, "Observed") == {"Observed"}


def test_the_schedules_role_is_for_schedules_of_the_stacks_group_and_is_given_to_scheduler_only():
    [trust] = RESOURCES["ScheduleRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert trust["Principal"] == {"Service": "scheduler.amazonaws.com"}
    assert trust["Condition"]["StringEquals"]["aws:SourceArn"] == {"Fn::GetAtt": ["ScheduleGroup", "Arn"]}
    [policy] = RESOURCES["JobsRole"]["Properties"]["Policies"]
    [passing] = [s for s in policy["PolicyDocument"]["Statement"] if s["Action"] == "iam:PassRole"]
    assert passing["Resource"] == {"Fn::GetAtt": ["ScheduleRole", "Arn"]}
    assert passing["Condition"] == {"StringEquals": {"iam:PassedToService": "scheduler.amazonaws.com"}}


def test_the_apis_routes_are_those_of_its_document_each_for_who_may_invoke_it():
    events = [e["Properties"] for e in RESOURCES["Jobs"]["Properties"]["Events"].values() if e["Type"] == "HttpApi"]
    assert sorted((event["Method"], event["Path"]) for event in events) == sorted(contract.operations())
    assert not any("Auth" in event for event in events)
    api = RESOURCES["JobsApi"]["Properties"]
    assert api["Auth"] == {"EnableIamAuthorizer": True, "DefaultAuthorizer": "AWS_IAM"}
    assert {"ThrottlingRateLimit", "ThrottlingBurstLimit"} <= api["DefaultRouteSettings"].keys()
    line = json.loads(api["AccessLogSettings"]["Format"])
    assert {"caller", "method", "path", "requestId", "route", "status"} <= line.keys()


def test_every_function_has_a_role_of_its_own_to_which_sam_adds_nothing():
    for name in FUNCTIONS:
        assert RESOURCES[name]["Properties"]["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
        assert "Policies" not in RESOURCES[name]["Properties"]


def code(file: Path) -> str:
    """Returns a source file without its tests."""
    is_test = file.name == "tests.rs" or "tests" in file.parent.parts or file.stem in ("cloud", "mocks")
    return "" if is_test else file.read_text().partition("#[cfg(test)]")[0]
