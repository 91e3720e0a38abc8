"""Contracts of the template with whoever else is in the account: roles, network, queues, and what is deleted."""

import json
import re
import tomllib
from collections.abc import Iterator

import pytest
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
PARAMETERS, RESOURCES = TEMPLATE["Parameters"], TEMPLATE["Resources"]
PAGES = {path.name: path.read_text() for path in [ROOT / "README.md", *(ROOT / "docs").glob("[a-z]*.md")]}
"""The text of each page of the documentation."""
FUNCTIONS = {
    name: resource["Properties"]
    for name, resource in RESOURCES.items()
    if resource["Type"] == "AWS::Serverless::Function"
}
PATH = {"Fn::If": ["HasRolePath", {"Ref": "RolePath"}, {"Ref": "AWS::NoValue"}]}
NO_VALUE = {"Ref": "AWS::NoValue"}
ANSWERING = ("SettingsCheck", "NodeProgram")
"""The functions that answer CloudFormation, which stand in no VPC."""
BOOT_LISTS = ("KeepBootLists", "ListBootLists")
"""The policies by which boot lists are kept."""
ENDPOINTS = {
    "autoscaling": "autoscaling",
    "dynamodb": "dynamodb",
    "ec2": "ec2",
    "ecr": "ecr.api",
    "s3": "s3",
    "scheduler": "scheduler",
    "sfn": "states",
    "sqs": "sqs",
    "ssm": "ssm",
}
"""The VPC endpoint of each SDK (PrivateLink, services that integrate)."""


@pytest.fixture(scope="module")
def transformed() -> dict:
    """The resources that CloudFormation gets once SAM has made its own."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        template = yaml_parse((ROOT / "template.yaml").read_text())
        for resource in template["Resources"].values():
            for name in {"CodeUri", "DefinitionUri"} & resource.get("Properties", {}).keys():
                resource["Properties"][name] = "s3://bucket/key"
        return Translator({}, Parser()).translate(template, {})["Resources"]


def test_every_role_has_the_boundary_and_the_path_those_that_sam_makes_included(transformed):
    roles = {name: r["Properties"] for name, r in transformed.items() if r["Type"] == "AWS::IAM::Role"}
    assert len(roles) >= len(FUNCTIONS)
    for name, role in roles.items():
        boundary = {"Fn::If": ["HasPermissionsBoundary", {"Ref": "PermissionsBoundaryArn"}, NO_VALUE]}
        assert (role.get("PermissionsBoundary"), role.get("Path")) == (boundary, PATH), name


def test_whatever_else_has_a_path_has_the_roles(transformed):
    kinds = ("AWS::IAM::InstanceProfile", "AWS::IAM::ManagedPolicy")
    of_kinds = [r["Properties"] for r in transformed.values() if r["Type"] in kinds]
    assert of_kinds and all(properties["Path"] == PATH for properties in of_kinds)


def test_every_function_that_calls_aws_stands_in_the_vpc_and_its_role_may_connect_it_before_and_after(transformed):
    functions = {n: r["Properties"] for n, r in transformed.items() if r["Type"] == "AWS::Lambda::Function"}
    assert functions.keys() == FUNCTIONS.keys()
    # A VPC that keeps CloudFormation's answer back would leave a stack that cannot be deleted.
    for name in ANSWERING:
        assert functions.pop(name).get("VpcConfig", NO_VALUE) == NO_VALUE
    connected = transformed["FunctionsInVpc"]["Properties"]["Roles"]
    assert connected == [{"Ref": function["Role"]["Fn::GetAtt"][0]} for function in functions.values()]
    for name, function in functions.items():
        condition, placed, otherwise = function["VpcConfig"]["Fn::If"]
        assert (condition, otherwise) == ("InVpc", NO_VALUE)
        for ids in ("SubnetIds", "SecurityGroupIds"):
            assert placed[ids] == {"Fn::Split": [",", {"Ref": ids}]}
        after = {"Fn::If": ["InVpc", {"Ref": "FunctionsInVpc"}, "none"]}
        assert {"Key": "vpc-access", "Value": after} in function["Tags"], name


def test_lambda_connects_functions_and_their_code_may_not():
    policy = RESOURCES["FunctionsInVpc"]
    assert policy["Condition"] == "InVpc"
    changing, looking, denied = policy["Properties"]["PolicyDocument"]["Statement"]
    # What AWSLambdaVPCAccessExecutionRole has beside logs.
    assert sorted(changing["Action"] + looking["Action"]) == [
        "ec2:AssignPrivateIpAddresses",
        "ec2:CreateNetworkInterface",
        "ec2:DeleteNetworkInterface",
        "ec2:DescribeNetworkInterfaces",
        "ec2:DescribeSubnets",
        "ec2:UnassignPrivateIpAddresses",
    ]
    assert denied["Effect"] == "Deny"
    # bake-plan looks for a builder's subnet.
    assert {*changing["Action"], *looking["Action"]} - {*denied["Action"]} == {"ec2:DescribeSubnets"}
    assert "lambda:SourceFunctionArn" in denied["Condition"]["ArnLike"]


def test_the_endpoints_that_the_functions_call_are_documented():
    calls: dict[str, set[str]] = {}
    for name, properties in FUNCTIONS.items():
        if name in ANSWERING:
            continue
        folder = ROOT / properties["CodeUri"]
        manifest = tomllib.loads((folder / "Cargo.toml").read_text())
        for dependency in manifest["dependencies"]:
            if sdk := dependency.removeprefix("aws-sdk-") if dependency.startswith("aws-sdk-") else "":
                calls.setdefault(ENDPOINTS[sdk], set()).add(folder.name)
    section = PAGES["deploy.md"].partition("| endpoint | who calls it |")[2].partition("\n\n")[0]
    rows = re.findall(r"^\| `([\w.]+)`[^|]*\|([^|]*)\|$", section, re.MULTILINE)
    named = {endpoint: set(re.findall(r"`([\w-]+)`", functions)) for endpoint, functions in rows}
    assert named.keys() == calls.keys()
    for endpoint, functions in calls.items():
        assert functions <= named[endpoint], endpoint


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        (
            "PermissionsBoundaryArn",
            [
                "",
                "arn:aws:iam::123456789012:policy/boundary",
                "arn:aws-cn:iam::123456789012:policy/company/walls/b",
                "arn:aws:iam::aws:policy/PowerUserAccess",
            ],
            ["boundary", "arn:aws:iam::123456789012:role/boundary", "arn:aws:iam::123456789012:policy/"],
        ),
        ("RolePath", ["/", "/company/", "/a/b.c/"], ["", "company", "/company", "company/", "//", "/a b/"]),
        (
            "SubnetIds",
            ["", "subnet-0123456789abcdef0", ",".join(["subnet-01234567"] * 16)],
            [
                "subnet-1",
                "sg-01234567",
                "subnet-01234567,",
                "subnet-01234567, subnet-01234567",
                "subnet-01234567," * 17,
            ],
        ),
        (
            "SecurityGroupIds",
            ["", "sg-0123456789abcdef0", ",".join(["sg-01234567"] * 5)],
            ["sg-1", "subnet-01234567", ",".join(["sg-01234567"] * 6)],
        ),
    ],
)
def test_a_parameter_takes_what_aws_takes(name, accepted, refused):
    pattern = PARAMETERS[name]["AllowedPattern"]
    assert all(re.fullmatch(pattern, value) for value in accepted)
    assert not any(re.fullmatch(pattern, value) for value in refused)


@pytest.mark.parametrize("queue", ["NodeQueue", "ResultQueue"])
def test_a_queues_numbers_are_parameters_within_the_bounds_of_aws(queue):
    assert RESOURCES[queue]["Properties"]["DelaySeconds"] == {"Ref": f"{queue}Delay"}
    [source] = sources_of(queue)
    assert source["BatchSize"] == {"Ref": f"{queue}BatchSize"}
    assert source["MaximumBatchingWindowInSeconds"] == {"Ref": f"{queue}BatchingWindow"}
    assert source["ScalingConfig"] == {"MaximumConcurrency": {"Ref": f"{queue}MaxConcurrency"}}
    assert bounds(f"{queue}Delay") == (0, 900)
    assert bounds(f"{queue}MaxConcurrency") == (2, 1000)
    assert bounds(f"{queue}BatchingWindow")[0] == 0
    for name in ("Delay", "BatchSize", "BatchingWindow", "MaxConcurrency"):
        lowest, highest = bounds(f"{queue}{name}")
        assert lowest <= PARAMETERS[f"{queue}{name}"]["Default"] <= highest


def test_the_queues_defaults_are_what_they_were():
    names = ("Delay", "BatchSize", "BatchingWindow", "MaxConcurrency")
    defaults = {
        queue: [PARAMETERS[queue + name]["Default"] for name in names] for queue in ("NodeQueue", "ResultQueue")
    }
    assert defaults == {"NodeQueue": [20, 50, 5, 5], "ResultQueue": [0, 10, 5, 5]}


def test_a_batch_of_launched_nodes_is_at_most_what_one_command_takes():
    [most] = re.findall(r"MAX_INSTANCES: usize = (\d+);", (ROOT / "shared" / "src" / "command.rs").read_text())
    assert bounds("NodeQueueBatchSize") == (1, int(most))


def test_parameters_of_bakes_lie_below_the_stacks_and_the_clusters_name():
    bakes = {name: resource for name, resource in RESOURCES.items() if name not in BOOT_LISTS}
    of_stack = [arn for arn in parameter_arns(bakes) if "AWS::StackName" in arn]
    assert of_stack
    assert all(":parameter/${AWS::StackName}/${ClusterName}/" in arn for arn in of_stack)
    assert TEMPLATE["Outputs"]["SnapshotParameters"]["Value"] == {"Fn::Sub": "/${AWS::StackName}/${ClusterName}"}


@pytest.mark.parametrize("action", ["ssm:DeleteParameters", "ssm:PutParameter"])
def test_what_is_written_or_deleted_of_parameters_is_what_bakes_write(action):
    bakes = {name: resource for name, resource in RESOURCES.items() if name not in BOOT_LISTS}
    arns = [
        arn for statement in statements(bakes) if action in statement["Action"] for arn in parameter_arns(statement)
    ]
    assert arns
    assert all(re.search(r"/\$\{ClusterName\}/(x86_64|arm64)/(snapshot|snap-\*)$", arn) for arn in arns)


def test_boot_lists_are_parameters_below_a_path_of_their_own_where_the_stack_keeps_them():
    allowed = {}
    for name in BOOT_LISTS:
        assert RESOURCES[name]["Condition"] == "KeepsBootList"
        for statement in statements(RESOURCES[name]):
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            _, parameter, below = statement["Resource"]["Fn::Sub"].partition(":parameter/")
            if not parameter:
                # What a push that meets another finds the images by.
                assert actions == ["ecr:DescribeRepositories"]
                continue
            assert parameter_arns(statement) == [statement["Resource"]["Fn::Sub"]]
            allowed |= {action: (below, len(RESOURCES[name]["Properties"]["Roles"])) for action in actions}
    path = "${AWS::StackName}/boot"
    assert allowed == {
        "ssm:GetParameters": (f"{path}/*", 2),
        "ssm:PutParameter": (f"{path}/*", 2),
        "ssm:DeleteParameter": (f"{path}/*", 2),
        "ssm:GetParametersByPath": (path, 1),
    }
    [own] = TEMPLATE["Rules"]["BootListsTakeAPathOfTheirOwn"]["Assertions"]
    assert own["Assert"] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "ClusterName"}, "boot"]}]}


@pytest.mark.parametrize("page", PAGES)
def test_no_documented_command_names_all_parameters_of_a_stack(page):
    assert not re.findall(r"--path[ =]\"?/(?:<stack>|\$stack)/?\"?(?: |$)", PAGES[page], re.MULTILINE)
    assert "--recursive" not in PAGES[page]


def sources_of(queue: str) -> Iterator[dict]:
    """The event source mappings of a queue."""
    events = [event for function in FUNCTIONS.values() for event in function.get("Events", {}).values()]
    for event in events:
        if event["Type"] == "SQS" and event["Properties"]["Queue"] == {"Fn::GetAtt": [queue, "Arn"]}:
            yield event["Properties"]


def bounds(name: str) -> tuple[int, int]:
    """Returns the least and the most that a parameter takes."""
    return PARAMETERS[name]["MinValue"], PARAMETERS[name]["MaxValue"]


def statements(node: object) -> Iterator[dict]:
    """The statements of policies in the template."""
    if isinstance(node, dict):
        if "Action" in node and "Effect" in node:
            yield node
        for value in node.values():
            yield from statements(value)
    elif isinstance(node, list):
        for value in node:
            yield from statements(value)


def parameter_arns(node: object) -> list[str]:
    """The ARNs of SSM parameters that a part of the template names."""
    return re.findall(r'"(arn:[^"]*:parameter/[^"]*)"', json.dumps(node))
