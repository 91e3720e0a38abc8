"""A company's walls: roles with a boundary and a path, functions in a VPC, queues with numbers of one's own."""

import json

import pytest
from bakes import Bakes, pulled
from botocore.exceptions import ClientError, WaiterError
from roles import make_role, policy
from uploaded import Uploaded

from local import images
from local.client import ROOT, LocalCloud, until

NAME = "walls"
PATH = "/company/prefetch/"
EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
QUEUES = {
    "NodeQueueDelay": "0",
    "NodeQueueBatchSize": "10",
    "NodeQueueBatchingWindow": "0",
    "NodeQueueMaxConcurrency": "2",
    "ResultQueueDelay": "7",
    "ResultQueueBatchSize": "100",
    "ResultQueueBatchingWindow": "60",
    "ResultQueueMaxConcurrency": "1000",
}
PUSH = json.loads((ROOT / "events" / "image-push.tagged.json").read_text())


@pytest.fixture(scope="module")
def network(cloud: LocalCloud) -> dict[str, str]:
    """The parameters that put the functions into the cluster's VPC."""
    cluster = cloud.cluster(NAME)
    return {"SubnetIds": ",".join(cluster["subnets"][:2]), "SecurityGroupIds": cluster["security_group"]}


@pytest.fixture(scope="module")
def walled(cloud, network):
    """A stack behind all walls, and its parameters."""
    parameters = {
        "ClusterName": NAME,
        "Repositories": f"{NAME}/*",
        "BakeDefaults": '{"architectures": ["x86_64"]}',
        "PermissionsBoundaryArn": boundary(cloud, "wide", EVERYTHING),
        "RolePath": PATH,
        **network,
        **QUEUES,
    }
    stack = Uploaded(cloud, NAME)
    stack.deploy(**parameters)
    yield stack, parameters
    cloud.turn_defaults(online_after=1.0, endings=[])
    stack.delete()


def test_every_role_has_the_path_and_the_boundary_and_so_has_whatever_else_has_a_path(cloud, walled):
    stack, parameters = walled
    iam = cloud.client("iam")
    roles = [iam.get_role(RoleName=name)["Role"] for name in of_type(stack, "AWS::IAM::Role")]
    assert len(roles) >= 10
    assert {role["Path"] for role in roles} == {PATH}
    boundaries = {role["PermissionsBoundary"]["PermissionsBoundaryArn"] for role in roles}
    assert boundaries == {parameters["PermissionsBoundaryArn"]}
    profiles = iam.list_instance_profiles(PathPrefix=PATH)["InstanceProfiles"]
    policies = iam.list_policies(Scope="Local", PathPrefix=PATH)["Policies"]
    assert (len(profiles), len(policies)) == (1, 1)


def test_every_function_that_calls_aws_stands_in_the_vpc(cloud, walled, network):
    stack, _ = walled
    resources = stack.resources()
    calling = set(of_type(stack, "AWS::Lambda::Function")) - {resources["SettingsCheck"], resources["NodeProgram"]}
    for name in calling:
        placed = cloud.client("lambda").get_function_configuration(FunctionName=name)["VpcConfig"]
        assert placed["SubnetIds"] == network["SubnetIds"].split(",")
        assert placed["SecurityGroupIds"] == [network["SecurityGroupIds"]]


def test_the_queues_have_their_numbers(cloud, walled):
    stack, _ = walled
    resources = stack.resources()
    mappings = cloud.client("lambda").list_event_source_mappings()["EventSourceMappings"]
    for queue in ("NodeQueue", "ResultQueue"):
        attributes = cloud.client("sqs").get_queue_attributes(QueueUrl=resources[queue], AttributeNames=["All"])
        attributes = attributes["Attributes"]
        [mapping] = [row for row in mappings if row["EventSourceArn"] == attributes["QueueArn"]]
        found = (
            attributes["DelaySeconds"],
            mapping["BatchSize"],
            mapping["MaximumBatchingWindowInSeconds"],
            mapping["ScalingConfig"]["MaximumConcurrency"],
        )
        names = ("Delay", "BatchSize", "BatchingWindow", "MaxConcurrency")
        assert tuple(map(int, found)) == tuple(int(QUEUES[queue + name]) for name in names)


def test_a_launched_node_is_warmed_and_a_bake_passes_its_roles(cloud, walled):
    stack, _ = walled
    image = cloud.push(f"{NAME}/app", "v1", images.image(NAME))
    node = cloud.launch({"aws:eks:cluster-name": NAME}, online_after=0)
    cloud.until_online(node)
    command = until(lambda: [c for c in stack.commands("launch") if node in c["InstanceIds"]], 40, "the command")[0]
    [line] = until(lambda: stack.report(command["CommandId"], node), 30, "the node's report")
    # The push's own command may have come first.
    assert (line["status"] in ("pulled", "cached"), line["digest"]) == (True, image)
    cloud.terminate(node)
    bakes = Bakes(cloud, stack)
    bakes.script(pulled(f"{cloud.registry_host}/{NAME}/app:v1@{image}"))
    [bake] = bakes.bake().values()
    assert (bake["status"], bake["snapshotId"]) == ("baked", bakes.published())


def test_what_the_boundary_does_not_allow_no_role_may(cloud, walled):
    stack, parameters = walled
    assert "commands" in stack.invoke("ImagePush", push())
    denied = {"Effect": "Deny", "Action": "ssm:SendCommand", "Resource": "*"}
    narrow = boundary(cloud, "narrow", EVERYTHING, denied)
    stack.deploy(**{**parameters, "PermissionsBoundaryArn": narrow})
    assert "AccessDenied" in stack.invoke("ImagePush", push())["error"]["errorMessage"]
    stack.deploy(**parameters)
    assert "commands" in stack.invoke("ImagePush", push())


def test_a_stack_that_leaves_its_walls_stands_as_one_that_never_had_any(cloud, network):
    stack = Uploaded(cloud, "leaving")
    walls = {"PermissionsBoundaryArn": boundary(cloud, "leaving", EVERYTHING), "RolePath": PATH, **network}
    stack.deploy(ClusterName="leaving", **walls)
    stack.deploy(ClusterName="leaving")
    iam = cloud.client("iam")
    roles = [iam.get_role(RoleName=name)["Role"] for name in of_type(stack, "AWS::IAM::Role")]
    assert {(role["Path"], "PermissionsBoundary" in role) for role in roles} == {("/", False)}
    assert of_type(stack, "AWS::IAM::ManagedPolicy") == []
    for name in of_type(stack, "AWS::Lambda::Function"):
        placed = cloud.client("lambda").get_function_configuration(FunctionName=name).get("VpcConfig", {})
        assert not placed.get("SubnetIds")
    stack.delete()


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"SubnetIds": "subnet-0aaaaaaaaaaaaaaaa"}, "SubnetIds takes SecurityGroupIds"),
        ({"SecurityGroupIds": "sg-0ddddddddddddddd0"}, "SecurityGroupIds takes SubnetIds"),
        (
            {"NodeQueueBatchingWindow": "0"},
            "A NodeQueueBatchSize above 10 takes a NodeQueueBatchingWindow of at least 1",
        ),
        (
            {"ResultQueueBatchSize": "11", "ResultQueueBatchingWindow": "0"},
            "A ResultQueueBatchSize above 10 takes a ResultQueueBatchingWindow of at least 1",
        ),
        ({"NodeQueueBatchSize": "51"}, "NodeQueueBatchSize"),
        ({"NodeQueueBatchingWindow": "6"}, "NodeQueueBatchingWindow"),
        ({"NodeQueueMaxConcurrency": "1"}, "NodeQueueMaxConcurrency"),
        ({"ResultQueueMaxConcurrency": "1001"}, "ResultQueueMaxConcurrency"),
        ({"ResultQueueDelay": "901"}, "ResultQueueDelay"),
        ({"RolePath": "company"}, "RolePath|begins and ends with '/'"),
        ({"PermissionsBoundaryArn": "boundary"}, "PermissionsBoundaryArn|ARN of an IAM policy"),
    ],
    ids=json.dumps,
)
def test_what_aws_would_refuse_is_refused_before_anything_is_made(cloud, parameters, sentence):
    with pytest.raises(ClientError, match=sentence):
        Uploaded(cloud, "refused").deploy(ClusterName="refused", **parameters)


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        (
            {"SubnetIds": "subnet-01234567", "SecurityGroupIds": "sg-01234567"},
            "The subnet ID 'subnet-01234567' does not exist",
        ),
        ({"PermissionsBoundaryArn": "arn:aws:iam::000000000000:policy/none"}, "does not exist or is not attachable"),
    ],
    ids=json.dumps,
)
def test_what_is_not_there_fails_the_deployment_with_awss_words(cloud, parameters, reason):
    stack = Uploaded(cloud, "nothing")
    with pytest.raises(WaiterError):
        stack.deploy(ClusterName="nothing", **parameters)
    pages = cloud.client("cloudformation").get_paginator("describe_stack_events").paginate(StackName="nothing")
    events = [event for page in pages for event in page["StackEvents"]]
    assert any(reason in event.get("ResourceStatusReason", "") for event in events)
    stack.delete()


def test_a_role_that_may_not_connect_its_function_keeps_it_out_of_a_vpc(cloud, network):
    role = make_role(cloud, "unconnected", "lambda.amazonaws.com")
    function = {
        "Type": "AWS::Lambda::Function",
        "Properties": {
            "Code": {"ZipFile": "def handler(event, context): pass"},
            "Handler": "index.handler",
            "Runtime": "python3.13",
            "Role": role,
            "VpcConfig": {name: ids.split(",") for name, ids in network.items()},
        },
    }
    cloudformation = cloud.client("cloudformation")
    cloudformation.create_stack(StackName="unconnected", TemplateBody=json.dumps({"Resources": {"F": function}}))

    def refused() -> bool:
        events = cloudformation.describe_stack_events(StackName="unconnected")["StackEvents"]
        reasons = [event.get("ResourceStatusReason", "") for event in events]
        return any("does not have permissions to call CreateNetworkInterface on EC2" in reason for reason in reasons)

    until(refused, 20, "the refusal")


def boundary(cloud: LocalCloud, name: str, *statements: dict) -> str:
    """Makes a policy to be a boundary; returns its ARN."""
    document = policy(*statements)
    return cloud.client("iam").create_policy(PolicyName=name, Path="/walls/", PolicyDocument=document)["Policy"]["Arn"]


def of_type(stack: Uploaded, type_: str) -> list[str]:
    """Returns the names of the stack's resources of a type."""
    answer = stack.cloud.client("cloudformation").describe_stack_resources(StackName=stack.name)
    return [row["PhysicalResourceId"] for row in answer["StackResources"] if row["ResourceType"] == type_]


def push() -> dict:
    """A push that the stack's rule takes."""
    event = json.loads(json.dumps(PUSH))
    event["detail"]["repository-name"] = f"{NAME}/app"
    return event
