"""A request is carried out once, however often it comes and whatever is lost on the way."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta

import contract
import pytest
from jobs import SDK_TRIES, SECONDS

from local.client import until


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
