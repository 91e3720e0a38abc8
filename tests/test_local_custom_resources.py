"""Custom resources of the local cloud: asked, answered, failed and timed out as CloudFormation does it."""

import json

import pytest
from botocore.exceptions import WaiterError
from probe import FILES, QUICK, zipped

BUCKET = "things"
FAILED = json.dumps({"Status": "FAILED", "Reason": "there is no such thing", "PhysicalResourceId": "half-made"})


@pytest.fixture(scope="module", autouse=True)
def bucket(cloud):
    """The function's code."""
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": cloud.region})
    s3.put_object(Bucket=BUCKET, Key="function.zip", Body=zipped(FILES / "custom_resource" / "bootstrap"))


class Things:
    """A stack of one custom resource."""

    def __init__(self, cloud, name: str, record):
        self.cloudformation = cloud.client("cloudformation")
        self.name = name
        self.record = record

    def deploy(self, verb: str = "create", **properties: object) -> dict[str, str]:
        """Creates or updates the stack; returns its outputs, or raises where it fails."""
        getattr(self.cloudformation, f"{verb}_stack")(
            StackName=self.name,
            TemplateBody=json.dumps(template(str(self.record), properties)),
            Capabilities=["CAPABILITY_IAM"],
        )
        waiter = self.cloudformation.get_waiter(f"stack_{verb}_complete")
        waiter.wait(StackName=self.name, WaiterConfig=QUICK)
        [stack] = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def fail(self, verb: str = "create", **properties: object) -> str:
        """Expects a deployment to fail and to be rolled back; returns the resource's reason."""
        with pytest.raises(WaiterError):
            self.deploy(verb, **properties)
        [stack] = self.cloudformation.describe_stacks(StackName=self.name)["Stacks"]
        assert stack["StackStatus"] == ("ROLLBACK_COMPLETE" if verb == "create" else "UPDATE_ROLLBACK_COMPLETE")
        events = self.cloudformation.describe_stack_events(StackName=self.name)["StackEvents"]
        failed = [e for e in events if e["LogicalResourceId"] == "Thing" and e["ResourceStatus"].endswith("_FAILED")]
        return failed[0]["ResourceStatusReason"]

    def asked(self) -> list[dict]:
        """Returns what the function was asked since the last time."""
        requests = [json.loads(line) for line in self.record.read_text().splitlines()]
        self.record.write_text("")
        return requests


@pytest.fixture
def things(cloud, request, tmp_path):
    stack = Things(cloud, f"things-{abs(hash(request.node.name)) % 10**8}", tmp_path / "record")
    yield stack
    stack.cloudformation.delete_stack(StackName=stack.name)
    stack.cloudformation.get_waiter("stack_delete_complete").wait(StackName=stack.name, WaiterConfig=QUICK)


def test_a_resource_is_created_updated_and_deleted_with_all_that_cloudformation_says(things):
    outputs = things.deploy(Create=json.dumps({"Data": {"Colour": "red"}}), Count=1, Flag=True)
    assert outputs == {"Id": "thing-1", "Colour": "red"}
    [create] = things.asked()
    assert (create["RequestType"], create["LogicalResourceId"], create["ResourceType"]) == (
        "Create",
        "Thing",
        "Custom::Thing",
    )
    assert (create["ResourceProperties"]["Count"], create["ResourceProperties"]["Flag"]) == ("1", "true")
    assert "PhysicalResourceId" not in create and create["status"] == 200
    assert things.deploy("update", Update=json.dumps({"Data": {"Colour": "blue"}}), Count=2)["Colour"] == "blue"
    [update] = things.asked()
    assert (update["RequestType"], update["PhysicalResourceId"]) == ("Update", "thing-1")
    assert (update["ResourceProperties"]["Count"], update["OldResourceProperties"]["Count"]) == ("2", "1")
    assert update["StackId"] == create["StackId"] and update["RequestId"] != create["RequestId"]


def test_a_failed_creation_is_told_with_its_reason_rolled_back_and_deleted(things):
    reason = things.fail(Create=FAILED)
    [create, delete] = things.asked()
    assert reason == (
        "Received response status [FAILED] from custom resource. Message returned: there is no such thing "
        f"(RequestId: {create['RequestId']})"
    )
    assert (delete["RequestType"], delete["PhysicalResourceId"]) == ("Delete", "half-made")


def test_a_failed_update_is_told_with_its_reason_and_sent_back(things):
    things.deploy(Count=1, Create=json.dumps({"Data": {"Colour": "red"}}))
    things.asked()
    failed = json.dumps({"Status": "FAILED", "Reason": "there is no such thing"})
    assert "Message returned: there is no such thing" in things.fail("update", Count=2, Update=failed)
    [update, back] = things.asked()
    assert [request["RequestType"] for request in (update, back)] == ["Update", "Update"]
    assert (back["ResourceProperties"]["Count"], back["OldResourceProperties"]["Count"]) == ("1", "2")


def test_silence_fails_the_deployment_once_the_service_timeout_is_over(things):
    reason = things.fail(Create=json.dumps({"silent": True}), ServiceTimeout=2)
    assert reason.startswith("CloudFormation did not receive a response from your Custom Resource.")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ({"body": "x" * 5000}, "Response object is too long."),
        ({"body": "nonsense"}, "Response is not valid JSON"),
        ({"PhysicalResourceId": ""}, "Invalid PhysicalResourceId"),
        ({"RequestId": "another"}, "Invalid RequestId"),
        ({"Status": "FAILED"}, "Invalid Status"),
    ],
)
def test_an_answer_that_cloudformation_would_not_take_fails_the_deployment(things, answer, reason):
    assert things.fail(Create=json.dumps(answer)).startswith(reason)


def test_an_answer_with_a_content_type_is_refused_for_its_signature(things):
    things.fail(Create=json.dumps({"headers": {"Content-Type": "application/json"}}), ServiceTimeout=2)
    assert things.asked()[0]["status"] == 403


def template(record: str, properties: dict) -> dict:
    """A template of the function and its resource; every resource has a colour where its answer names none."""
    function = {
        "Runtime": "provided.al2023",
        "Handler": "bootstrap",
        "Role": {"Fn::GetAtt": ["Role", "Arn"]},
        "Code": {"S3Bucket": BUCKET, "S3Key": "function.zip"},
        "Environment": {"Variables": {"RECORD": record}},
    }
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}, "Action": "sts:AssumeRole"}
    thing = {"ServiceToken": {"Fn::GetAtt": ["Function", "Arn"]}, "ServiceTimeout": 20, **properties}
    return {
        "Resources": {
            "Role": {
                "Type": "AWS::IAM::Role",
                "Properties": {"AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]}},
            },
            "Function": {"Type": "AWS::Lambda::Function", "Properties": function},
            "Thing": {"Type": "Custom::Thing", "Properties": thing},
        },
        "Outputs": {
            "Id": {"Value": {"Ref": "Thing"}},
            "Colour": {"Value": {"Fn::GetAtt": ["Thing", "Colour"]}},
        },
    }
