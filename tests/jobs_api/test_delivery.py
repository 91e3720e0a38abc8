"""A job brings the images that were named, or its rule's newest, to the nodes that were chosen."""

import json

import pytest
from jobs import pulls


def test_an_image_comes_to_every_node_of_its_rule_and_each_is_told_of(jobs, app):
    nodes = jobs.nodes(3, pulls(app))
    answer = jobs.submit(images=["team/app:v1"])
    assert answer["images"] == [{"asked": "team/app:v1", "image": app}]
    [sent] = answer["jobs"]
    assert (sent["rule"], sent["images"], answer["nodes"], answer["dryRun"]) == ("default", [app], [], False)
    assert sent["nodes"] == {"tags": {"aws:eks:cluster-name": ["jobs"]}}
    job = jobs.job(sent["id"], state="done")
    assert (job["trigger"], job["rule"], job["images"]) == ("job", "default", [app])
    assert (job["nodes"]["total"], job["nodes"]["done"], job["nodes"]["pulled"]) == (3, 3, 3)
    assert job["bytes"] == 3000
    assert [outcome["node"] for outcome in job["outcomes"]] == sorted(nodes)
    [image] = job["outcomes"][0]["images"]
    assert image == {"image": app, "status": "pulled", "reason": "", "seconds": 1.5, "bytes": 1000, "attempts": 1}


@pytest.mark.parametrize("form", ["team/app:v1", "team/app@{digest}", "team/app:v1@{digest}", "{host}/team/app:v1"])
def test_an_image_is_named_by_tag_or_digest_with_or_without_the_registry(cloud, jobs, app, form):
    asked = form.format(digest=app.partition("@")[2], host=cloud.registry_host)
    [image] = jobs.submit(200, images=[asked], dryRun=True)["images"]
    assert image["asked"] == asked
    assert image["image"].endswith(app.partition("@")[2])


def test_a_rule_brings_its_newest_images(jobs, shared):
    newest = jobs.push("gpu/train", "v2")
    node = jobs.nodes(1, pulls(newest, shared), pool="gpu")
    [sent] = jobs.submit(rule="gpu")["jobs"]
    assert set(sent["images"]) == {newest, shared}
    assert sent["nodes"] == {"tags": {"aws:eks:cluster-name": ["jobs"], "pool": ["gpu"]}}
    assert [outcome["node"] for outcome in jobs.job(sent["id"], state="done")["outcomes"]] == node


def test_without_a_rule_an_image_goes_by_every_rule_that_takes_it(jobs, shared):
    assert [sent["rule"] for sent in jobs.submit(images=["team/shared:v1"])["jobs"]] == ["default", "gpu"]
    assert [sent["rule"] for sent in jobs.submit(images=["team/shared:v1"], rule="gpu")["jobs"]] == ["gpu"]


def test_a_dry_run_tells_what_would_be_sent_and_sends_nothing(jobs, app):
    before = len(jobs.commands("job"))
    answer = jobs.submit(200, images=["team/app:v1"], dryRun=True)
    assert (answer["dryRun"], [sent["images"] for sent in answer["jobs"]]) == (True, [[app]])
    assert all("id" not in sent for sent in answer["jobs"])
    assert len(jobs.commands("job")) == before


def test_more_images_than_a_command_carries_are_several_commands(jobs):
    for n in range(31):
        jobs.push("team/many", f"v{n}")
    answer = jobs.submit(images=[f"team/many:v{n}" for n in range(31)])
    assert [image for sent in answer["jobs"] for image in sent["images"]] == [row["image"] for row in answer["images"]]
    assert [len(sent["images"]) for sent in answer["jobs"]] == [30, 1]
    assert len({sent["id"] for sent in answer["jobs"]}) == 2


def test_nodes_may_be_chosen_by_tags_within_the_cluster(jobs, shared):
    [wanted] = jobs.nodes(1, pulls(shared), team="blue")
    jobs.nodes(1, pulls(shared), team="red")
    [sent] = jobs.submit(images=["team/shared:v1"], nodes={"tags": {"team": ["blue", "green"]}})["jobs"]
    assert (sent["rule"], sent["nodes"]["tags"]["team"]) == ("default", ["blue", "green"])
    assert [outcome["node"] for outcome in jobs.job(sent["id"], state="done")["outcomes"]] == [wanted]


def test_the_clusters_own_tag_cannot_be_chosen_away(jobs):
    body = {"rule": "default", "nodes": {"tags": {"aws:eks:cluster-name": ["other"]}}}
    problem = jobs.post("/jobs", body, 400)
    assert "aws:eks:cluster-name" in json.dumps(problem["errors"])


def test_nodes_that_get_nothing_are_told_with_the_reason(cloud, jobs, app):
    [ours] = jobs.nodes(1, pulls(app))
    [stopped, offline, silent] = jobs.nodes(3)
    cloud.client("ec2").stop_instances(InstanceIds=[stopped])
    cloud.turn(offline, online=False)
    cloud.turn(silent, managed=False)
    [foreign] = cloud.launch_many(1, {"aws:eks:cluster-name": "other"}, containerd="none")
    [auto] = cloud.launch_many(1, {"aws:eks:cluster-name": "jobs"}, operator="eks.amazonaws.com", containerd="none")
    gone = "i-0123456789abcdef0"
    reasons = {
        gone: "gone",
        stopped: "not-running",
        foreign: "foreign",
        auto: "unsupported",
        offline: "not-online",
    }
    answer = jobs.submit(images=["team/app:v1"], nodes={"ids": [ours, *reasons]})
    assert {node["id"]: node["reason"] for node in answer["nodes"]} == reasons
    [sent] = answer["jobs"]
    assert sent["nodes"] == {"ids": [ours]}
    assert jobs.job(sent["id"], state="done")["nodes"]["total"] == 1
    problem = jobs.post("/jobs", {"images": ["team/app:v1"], "nodes": {"ids": [gone, stopped]}}, 400)
    assert "nodes.ids" in json.dumps(problem["errors"])
    cloud.remove([foreign, auto])
