"""Jobs, their nodes and the statistics are told as they are, in pages."""

import urllib.parse

import pytest
from jobs import NOBODY, SECONDS, fails, pulls

from local.client import until


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


@pytest.mark.parametrize("path", ["/jobs", f"/jobs/{NOBODY}", "/nodes", "/usage", "/jobs/schedule"])
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
