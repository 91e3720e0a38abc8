"""The local cloud's EventBridge Scheduler, and CloudFormation's events, do as AWS's do."""

import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from probe import credentials, deploy, received, refused

from local.client import until
from local.scheduler import cron

OFF = {"Mode": "OFF"}

# ── Expressions ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("expression", "zone", "after", "times"),
    [
        ("cron(0 7 ? * MON-FRI *)", "UTC", "2026-11-20T08:00Z", ["2026-11-23T07:00Z", "2026-11-24T07:00Z"]),
        ("cron(0/20 9-10 1,15 * ? *)", "UTC", "2026-11-01T09:30Z", ["2026-11-01T09:40Z", "2026-11-01T10:00Z"]),
        ("cron(0 0 L * ? *)", "UTC", "2028-02-01T00:00Z", ["2028-02-29T00:00Z", "2028-03-31T00:00Z"]),
        ("cron(0 0 LW * ? *)", "UTC", "2026-05-01T00:00Z", ["2026-05-29T00:00Z", "2026-06-30T00:00Z"]),
        ("cron(0 0 1W * ? *)", "UTC", "2026-08-01T00:00Z", ["2026-08-03T00:00Z", "2026-09-01T00:00Z"]),
        ("cron(0 0 ? * 6L *)", "UTC", "2026-11-01T00:00Z", ["2026-11-27T00:00Z", "2026-12-25T00:00Z"]),
        ("cron(0 0 ? * TUE#5 *)", "UTC", "2026-11-01T00:00Z", ["2026-12-29T00:00Z", "2027-03-30T00:00Z"]),
        ("cron(0 7 ? * MON-SUN *)", "UTC", "2026-11-20T08:00Z", ["2026-11-21T07:00Z", "2026-11-22T07:00Z"]),
        ("cron(0 7 ? * SAT-MON,WED *)", "UTC", "2026-11-20T08:00Z", ["2026-11-21T07:00Z", "2026-11-22T07:00Z"]),
        ("cron(0 22-4/3 * * ? *)", "UTC", "2026-11-20T08:00Z", ["2026-11-20T22:00Z", "2026-11-21T01:00Z"]),
        ("cron(0/90 7 1 NOV-JAN/2 ? *)", "UTC", "2026-11-20T08:00Z", ["2027-01-01T07:00Z", "2027-11-01T07:00Z"]),
        ("cron(0 0 ? * FRIL *)", "UTC", "2026-11-01T00:00Z", ["2026-11-27T00:00Z", "2026-12-25T00:00Z"]),
        ("cron(0 0 29 2 ? *)", "UTC", "2026-11-01T00:00Z", ["2028-02-29T00:00Z", "2032-02-29T00:00Z"]),
        ("cron(0 0 29 2 ? 2097-2104)", "UTC", "2096-03-01T00:00Z", ["2104-02-29T00:00Z"]),
        ("cron(0 7 * * ? *)", "Europe/Berlin", "2026-03-28T00:00Z", ["2026-03-28T06:00Z", "2026-03-29T05:00Z"]),
        ("cron(30 2 * * ? *)", "Europe/Berlin", "2026-03-28T02:00Z", ["2026-03-30T00:30Z", "2026-03-31T00:30Z"]),
        ("cron(30 2 * * ? *)", "Europe/Berlin", "2026-10-25T00:00Z", ["2026-10-25T00:30Z", "2026-10-26T01:30Z"]),
        ("cron(0 0 * * ? *)", "Asia/Kathmandu", "2026-11-20T18:00Z", ["2026-11-20T18:15Z", "2026-11-21T18:15Z"]),
        ("at(2026-11-22T10:00:00)", "America/New_York", "2026-11-21T00:00Z", ["2026-11-22T15:00Z"]),
        ("rate(5 hours)", "Europe/Berlin", "2026-03-29T00:00Z", ["2026-03-29T05:00Z", "2026-03-29T10:00Z"]),
    ],
)
def test_an_expression_has_these_times(expression, zone, after, times):
    moment = datetime.fromisoformat(after)
    schedule = cron.parse(expression, zone, start=moment)
    found = []
    for _ in range(2):
        moment = moment and schedule.after(moment)
        found += [moment] if moment else []
    assert found == [datetime.fromisoformat(time) for time in times]


@pytest.mark.parametrize(
    "expression",
    [
        "0 7 * * *",
        "cron(0 7 * * *)",
        "cron(0 7 * * * *)",
        "cron(0 7 ? * ? *)",
        "cron(60 7 * * ? *)",
        "cron(0 7 32 * ? *)",
        "cron(0 7 ? * 0 *)",
        "cron(0 7 ? * MON-FRI/2 *)",
        "cron(0 7 L-3 * ? *)",
        "cron(0 7 1 * ? 2030-2028)",
        "cron(0 7 ? * MOO *)",
        "cron(*/0 7 * * ? *)",
        "rate(0 hours)",
        "rate(1 week)",
        "at(2026-02-30T00:00:00)",
    ],
)
def test_an_expression_is_refused(expression):
    with pytest.raises(cron.Unusable):
        cron.parse(expression, "UTC", start=datetime.now(UTC))


# ── Schedules ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_schedule_that_is_due_invokes_its_target(schedules, record):
    at = datetime.now(UTC) + timedelta(seconds=1)
    schedules.create("due", f"at({at:%Y-%m-%dT%H:%M:%S})", {"due": "now"}, ActionAfterCompletion="DELETE")
    assert {"due": "now"} in until(lambda: [event for event in record() if "due" in event], 60, "the invocation")
    assert schedules.names() == []


def test_the_context_of_an_invocation_stands_in_its_input(schedules, cloud, record):
    keys = ("schedule-arn", "scheduled-time", "execution-id", "attempt-number")
    schedules.create("context", "cron(0 7 * * ? *)", {"context": [f"<aws.scheduler.{key}>" for key in keys]})
    cloud.fire_schedule("context", at="2026-11-23T07:00:00Z")
    [event] = until(lambda: [event for event in record() if "context" in event], 60, "the invocation")
    arn, time, execution, attempt = event["context"]
    assert arn.endswith(f":schedule/{schedules.group}/context")
    assert (time, attempt, len(execution)) == ("2026-11-23T07:00:00Z", "1", 36)


def test_a_disabled_schedule_never_comes(schedules, cloud):
    schedules.create("disabled", "rate(1 minute)", {"disabled": True}, State="DISABLED")
    with pytest.raises(RuntimeError, match="disabled"):
        cloud.fire_schedule("disabled")


def test_a_function_that_fails_is_tried_twice_more(schedules, cloud, probe_stack):
    schedules.create("failing", "rate(1 day)", {"poison": "failing"}, StartDate=datetime.now(UTC) + timedelta(days=1))
    cloud.fire_schedule("failing")
    letter = received(cloud, probe_stack["FailureQueue"], lambda body: "failing" in json.dumps(body))
    assert letter["requestContext"]["approximateInvokeCount"] == 3
    assert letter["requestPayload"] == {"poison": "failing"}


def test_a_target_that_cannot_be_reached_is_tried_again(schedules, cloud, record):
    schedules.create("throttled", "cron(0 7 * * ? *)", {"throttled": "<aws.scheduler.attempt-number>"})
    cloud.throttle("lambda", "InvokeFunction", times=1, code="TooManyRequestsException")
    cloud.fire_schedule("throttled")
    assert until(lambda: [e for e in record() if "throttled" in e], 60, "the invocation") == [{"throttled": "2"}]


@pytest.mark.parametrize(
    ("policy", "condition"),
    [
        ({"MaximumRetryAttempts": 1}, "MaximumRetryAttempts"),
        ({"MaximumEventAgeInSeconds": 90}, "MaximumEventAgeInSeconds"),
    ],
)
def test_a_target_that_is_given_up_leaves_a_letter(schedules, cloud, probe_stack, policy, condition):
    schedules.create("lost", "cron(0 7 * * ? *)", {"lost": condition}, target={"RetryPolicy": policy})
    cloud.throttle("lambda", "InvokeFunction", times=9, code="TooManyRequestsException")
    cloud.fire_schedule("lost")
    letter = schedules.letter("lost")
    cloud.forget_faults()
    assert json.loads(letter["Body"]) == {"lost": condition}
    attributes = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert attributes["EXHAUSTED_RETRY_CONDITION"] == condition
    assert (attributes["ERROR_CODE"], attributes["RETRY_ATTEMPTS"]) == ("TooManyRequestsException", "1")


def test_a_role_that_may_not_invoke_leaves_a_letter(schedules, cloud):
    other = cloud.client("lambda").get_function(FunctionName=schedules.function)["Configuration"]["FunctionArn"] + "-2"
    schedules.create("denied", "cron(0 7 * * ? *)", {"denied": True}, target={"Arn": other})
    cloud.fire_schedule("denied")
    assert schedules.letter("denied")["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "AccessDeniedException"


def test_one_name_is_one_schedule(schedules):
    schedules.create("one", "rate(1 day)", {}, ClientToken="a")
    schedules.create("one", "rate(1 day)", {}, ClientToken="a")
    with refused("ConflictException"):
        schedules.create("one", "rate(1 day)", {}, ClientToken="b")


def test_schedules_are_listed_in_pages(schedules):
    for n in range(5):
        schedules.create(f"page-{n}", "rate(1 day)", {})
    pages = list(schedules.pages(PaginationConfig={"PageSize": 2}))
    assert [[s["Name"] for s in page["Schedules"]] for page in pages] == [
        ["page-0", "page-1"],
        ["page-2", "page-3"],
        ["page-4"],
    ]
    with refused("ValidationException"):
        schedules.client.list_schedules(GroupName=schedules.group, NextToken="garbage")


@pytest.mark.parametrize(
    "wrong",
    [
        {"Name": "with space"},
        {"ScheduleExpression": "cron(0 7 * * * *)"},
        {"ScheduleExpressionTimezone": "Europe/Atlantis"},
        {"FlexibleTimeWindow": {"Mode": "FLEXIBLE"}},
        {"State": "PERHAPS"},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_aws_would_refuse_is_refused(schedules, wrong):
    with refused("ValidationException"):
        schedules.create(wrong.pop("Name", "wrong"), "rate(1 day)", {}, **wrong)


def test_a_role_that_scheduler_may_not_assume_is_refused(schedules, probe_stack):
    with refused("ValidationException") as error:
        schedules.create("role", "rate(1 day)", {}, target={"RoleArn": probe_stack["Sender"]})
    assert "assume the role" in str(error.value)


def test_what_is_not_there_is_not_found(schedules):
    with refused("ResourceNotFoundException"):
        schedules.client.delete_schedule(GroupName=schedules.group, Name="nobody")
    with refused("ResourceNotFoundException"):
        schedules.create("nowhere", "rate(1 day)", {}, GroupName="nowhere")


def test_a_caller_may_schedule_what_their_policies_name(schedules, cloud, probe_stack):
    theirs = cloud.client("scheduler", **credentials(cloud, probe_stack["Caller"]))
    schedules.create("allowed", "rate(1 day)", {}, client=theirs)
    with refused("AccessDeniedException"):
        schedules.create("other", "rate(1 day)", {}, client=theirs)
    with refused("AccessDeniedException") as error:
        schedules.create("allowed-2", "rate(1 day)", {}, client=theirs, target={"RoleArn": probe_stack["Sender"]})
    assert "iam:PassRole" in str(error.value)
    with refused("AccessDeniedException"):  # a list is never of one group only
        theirs.list_schedules(GroupName=schedules.group)


def test_a_group_goes_with_its_schedules(schedules, cloud):
    schedules.client.create_schedule_group(Name="going")
    with refused("ConflictException"):
        schedules.client.create_schedule_group(Name="going")
    schedules.client.delete_schedule_group(Name="going")
    with refused("ResourceNotFoundException"):
        schedules.client.list_schedules(GroupName="going")


# ── CloudFormation ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stack_says_that_it_is_complete(cloud, probe_stack):
    created = received(cloud, probe_stack["StackQueue"])
    assert created["detail-type"] == "CloudFormation Stack Status Change"
    assert created["detail"]["status-details"]["status"] == "CREATE_COMPLETE"
    assert created["resources"] == [created["detail"]["stack-id"]]
    deploy(cloud, "update", probe_stack["Record"] + "-2")
    assert received(cloud, probe_stack["StackQueue"])["detail"]["status-details"]["status"] == "UPDATE_COMPLETE"
    deploy(cloud, "update", probe_stack["Record"])


# ── Helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────────


class Schedules:
    """The schedules of a group of the probe stack."""

    def __init__(self, cloud, stack: dict[str, str]):
        self.cloud, self.client = cloud, cloud.client("scheduler")
        self.group, self.function = stack["Group"], stack["Function"]
        self._letters = stack["FailureQueue"]
        self._target = {
            "Arn": stack["FunctionArn"],
            "RoleArn": stack["ScheduleRole"],
            "DeadLetterConfig": {"Arn": stack["FailureQueueArn"]},
        }

    def create(self, name: str, expression: str, payload: dict, client=None, target=None, **more) -> None:
        """Creates a schedule that hands the payload to the stack's function."""
        request = {
            "GroupName": self.group,
            "ScheduleExpression": expression,
            "FlexibleTimeWindow": OFF,
            "Target": {**self._target, "Input": json.dumps(payload), **(target or {})},
        }
        (client or self.client).create_schedule(Name=name, **{**request, **more})

    def pages(self, **options) -> Iterator[dict]:
        """Yields the pages of all that there are."""
        return iter(self.client.get_paginator("list_schedules").paginate(GroupName=self.group, **options))

    def names(self) -> list[str]:
        """Returns the names of all that there are."""
        return [schedule["Name"] for page in self.pages() for schedule in page["Schedules"]]

    def letter(self, about: str) -> dict:
        """Waits for a message in the dead-letter queue and takes it."""
        sqs = self.cloud.client("sqs")

        def take() -> dict | None:
            asked = {"MaxNumberOfMessages": 10, "MessageAttributeNames": ["All"], "VisibilityTimeout": 0}
            for message in sqs.receive_message(QueueUrl=self._letters, **asked).get("Messages", []):
                if about in message["Body"]:
                    sqs.delete_message(QueueUrl=self._letters, ReceiptHandle=message["ReceiptHandle"])
                    return message
            return None

        return until(take, 15, f"a letter about {about}")


@pytest.fixture
def schedules(cloud, probe_stack):
    schedules = Schedules(cloud, probe_stack)
    yield schedules
    for name in schedules.names():
        with contextlib.suppress(schedules.client.exceptions.ResourceNotFoundException):
            schedules.client.delete_schedule(GroupName=schedules.group, Name=name)


@pytest.fixture
def record(probe_stack):
    path = Path(probe_stack["Record"])
    return lambda: [json.loads(line) for line in path.read_text().splitlines()]
