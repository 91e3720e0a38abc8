"""The deployed stack's word on the nodes: who can be warmed, why not, and what each holds."""

import json
import time
from datetime import UTC, datetime, timedelta

import pytest
from jobs import SECONDS, Jobs, fails, pulls
from uploaded import Uploaded

from local import images
from local.client import until
from local.stack import EVERYTHING

RULES = [
    {"name": "default", "repositories": ["held/*"], **EVERYTHING},
    {"name": "gpu", "repositories": ["held-gpu/*"], "nodes": {"pool": ["gpu"]}, **EVERYTHING},
]
OURS = {"aws:eks:cluster-name": "nodes"}
MINUTES = timedelta(minutes=10).total_seconds()


@pytest.fixture(scope="module")
def jobs(cloud):
    stack = Uploaded(cloud, name="nodes")
    stack.deploy(ClusterName="nodes", Rules=json.dumps(RULES), JobsRateLimit="10000")
    with cloud.holding_events("aws.ecr"):  # what is pushed is brought by jobs only
        yield Jobs(cloud, stack)
    stack.delete()


@pytest.fixture(scope="module")
def app(jobs):
    return jobs.push("held/app")


@pytest.fixture(autouse=True)
def nothing_is_left(cloud, jobs):
    yield
    cloud.forget_faults()
    jobs.clear()


def test_a_node_tells_its_rules_and_that_ssm_reaches_it(cloud, jobs, app):
    [plain], [gpu] = jobs.nodes(1), jobs.nodes(1, pool="gpu")
    cloud.launch_many(1, {"aws:eks:cluster-name": "other"}, containerd="none")
    nodes = listed(jobs)
    assert nodes.keys() == {plain, gpu}
    assert (nodes[plain]["rules"], nodes[gpu]["rules"]) == (["default"], ["default", "gpu"])
    assert nodes[plain]["ssm"]["state"] == "online"
    assert "cause" not in nodes[plain]["ssm"]
    assert nodes[plain]["instanceType"] == "m5.large"
    [reservation] = cloud.client("ec2").describe_instances(InstanceIds=[plain])["Reservations"]
    assert nodes[plain]["name"] == reservation["Instances"][0]["PrivateDnsName"]
    assert datetime.fromisoformat(nodes[plain]["launchedAt"]) > datetime.now(UTC) - timedelta(minutes=5)


def test_where_the_cluster_has_no_node_the_clusters_that_have_some_are_named(cloud, jobs, app):
    others = cloud.launch_many(1, {"eks:cluster-name": "nodez"}, containerd="none")
    others += cloud.launch_many(1, {"kubernetes.io/cluster/other": "owned"}, containerd="none")
    page = jobs.get("/nodes")
    assert page["nodes"] == []
    assert {"nodez", "other"} <= set(page["clusters"]) and "nodes" not in page["clusters"]
    assert "aws:eks:cluster-name=nodes" in page["message"] and "nodez" in page["message"]
    answer = jobs.invoke({"reconcile": True})
    assert (answer["message"], answer["clusters"]) == (page["message"], page["clusters"])
    assert {rule["decision"] for rule in answer["rules"]} <= {"sent", "no-images"}
    jobs.nodes(1)
    assert not {"clusters", "message"} & (jobs.get("/nodes").keys() | jobs.invoke({"reconcile": True}).keys())
    cloud.remove(others)


@pytest.mark.parametrize(
    ("launch", "state", "cause"),
    [
        ({"profile": None, "age": MINUTES}, "never-registered", "no-instance-profile"),
        ({"managed": False, "age": MINUTES}, "never-registered", "role-or-network"),
        ({"managed": False}, "never-registered", "starting"),
        ({"operator": "eks.amazonaws.com"}, "unsupported", "auto-mode"),
        ({"platform": "Windows"}, "unsupported", "not-linux"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_node_that_ssm_cannot_reach_has_a_likely_cause(cloud, jobs, launch, state, cause):
    [node] = cloud.launch_many(1, OURS, **{"containerd": "none", "online_after": 0, **launch})
    cloud.client("ssm").describe_instance_information()
    told = listed(jobs)[node]["ssm"]
    assert (told["state"], told["cause"]) == (state, cause)
    assert told["message"]
    cloud.remove([node])


def test_a_node_that_ssm_has_lost_says_since_when(cloud, jobs):
    [node] = cloud.launch_many(1, OURS, age=MINUTES, containerd="none", online_after=0)
    before = listed(jobs)[node]["ssm"]
    cloud.turn(node, online=False)
    told = listed(jobs)[node]["ssm"]
    assert (told["state"], told["cause"]) == ("offline", "agent-stopped")
    assert told["lastPingAt"] >= before["lastPingAt"]
    cloud.remove([node])


def test_a_node_is_warm_since_it_has_said_so_and_unknown_before(jobs, app):
    [node] = jobs.nodes(1, pulls(app), pulls(app))
    [image] = listed(jobs)[node]["images"]
    assert image == {"image": app, "tags": ["v1"], "state": "unknown"}
    jobs.job(jobs.submitted(images=["held/app:v1"]), state="done")
    [image] = until(lambda: [i for i in listed(jobs)[node]["images"] if i["state"] == "warm"], SECONDS, "it to be warm")
    since = image["since"]
    assert image["seenAt"] == since
    jobs.job(jobs.submitted(images=["held/app:v1"]), state="done")
    [image] = listed(jobs)[node]["images"]
    assert (image["state"], image["since"]) == ("warm", since)
    assert image["seenAt"] > since


def test_an_image_with_several_tags_is_one_line(cloud, jobs):
    several = images.image("several tags")
    names = [jobs.push("held-gpu/tagged", tag, several) for tag in ("v1", "v2")]
    [node] = jobs.nodes(1, pulls(*names), pool="gpu")

    def told() -> dict | None:
        return next((i for i in listed(jobs)[node]["images"] if i["image"] in names), None)

    shown = {"image": names[0], "tags": ["v1", "v2"], "state": "unknown"}
    until(lambda: told() == shown, SECONDS, f"it to be {shown}")
    jobs.job(jobs.submitted(images=["held-gpu/tagged:v1", "held-gpu/tagged:v2"]), state="done")
    warm = until(lambda: (image := told()) and image["state"] == "warm" and image, SECONDS, "it to be warm")
    assert warm["tags"] == ["v1", "v2"]


def test_a_node_that_lacks_an_image_says_why_and_what_failed_last(jobs, app):
    [node] = jobs.nodes(1, fails(app, reason="no-space"))
    job = jobs.submitted(images=["held/app:v1"])
    jobs.job(job, state="done", failed=1)
    told = until(
        lambda: (n := listed(jobs)[node])["images"][0]["state"] == "missing" and n, SECONDS, "it to be missing"
    )
    assert told["images"][0]["reason"] == "no-space"
    assert (told["lastFailure"]["image"], told["lastFailure"]["reason"]) == (app, "no-space")
    assert told["lastFailure"]["job"] == job


def test_a_newer_image_is_unknown_until_the_node_speaks_of_it(jobs, app):
    [node] = jobs.nodes(1, pulls(app))
    jobs.job(jobs.submitted(images=["held/app:v1"]), state="done")
    until(lambda: listed(jobs)[node]["images"][0]["state"] == "warm", SECONDS, "it to be warm")
    newer = jobs.push("held/newer")
    until(
        lambda: {i["image"]: i["state"] for i in listed(jobs)[node]["images"]} == {app: "warm", newer: "unknown"},
        SECONDS,
        "the newer image",
    )


def test_ten_thousand_nodes_are_paged_each_in_time_and_once(cloud, jobs, app):
    ids = cloud.launch_many(10_000, OURS, containerd="none", online_after=0)
    found, slowest, path = [], 0.0, "/nodes?limit=500"
    while path:
        began = time.monotonic()
        page = jobs.get(path)
        slowest = max(slowest, time.monotonic() - began)
        found += [node["id"] for node in page["nodes"]]
        path = page.get("next") and f"/nodes?limit=500&next={page['next']}"
    assert sorted(found) == sorted(ids)
    assert slowest < 15  # API Gateway gives up after 30
    began = time.monotonic()
    assert jobs.invoke({"count": True}) == {"nodes": {"warm": 0, "cold": 10_000, "unreachable": 0, "leftOut": 0}}
    assert time.monotonic() - began < 40  # it gives up after 50
    cloud.remove(ids)


def listed(jobs: Jobs) -> dict[str, dict]:
    """Returns all the nodes by id."""
    return {node["id"]: node for page in jobs.pages("/nodes", "nodes") for node in page}
