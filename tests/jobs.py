"""A deployed stack asked through its jobs API, every answer checked against the OpenAPI document."""

import json
from collections.abc import Mapping
from typing import Any

import contract
from settling import ended, line

from local import images
from local.client import LocalCloud, until
from local.http_api import Answer, HttpApi
from local.outcomes import Outcomes
from local.stack import Stack

SECONDS = 40
"""Limits how long anything may take to happen, in seconds."""

SDK_TRIES = 3
"""The times that the AWS SDK makes a call before it gives up."""

NOBODY = "00000000-0000-4000-8000-000000000000"
"""The id of no job."""


class Jobs:
    """The API of one deployment, as one caller has it, and the images and nodes that it is about."""

    def __init__(self, cloud: LocalCloud, stack: Stack, **credentials: str):
        self.cloud, self.stack = cloud, stack
        self.resources = stack.resources()
        self.outcomes = Outcomes(stack)
        self._launched: list[str] = []
        self.api = HttpApi(cloud, stack.outputs()["JobsUrl"], **credentials)

    # Calls

    def get(self, path: str, status: int = 200) -> Any:
        """Returns what a GET is answered with."""
        return self._checked("GET", path, self.api.get(path), status)

    def delete(self, path: str, status: int = 200) -> Any:
        """Returns what a DELETE is answered with."""
        return self._checked("DELETE", path, self.api.delete(path), status)

    def post(self, path: str, body: Any, status: int = 202, **headers: str) -> Any:
        """Returns what a POST is answered with; _ in a header's name stands for -."""
        return self._checked("POST", path, self.api.post(path, body, **headers), status)

    def send(self, method: str, path: str, body: bytes, status: int, **headers: str) -> Any:
        """Returns what any bytes are answered with."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self._checked(method, path, self.api.send(method, path, body, named), status)

    def pages(self, path: str, member: str) -> list[list[dict]]:
        """Returns all the pages of a list."""
        pages, next_ = [], ""
        while next_ is not None:
            page = self.get(f"{path}{'&' if '?' in path else '?'}next={next_}" if next_ else path)
            pages.append(page[member])
            next_ = page.get("next")
        return pages

    def submit(self, status: int = 202, key: str | None = None, **body: Any) -> Any:
        """Returns what POST /jobs is answered with."""
        return self.post("/jobs", body, status, **({"idempotency_key": key} if key else {}))

    def submitted(self, **body: Any) -> str:
        """Returns the id of the one job that a request makes."""
        [job] = self.submit(**body)["jobs"]
        return job["id"]

    def job(self, id_: str, **expected: Any) -> dict:
        """Waits until a job says what is expected, of itself or of its nodes, and returns it."""

        def found() -> dict | None:
            job = self.get(f"/jobs/{id_}")
            return job if expected.items() <= {**job["nodes"], **job}.items() else None

        try:
            return until(found, SECONDS, f"job {id_} to be {expected}")
        except TimeoutError as error:
            raise AssertionError(f"{error} It is {self.get(f'/jobs/{id_}')}.") from error

    def refused(self, body: Any, field: str, path: str = "/jobs") -> dict:
        """Returns what stands against a field of a request that is refused."""
        problem = self.post(path, body, 400)
        [error] = [error for error in problem["errors"] if error["field"] == field]
        return error

    def _checked(self, method: str, path: str, answer: Answer, status: int) -> Any:
        contract.check(method, path, answer)
        assert answer.status == status, f"{method} {path}: {answer.status}, {answer.body.decode()}"
        return answer.json() if answer.body else None

    # What is behind it

    def push(self, name: str, tag: str = "v1", image: images.Artifact | None = None) -> str:
        """Pushes an image and returns it as commands name it."""
        digest = self.cloud.push(name, tag, image or images.image(f"{name}:{tag}"))
        return f"{self.cloud.registry_host}/{name}:{tag}@{digest}"

    def nodes(self, count: int, *endings: Mapping, **tags: str) -> list[str]:
        """Has nodes of the cluster run, whose next commands end so and of whose launch nobody hears."""
        cluster = {"aws:eks:cluster-name": self.stack.name}
        knobs = {"containerd": "none", "online_after": 0, "endings": [dict(ending) for ending in endings]}
        launched = self.cloud.launch_many(count, cluster | tags, **knobs)
        self._launched += launched
        return launched

    def clear(self) -> None:
        """Has the nodes be no more."""
        self.cloud.remove(self._launched)
        self._launched.clear()

    def commands(self, trigger: str, **besides: str) -> list[dict]:
        """Returns the commands of the stack's own document for a trigger, newest first."""
        document = self.resources["PrefetchImages"]
        words = [trigger, *(f"{name}={value}" for name, value in besides.items())]
        return [
            command
            for command in self.stack.commands(trigger)
            if command["DocumentName"] == document and set(words) <= set(command["Comment"].split())
        ]

    def invoke(self, payload: Any) -> Any:
        """Invokes the function plainly."""
        answer = self.cloud.client("lambda").invoke(
            FunctionName=self.resources["Jobs"], Payload=json.dumps(payload).encode()
        )
        body = json.load(answer["Payload"])
        return {"error": body} if "FunctionError" in answer else body

    def letters(self) -> list[dict]:
        """Returns what is in the dead-letter queue, with what is said of each."""
        queue = {"QueueUrl": self.resources["JobsDeadLetters"], "VisibilityTimeout": 0, "MaxNumberOfMessages": 10}
        messages = self.cloud.client("sqs").receive_message(**queue, MessageAttributeNames=["All"]).get("Messages", [])
        return [json.loads(message["Body"]) for message in messages]


def pulls(*names: str, seconds: float = 0) -> dict:
    """Returns how a node ends that pulls these images, after some time."""
    return {**ended(*(line(name) for name in names)), "seconds": seconds}


def fails(*names: str, reason: str = "registry", seconds: float = 0) -> dict:
    """Returns how a node ends that fails to pull these images, after some time."""
    return {**ended(*(line(name, "failed", reason) for name in names)), "seconds": seconds}


def fired(cloud: LocalCloud, jobs: Jobs, name: str) -> str:
    """Returns what EventBridge Scheduler calls a schedule."""
    schedules = cloud.client("scheduler").list_schedules(GroupName=jobs.resources["ScheduleGroup"])["Schedules"]
    [found] = [schedule["Name"] for schedule in schedules if schedule["Name"].startswith(name)]
    return found


def logged(cloud: LocalCloud, jobs: Jobs) -> list[dict]:
    """Returns the lines that the function has logged."""
    pages = cloud.client("logs").get_paginator("filter_log_events").paginate(logGroupName=jobs.resources["JobsLogs"])
    lines = [event["message"] for page in pages for event in page["events"]]
    return [json.loads(line) for line in lines if line.startswith("{")]
