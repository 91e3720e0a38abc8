"""Contracts of the template that no linter sees: event patterns, permissions, metrics, the functions' files."""

import itertools
import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import contract
import pytest
from machine import edges, parts, reachable, states_of
from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT
from local.cloudwatch import dashboards
from local.stack import TEMPLATE as BUILT

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES = TEMPLATE["Resources"]
DOCUMENT = json.loads((ROOT / "ssm" / "document.json").read_text())
PUSH = RESOURCES["ImagePush"]["Properties"]["Events"]["ImageArrived"]["Properties"]["Pattern"]
RUNNING = RESOURCES["NodeRunning"]["Properties"]["EventPattern"]
LAUNCHED = RESOURCES["NodeLaunched"]["Properties"]["EventPattern"]
OUR_DOCUMENT = "eks-image-prefetch-prefetch-images"
REPORTED = json.loads(
    json.dumps(RESOURCES["NodeReported"]["Properties"]["EventPattern"]).replace(
        '{"Ref": "PrefetchImages"}', json.dumps(OUR_DOCUMENT)
    )
)
STACK_ID = "arn:aws:cloudformation:eu-west-1:123456789012:stack/eks-image-prefetch/1"
DEPLOYED = json.loads(
    json.dumps(RESOURCES["Jobs"]["Properties"]["Events"]["Deployed"]["Properties"]["Pattern"]).replace(
        '{"Ref": "AWS::StackId"}', json.dumps(STACK_ID)
    )
)
FUNCTIONS = sorted(name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Serverless::Function")
PARAMETERS = TEMPLATE["Parameters"].keys()
CHECKED = RESOURCES["CheckedSettings"]["Properties"]
QUEUES = sorted(name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::SQS::Queue")
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
    "CommandsWithoutNodes": [BY_CLUSTER, BY_RULE],
    "CommandsObserved": [BY_CLUSTER, BY_RULE],
    "NodesWarm": [BY_CLUSTER],
    "NodesCold": [BY_CLUSTER],
    "NodesUnreachable": [BY_CLUSTER],
}
"""What the functions emit, each with its sets of dimensions: node-result most of it, the senders what is observed,
jobs the nodes that it counts."""

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
"""What is used of what SQS, Lambda, Step Functions and HTTP APIs emit (their developer guides)."""

DIMENSIONS_OF_AWS = {
    "AWS/SQS": [{"QueueName": f"{name}.QueueName"} for name in QUEUES],
    "AWS/Lambda": [{"FunctionName": name} for name in FUNCTIONS],
    "AWS/States": [{"StateMachineArn": "BakeSnapshot"}],
    "AWS/ApiGateway": [{"ApiId": "JobsApi"}],
}
"""The dimensions by which this stack's own are told from others, as the template refers to them."""


@pytest.mark.parametrize(
    ("pattern", "event", "matches"),
    [
        (PUSH, "image-push.tagged", True),
        (PUSH, "image-push.index", True),
        (PUSH, "image-push.replication", True),
        (PUSH, "image-push.pull-through-cache", True),
        (PUSH, "image-push.pull-through-cache-failed", False),
        (PUSH, "image-push.restored", True),
        (PUSH, "image-push.archived", False),
        (PUSH, "image-push.delete", False),
        (PUSH, "image-push.failed", False),
        (PUSH, "image-push.scan", False),
        (PUSH, "node-launch.running", False),
        (RUNNING, "node-launch.running", True),
        (RUNNING, "node-launch.terminated", False),
        (RUNNING, "node-launch.asg-launch", False),
        (LAUNCHED, "node-launch.asg-launch", True),
        (LAUNCHED, "node-launch.lifecycle", True),
        (LAUNCHED, "node-launch.running", False),
    ],
)
def test_a_rule_takes_the_events_its_function_can_use_and_no_others(cloud, pattern, event, matches):
    event = (ROOT / "events" / f"{event}.json").read_text()
    answer = cloud.client("events").test_event_pattern(EventPattern=json.dumps(pattern), Event=event)
    assert answer["Result"] is matches


@pytest.mark.parametrize(
    "detail_type", ["EC2 Command Invocation Status-change Notification", "EC2 Command Status-change Notification"]
)
@pytest.mark.parametrize(
    ("status", "matches"),
    [
        ("Pending", False),
        ("InProgress", False),
        ("Delayed", False),
        ("Cancelling", False),
        ("Success", True),
        ("Failed", True),
        ("TimedOut", True),
        ("Cancelled", True),
        ("Terminated", True),
        ("a status that SSM adds later", True),
    ],
)
def test_a_command_is_reported_once_it_has_ended_whatever_it_ended_as(cloud, detail_type, status, matches):
    assert reported(cloud, ended(detail_type=detail_type, status=status)) is matches


@pytest.mark.parametrize(
    "change",
    [
        {"document": "AWS-RunShellScript"},
        {"document": f"{OUR_DOCUMENT}-of-another-stack"},
        {"source": "aws.ec2"},
        {"detail_type": "EC2 Automation Execution Status-change Notification"},
    ],
)
def test_what_is_not_of_our_document_is_not_reported(cloud, change):
    assert reported(cloud, ended())
    assert not reported(cloud, ended(**change))


@pytest.mark.parametrize("pattern", [PUSH, RUNNING, LAUNCHED, REPORTED, DEPLOYED])
def test_every_leaf_of_an_event_pattern_is_a_list(pattern):
    def leaves(value):
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from (leaf for item in inner for leaf in leaves(item)) if name == "$or" else leaves(inner)
        else:
            yield value

    assert all(isinstance(leaf, list) for leaf in leaves(pattern))


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
            assert set(actions) <= {
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


def test_where_the_stack_observes_nobody_may_send_a_command_or_launch_a_builder():
    sending = RESOURCES["SendPrefetchImages"]
    assert sending["Condition"] == "Sends"
    allowing = {name for name, resource in RESOURCES.items() if "SendCommand" in json.dumps(resource)}
    assert allowing == {"SendPrefetchImages", "SendToJoining", "BakeSnapshotRole", "BakeNothing"}
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


def test_who_serves_launches_knows_how_often_a_message_comes():
    redrive = RESOURCES["NodeQueue"]["Properties"]["RedrivePolicy"]
    assert variables("NodeLaunch")["MAX_RECEIVE_COUNT"] == str(redrive["maxReceiveCount"])


def test_only_the_sender_makes_a_request_that_sends_and_it_asks_for_the_mode():
    sends = re.compile(r"\bsend_command\(\)|\bsend_command::builders\b|\bsend_command_input\b|\bsend_with\(")
    sources = [
        *(ROOT / "functions").rglob("src/**/*.rs"),
        ROOT / "shared/src/lib.rs",
        *(ROOT / "shared/src").rglob("*.rs"),
    ]
    made = {file.relative_to(ROOT).as_posix() for file in sources if sends.search(code(file))}
    assert made == {"shared/src/sender/client.rs", "shared/src/sender/request.rs"}
    # In that file the request is made in one function, and that is called where the mode says so.
    sender = code(ROOT / "shared/src/sender/client.rs")
    assert re.findall(r"(.*\bsend\(client\b)[:,]", sender) == [
        "            Way::Send(client) => send(client",
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


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"status": "UPDATE_COMPLETE"}, True),
        ({"status": "CREATE_IN_PROGRESS"}, False),
        ({"status": "UPDATE_ROLLBACK_COMPLETE"}, False),
        ({"status": "DELETE_COMPLETE"}, False),
        ({"stack": "arn:aws:cloudformation:eu-west-1:123456789012:stack/other/2"}, False),
        ({"source": "custom"}, False),
    ],
)
def test_the_reconcile_follows_the_stacks_own_deployments(cloud, change, matches):
    event = {"stack": STACK_ID, "status": "CREATE_COMPLETE", "source": "aws.cloudformation", **change}
    detail = {"stack-id": event["stack"], "status-details": {"status": event["status"], "status-reason": ""}}
    envelope = ended(source=event["source"], detail_type="CloudFormation Stack Status Change")
    answer = cloud.client("events").test_event_pattern(
        EventPattern=json.dumps(DEPLOYED), Event=json.dumps({**envelope, "detail": detail})
    )
    assert answer["Result"] is matches


def test_every_function_has_a_role_of_its_own_to_which_sam_adds_nothing():
    for name in FUNCTIONS:
        assert RESOURCES[name]["Properties"]["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
        assert "Policies" not in RESOURCES[name]["Properties"]


def test_every_function_is_a_folder_a_package_and_a_resource_of_one_name():
    folders = {folder.name for folder in (ROOT / "functions").iterdir()}
    assert set(FUNCTIONS) == {"".join(part.title() for part in folder.split("-")) for folder in folders}
    assert {path.name.partition(".")[0] for path in (ROOT / "events").iterdir()} == folders
    for name in FUNCTIONS:
        assert RESOURCES[name]["Properties"]["CodeUri"].removeprefix("functions/") in folders


def test_every_other_function_is_deployed_after_the_check_of_the_settings():
    assert CHECKED["ServiceToken"] == {"Fn::GetAtt": ["SettingsCheck", "Arn"]}
    assert {name for name in FUNCTIONS if RESOURCES[name].get("DependsOn") != "CheckedSettings"} == {"SettingsCheck"}


def test_every_parameter_of_which_a_functions_environment_is_made_is_checked_anew_where_it_changes():
    checked = {setting["Ref"] for setting in CHECKED["Settings"]}
    assert checked == {name for function in FUNCTIONS for name in references(variables(function))} & PARAMETERS


def test_every_parameter_that_a_function_is_given_is_one_that_the_check_is_given():
    given = variables("SettingsCheck")
    for function in FUNCTIONS:
        for name, value in variables(function).items():
            if set(references(value)) & PARAMETERS and "Fn::Sub" not in value:
                assert given.get(name) == value, f"{function}: {name}"


@pytest.mark.parametrize("function", ["NodeLaunch", "NodeResult"])
def test_a_message_stays_away_for_a_whole_batch_and_comes_again_for_longer_than_an_outage(function):
    properties = RESOURCES[function]["Properties"]
    [source] = [event["Properties"] for event in properties["Events"].values() if event["Type"] == "SQS"]
    queue = RESOURCES[source["Queue"]["Fn::GetAtt"][0]]["Properties"]
    timeout = properties.get("Timeout", TEMPLATE["Globals"]["Function"]["Timeout"])
    window = TEMPLATE["Parameters"][source["MaximumBatchingWindowInSeconds"]["Ref"]]
    assert queue["VisibilityTimeout"] >= timeout + window["MaxValue"]
    assert queue["VisibilityTimeout"] * queue["RedrivePolicy"]["maxReceiveCount"] >= 15 * 60
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_a_report_that_is_handed_back_stays_away_for_twice_the_functions_timeout():
    timeout = RESOURCES["NodeResult"]["Properties"]["Timeout"]
    assert RESOURCES["ResultQueue"]["Properties"]["VisibilityTimeout"] >= 2 * timeout


def test_a_sweep_is_an_ordinary_scheduled_event():
    [sweep] = [e for e in RESOURCES["NodeResult"]["Properties"]["Events"].values() if e["Type"] == "Schedule"]
    assert "Input" not in sweep["Properties"]
    assert sweep["Properties"]["Schedule"] == {"Ref": "SweepInterval"}


def test_records_and_their_protection_outlive_the_stack():
    for name in ("Records", "RecordsPolicy"):
        assert RESOURCES[name]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


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
    [gauge] = [widget["properties"] for widget in dashboard()["widgets"] if widget["properties"].get("view") == "gauge"]
    ids = {row[-1]["id"]: row[1] for row in gauge["metrics"] if isinstance(row[0], str)}
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
        assert dashboards.shown(gauge["metrics"], values) == share, values


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
"""What bake-plan fails with is what its bake fails with, and the other two what the deployment does."""


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


@pytest.mark.parametrize("function", ["ImagePush", "NodeResult", "Jobs"])
def test_an_event_that_failed_every_try_is_kept(function):
    kept = RESOURCES[function]["Properties"]["EventInvokeConfig"]
    assert kept["MaximumRetryAttempts"] == 2
    queue = kept["DestinationConfig"]["OnFailure"]["Destination"]
    assert queue["Fn::GetAtt"][0].endswith("DeadLetters")
    [policy] = RESOURCES[f"{function}Role"]["Properties"]["Policies"]
    sends = [row for row in policy["PolicyDocument"]["Statement"] if row["Action"] == "sqs:SendMessage"]
    assert queue in [row["Resource"] for row in sends]


def test_a_patient_call_ends_before_its_function_does():
    source = (ROOT / "shared/src/aws.rs").read_text()
    [seconds] = re.findall(r"PATIENT_CALL: Duration = Duration::from_secs\((\d+)\)", source)
    assert int(seconds) < RESOURCES["ImagePush"]["Properties"]["Timeout"]


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        (
            "SweepInterval",
            ["rate(1 minute)", "rate(15 minutes)", "rate(999 minutes)", "rate(1 hour)", "rate(12 hours)"],
            [
                "rate(1 minutes)",
                "rate(0 minutes)",
                "rate(1000 minutes)",
                "rate(13 hours)",
                "rate(1 day)",
                "15 minutes",
                "",
            ],
        ),
        (
            "ReconcileInterval",
            ["", "rate(1 minute)", "rate(30 minutes)", "rate(1 hour)", "rate(24 hours)", "rate(1 day)", "rate(7 days)"],
            ["rate(1 hours)", "rate(0 hours)", "rate(25 hours)", "rate(8 days)", "cron(0 7 * * ? *)", "1 hour"],
        ),
        (
            "Rules",
            ["default", "[]", '[{"name": "gpu"}]', '[\n{"name": "gpu"},\n]'],
            ["", " ", "none", "Default", "default ", '{"name": "gpu"}', '[{"name": "gpu"}', " []"],
        ),
        ("BakeDefaults", ["{}", '{"keep": 1}', "{\n}"], ["", " ", "[]", "null", "{", " {}"]),
        (
            "AlarmTopicArn",
            ["", "arn:aws:sns:eu-west-1:123456789012:on-call", "arn:aws-cn:sns:cn-north-1:123456789012:on_call"],
            [
                "on-call",
                "arn:aws:sqs:eu-west-1:123456789012:on-call",
                "arn:aws:sns:eu-west-1:123456789012:on-call.fifo",
            ],
        ),
    ],
)
def test_a_parameter_takes_what_aws_takes(name, accepted, refused):
    pattern = TEMPLATE["Parameters"][name]["AllowedPattern"]
    assert all(re.fullmatch(pattern, value) for value in accepted)
    assert not any(re.fullmatch(pattern, value) for value in refused)


@pytest.mark.parametrize(
    "name",
    [
        "ImageGCHighThresholdPercent",
        "MaxParallelImagePulls",
        "MaxConnections",
        "MaxBandwidthMiB",
        "MaxImageGiB",
        "Keep",
    ],
)
def test_a_number_that_reaches_the_document_has_its_default_and_its_range(name):
    parameter, documented = TEMPLATE["Parameters"][name], DOCUMENT["parameters"][name[0].lower() + name[1:]]
    assert str(parameter["Default"]) == documented["default"]
    accepted = [n for n in range(10_002) if re.fullmatch(documented["allowedPattern"], str(n))]
    assert accepted == list(range(parameter["MinValue"], parameter["MaxValue"] + 1))


def test_pin_has_the_values_and_the_default_of_the_documents():
    parameter, documented = TEMPLATE["Parameters"]["Pin"], DOCUMENT["parameters"]["pin"]
    assert parameter["Default"] == documented["default"]
    assert all(re.fullmatch(documented["allowedPattern"], value) for value in parameter["AllowedValues"])


def test_every_parameter_stands_in_one_group_of_the_console_and_is_documented_with_its_default():
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(TEMPLATE["Parameters"])
    tables = (ROOT / "docs" / "parameters.md").read_text().partition("## More about")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", tables, re.MULTILINE))
    for name, parameter in TEMPLATE["Parameters"].items():
        assert rows[name].strip(" `") == str(parameter.get("Default", "\N{EN DASH}"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_binary_runs_on_amazon_linux_2023(function):
    bootstrap = BUILT.parent / function / "bootstrap"
    symbols = subprocess.run(["objdump", "-T", bootstrap], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9.]+)", symbols)}
    assert versions and max(versions) <= (2, 34)


def ended(
    source: str = "aws.ssm",
    detail_type: str = "EC2 Command Invocation Status-change Notification",
    document: str = OUR_DOCUMENT,
    status: str = "Success",
) -> dict:
    """An event of SSM (Systems Manager user guide, events of Run Command)."""
    return {
        "version": "0",
        "id": "51c0891d-0e34-45b1-83d6-95db273d1602",
        "detail-type": detail_type,
        "source": source,
        "account": "123456789012",
        "time": "2026-01-02T03:04:05Z",
        "region": "eu-west-1",
        "resources": ["arn:aws:ec2:eu-west-1:123456789012:instance/i-0123456789abcdef0"],
        "detail": {
            "command-id": "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b",
            "document-name": document,
            "instance-id": "i-0123456789abcdef0",
            "requested-date-time": "2026-01-02T03:04:00Z",
            "status": status,
        },
    }


def reported(cloud, event: dict) -> bool:
    answer = cloud.client("events").test_event_pattern(EventPattern=json.dumps(REPORTED), Event=json.dumps(event))
    return answer["Result"]


def code(file: Path) -> str:
    """Returns a source file without its tests."""
    is_test = file.name == "tests.rs" or "tests" in file.parent.parts or file.stem in ("cloud", "mocks")
    return "" if is_test else file.read_text().partition("#[cfg(test)]")[0]


def dashboard() -> dict:
    """The dashboard's body as CloudWatch gets it, but with the template's references in place of their values."""
    body = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    known = RESOURCES.keys() | TEMPLATE["Parameters"].keys() | {"AWS::Region"}

    def value(match: re.Match) -> str:
        literal, name = match.groups()
        assert literal or name.partition(".")[0] in known, name
        return f"${{{name}}}" if literal else name

    return json.loads(re.sub(r"\$\{(!?)([^}]+)\}", value, body))


def metrics_of(widget: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, str] | set[str]]]:
    """The metrics of a widget: namespace, name and dimensions, of a search their names alone."""
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
    """What a search finds, which must be this cluster's alone (CloudWatch user guide, search expressions)."""
    form = r"""SEARCH\('\{([\w,]+)\} MetricName="(\w+)" ClusterName="ClusterName"', '(?:Sum|p90)'\)"""
    schema, name = re.fullmatch(form, expression).groups()
    namespace, *dimensions = schema.split(",")
    return namespace, name, set(dimensions)


def is_emitted(namespace: str, name: str, dimensions: dict[str, str] | set[str]) -> bool:
    """Whether this stack's functions and queues emit the metric under these dimensions."""
    if namespace == NAMESPACE:
        named = isinstance(dimensions, set) or dimensions["ClusterName"] == "ClusterName"
        return named and set(dimensions) in METRICS[name]
    return name in METRICS_OF_AWS[namespace] and dimensions in DIMENSIONS_OF_AWS[namespace]


def variables(function: str) -> dict[str, Any]:
    """The environment of a function, what all are given included."""
    own = RESOURCES[function]["Properties"].get("Environment", {}).get("Variables", {})
    return {**TEMPLATE["Globals"]["Function"]["Environment"]["Variables"], **own}


def references(value: Any) -> Iterator[str]:
    """The names that a value of the template refers to."""
    if isinstance(value, dict):
        yield from [value["Ref"]] if "Ref" in value else []
        texts = value.get("Fn::Sub", [])
        for text in [texts] if isinstance(texts, str) else texts[:1]:
            yield from re.findall(r"\$\{([^}]+)\}", text)
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def reference(value: dict) -> str:
    """A reference in the form that Fn::Sub gives it."""
    return value["Ref"] if "Ref" in value else ".".join(value["Fn::GetAtt"])
