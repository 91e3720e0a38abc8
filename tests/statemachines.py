"""Makes and executes state machines, and reads which states an execution has entered."""

import json

from roles import make_role

from local.client import LocalCloud

SSM = ":aws-sdk:ssm:"
SECRET = {"Name": "/states/secret"}
READS = {"Effect": "Allow", "Action": "ssm:GetParameter", "Resource": "arn:aws:ssm:*:*:parameter/states/*"}
READ = {"Type": "Task", "Resource": f"arn:aws:states::{SSM}getParameter", "Arguments": SECRET, "End": True}
PASS = {"Type": "Pass", "End": True}


class Machines:
    """Makes the state machines of one test."""

    def __init__(self, cloud: LocalCloud, test: str):
        self.cloud, self._test, self._count = cloud, test, 0
        cloud.forget_faults()

    def make(self, states: dict, *statements: dict, role: str | None = None, **options) -> str:
        """Makes a state machine, the first of the states first, whose role is allowed some statements."""
        self._count += 1
        name = f"states-{abs(hash(self._test)):x}-{self._count}"
        role = role or make_role(self.cloud, name, "states.amazonaws.com", *statements)
        definition = {"QueryLanguage": "JSONata", "StartAt": next(iter(states)), "States": states}
        if "TimeoutSeconds" in options:
            definition["TimeoutSeconds"] = options.pop("TimeoutSeconds")
        request = {"name": name, "roleArn": role, "definition": json.dumps(definition)}
        return self.cloud.client("stepfunctions").create_state_machine(**request, **options)["stateMachineArn"]


def task(resource: str, arguments: dict | str, next_: str | None = None) -> dict:
    """Returns a task that makes a call."""
    way = {"Next": next_} if next_ else {"End": True}
    return {"Type": "Task", "Resource": f"arn:aws:states::{resource}", "Arguments": arguments, **way}


def each(states: dict) -> dict:
    """Returns a map whose items go through states, the first of them first."""
    return {"Type": "Map", "ItemProcessor": {"StartAt": next(iter(states)), "States": states}}


def entered(cloud: LocalCloud, execution: dict) -> list[str]:
    """Returns the states that an execution has entered."""
    pages = cloud.client("stepfunctions").get_paginator("get_execution_history").paginate(executionArn=execution["arn"])
    events = [event for page in pages for event in page["events"]]
    return [event["stateEnteredEventDetails"]["name"] for event in events if "stateEnteredEventDetails" in event]


def statuses(cloud: LocalCloud, arn: str) -> list[str]:
    """Returns the statuses of an execution that EventBridge was told of."""
    events = cloud.events("Step Functions Execution Status Change")
    return [event["detail"]["status"] for event in events if event["resources"] == [arn]]
