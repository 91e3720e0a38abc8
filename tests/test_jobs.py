"""The deployed stack's jobs API: what is asked for happens once, what becomes of it is told, and what is wrong too."""

import json
import time
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import contract
import pytest
from jobs import NOBODY, SECONDS, Jobs, fails, pulls
from probe import credentials
from settling import DIGEST
from uploaded import Uploaded

from local import images
from local.client import ROOT, until

RULES = [
    {"name": "default", "repositories": ["team/*"], "keep": 1, "pin": True},
    {"name": "gpu", "repositories": ["gpu/*", "team/shared"], "nodes": {"pool": ["gpu"]}},
    {"name": "slow", "repositories": ["slow/*"], "nodes": {"pool": ["slow"]}, "maxConcurrency": "1"},
]
SDK_TRIES = 3
HOSTILE = [
    "team/app:v1; rm -rf /",
    "team/app:$(reboot)",
    "team/app:`id`",
    "team/app:v1\nteam/app:v2",
    "team/app:v1'",
    'team/app:v1"',
    "team/app:v1 team/app:v2",
    "../team/app:v1",
    "team/../app:v1",
    "Team/App:v1",
    "team//app:v1",
    "team/app:v1\u0000",
    "team/\u0430pp:v1",
    "-team/app:v1",
    "team/app",
    "team/app:",
    "team/app@sha256:short",
    f"team/app@{DIGEST}0",
    "docker.io/library/nginx:1",
    "999999999999.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1",
    "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:v1",
    "https://team/app:v1",
    "",
    "x" * 513,
]
WRONG = [
    ([], None),
    ("images", None),
    ({}, "images"),
    ({"images": []}, "images"),
    ({"images": "team/app:v1"}, "images"),
    ({"images": ["team/app:v1"] * 101}, "images"),
    ({"images": [1]}, "images[0]"),
    ({"rule": "nobody"}, "rule"),
    ({"rule": "Gpu!"}, "rule"),
    ({"rule": 1}, "rule"),
    ({"rule": "default", "dryRun": "yes"}, "dryRun"),
    ({"rule": "default", "color": "red"}, "color"),
    ({"rule": "default", "nodes": {}}, "nodes"),
    ({"rule": "default", "nodes": []}, "nodes"),
    ({"rule": "default", "nodes": {"tags": {}}}, "nodes.tags"),
    ({"rule": "default", "nodes": {"tags": {f"t{n}": ["x"] for n in range(5)}}}, "nodes.tags"),
    ({"rule": "default", "nodes": {"ids": []}}, "nodes.ids"),
]


@pytest.fixture(scope="module")
def jobs(cloud):
    stack = Uploaded(cloud, name="jobs")
    with cloud.holding_events("aws.cloudformation"):  # whose reconcile would take what nodes are told to answer
        stack.deploy(ClusterName="jobs", Rules=json.dumps(RULES), JobsRateLimit="10000")
    with cloud.holding_events("aws.ecr"):  # what is pushed is brought by jobs only
        yield Jobs(cloud, stack)
    stack.delete()


@pytest.fixture(scope="module")
def app(jobs):
    """An image that the rule `default` takes."""
    return jobs.push("team/app")


@pytest.fixture(scope="module")
def shared(jobs):
    """An image that two rules take."""
    return jobs.push("team/shared")


@pytest.fixture(autouse=True)
def nothing_is_left(cloud, jobs):
    """Ends the nodes of each test, and its faults."""
    yield
    cloud.forget_faults()
    jobs.clear()


# ── Submitting ──────────────────────────────────────────────────────────────────────────────────────────────────────


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


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: json.dumps(name)[:40])
def test_a_hostile_or_foreign_image_is_refused(jobs, app, name):
    before = len(jobs.commands("job"))
    assert jobs.refused({"images": ["team/app:v1", name]}, "images[1]")["accepted"]
    assert len(jobs.commands("job")) == before


def test_an_image_that_is_not_there_or_that_no_node_can_run_is_refused(cloud, jobs):
    jobs.push("team/chart", "v1", images.chart())
    for name in ("team/app:nobody", f"team/app@{DIGEST}", "team/nobody:v1", "team/chart:v1"):
        jobs.refused({"images": [name]}, "images[0]")


def test_images_outside_the_rules_repositories_are_refused_unless_the_stack_allows_them(cloud, jobs):
    stranger = jobs.push("other/app")
    assert "team/*" in jobs.refused({"images": ["other/app:v1"]}, "images[0]")["accepted"]
    jobs.refused({"images": ["other/app:v1"], "rule": "default"}, "images[0]")
    jobs.refused({"images": ["team/app:v1"], "rule": "gpu"}, "images[0]")
    stack = Uploaded(cloud, name="any")
    stack.deploy(ClusterName="jobs", Rules=json.dumps(RULES), AllowAnyRepository="true")
    open_to_any = Jobs(cloud, stack)
    open_to_any.refused({"images": ["other/app:v1"]}, "images[0]")
    [sent] = open_to_any.submit(images=["other/app:v1"], rule="default")["jobs"]
    assert sent["images"] == [stranger]
    stack.delete()


@pytest.mark.parametrize(("body", "field"), WRONG, ids=lambda value: json.dumps(value)[:40])
def test_what_is_no_job_is_refused_with_the_field_and_what_is_accepted(jobs, body, field):
    problem = jobs.post("/jobs", body, 400)
    told = [error["field"] for error in problem.get("errors", [])]
    assert told[:1] == ([field] if field else []) or (field and told[0].startswith(field))


@pytest.mark.parametrize(
    ("body", "type_", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"rule": "default", "rule": "gpu"}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 30_000, "application/json", 400),
        (b"", "application/json", 400),
        (b'{"rule": "default"}', "text/plain", 415),
        (b"rule=default", "application/x-www-form-urlencoded", 415),
        (b'{"images": ["' + b"x" * (64 << 10) + b'"]}', "application/json", 413),
    ],
    ids=["cut", "a key twice", "no text", "deep", "empty", "text", "form", "65 KiB"],
)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/schedule"])
def test_what_is_no_json_or_too_large_is_refused(jobs, path, body, type_, status):
    assert jobs.send("POST", path, body, status, content_type=type_)["detail"]


def test_a_body_of_ten_megabytes_reaches_no_function(cloud, jobs):
    answer = jobs.api.send("POST", "/jobs", b" " * (10 << 20) + b"{}", {"content-type": "application/json"})
    contract.check("POST", "/jobs", answer)
    assert (answer.status, answer.json()) == (413, {"message": "Request Entity Too Large"})


# ── Once ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_one_key_is_one_job(jobs, app):
    first = jobs.submit(key="one", images=["team/app:v1"])
    count = len(jobs.commands("job"))
    assert jobs.submit(key="one", images=["team/app:v1"]) == first
    assert len(jobs.commands("job")) == count
    jobs.submit(422, key="one", images=["team/app:v1"], rule="default")
    assert jobs.submit(key="another", images=["team/app:v1"]) != first


def test_one_key_at_the_same_time_is_one_job(jobs, app):
    count = len(jobs.commands("job"))
    body = {"images": ["team/app:v1"]}
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: jobs.api.post("/jobs", body, idempotency_key="same"), range(6)))
    for answer in answers:
        contract.check("POST", "/jobs", answer)
    assert {answer.status for answer in answers} <= {202, 409}
    assert len({answer.body for answer in answers if answer.status == 202}) == 1
    assert len(jobs.commands("job")) == count + 1
    assert jobs.submit(key="same", **body) == next(answer.json() for answer in answers if answer.status == 202)


@pytest.mark.parametrize("key", ["x" * 256, "a b"], ids=["long", "with a space"])
def test_a_key_that_is_none_is_refused(jobs, app, key):
    problem = jobs.submit(400, key=key, images=["team/app:v1"])
    assert problem["errors"][0]["field"] == "Idempotency-Key"
    plain = {"route": "POST /jobs", "body": {"images": ["team/app:v1"]}, "idempotencyKey": f"{key}\u00e4"}
    assert jobs.invoke(plain)["status"] == 400


def test_a_request_that_was_refused_leaves_its_key_free(jobs, app):
    jobs.submit(400, key="free", images=["team/app:nobody"])
    jobs.submit(202, key="free", images=["team/app:v1"])


def test_what_was_cut_off_goes_on_with_the_same_key(cloud, jobs, shared):
    count = len(jobs.commands("job"))
    cloud.throttle("ssm", "SendCommand", SDK_TRIES, skip=1)
    problem = jobs.submit(503, key="cut", images=["team/shared:v1"])
    assert [sent["rule"] for sent in problem["jobs"]] == ["default"]
    cloud.forget_faults()
    answer = until(
        lambda: (
            (again := jobs.api.post("/jobs", {"images": ["team/shared:v1"]}, idempotency_key="cut")).status == 202
            and again.json()
        ),
        SECONDS,
    )
    assert [sent["rule"] for sent in answer["jobs"]] == ["default", "gpu"]
    assert answer["jobs"][0]["id"] == problem["jobs"][0]["id"]
    assert len(jobs.commands("job")) == count + 2


# ── Asking ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_jobs_are_listed_newest_first_in_pages(jobs, app):
    mine = [jobs.submitted(images=["team/app:v1"]) for _ in range(5)]
    pages = jobs.pages("/jobs?limit=3", "jobs")
    assert all(len(page) <= 3 for page in pages)
    listed = [job["id"] for page in pages for job in page]
    assert listed[:5] == mine[::-1]
    assert len(set(listed)) == len(listed)
    times = [job["requestedAt"][:19] for page in pages for job in page]  # some say the milliseconds too
    assert times == sorted(times, reverse=True)


def test_further_tries_are_no_jobs_of_their_own(jobs, app):
    jobs.nodes(1, fails(app), pulls(app))
    job = jobs.submitted(images=["team/app:v1"])
    told = jobs.job(job, state="done", retried=1, pulled=1)
    assert told["outcomes"][0]["attempt"] == 2
    assert jobs.commands("job", job=job)
    listed = {listed["id"] for page in jobs.pages("/jobs?limit=50", "jobs") for listed in page}
    assert job in listed
    assert not listed & {command["CommandId"] for command in jobs.commands("job", job=job)}


def test_a_job_is_running_while_a_further_try_is_to_come(cloud, jobs, app):
    jobs.nodes(1, fails(app), pulls(app, seconds=2))
    id_ = jobs.submitted(images=["team/app:v1"])
    job = jobs.job(id_, retrying=1)
    assert (job["state"], job["nodes"]["done"], job["outcomes"][0]["retrying"]) == ("running", 0, True)
    assert jobs.job(id_, state="done")["nodes"]["retrying"] == 0


def test_a_job_does_not_wait_for_a_node_that_is_gone(cloud, jobs, app):
    [gone] = jobs.nodes(1, *[fails(app)] * 3)
    jobs.nodes(1, pulls(app))
    id_ = jobs.submitted(images=["team/app:v1"])
    jobs.job(id_, retrying=1, pulled=1)
    cloud.terminate(gone)
    job = jobs.job(id_, state="done")
    assert (job["nodes"]["done"], job["nodes"]["failed"], job["nodes"]["retrying"]) == (2, 1, 0)
    assert [outcome["retrying"] for outcome in job["outcomes"]] == [False, False]


def test_what_is_asked_for_displaces_nothing_on_a_node(jobs, app):
    id_ = jobs.submitted(images=["team/app:v1"], rule="default")
    [command] = [command for command in jobs.commands("job") if command["CommandId"] == id_]
    assert (command["Parameters"]["keep"], command["Parameters"]["pin"]) == (["0"], ["false"])


def test_the_nodes_of_a_job_are_paged(cloud, jobs, app):
    nodes = {f"i-{n:017x}": pulls(app) | {"seconds": 0} for n in range(250)}
    parameters = {"images": [app]}
    id_ = cloud.stage_command(jobs.resources["PrefetchImages"], parameters, "job rule=default attempt=1", nodes)
    jobs.job(id_, pulled=250, state="done")
    pages = jobs.pages(f"/jobs/{id_}?limit=100", "outcomes")
    assert [outcome["node"] for page in pages for outcome in page] == sorted(nodes)
    assert max(len(page) for page in pages) <= 100


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_a_job_that_is_none_is_not_found(cloud, jobs, method, probe_stack):
    jobs.send(method, f"/jobs/{NOBODY}", b"", 404)
    foreign = cloud.stage_command(probe_stack["Document"], {"word": ["a"]}, "job rule=default attempt=1", {})
    jobs.send(method, f"/jobs/{foreign}", b"", 404)
    jobs.send(method, "/jobs/nobody", b"", 400)


@pytest.mark.parametrize("path", ["/jobs", f"/jobs/{NOBODY}", "/nodes", "/jobs/schedule"])
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=", "next=garbage", "next=", "next=" + "x" * 4097, "color=red"]
)
def test_a_page_that_is_none_is_refused(jobs, path, query):
    problem = jobs.get(f"{path}?{query}", 400)
    assert problem["errors"][0]["field"] == query.partition("=")[0]


def test_a_token_of_another_list_is_refused(jobs, app):
    for _ in range(2):
        jobs.submitted(images=["team/app:v1"])
    token = urllib.parse.quote(jobs.get("/jobs?limit=1")["next"])
    jobs.get(f"/nodes?next={token}", 400)


def test_statistics_count_each_node_once_per_job_by_trigger_and_in_total(jobs, app):
    before = jobs.get("/jobs/stats")
    jobs.nodes(1, fails(app), pulls(app))
    jobs.nodes(1, pulls(app))
    jobs.job(jobs.submitted(images=["team/app:v1"]), state="done", pulled=2)

    def grown() -> dict | None:
        now = jobs.get("/jobs/stats")
        for counters, earlier in ((now, before), (now["triggers"]["job"], before["triggers"].get("job", {}))):
            more = {
                name: counters[name] - earlier.get(name, 0) for name in ("succeeded", "pulled", "failed", "retried")
            }
            if more != {"succeeded": 2, "pulled": 2, "failed": 0, "retried": 1}:
                return None
        return now

    stats = until(grown, SECONDS, "the statistics")
    assert stats["succeeded"] == stats["pulled"] + stats["cached"]


def test_statistics_are_one_read(cloud, jobs):
    jobs.get("/jobs/stats")
    cloud.forget_calls()
    jobs.get("/jobs/stats")
    assert cloud.calls(function=jobs.resources["Jobs"]) == {"dynamodb:Query": 1}


# ── Who asked, and what is not known ────────────────────────────────────────────────────────────────────────────────


def test_who_asked_for_a_job_is_told_and_stands_in_its_row_and_records(cloud, jobs, app):
    who = cloud.client("sts").get_caller_identity()["Arn"]
    jobs.nodes(1, pulls(app))
    id_ = jobs.submitted(images=["team/app:v1"])
    assert jobs.job(id_, state="done", pulled=1)["requestedBy"] == who
    [listed] = [job for job in jobs.get("/jobs")["jobs"] if job["id"] == id_]
    assert listed["requestedBy"] == who
    row = jobs.outcomes.job(id_)
    assert (row["requested_by"], row["trigger"], row["pulled"]) == (who, "job", 1)
    [record] = until(lambda: jobs.outcomes.records(id_), SECONDS, "the record")
    assert record["requested_by"] == who

    [plain] = jobs.invoke({"images": ["team/app:v1"]})["jobs"]
    assert "requestedBy" not in jobs.get(f"/jobs/{plain['id']}")
    assert jobs.refused({"images": ["team/app:v1"], "requestedBy": who}, "requestedBy")


@pytest.mark.parametrize("key", [None, "lost"])
def test_a_command_that_ssm_took_without_saying_so_is_found_with_its_duplicates(cloud, jobs, app, key):
    jobs.submit(images=["team/app:v1"])  # the same, and no duplicate of what follows
    before = {command["CommandId"] for command in jobs.commands("job")}
    cloud.lose("ssm", "SendCommand", SDK_TRIES, jobs.resources["Jobs"])
    [sent] = jobs.submit(key=key, images=["team/app:v1"])["jobs"]
    taken = {command["CommandId"] for command in jobs.commands("job")} - before
    assert {sent["id"], *sent["duplicates"]} == taken
    assert len(taken) == SDK_TRIES
    for id_ in taken:
        assert jobs.get(f"/jobs/{id_}")["requestedBy"]


def test_what_may_have_been_sent_is_told_as_unknown_and_the_same_request_finds_it(cloud, jobs, app):
    before = len(jobs.commands("job"))
    cloud.lose("ssm", "SendCommand", SDK_TRIES, jobs.resources["Jobs"])
    cloud.throttle("ssm", "ListCommands", 99, function=jobs.resources["Jobs"])
    problem = jobs.submit(503, key="unknown", images=["team/app:v1"])
    nodes = {"tags": {"aws:eks:cluster-name": ["jobs"]}}
    assert problem["unknown"] == [{"rule": "default", "images": [app], "nodes": nodes}]
    assert "Idempotency-Key" in problem["detail"]
    cloud.forget_faults()
    [sent] = jobs.submit(key="unknown", images=["team/app:v1"])["jobs"]
    assert len(sent["duplicates"]) == SDK_TRIES - 1
    assert len(jobs.commands("job")) == before + SDK_TRIES


# ── Cancelling ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_job_cancelled_in_mid_roll_out_begins_on_no_further_node_and_is_not_tried_again(cloud, jobs):
    image = jobs.push("slow/app")
    nodes = jobs.nodes(4, fails(image, seconds=3), pulls(image), pool="slow")
    id_ = jobs.submitted(images=["slow/app:v1"])
    ssm = cloud.client("ssm")

    def statuses() -> list[str]:
        rows = ssm.list_command_invocations(CommandId=id_)["CommandInvocations"]
        return sorted(row["Status"] for row in rows)

    until(lambda: "InProgress" in statuses(), SECONDS, "a node to begin")
    answer = jobs.delete(f"/jobs/{id_}")
    assert answer == {"id": id_, "state": "cancelled", "commands": [id_]}
    assert jobs.get(f"/jobs/{id_}")["state"] == "cancelled"
    until(lambda: statuses() == ["Cancelled"] * 3 + ["Failed"], SECONDS, "the rest to be cancelled")
    job = jobs.job(id_, done=len(nodes))
    assert (job["state"], job["nodes"]["pulled"], job["nodes"]["retrying"]) == ("cancelled", 0, 0)
    assert jobs.delete(f"/jobs/{id_}")["commands"] == []
    time.sleep(3)  # the first further try would come after 1.2 seconds
    assert jobs.commands("job", job=id_) == []
    [listed] = [job for page in jobs.pages("/jobs", "jobs") for job in page if job["id"] == id_]
    assert listed["state"] == "cancelled"


def test_a_further_try_that_waits_is_cancelled_too(cloud, jobs, app):
    jobs.nodes(1, fails(app), pulls(app))
    id_ = jobs.submitted(images=["team/app:v1"])
    jobs.job(id_, retrying=1)
    assert jobs.delete(f"/jobs/{id_}")["state"] == "cancelled"
    time.sleep(4)
    assert jobs.commands("job", job=id_) == []
    assert jobs.get(f"/jobs/{id_}")["state"] == "cancelled"


def test_a_job_that_has_ended_stays_as_it_is(jobs, app):
    jobs.nodes(1, pulls(app))
    id_ = jobs.submitted(images=["team/app:v1"])
    jobs.job(id_, state="done")
    assert jobs.delete(f"/jobs/{id_}") == {"id": id_, "state": "done", "commands": []}
    assert jobs.get(f"/jobs/{id_}")["state"] == "done"


# ── Who may, and when AWS fails ─────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("method", "path"), contract.operations())
def test_a_caller_without_permission_is_refused(cloud, jobs, stranger, method, path):
    path = path.format(id=NOBODY, name="nobody")
    answer = stranger.api.send(method, path)
    contract.check(method, path, answer)
    assert (answer.status, answer.json()) == (403, {"message": "Forbidden"})
    assert stranger.api.send(method, path, sign=False).status == 403


@pytest.mark.parametrize(
    ("service", "action", "call"),
    [
        ("ecr", "DescribeImages", lambda jobs: jobs.submit(503, images=["team/app:v1"])),
        ("ssm", "SendCommand", lambda jobs: jobs.submit(503, images=["team/app:v1"])),
        ("dynamodb", "PutItem", lambda jobs: jobs.submit(503, key="failing", images=["team/app:v1"])),
        ("ssm", "ListCommands", lambda jobs: jobs.get("/jobs", 503)),
        ("dynamodb", "BatchGetItem", lambda jobs: jobs.get("/jobs", 503)),
        ("dynamodb", "Query", lambda jobs: jobs.get("/jobs/stats", 503)),
        ("dynamodb", "Query", lambda jobs: jobs.get(f"/jobs/{NOBODY}", 503)),
        ("ec2", "DescribeInstances", lambda jobs: jobs.get("/nodes", 503)),
        ("scheduler", "ListSchedules", lambda jobs: jobs.get("/jobs/schedule", 503)),
        (
            "scheduler",
            "CreateSchedule",
            lambda jobs: jobs.post("/jobs/schedule", {"cron": "0 7 * * *", "rule": "gpu"}, 503),
        ),
        ("scheduler", "DeleteSchedule", lambda jobs: jobs.delete("/jobs/schedule/any", 503)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_aws_refuses_us_is_our_fault_and_tells_no_secret(cloud, jobs, app, service, action, call):
    jobs.submitted(images=["team/app:v1"])
    cloud.throttle(service, action, 99, "AccessDeniedException")
    problem = call(jobs)
    assert "arn:" not in json.dumps(problem)
    assert cloud.account not in json.dumps(problem).replace(cloud.registry_host, "")


def test_a_plain_invocation_is_answered_as_the_api_is(jobs, app):
    stats = {"route": "GET /jobs/stats"}
    until(lambda: jobs.invoke(stats) == jobs.get("/jobs/stats"), SECONDS, "what was before to be counted")
    assert jobs.invoke({"route": "GET /jobs?limit=1"})["jobs"] == jobs.get("/jobs?limit=1")["jobs"]
    assert jobs.invoke({"route": f"GET /jobs/{NOBODY}"})["status"] == 404
    body = {"images": ["team/app:v1"]}
    [sent] = jobs.invoke(body)["jobs"]
    assert jobs.get(f"/jobs/{sent['id']}")["trigger"] == "job"
    keyed = {"route": "POST /jobs", "body": body, "idempotencyKey": "plain"}
    assert jobs.invoke(keyed) == jobs.submit(key="plain", **body)
    assert jobs.invoke({"images": ["team/app:nobody"]})["status"] == 400
    assert jobs.invoke({"nonsense": True})["status"] == 400


@pytest.mark.parametrize("event", sorted((ROOT / "events").glob("jobs.*.json")), ids=lambda event: event.name)
def test_every_event_of_the_repository_is_answered(jobs, app, event):
    answer = jobs.invoke(json.loads(event.read_text()))
    assert "error" not in answer
    assert "errors" not in answer
    assert answer.get("statusCode", 200) in (200, 202)
    jobs.invoke({"route": "DELETE /jobs/schedule/weekday-mornings"})


def test_a_plain_invocation_fails_where_we_fail(cloud, jobs):
    cloud.throttle("dynamodb", "Query", 99, "AccessDeniedException")
    assert "error" in jobs.invoke({"route": "GET /jobs/stats"})


def test_the_access_log_names_the_caller_and_no_signature(cloud, jobs):
    jobs.get("/jobs/stats")
    events = cloud.client("logs").filter_log_events(logGroupName=jobs.resources["JobsApiLogs"])["events"]
    line = json.loads(events[-1]["message"])
    assert (line["route"], line["status"], line["caller"].rpartition(":")[2]) == ("GET /jobs/stats", "200", "root")
    assert "Signature" not in events[-1]["message"]


def test_no_request_is_logged_whole(cloud, jobs, app):
    jobs.submit(400, images=["team/app:v1", "team/very-secret-name; id"])
    logged = cloud.client("logs").filter_log_events(logGroupName=jobs.resources["JobsLogs"])["events"]
    assert not [event for event in logged if "AWS4-HMAC-SHA256" in event["message"]]


def test_a_row_of_a_request_is_kept_for_a_day(cloud, jobs, app):
    jobs.submit(key="expiring", images=["team/app:v1"])
    rows = (
        cloud.client("dynamodb")
        .get_paginator("scan")
        .paginate(
            TableName=jobs.resources["Outcomes"],
            FilterExpression="begins_with(pk, :request)",
            ExpressionAttributeValues={":request": {"S": "request#"}},
        )
    )
    expiries = [int(row["expires_at"]["N"]) for page in rows for row in page["Items"]]
    day = timedelta(days=1).total_seconds()
    assert expiries
    assert all(abs(expiry - datetime.now().timestamp() - day) < 600 for expiry in expiries)


@pytest.fixture(scope="module")
def stranger(cloud, jobs):
    """The API as a role has it that may do something else."""
    iam = cloud.client("iam")
    statement = {"Effect": "Allow", "Principal": {"AWS": cloud.account}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    role = iam.create_role(RoleName="stranger", AssumeRolePolicyDocument=document)["Role"]["Arn"]
    allowed = {"Effect": "Allow", "Action": "execute-api:Invoke", "Resource": "arn:aws:execute-api:*:*:other/*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    iam.put_role_policy(RoleName="stranger", PolicyName="other", PolicyDocument=policy)
    return Jobs(cloud, jobs.stack, **credentials(cloud, role))
