"""Contracts of the template that no linter sees: event patterns, permissions, the functions' files."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
RESOURCES = TEMPLATE["Resources"]
DOCUMENT = json.loads((ROOT / "ssm" / "document.json").read_text())
PUSH = RESOURCES["ImagePush"]["Properties"]["Events"]["ImageArrived"]["Properties"]["Pattern"]
RUNNING = RESOURCES["NodeRunning"]["Properties"]["EventPattern"]


@pytest.mark.parametrize(
    ("pattern", "event", "matches"),
    [
        (PUSH, "image-push.tagged", True),
        (PUSH, "image-push.index", True),
        (PUSH, "image-push.replication", True),
        (PUSH, "image-push.pull-through-cache", True),
        (PUSH, "image-push.pull-through-cache-failed", False),
        (PUSH, "image-push.delete", False),
        (PUSH, "image-push.failed", False),
        (PUSH, "image-push.scan", False),
        (PUSH, "node-launch.running", False),
        (RUNNING, "node-launch.running", True),
        (RUNNING, "node-launch.terminated", False),
        (RUNNING, "node-launch.asg-launch", False),
    ],
)
def test_a_rule_takes_the_events_its_function_can_use_and_no_others(cloud, pattern, event, matches):
    event = (ROOT / "events" / f"{event}.json").read_text()
    answer = cloud.client("events").test_event_pattern(EventPattern=json.dumps(pattern), Event=event)
    assert answer["Result"] is matches


@pytest.mark.parametrize("pattern", [PUSH, RUNNING])
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
    statements = [
        statement
        for role in roles
        for policy in role["Policies"]
        for statement in policy["PolicyDocument"]["Statement"]
    ]
    statements += json.loads(RESOURCES["SendPrefetchImages"]["Properties"]["PolicyDocument"]["Fn::Sub"])["Statement"]
    assert not any("ManagedPolicyArns" in role for role in roles)
    for statement in statements:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert not any("*" in action for action in actions)
        if statement["Resource"] == "*":
            assert set(actions) <= {"ec2:DescribeInstances", "ssm:DescribeInstanceInformation"}


def test_every_function_has_a_role_of_its_own_to_which_sam_adds_nothing():
    for name in ("ImagePush", "NodeLaunch"):
        assert RESOURCES[name]["Properties"]["Role"] == {"Fn::GetAtt": [f"{name}Role", "Arn"]}
        assert "Policies" not in RESOURCES[name]["Properties"]


def test_every_function_is_a_folder_a_package_and_a_resource_of_one_name():
    functions = {name for name, resource in RESOURCES.items() if resource["Type"] == "AWS::Serverless::Function"}
    folders = {folder.name for folder in (ROOT / "functions").iterdir()}
    assert functions == {"".join(part.title() for part in folder.split("-")) for folder in folders}
    assert {path.name.partition(".")[0] for path in (ROOT / "events").iterdir()} == folders
    for name in functions:
        assert RESOURCES[name]["Properties"]["CodeUri"].removeprefix("functions/") in folders


@pytest.mark.parametrize("name", ["ImageGCHighThresholdPercent", "MaxParallelImagePulls", "MaxImageGiB", "Keep"])
def test_a_number_that_reaches_the_document_has_its_default_and_its_range(name):
    parameter, documented = TEMPLATE["Parameters"][name], DOCUMENT["parameters"][name[0].lower() + name[1:]]
    assert str(parameter["Default"]) == documented["default"]
    accepted = [n for n in range(10_002) if re.fullmatch(documented["allowedPattern"], str(n))]
    assert accepted == list(range(parameter["MinValue"], parameter["MaxValue"] + 1))


def test_pin_has_the_values_and_the_default_of_the_documents():
    parameter, documented = TEMPLATE["Parameters"]["Pin"], DOCUMENT["parameters"]["pin"]
    assert parameter["Default"] == documented["default"]
    assert all(re.fullmatch(documented["allowedPattern"], value) for value in parameter["AllowedValues"])


def test_every_parameter_stands_in_one_group_of_the_console_and_in_the_readme_with_its_default():
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(TEMPLATE["Parameters"])
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", (ROOT / "README.md").read_text(), re.MULTILINE))
    for name, parameter in TEMPLATE["Parameters"].items():
        assert rows[name].strip(" `") == str(parameter.get("Default", "\N{EN DASH}"))


@pytest.mark.parametrize("function", ["ImagePush", "NodeLaunch"])
def test_a_binary_runs_on_amazon_linux_2023(function):
    bootstrap = Path(ROOT, ".aws-sam", "build", function, "bootstrap")
    symbols = subprocess.run(["objdump", "-T", bootstrap], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9.]+)", symbols)}
    assert versions and max(versions) <= (2, 34)
