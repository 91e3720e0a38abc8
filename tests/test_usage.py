"""Tests what the deployed stack makes of what nodes say that they run."""

from datetime import UTC, datetime

import pytest
from jobs import Jobs
from settling import DIGEST, Settling, ended, line, node, totals, used
from uploaded import Uploaded

INVENTORY = "inventory rule=default attempt=1"
FOREIGN = f"registry.k8s.io/pause:3.10@{DIGEST}"
METRICS = ("PodImages", "PodImagesPresent", "FirstUsedBytes")
OF_INVENTORIES = {"ClusterName": "usage", "Rule": "default", "Trigger": "inventory"}


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="usage")
    stack.deploy(ClusterName="usage", UsedWithin="30")
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def settling(cloud, stack):
    return Settling(cloud, stack)


def test_what_nodes_run_and_what_jobs_bring_is_told_however_often_and_in_whatever_order_it_is_reported(
    cloud, stack, settling
):
    jobs = Jobs(cloud, stack)
    told = {"rule": "default", "usedWithinDays": 30}
    assert jobs.get("/usage?rule=default") == {**told, "known": False, "images": []}
    own, brought = settling.image("own"), settling.image("brought")
    inventory, events = inventoried(cloud, settling, own, 12)
    send(cloud, settling, events)
    assert [settling.metric(name, **OF_INVENTORIES) for name in METRICS] == [24, 12, 12000]
    ending = ended(line(brought), used(own, prefetched=True), totals())
    job = settling.command({node(): ending}, brought, comment="job rule=default attempt=1")
    settling.job(job, targets=1, pulled=1)
    cloud.forget_calls()
    send(cloud, settling, [*reversed(events), *events])
    calls = cloud.calls(function=settling.function("NodeResult"))
    assert calls["ssm:GetCommandInvocation"] >= 12 and "dynamodb:PutItem" not in calls

    today = datetime.now(UTC).date().isoformat()
    seen = {"firstSeen": today, "lastSeen": today}
    images = [
        {"image": brought, **seen, "nodes": 0, "prefetchedNodes": 0, "bytes": 0},
        {"image": own, **seen, "nodes": 13, "prefetchedNodes": 13, "bytes": 1000},
        {"image": FOREIGN, **seen, "nodes": 12, "prefetchedNodes": 0, "bytes": 1000},
    ]
    assert jobs.get("/usage?rule=default") == {**told, "known": True, "since": today, "images": images}
    # An inventory is no job, and nothing of it is retried.
    assert settling.outcomes.job(inventory) is None
    assert inventory not in {listed["id"] for page in jobs.pages("/jobs", "jobs") for listed in page}
    jobs.get(f"/jobs/{inventory}", 404)
    assert settling.letters() == []


def inventoried(cloud, settling, image, number):
    """Asks nodes what they run; returns the command and its events, which nobody has been told."""
    said = ended(
        used(image, prefetched=True),
        used(FOREIGN, running=2),
        totals(images=2, podImages=2, podImagesPresent=1, firstUsedBytes=1000),
    )
    with cloud.holding_events("aws.ssm") as take:
        document = settling.resources["PrefetchImages"]
        command = cloud.stage_command(document, {"images": [""]}, INVENTORY, {node(): said for _ in range(number)})
        events = take()
    assert len(events) == number + 1
    return command, events


def send(cloud, settling, events):
    """Tells events, and waits until they are settled."""
    for event in events:
        cloud.send_event(event)
    settling.until_quiet()
