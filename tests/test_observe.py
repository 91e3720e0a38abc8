"""A stack that observes: what comes is decided, recorded and counted, and reaches no node until the stack sends."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from bakes import Bakes
from jobs import SECONDS, Jobs
from settling import Settling
from test_examples import wait
from uploaded import Uploaded

from local.client import until

NAME = "observed"
TAGS = {"aws:eks:cluster-name": NAME}
PARAMETERS = {"ClusterName": NAME, "Repositories": "observed/*", "JobsRateLimit": "10000"}


@pytest.fixture(scope="module")
def jobs(cloud):
    stack = Uploaded(cloud, NAME)
    stack.deploy(**PARAMETERS, Mode="observe")
    yield Jobs(cloud, stack)
    stack.delete()


@pytest.fixture(scope="module")
def image(jobs):
    """An image that was pushed once the stack observed."""
    return jobs.push("observed/app")


@pytest.fixture(scope="module")
def node(cloud, jobs, image):
    """A node of the cluster that was launched once the image was there."""
    node = cloud.launch(TAGS, online_after=0)
    cloud.until_online(node)
    yield node
    cloud.terminate(node)


def test_a_push_is_observed_once_however_often_its_event_comes(cloud, jobs, image):
    [push] = until(lambda: observed(jobs, "push"), SECONDS, "the push to be observed")
    assert (push["state"], push["mode"], push["rule"], push["images"]) == ("observed", "observe", "default", [image])
    assert push["targets"] == {"tags": {"aws:eks:cluster-name": [NAME]}}
    event = next(
        e for e in reversed(cloud.events("ECR Image Action")) if e["detail"]["repository-name"] == "observed/app"
    )
    answer = jobs.stack.invoke("ImagePush", event)
    assert (answer["decision"], answer["commands"][0]["command"]) == ("observed", push["id"])
    assert len(observed(jobs, "push")) == 1
    [line] = logged(jobs, "ImagePushLogs", "would send")
    assert (line["job.id"], line["rule"], line["trigger"], line["images"]) == (push["id"], "default", "push", 1)
    assert line["image.digest"] == image.rpartition("@")[2]
    assert line["message"].endswith(f"by rule default to nodes with the tags aws:eks:cluster-name={NAME}")


def test_a_launch_and_a_further_try_are_observed_with_their_node(jobs, image, node):
    [launch] = until(lambda: observed(jobs, "launch"), SECONDS, "the launch to be observed")
    assert (launch["images"], launch["targets"], launch["nodes"]["total"]) == ([image], {"ids": [node]}, 1)
    job = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b"
    retry = {"job": job, "node": node, "rule": "default", "trigger": "push", "attempt": 2, "images": [image]}
    answer = jobs.stack.invoke("NodeLaunch", retry)
    assert answer["decision"] == "observed"
    told = jobs.get(f"/jobs/{answer['commands'][0]['command']}")
    assert (told["retryOf"], told["targets"], told["outcomes"]) == (job, {"ids": [node]}, [])


def test_a_job_is_accepted_and_says_that_it_is_observed(jobs, image, node):
    answer = jobs.submit(images=["observed/app:v1"], nodes={"ids": [node]})
    assert answer["mode"] == "observe"
    [job] = answer["jobs"]
    assert job["state"] == "observed"
    assert jobs.get(f"/jobs/{job['id']}")["state"] == "observed"
    assert jobs.delete(f"/jobs/{job['id']}") == {"id": job["id"], "state": "observed", "commands": []}
    once, again = (jobs.submit(key="same", rule="default") for _ in range(2))
    assert once == again
    dry = jobs.submit(status=200, rule="default", dryRun=True)
    assert "mode" not in dry
    assert len(observed(jobs, "job")) == 2


def test_a_schedule_and_a_reconcile_are_observed(jobs, image):
    at = datetime.now(UTC) + timedelta(seconds=3)
    schedule = {"cron": f"at({at:%Y-%m-%dT%H:%M:%S})", "name": "once", "rule": "default"}
    jobs.post("/jobs/schedule", schedule, 201)
    until(lambda: observed(jobs, "schedule"), SECONDS, "the schedule to be observed")
    jobs.api.delete("/jobs/schedule/once")
    before = len(observed(jobs, "reconcile"))
    for count in (1, 2):
        [rule] = jobs.invoke({"reconcile": True})["rules"]
        assert rule["decision"] == "observed"
        assert len(observed(jobs, "reconcile")) == before + count


def test_a_bake_ends_at_once_and_launches_nothing(cloud, jobs, image):
    before = len(instances(cloud))
    bakes = Bakes(cloud, jobs.stack)
    end = bakes.ended(bakes.start())
    assert (end["status"], end["output"]) == ("SUCCEEDED", {"status": "observed", "mode": "observe", "bakes": []})
    assert len(instances(cloud)) == before


def test_a_pipeline_does_not_wait_for_what_is_never_sent(cloud, jobs, image):
    ran = wait(cloud, jobs.stack, "observed/app:v1")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr.startswith("The stack observes")


def test_who_would_send_is_not_allowed_to(cloud, jobs):
    iam = cloud.client("iam")
    for role in ("ImagePushRole", "NodeLaunchRole", "JobsRole"):
        names = iam.list_role_policies(RoleName=jobs.resources[role])["PolicyNames"]
        policies = [iam.get_role_policy(RoleName=jobs.resources[role], PolicyName=name) for name in names]
        assert policies and "SendCommand" not in json.dumps([policy["PolicyDocument"] for policy in policies])


def test_jobs_are_listed_in_pages_newest_first_and_each_is_counted(cloud, jobs, image):
    listed = [job for page in jobs.pages("/jobs?limit=3", "jobs") for job in page]
    assert len(listed) >= 8
    assert {job["state"] for job in listed} == {"observed"}
    times = [job["requestedAt"] for job in listed]
    assert times == sorted(times, reverse=True)
    assert [job["id"] for job in listed] == [job["id"] for job in everything(jobs)]
    metric = Settling(cloud, jobs.stack).metric
    assert metric("CommandsObserved", ClusterName=NAME) == len(listed)
    by_rule = {"ClusterName": NAME, "Rule": "default", "Trigger": "reconcile"}
    assert metric("CommandsObserved", **by_rule) == len(observed(jobs, "reconcile"))


def test_nothing_has_reached_a_node_until_the_stack_sends_and_everything_does_then(cloud, jobs, image, node):
    assert sent(jobs) == []
    assert not cloud.image_status(node, image)
    before = everything(jobs)
    jobs.stack.deploy(**PARAMETERS, Mode="send")
    until(lambda: cloud.image_status(node, image.replace(":v1@", "@")), SECONDS, "the reconcile to bring the image")
    assert [command["Comment"] for command in sent(jobs)] == ["reconcile rule=default attempt=1"]
    pushed = jobs.push("observed/app", "v2")
    [push] = until(lambda: jobs.commands("push"), SECONDS, "the push's command")
    assert push["Parameters"]["images"] == [pushed]
    jobs.job(push["CommandId"], state="done", pulled=1)
    now = everything(jobs)
    assert [job["state"] for job in now[:2]] == ["done", "done"]
    assert now[2:] == before


def everything(jobs: Jobs) -> list[dict]:
    """Returns all jobs in the order in which they are listed."""
    return [job for page in jobs.pages("/jobs?limit=50", "jobs") for job in page]


def observed(jobs: Jobs, trigger: str) -> list[dict]:
    """Returns the observed jobs of a trigger that are no retries."""
    listed = [job for job in everything(jobs) if job["trigger"] == trigger and "retryOf" not in job]
    assert all(job["state"] == "observed" for job in listed)
    return listed


def sent(jobs: Jobs) -> list[dict]:
    """Returns the commands of the stack's document."""
    return [c for c in jobs.stack.commands() if c["DocumentName"] == jobs.resources["PrefetchImages"]]


def logged(jobs: Jobs, group: str, text: str) -> list[dict]:
    """Returns the lines of a function's log whose message has a text."""

    def lines() -> list[dict]:
        events = jobs.cloud.client("logs").filter_log_events(logGroupName=jobs.resources[group])["events"]
        read = [json.loads(event["message"]) for event in events if event["message"].startswith("{")]
        return [line for line in read if text in line.get("message", "")]

    return until(lines, SECONDS, f"a line that has {text!r}")


def instances(cloud) -> list[str]:
    """Returns the ids of all instances that there are."""
    reservations = cloud.client("ec2").describe_instances()["Reservations"]
    return [instance["InstanceId"] for reservation in reservations for instance in reservation["Instances"]]
