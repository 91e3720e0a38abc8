"""A cancelled job begins on no further node and is not retried."""

import time

from jobs import SECONDS, fails, pulls

from local.client import until


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
    time.sleep(3)  # the first retry would come after 1.2 seconds
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
