"""Tests what the deployed stack makes of what nodes say that they run."""

import json
from datetime import UTC, datetime

import pytest
from jobs import Jobs
from settling import DIGEST, Settling, ended, line, node, totals, used
from uploaded import Uploaded

from local.client import ROOT

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
    rows = settling.outcomes.usage("default")
    cloud.forget_calls()
    send(cloud, settling, [*reversed(events), *events])
    assert cloud.calls(function=settling.function("NodeResult"))["ssm:GetCommandInvocation"] >= 12
    # A process whose memory is behind another's tries to write, and is refused: each row says how often it was written.
    assert settling.outcomes.usage("default") == rows

    today = datetime.now(UTC).date().isoformat()
    seen = {"firstSeen": today, "lastSeen": today}
    images = [
        {"image": brought, **seen, "nodes": 0, "prefetchedNodes": 0, "bytes": 0},
        {"image": own, **seen, "nodes": 12, "prefetchedNodes": 12, "bytes": 1000},
        {"image": FOREIGN, **seen, "nodes": 12, "prefetchedNodes": 0, "bytes": 1000},
    ]
    assert jobs.get("/usage?rule=default") == {**told, "known": True, "since": today, "images": images}
    # An inventory is no job, and nothing of it is retried.
    assert settling.outcomes.job(inventory) is None
    assert inventory not in {listed["id"] for page in jobs.pages("/jobs", "jobs") for listed in page}
    jobs.get(f"/jobs/{inventory}", 404)
    assert settling.letters() == []


def test_of_two_hundred_repositories_those_twelve_are_brought_that_the_clusters_nodes_run(cloud):
    stack = Uploaded(cloud, name="twelve")
    stack.deploy(ClusterName="twelve", Used="true")
    settling, push = Settling(cloud, stack), stack.resources()["ImagePush"]
    # Before a node has told what it runs no push is lost.
    assert stack.invoke("ImagePush", pushed(settling, 150))["decision"] == "sent"
    run = [settling.image(f"app-{number:03}") for number in range(0, 192, 16)]
    said = ended(*map(used, run), used(FOREIGN), totals(images=13))
    with cloud.holding_events("aws.ssm") as take:
        settling.cloud.stage_command(stack.resources()["PrefetchImages"], {"images": [""]}, INVENTORY, {node(): said})
        events = take()
    for event in events:
        cloud.send_event(event)
    settling.until_quiet()
    # The first node says nothing of the others, which have told within a quarter of an hour.
    assert stack.invoke("ImagePush", pushed(settling, 150))["decision"] == "sent"
    settling.let_usage_pass()
    cloud.forget_calls()
    decisions = [stack.invoke("ImagePush", pushed(settling, number)) for number in range(200)]
    sent = [number for number, decision in enumerate(decisions) if decision["decision"] == "sent"]
    assert sent == list(range(0, 192, 16))
    assert {decision["reason"] for decision in decisions if decision["decision"] != "sent"} == {"not-used"}
    calls = cloud.calls(function=push)
    assert calls.pop("ssm:SendCommand") == 12
    # One question for each push, and one more of a process that does not know yet that anything is known.
    asked = calls.pop("dynamodb:Query")
    assert 200 <= asked <= 216 and not calls, (asked, calls)
    brought = {command["Parameters"]["images"][0] for command in stack.commands("push")}
    assert {image for image in brought if "/team/app-" in image} == {*run, settling.image("app-150")}
    stack.delete()


def pushed(settling, number):
    """Returns the event of a push to one of the repositories."""
    event = json.loads((ROOT / "events" / "image-push.tagged.json").read_text())
    _, _, region = settling.cloud.registry_host.partition(".dkr.ecr.")
    event["region"] = region.partition(".")[0]
    event["detail"] |= {"repository-name": f"team/app-{number:03}", "image-tag": "v1", "image-digest": DIGEST}
    return event


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
