"""Lists what functions are called for, and how each caller takes what comes back."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benches.runtime_api import Invocation
from local.client import ROOT

from .world import JOB, LIFETIME_SECONDS, World

DELIVERIES = {"queue": 6, "event": 3, "request": 3, "sweep": 3, "task": 3}
"""Says how often each caller calls before it gives up; queues do so more often, which shows nothing more."""

PAUSE_SECONDS = 90
"""Says how much later each comes again: Lambda after a minute and after two, a queue every 30 seconds."""
SECONDS = {"ImagePush": 8, "NodeLaunch": 9, "Jobs": 16}
"""Says how long invocations may take where it is more than 5 seconds: these functions keep more for their end."""

Left = Callable[[dict, Invocation], dict | None]


@dataclass(frozen=True, eq=False)
class Scenario:
    """One thing that a function is called for."""

    name: str
    function: str
    caller: str
    event: dict
    settings: dict[str, str] = field(default_factory=dict)
    rule: dict[str, Any] = field(default_factory=dict)
    before: Callable[[World], None] = lambda world: None
    after: Sequence[dict] = ()
    """Lists what comes later in any case, as a sweep does."""
    may_lack: dict[str, str] = field(default_factory=dict)
    """Says of which parts the design lets a failure be told and no more, and why."""
    may_send_again: str = ""
    """Says why the design lets what was handed back be sent again."""

    @property
    def seconds(self) -> int:
        """Returns how long an invocation may take."""
        return SECONDS.get(self.function, 5)

    def left(self, event: dict, invocation: Invocation) -> dict | None:
        """Returns what the caller delivers again, None where all is done."""
        return LEFT[self.caller](event, invocation)


def of_queue(event: dict, invocation: Invocation) -> dict | None:
    """Returns the messages that a batch has handed back, with one receive more."""
    names = None if invocation.is_error else {one["itemIdentifier"] for one in invocation.answer["batchItemFailures"]}
    left = [record for record in event["Records"] if names is None or record["messageId"] in names]
    return {"Records": [received_again(record) for record in left]} if left else None


def of_invocation(event: dict, invocation: Invocation) -> dict | None:
    """Returns the event where the function failed."""
    return event if invocation.is_error else None


def of_request(event: dict, invocation: Invocation) -> dict | None:
    """Returns the request where its answer is an one that a client sends it again for."""
    is_failed = invocation.is_error or invocation.answer["statusCode"] == 409 or invocation.answer["statusCode"] >= 500
    return event if is_failed else None


def of_sweep(event: dict, invocation: Invocation) -> dict | None:
    """Returns the event where the sweep says that it has left something: the schedule brings the next one."""
    return event if invocation.is_error or invocation.answer["unfinished"] else None


LEFT: dict[str, Left] = {
    "queue": of_queue,
    "event": of_invocation,
    "task": of_invocation,
    "request": of_request,
    "sweep": of_sweep,
}


def received_again(record: dict) -> dict:
    """Returns a message as SQS hands it out once more."""
    count = int(record["attributes"]["ApproximateReceiveCount"])
    return {**record, "attributes": {**record["attributes"], "ApproximateReceiveCount": str(count + 1)}}


def event(name: str) -> dict:
    """Returns an event of the folder."""
    return json.loads((ROOT / f"events/{name}.json").read_text())


def batch(name: str, size: int = 3) -> dict:
    """Returns the first messages of a batch, sent just now."""
    now = str(int(time.time() * 1000))
    records = event(name)["Records"][:size]
    return {"Records": [{**record, "attributes": {**record["attributes"], "SentTimestamp": now}} for record in records]}


def message(body: dict) -> dict:
    """Returns a batch of one message."""
    [record] = batch("node-launch.sqs-one", 1)["Records"]
    return {"Records": [{**record, "body": json.dumps(body), "messageId": "retry"}]}


def request(method: str, path: str, body: dict | None = None, query: str = "", **headers: str) -> dict:
    """Returns a request as the HTTP API hands it over."""
    api = event("jobs.http")
    context = {**api["requestContext"], "http": {**api["requestContext"]["http"], "method": method, "path": path}}
    return {
        **api,
        "routeKey": f"{method} {path}",
        "rawPath": path,
        "rawQueryString": query,
        "headers": {"content-type": "application/json", **headers},
        "requestContext": context,
        "body": json.dumps(body) if body else None,
    }


NOT_KNOWN_AS_SENT = "a node that has its images answers a second command in milliseconds"
NOT_NOTED = {"rows": "what was sent and cannot be noted is looked for in SSM by whoever comes with the same key"}

SCENARIOS = (
    Scenario("a push", "ImagePush", "event", event("image-push.tagged")),
    Scenario(
        "a push, boot lists kept",
        "ImagePush",
        "event",
        event("image-push.tagged"),
        settings={"BOOT_LIST": "Enabled"},
        may_lack={"parameters": "the next push, or the reconcile, writes the list"},
    ),
    Scenario("a replicated image", "ImagePush", "event", event("image-push.replication")),
    Scenario(
        "three launches",
        "NodeLaunch",
        "queue",
        batch("node-launch.sqs-ten"),
        may_lack={"rows": "a launch that cannot be noted is served for all that"},
    ),
    Scenario("a retry", "NodeLaunch", "queue", message(event("node-launch.retry"))),
    Scenario(
        "three reports",
        "NodeResult",
        "queue",
        batch("node-result.sqs-ten"),
        after=[event("node-result.sweep")],
        may_send_again="what follows from a report is done again where it cannot be noted that it was",
    ),
    Scenario("a retry that is due", "NodeResult", "queue", message(event("node-result.retry"))),
    Scenario(
        "a sweep",
        "NodeResult",
        "sweep",
        event("node-result.sweep"),
        before=lambda world: world.sent_at.update({JOB: time.time() - 2 * LIFETIME_SECONDS}),
        may_send_again="what a sweep tells of is known by its node and attempt, whoever tells of it",
    ),
    Scenario(
        "a job by images",
        "Jobs",
        "request",
        request("POST", "/jobs", {"images": ["team/app:v1.4.2"]}, **{"idempotency-key": "release-v1"}),
        may_lack=NOT_NOTED,
    ),
    Scenario("a job of a schedule", "Jobs", "event", event("jobs.scheduled"), may_lack=NOT_NOTED),
    Scenario(
        "a reconcile", "Jobs", "event", event("jobs.reconcile"), may_lack=NOT_NOTED, may_send_again=NOT_KNOWN_AS_SENT
    ),
    Scenario(
        "a reconcile, boot lists kept",
        "Jobs",
        "event",
        event("jobs.reconcile"),
        settings={"BOOT_LIST": "Enabled"},
        may_lack=NOT_NOTED | {"parameters": "the next push, or the reconcile, writes the list"},
        may_send_again=NOT_KNOWN_AS_SENT,
    ),
    Scenario("a new schedule", "Jobs", "request", request("POST", "/jobs/schedule", event("jobs.schedule"))),
    Scenario("the nodes", "Jobs", "request", request("GET", "/nodes", query="limit=100")),
    Scenario("the statistics", "Jobs", "request", request("GET", "/jobs/stats")),
    Scenario("a plan", "BakePlan", "task", event("bake-plan.defaults")),
)
