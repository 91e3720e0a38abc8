"""The local cloud's functions, rules and queues do as AWS's do, wherever the product relies on it."""

import json
from pathlib import Path

import pytest
from probe import BARE, invoke, received, refused

from local import images
from local.client import until


def test_an_event_is_delivered_to_the_function_once(cloud, stack, record):
    digest = cloud.push("async", "v1", images.image())
    until(lambda: digest in record.read_text(), 10, "the function to run")
    assert record.read_text().count(digest) == 1


def test_a_failing_event_is_tried_three_times_and_then_kept(cloud, stack, record):
    digest = cloud.push("poison", "v1", images.image("poison"))
    kept = received(cloud, stack["FailureQueue"], lambda body: digest in json.dumps(body))
    assert record.read_text().count(digest) == 3
    assert kept["version"] == "1.0"
    assert kept["requestContext"]["condition"] == "RetriesExhausted"
    assert kept["requestContext"]["approximateInvokeCount"] == 3
    assert kept["requestContext"]["functionArn"] == f"{stack['FunctionArn']}:$LATEST"
    assert kept["requestPayload"]["detail"]["image-digest"] == digest
    assert kept["responseContext"]["functionError"] == "Unhandled"
    assert kept["responsePayload"]["errorType"] == "Poison"


def test_an_asynchronous_invoke_takes_the_same_path(cloud, stack):
    cloud.client("lambda").invoke(FunctionName=stack["Function"], InvocationType="Event", Payload=b'{"a": "poison"}')
    assert received(cloud, stack["FailureQueue"], lambda body: body["requestPayload"] == {"a": "poison"})


def test_a_queue_gets_events_only_where_its_policy_lets_it(cloud, stack):
    instance = cloud.launch({}, **BARE)
    event = received(cloud, stack["EventQueue"], lambda event: event.get("detail", {}).get("instance-id") == instance)
    assert event["source"] == "aws.ec2"
    sqs = cloud.client("sqs")
    closed = sqs.receive_message(QueueUrl=stack["ClosedQueue"], MaxNumberOfMessages=10).get("Messages", [])
    assert [message for message in closed if "aws.ec2" in message["Body"]] == []
    [undelivered] = sqs.receive_message(QueueUrl=stack["UndeliveredQueue"], MessageAttributeNames=["All"])["Messages"]
    assert undelivered["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
    assert json.loads(undelivered["Body"])["source"] == "aws.ec2"


def test_a_function_has_the_environment_lambda_gives_it_and_no_other(cloud, stack):
    environment = invoke(cloud, stack, {})["environment"]
    assert environment["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert environment["AWS_LAMBDA_LOG_LEVEL"] == "DEBUG"
    assert environment["AWS_LAMBDA_LOG_GROUP_NAME"] == stack["LogGroup"]
    assert environment["AWS_ENDPOINT_URL"] == cloud.endpoint
    assert {"AUTH", "GATEWAY_PORT", "HOME", "MINISTACK_HOST", "PYTHONPATH", "TMPDIR"}.isdisjoint(environment)


def test_a_batch_is_larger_than_ten_and_hands_back_single_messages(cloud, stack, record):
    sqs = cloud.client("sqs")
    bodies = [f"batch {n}" for n in range(12)]
    for body in [*bodies, "batch later"]:
        sqs.send_message(QueueUrl=stack["WorkQueue"], MessageBody=body)

    def tries() -> list[list[str]]:
        events = [json.loads(line) for line in record.read_text().splitlines()]
        batches = [[r["body"] for r in event["Records"]] for event in events if "Records" in event]
        return [[body for body in batch if body.startswith("batch")] for batch in batches]

    dead = received(cloud, stack["DeadLetterQueue"], parse=str)
    assert dead == "batch later"
    assert max(map(len, tries())) > 10
    assert sum(batch.count("batch later") for batch in tries()) == 3
    assert all(sum(batch.count(body) for batch in tries()) == 1 for body in bodies)


def test_a_delay_of_more_than_fifteen_minutes_is_refused(cloud, stack):
    with refused("InvalidParameterValue"):
        cloud.client("sqs").send_message(QueueUrl=stack["WorkQueue"], MessageBody="x", DelaySeconds=901)


def test_put_events_refuses_the_sources_of_aws(cloud):
    entry = {"Source": "aws.ecr", "DetailType": "ECR Image Action", "Detail": "{}"}
    [answer] = cloud.client("events").put_events(Entries=[entry])["Entries"]
    assert answer["ErrorCode"] == "NotAuthorizedForSourceException"


def test_a_whole_event_can_be_replayed(cloud):
    event = {
        "version": "0",
        "id": "1",
        "detail-type": "ECR Replication Action",
        "source": "aws.ecr",
        "account": "210987654321",
        "time": "2026-01-01T00:00:00Z",
        "region": "cn-north-1",
        "resources": [],
        "detail": {"action-type": "REPLICATE"},
    }
    cloud.send_event(event)
    assert cloud.events("ECR Replication Action") == [event]


@pytest.fixture(scope="module")
def stack(probe_stack):
    return probe_stack


@pytest.fixture(scope="module")
def record(stack):
    """The file in which the stack's function writes every event."""
    return Path(stack["Record"])
