"""Who may call is answered, by the API or plainly; who may not is refused, and AWS's failures are ours."""

import json

import contract
import pytest
from jobs import NOBODY, SECONDS, Jobs
from probe import credentials

from local.client import ROOT, until


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
        ("dynamodb", "Query", lambda jobs: jobs.get("/usage?rule=default", 503)),
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
