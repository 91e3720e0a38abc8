"""A deployed stack that bakes: bakes begun and waited for, what they have published, and what they have left behind."""

import contextlib
import itertools
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from settling import ended, line

from local import images
from local.client import LocalCloud, until
from local.outcomes import Outcomes
from local.stack import Stack

SECONDS = 60
"""Limits how long a bake may take, in seconds."""
GONE_SECONDS = 20
"""Limits how long what a bake leaves behind may be there."""
EVERY = 0.2
"""Sets how many seconds lie between two looks: the cloud that many bakes run on has something better to do."""
OVER = ("SUCCEEDED", "FAILED", "TIMED_OUT", "ABORTED")
LIVE = ["pending", "running", "shutting-down", "stopping", "stopped"]

_numbers = itertools.count(1)


class Bakes:
    """The bakes of one stack, whose cluster is called as the stack is."""

    def __init__(self, cloud: LocalCloud, stack: Stack):
        self.cloud, self.stack = cloud, stack
        self.resources = stack.resources()
        self.machine = self.resources["BakeSnapshot"]
        self.prefix = f"/{stack.name}/{stack.name}"
        self.cluster = cloud.cluster(stack.name)
        self.outcomes = Outcomes(stack)
        self._ec2, self._ssm = cloud.client("ec2"), cloud.client("ssm")
        self._states = cloud.client("stepfunctions")

    # Bakes

    def start(self, name: str | None = None, **input_: Any) -> str:
        """Begins a bake and returns the ARN of its execution."""
        name = name or f"bake-{next(_numbers)}"
        return self._states.start_execution(stateMachineArn=self.machine, name=name, input=json.dumps(input_))[
            "executionArn"
        ]

    def ended(self, execution: str, seconds: float = SECONDS) -> dict[str, Any]:
        """Waits for the end of a bake and returns how it ended: status, output, error and cause."""

        def over() -> dict | None:
            found = self._states.describe_execution(executionArn=execution)
            return found if found["status"] in OVER else None

        try:
            found = until(over, seconds, "the bake to end", EVERY)
        except TimeoutError as error:
            [row] = [row for row in self.cloud.executions(self.machine) if row["arn"] == execution]
            raise AssertionError(f"{error} It is in {row['states']}.") from error
        return {**found, "output": json.loads(found.get("output") or "null")}

    def bake(self, **input_: Any) -> dict[str, dict]:
        """Returns what a bake that succeeds says of each architecture."""
        return self.succeeded(self.start(**input_))

    def succeeded(self, execution: str) -> dict[str, dict]:
        """Returns what a bake that succeeds says of each architecture."""
        end = self.ended(execution)
        assert end["status"] == "SUCCEEDED", f"{end.get('error')}: {end.get('cause')}"
        return {bake["architecture"]: bake for bake in end["output"]["bakes"]}

    def fail(self, **input_: Any) -> tuple[str, str]:
        """Returns error and cause of a bake that fails."""
        return self.failed(self.start(**input_))

    def failed(self, execution: str) -> tuple[str, str]:
        """Returns error and cause of a bake that fails."""
        end = self.ended(execution)
        assert end["status"] == "FAILED", end
        return end["error"], end["cause"]

    def until_in(self, execution: str, state: str) -> None:
        """Waits until a bake pauses in a state."""

        def paused() -> bool:
            [row] = [row for row in self.cloud.executions(self.machine) if row["arn"] == execution]
            assert row["status"] == "RUNNING", f"It ended without coming to {state}: {row}"
            return state in row["paused"]

        until(paused, SECONDS, f"the bake to pause in {state}", EVERY)

    def stop(self, execution: str) -> None:
        """Stops a bake."""
        self._states.stop_execution(executionArn=execution)

    def history(self, execution: str) -> list[dict]:
        """Returns the events of a bake."""
        pages = self._states.get_paginator("get_execution_history").paginate(executionArn=execution)
        return [event for page in pages for event in page["events"]]

    def tries(self, execution: str) -> Counter[str]:
        """Returns how often each call of a bake failed, by the state that made it."""
        events = {event["id"]: event for event in self.history(execution)}
        failed: Counter[str] = Counter()
        for event in events.values():
            if event["type"] in ("TaskFailed", "TaskTimedOut"):
                while event["type"] != "TaskStateEntered":
                    event = events[event["previousEventId"]]
                failed[event["stateEnteredEventDetails"]["name"]] += 1
        return failed

    # Images

    def push(self, name: str, tag: str = "v1", image: images.Artifact | None = None) -> str:
        """Pushes an image and returns it as commands name it."""
        digest = self.cloud.push(name, tag, image or images.image(f"{name}:{tag}"))
        return f"{self.cloud.registry_host}/{name}:{tag}@{digest}"

    def script(self, *endings: Mapping[str, Any], **knobs: Any) -> None:
        """Has builders that are launched later end their commands so, and run nothing."""
        knobs = {"online_after": 0, **knobs, "endings": [dict(ending) for ending in endings]}
        self.cloud.turn_defaults(**knobs)

    def make_profile(self, name: str, *actions: str) -> None:
        """Makes an instance profile with a role, both of that name, that may do what builders do, and some more."""
        iam, own = self.cloud.client("iam"), self.resources["BuilderRole"]
        trust = iam.get_role(RoleName=own)["Role"]["AssumeRolePolicyDocument"]
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        policy = iam.get_role_policy(RoleName=own, PolicyName="builder")["PolicyDocument"]
        further = [{"Effect": "Allow", "Action": list(actions), "Resource": "*"}] if actions else []
        policy = {**policy, "Statement": [*policy["Statement"], *further]}
        iam.put_role_policy(RoleName=name, PolicyName="builder", PolicyDocument=json.dumps(policy))
        iam.create_instance_profile(InstanceProfileName=name)
        iam.add_role_to_instance_profile(InstanceProfileName=name, RoleName=name)

    # What there is

    def published(self, architecture: str = "x86_64") -> str | None:
        """Returns the snapshot that is published."""
        return self.parameters().get(f"{self.prefix}/{architecture}/snapshot")

    def details(self, snapshot: str, architecture: str = "x86_64") -> dict[str, Any]:
        """Returns what is said of a snapshot beside it."""
        return json.loads(self.parameters()[f"{self.prefix}/{architecture}/{snapshot}"])

    def parameters(self) -> dict[str, str]:
        """Returns every parameter of the stack's."""
        pages = self._ssm.get_paginator("get_parameters_by_path").paginate(Path=self.prefix, Recursive=True)
        return {row["Name"]: row["Value"] for page in pages for row in page["Parameters"]}

    def publish(self, snapshot: str, architecture: str = "x86_64") -> None:
        """Names a snapshot as the one to launch from."""
        self._put(f"{architecture}/snapshot", snapshot)

    def describe(self, snapshot: str, details: Mapping[str, Any], architecture: str = "x86_64") -> None:
        """Says something of a snapshot beside it."""
        self._put(f"{architecture}/{snapshot}", json.dumps(details))

    def forget_details(self) -> None:
        """Deletes what is said of every snapshot beside it."""
        for name in self.parameters():
            if not name.endswith("/snapshot"):
                self._ssm.delete_parameter(Name=name)

    def snapshots(self, **tags: str) -> dict[str, dict]:
        """Returns the snapshots of the stack, oldest first, of some tags or all, by their ids; `tags` by name."""
        filters = [{"Name": f"tag:bake-snapshot/{name}", "Values": [value]} for name, value in tags.items()]
        found = self._ec2.describe_snapshots(OwnerIds=["self"], Filters=[*self._ours(), *filters])["Snapshots"]
        named = [{**row, "tags": {tag["Key"]: tag["Value"] for tag in row["Tags"]}} for row in found]
        return {row["SnapshotId"]: row for row in sorted(named, key=lambda row: row["StartTime"])}

    def builders(self, *states: str) -> list[dict]:
        """Returns the builders in some states, by default those that are not terminated."""
        wanted = {"Name": "instance-state-name", "Values": list(states) or LIVE}
        found = self._ec2.describe_instances(Filters=[*self._ours(), wanted])["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]

    def volumes(self) -> list[dict]:
        """Returns the builders' volumes."""
        return self._ec2.describe_volumes(Filters=self._ours())["Volumes"]

    def interfaces(self) -> list[dict]:
        """Returns the builders' network interfaces."""
        return self._ec2.describe_network_interfaces(Filters=self._ours())["NetworkInterfaces"]

    def rows(self) -> dict[str, str]:
        """Returns which execution holds each row."""
        keys = [{"pk": {"S": f"bake#{name}"}, "sk": {"S": "execution"}} for name in ("lock", "push")]
        table = self.resources["Outcomes"]
        answer = self.cloud.client("dynamodb").batch_get_item(RequestItems={table: {"Keys": keys}})
        return {row["pk"]["S"]: row["holder"]["S"] for row in answer["Responses"][table]}

    def hold(self, row: str, execution: str) -> None:
        """Has an execution hold a row."""
        item = {"pk": {"S": row}, "sk": {"S": "execution"}, "holder": {"S": execution}}
        self.cloud.client("dynamodb").put_item(TableName=self.resources["Outcomes"], Item=item)

    def left_behind(self) -> list[str]:
        """Returns what no bake needs any more and that is there all the same."""
        snapshots = self.snapshots()
        half_made = [id_ for id_, row in snapshots.items() if "bake-snapshot/published" not in row["tags"]]
        details = [name for name in self.parameters() if not name.endswith("/snapshot")]
        return [
            *(instance["InstanceId"] for instance in self.builders()),
            *(volume["VolumeId"] for volume in self.volumes()),
            *(interface["NetworkInterfaceId"] for interface in self.interfaces()),
            *half_made,
            *(name for name in details if name.rpartition("/")[2] not in snapshots),
        ]

    def until_clean(self) -> None:
        """Waits until nothing is left behind."""
        try:
            until(lambda: not self.left_behind(), GONE_SECONDS, "all to be gone", EVERY)
        except TimeoutError as error:
            raise AssertionError(f"{error} There are {self.left_behind()}.") from error

    def _put(self, name: str, value: str) -> None:
        self._ssm.put_parameter(Name=f"{self.prefix}/{name}", Type="String", Value=value, Overwrite=True)

    def _ours(self) -> list[dict]:
        return [{"Name": "tag:bake-snapshot/stack", "Values": [self.stack.name]}]


def pulled(*named: str, **members: Any) -> dict[str, Any]:
    """Returns how a builder ends that has pulled these images."""
    return ended(*(line(image, **members) for image in named))


@contextlib.contextmanager
def hearing(bakes: Bakes) -> Iterator[Callable[[], list[dict]]]:
    """Listens to what bakes say on the bus; yields a function that returns the events which have come since."""
    sqs, events, name = bakes.cloud.client("sqs"), bakes.cloud.client("events"), f"{bakes.stack.name}-ready"
    queue = sqs.create_queue(QueueName=name)["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    allowed = {"Effect": "Allow", "Principal": {"Service": "events.amazonaws.com"}, "Action": "sqs:SendMessage"}
    policy = {"Version": "2012-10-17", "Statement": [{**allowed, "Resource": arn}]}
    sqs.set_queue_attributes(QueueUrl=queue, Attributes={"Policy": json.dumps(policy)})
    pattern = {"source": ["eks-image-prefetch"], "detail": {"cluster": [bakes.stack.name]}}
    events.put_rule(Name=name, EventPattern=json.dumps(pattern))
    events.put_targets(Rule=name, Targets=[{"Id": "queue", "Arn": arn}])

    def heard() -> list[dict]:
        found: list[dict] = []
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                found.append(json.loads(message["Body"]))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
        return found

    yield heard
    events.remove_targets(Rule=name, Ids=["queue"])
    events.delete_rule(Name=name)
    sqs.delete_queue(QueueUrl=queue)


def states_of(output: Mapping[str, Mapping]) -> dict[str, str]:
    """Returns what became of each architecture."""
    return {architecture: bake["status"] for architecture, bake in output.items()}


def names(rows: Sequence[Mapping]) -> list[str]:
    """Returns the images of a list of them."""
    return [row["image"] for row in rows]
