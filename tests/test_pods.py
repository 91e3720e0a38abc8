"""Tests a cluster whose nodes run pods and its stack as it is deployed by default: what is used comes, nothing else."""

import json
from collections import Counter

import pytest
from cluster import SECONDS, Cluster, by_digest, by_tag, images_of, repository, trigger
from template import TEMPLATE

from local.client import until
from local.workload import turn_foreign_registry

REPOSITORIES = [f"pods/app-{number:02}" for number in range(20)]
USED = REPOSITORIES[::6]
UNUSED = [name for name in REPOSITORIES if name not in USED]
BY_DEFAULT = {name: str(TEMPLATE["Parameters"][name]["Default"]).lower() for name in ("Used", "Neighbours")}
OF_PODS = ("PodImages", "PodImagesPresent", "FirstUsedBytes")
pytestmark = pytest.mark.timeout(240)  # a node tries four times to reach a registry that is down, for some ten seconds


@pytest.fixture(scope="module")
def cluster(cloud):
    """Two nodes that ran pods before the stack was deployed, and have told it of them since."""
    cluster = Cluster(cloud, "pods")
    cluster.launch_before("1.7", "2.1")
    agent = cluster.push_foreign("acme/agent", "v1")
    web, shared, worker, batch = (cluster.push(name, "v1") for name in USED)
    first, second = cluster.nodes
    for node, images in ((first, (agent, web, shared)), (second, (agent, shared, worker))):
        assert [cluster.run(node, image)[1] for image in images] == [False] * 3
    cluster.run_to_its_end(second, batch)
    cluster.deploy(Repositories="pods/*", **BY_DEFAULT)
    cluster.until_ended("inventory")
    cluster.settling.let_usage_pass()
    yield cluster
    cluster.remove()


def test_what_the_nodes_run_is_known_by_the_reconcile_of_the_deployment(cluster):
    assert cluster.usage() == cluster.expected_usage()


def test_of_twenty_repositories_that_are_pushed_those_are_brought_that_the_nodes_run(cluster):
    pushed = {name: cluster.push(name, "v2") for name in REPOSITORIES}

    until(lambda: len(ignored(cluster)) == len(UNUSED), SECONDS, "the others to be ignored")
    until(lambda: len(cluster.jobs.commands("push")) >= len(USED), SECONDS, "the commands")
    commands = cluster.jobs.commands("push")
    brought = {pushed[name] for name in USED}
    assert sorted(images_of(*commands)) == sorted(brought)
    assert {name for name in REPOSITORIES if any(f" {name}," in line for line in ignored(cluster))} == set(UNUSED)
    for command in commands:
        cluster.settling.job(command["CommandId"], **pulled_everywhere(cluster))
    for node in cluster.nodes:
        assert cluster.held(node) & set(pushed.values()) == brought


def test_a_reconcile_brings_what_the_nodes_use_and_nothing_else_whatever_events_were_lost(cloud, cluster):
    with cloud.holding_events("aws.ecr"):
        used, unused = (cluster.push(name, "v3") for name in (USED[1], UNUSED[1]))
    newest = {cluster.newest[name] for name in cluster.used()}

    [command] = [command for command in cluster.reconcile() if trigger(command) == "reconcile"]

    assert set(images_of(command)) == newest
    cluster.settling.job(command["CommandId"], **pulled_everywhere(cluster))
    for node in cluster.nodes:
        held = cluster.held(node)
        assert held >= newest and used in held and unused not in held
    assert cluster.usage() == cluster.expected_usage()


def test_a_new_node_has_what_its_neighbours_run_before_a_pod_asks_for_it(cloud, cluster):
    [agent] = [image for image in cluster.runs if image.startswith(cloud.foreign_host)]
    moved = cluster.push_foreign("acme/agent", "v1", content="newer")
    newest = {cluster.newest[name] for name in cluster.used()}
    running = {image: len(nodes) for image, nodes in cluster.runs.items() if nodes}
    everywhere = {image for image, nodes in running.items() if nodes == len(cluster.nodes)}

    node = cluster.launch()
    commands = cluster.launched(node)

    of_neighbours, of_rule = map(images_of, commands)
    assert (set(of_neighbours), set(of_rule)) == (running.keys() - newest, newest)
    assert agent in everywhere and set(of_neighbours[: len(everywhere - newest)]) == everywhere - newest
    sent = [*of_neighbours, *of_rule]
    lines = [line for command in commands for line in cluster.stack.report(command["CommandId"], node)]
    assert {line["image"]: line["status"] for line in lines} == dict.fromkeys(sent, "pulled")
    held = cluster.held(node)
    assert held >= set(sent) and moved not in held
    assert cloud.image_status(node, by_digest(agent))


def test_a_pod_of_a_new_node_waits_for_no_pull_and_one_that_does_lets_its_repository_in(cluster):
    node, name = cluster.launch(), UNUSED[2]
    neighbours, _ = cluster.launched(node)
    cluster.settling.until_quiet()
    before = pod_metrics(cluster)
    there = [images_of(neighbours)[0], cluster.newest[USED[0]]]
    other = cluster.push(name, "v4")
    assert [cluster.run(node, image)[1] for image in (*there, other)] == [True, True, False]

    cluster.reconcile()

    grown = {metric: value - before[metric] for metric, value in pod_metrics(cluster).items()}
    assert grown == {"PodImages": 3, "PodImagesPresent": 2, "FirstUsedBytes": cluster.size(*there)}
    assert cluster.usage() == cluster.expected_usage()
    arrived = cluster.push(name, "v5")
    [command] = until(lambda: cluster.carrying(arrived), SECONDS, "the push's command")
    cluster.settling.job(command["CommandId"], **pulled_everywhere(cluster))


def test_every_node_is_told_to_have_the_newest_of_what_the_nodes_use(cluster):
    cluster.reconcile()

    nodes = {node["id"]: node for page in cluster.jobs.pages("/nodes", "nodes") for node in page}

    assert nodes.keys() == set(cluster.nodes)
    for node in nodes.values():
        states = {image["image"]: image["state"] for image in node["images"]}
        assert states == {cluster.newest[name]: "warm" for name in cluster.used()}
        assert (node["ssm"]["state"], node["rules"]) == ("online", ["default"])


def test_usage_is_the_same_where_reports_are_lost_or_come_late_or_more_than_once(cloud, cluster):
    first, second, *_ = cluster.nodes
    function = cluster.stack.resources()["NodeResult"]
    web, worker = (next(image for image in cluster.runs if repository(image) == USED[at]) for at in (0, 2))
    cluster.run(second, web)
    told = cluster.expected_usage()
    cluster.run(first, worker)
    events = cluster.unheard_reconcile()
    heard = [event for event in events if event["detail"]["instance-id"] == second]
    assert len(events) == 2 * len(cluster.nodes) and cluster.usage() != told

    # The function dies once it has written, and the queue hands the event to another process.
    cloud.forget_calls()
    cloud.kill(function, "dynamodb", "PutItem", "after")
    cluster.tell([heard[0]])
    assert cloud.calls(function=function)["ssm:GetCommandInvocation"] >= 2
    cluster.tell([*reversed(heard), *heard])
    assert cluster.usage() == told, "the other node's reports are lost"

    cluster.reconcile()
    assert cluster.usage() == cluster.expected_usage() != told
    cluster.tell([*reversed(events), *events])
    assert cluster.usage() == cluster.expected_usage()
    assert cluster.settling.letters() == []


def test_of_two_registries_one_of_which_is_down_the_others_image_comes_and_the_rest_is_told_and_retried(cloud, cluster):
    ours, theirs = cluster.push(UNUSED[-1], "v6"), cluster.push_foreign("pods/tool", "v1")
    turn_foreign_registry(cloud, up=False)

    job = cluster.jobs.submitted(images=[by_tag(ours).partition("/")[2], theirs])

    told = until(lambda: of_all_nodes(cluster, job), 2 * SECONDS, "every node to report")
    expected = {ours: ("pulled", ""), theirs: ("failed", "registry")}
    for node in cluster.nodes:
        assert {image["image"]: (image["status"], image["reason"]) for image in told[node]} == expected
        held = cluster.held(node)
        assert ours in held and theirs not in held
    turn_foreign_registry(cloud, up=True)
    cluster.jobs.job(job, state="done", pulled=len(cluster.nodes), failed=0)
    cluster.settling.until_quiet()
    records = cluster.settling.outcomes.records(job)
    first = Counter((row["image"], row["status"], row["reason"]) for row in records if row["attempt"] == 1)
    assert first == {(image, *ending): len(cluster.nodes) for image, ending in expected.items()}
    brought = {row["image"]: (row["nodes"], row["bytes"]) for row in cluster.usage()["images"]}
    assert (brought[ours], brought[theirs]) == ((0, 0), (0, 0)), "no node runs them yet"


def of_all_nodes(cluster: Cluster, job: str) -> dict[str, list[dict]]:
    """Returns what the jobs API tells of a job's images on each node, once it knows of all nodes."""
    told = {outcome["node"]: outcome["images"] for outcome in cluster.jobs.get(f"/jobs/{job}")["outcomes"]}
    return told if told.keys() == set(cluster.nodes) else {}


def pod_metrics(cluster: Cluster) -> dict[str, float]:
    """Returns what CloudWatch has of pods' images, whichever command looked first."""
    return {name: cluster.settling.metric(name, ClusterName=cluster.stack.name) for name in OF_PODS}


def pulled_everywhere(cluster: Cluster) -> dict[str, int]:
    """Returns what is told of a job that every node had something to pull of."""
    return {"targets": len(cluster.nodes), "pulled": len(cluster.nodes)}


def ignored(cluster: Cluster) -> list[str]:
    """Returns the messages by which the function told of pushes that nobody would run."""
    group = cluster.stack.resources()["ImagePushLogs"]
    pages = cluster.cloud.client("logs").get_paginator("filter_log_events").paginate(logGroupName=group)
    lines = [event["message"] for page in pages for event in page["events"] if event["message"].startswith("{")]
    return [line["message"] for line in map(json.loads, lines) if line.get("reason") == "not-used"]
