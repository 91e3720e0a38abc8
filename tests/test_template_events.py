"""Each rule of the template takes the events that its function can use, and no others."""

import json

import pytest
from template import RESOURCES

from local.client import ROOT

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


@pytest.mark.parametrize(
    ("pattern", "event", "matches"),
    [
        (PUSH, "image-push.tagged", True),
        (PUSH, "image-push.index", True),
        (PUSH, "image-push.replication", True),
        (PUSH, "image-push.central-registry", True),
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


def test_a_sweep_is_an_ordinary_scheduled_event():
    [sweep] = [e for e in RESOURCES["NodeResult"]["Properties"]["Events"].values() if e["Type"] == "Schedule"]
    assert "Input" not in sweep["Properties"]
    assert sweep["Properties"]["Schedule"] == {"Ref": "SweepInterval"}


def ended(
    source: str = "aws.ssm",
    detail_type: str = "EC2 Command Invocation Status-change Notification",
    document: str = OUR_DOCUMENT,
    status: str = "Success",
) -> dict:
    """Returns an event of SSM (Systems Manager user guide, events of Run Command)."""
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
