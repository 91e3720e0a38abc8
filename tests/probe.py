"""The small stack that the local cloud itself is tried with, and how tests expect, receive and ask."""

import contextlib
import io
import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from local.client import LocalCloud, until

FILES = Path(__file__).parent / "local_cloud"
CONTENT = json.loads((FILES / "document.json").read_text())
STACK = "probe"
QUICK = {"Delay": 0.2, "MaxAttempts": 100}

BARE = {"online_after": 0.0, "containerd": "none"}
"""An instance that nothing runs on and that is managed at once."""


@contextlib.contextmanager
def probe(cloud: LocalCloud) -> Iterator[tuple[dict[str, str], Callable]]:
    """Deploys the stack; yields its outputs and a function that puts a file where its template looks."""
    s3 = cloud.client("s3")
    s3.create_bucket(Bucket=STACK, CreateBucketConfiguration={"LocationConstraint": cloud.region})

    def upload(name: str, content: str | bytes) -> None:
        s3.put_object(Bucket=STACK, Key=name, Body=content)

    upload("function.zip", zipped(FILES / "bootstrap"))
    upload("document.json", json.dumps(CONTENT))
    with tempfile.NamedTemporaryFile(prefix="record-") as record:
        yield {**deploy(cloud, "create", record.name), "Record": record.name}, upload


def deploy(cloud: LocalCloud, verb: str, record: str | None = None) -> dict[str, str]:
    """Creates or updates the stack and returns its outputs."""
    cloudformation = cloud.client("cloudformation")
    value = {"ParameterValue": record} if record else {"UsePreviousValue": True}
    getattr(cloudformation, f"{verb}_stack")(
        StackName=STACK,
        TemplateBody=(FILES / "template.yaml").read_text(),
        Parameters=[{"ParameterKey": "Bucket", "ParameterValue": STACK}, {"ParameterKey": "Record", **value}],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    cloudformation.get_waiter(f"stack_{verb}_complete").wait(StackName=STACK, WaiterConfig=QUICK)
    [stack] = cloudformation.describe_stacks(StackName=STACK)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def delete(cloud: LocalCloud) -> None:
    """Deletes the stack and waits until it is gone, or raises where it cannot be deleted."""
    cloudformation = cloud.client("cloudformation")
    cloudformation.delete_stack(StackName=STACK)
    cloudformation.get_waiter("stack_delete_complete").wait(StackName=STACK, WaiterConfig=QUICK)


def invoke(cloud: LocalCloud, stack: dict[str, str], event: dict) -> dict:
    """Invokes the stack's function and returns its answer, or its error."""
    answer = cloud.client("lambda").invoke(FunctionName=stack["Function"], Payload=json.dumps(event).encode())
    return json.load(answer["Payload"])


def zipped(path: Path) -> bytes:
    """Returns a zip of one executable file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo(path.name)
        entry.external_attr = 0o755 << 16
        archive.writestr(entry, path.read_bytes())
    return buffer.getvalue()


@contextlib.contextmanager
def refused(code: str) -> Iterator[pytest.ExceptionInfo]:
    """Expects a call to fail with an AWS error code."""
    with pytest.raises(ClientError) as error:
        yield error
    assert error.value.response["Error"]["Code"] == code, error.value


def received(cloud: LocalCloud, queue: str, wanted=lambda body: True, parse=json.loads):
    """Waits for a message that is wanted, takes it from the queue and returns its body."""
    sqs = cloud.client("sqs")

    def take():
        for message in sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages", []):
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
            if wanted(parse(message["Body"])):
                return parse(message["Body"])
        return None

    return until(take, 15, "a message")


def credentials(cloud: LocalCloud, role: str) -> dict[str, str]:
    """Returns credentials of a role, as boto3 takes them."""
    answer = cloud.client("sts").assume_role(RoleArn=role, RoleSessionName="test")["Credentials"]
    return {
        "aws_access_key_id": answer["AccessKeyId"],
        "aws_secret_access_key": answer["SecretAccessKey"],
        "aws_session_token": answer["SessionToken"],
    }
