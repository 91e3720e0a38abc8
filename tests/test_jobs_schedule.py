"""The deployed stack's schedules and its reconcile: what comes at its time, once, and what is loud where it cannot."""

import json
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise

import pytest
from jobs import SDK_TRIES, SECONDS, Jobs, fired, logged, pulls
from uploaded import Uploaded

from local.client import until
from local.scheduler import cron
from local.stack import EVERYTHING

TAKEN = {"default": "timed/*", "gpu": "timed-gpu/*"}
RULES = [{"name": name, "repositories": [taken], **EVERYTHING} for name, taken in TAKEN.items()]

_names = count(1)


@pytest.fixture(scope="module")
def jobs(cloud):
    stack = Uploaded(cloud, name="schedule")
    with cloud.holding_events("aws.cloudformation"):  # a reconcile is what a test fires
        stack.deploy(
            ClusterName="schedule", Rules=json.dumps(RULES), JobsRateLimit="10000", ReconcileInterval="rate(1 day)"
        )
    with cloud.holding_events("aws.ecr"):  # what is pushed is brought by jobs only
        yield Jobs(cloud, stack)
    stack.delete()


@pytest.fixture(scope="module")
def app(jobs):
    return jobs.push("timed/app")


@pytest.fixture
def name():
    """The name of a schedule that nobody else has."""
    return f"schedule-{next(_names)}"


@pytest.fixture(autouse=True)
def nothing_is_left(cloud, jobs):
    yield
    cloud.forget_faults()
    jobs.clear()


# ── Schedules ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_schedule_is_made_listed_and_removed(jobs, app, name):
    body = {"cron": "0 7 * * MON-FRI", "timezone": "Europe/Berlin", "name": name, "images": ["timed/app:v1"]}
    made = jobs.post("/jobs/schedule", body, 201)
    assert (made["name"], made["cron"], made["timezone"]) == (name, "0 7 * * MON-FRI", "Europe/Berlin")
    assert made["job"] == {"images": ["timed/app:v1"]}
    assert made in [schedule for page in jobs.pages("/jobs/schedule", "schedules") for schedule in page]
    assert jobs.post("/jobs/schedule", body, 200) == made
    jobs.post("/jobs/schedule", {**body, "cron": "0 8 * * *"}, 409)
    jobs.post("/jobs/schedule", {**body, "rule": "default"}, 409)
    jobs.delete(f"/jobs/schedule/{name}", 204)
    jobs.delete(f"/jobs/schedule/{name}", 404)
    assert jobs.get("/jobs/schedule")["schedules"] == []


def test_without_a_name_it_has_one_of_its_own(jobs, app):
    body = {"cron": "15 3 * * *", "rule": "default"}
    made = jobs.post("/jobs/schedule", body, 201)
    assert jobs.post("/jobs/schedule", body, 200)["name"] == made["name"]
    jobs.delete(f"/jobs/schedule/{made['name']}", 204)


def test_a_dry_run_makes_no_schedule(jobs, app, name):
    body = {"cron": "0 7 * * *", "rule": "default", "name": name, "dryRun": True}
    assert len(jobs.post("/jobs/schedule", body, 200)["next"]) == 5
    assert jobs.get("/jobs/schedule")["schedules"] == []


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize(
    "expression",
    [
        "0 7 * * 1-5",
        "*/15 2,3 * * *",
        "30 2 29 2 *",
        "0 0 1 */3 *",
        "0 12 * jan-mar sun",
        "5 4 * * 0",
        "5 4 * * 7",
        "0 0 13 * fri",
        "0 0 31 * *",
        "@daily",
        "cron(0 0 L * ? *)",
        "cron(0 7 ? * MON-SUN *)",
        "cron(0/90 22-4/3 ? NOV-FEB FRI-TUE,3 *)",
        "cron(30 2 LW * ? *)",
        "cron(0 7 ? * SATL 2026-2199)",
        "rate(6 hours)",
    ],
)
def test_the_next_times_are_those_at_which_it_comes(cloud, jobs, app, name, expression, zone):
    if expression == "@daily":
        jobs.post("/jobs/schedule", {"cron": expression, "rule": "default"}, 400)
        return
    made = jobs.post("/jobs/schedule", {"cron": expression, "timezone": zone, "name": name, "rule": "default"}, 201)
    client, group = cloud.client("scheduler"), jobs.resources["ScheduleGroup"]
    times = set()
    for listed in client.list_schedules(GroupName=group)["Schedules"]:
        schedule = client.get_schedule(GroupName=group, Name=listed["Name"])
        assert schedule["ScheduleExpression"] in made["expressions"]
        start = schedule.get("StartDate", schedule["CreationDate"])
        found = cron.parse(schedule["ScheduleExpression"], schedule["ScheduleExpressionTimezone"], start)
        moment = datetime.now(UTC)
        for _ in range(5):
            moment = found.after(moment)
            times.add(moment)
    expected = sorted(times)[:5]
    told = [datetime.fromisoformat(time) for time in made["next"]]
    if expression.startswith("rate"):
        assert [b - a for a, b in pairwise(told)] == [timedelta(hours=6)] * 4
    else:
        assert told == expected
    jobs.delete(f"/jobs/schedule/{name}", 204)
    assert client.list_schedules(GroupName=group)["Schedules"] == []


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "nonsense",
        "0 7 * *",
        "0 7 * * * *",
        "60 7 * * *",
        "0 24 * * *",
        "0 7 0 * *",
        "0 7 30 2 *",
        "0 7 * 13 *",
        "0 7 * * 8",
        "0 7 * * MOO",
        "*/0 7 * * *",
        "5-1 7 * * *",
        "rate(0 hours)",
        "rate(1 fortnight)",
        "cron(0 7 * * * *)",
        "cron(0 7 ? * MON-FRI/2 *)",
        "cron(0 7 L-3 * ? *)",  # by Scheduler itself
        "at(2026-02-30T00:00:00)",
        "at(2020-01-01T00:00:00)",
        "at(tomorrow)",
        "x" * 257,
    ],
)
def test_an_expression_that_is_none_is_refused_with_the_reason(jobs, app, expression):
    assert jobs.refused({"cron": expression, "rule": "default"}, "cron", "/jobs/schedule")["accepted"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rule": "default"}, "cron"),
        ({"cron": 7, "rule": "default"}, "cron"),
        ({"cron": "0 7 * * *"}, "images"),
        ({"cron": "0 7 * * *", "rule": "nobody"}, "rule"),
        ({"cron": "0 7 * * *", "images": ["other/app:v1"]}, "images[0]"),
        ({"cron": "0 7 * * *", "images": ["timed/app:v1; id"]}, "images[0]"),
        ({"cron": "0 7 * * *", "rule": "default", "timezone": "Europe/Atlantis"}, "timezone"),
        ({"cron": "0 7 * * *", "rule": "default", "timezone": "../etc/passwd"}, "timezone"),
        ({"cron": "0 7 * * *", "rule": "default", "name": "a b"}, "name"),
        ({"cron": "0 7 * * *", "rule": "default", "name": "x" * 49}, "name"),
        ({"cron": "0 7 * * *", "rule": "default", "color": "red"}, "color"),
    ],
    ids=json.dumps,
)
def test_what_is_no_schedule_is_refused(jobs, app, body, field):
    assert jobs.refused(body, field, "/jobs/schedule")["accepted"]


@pytest.mark.parametrize("name", ["a%20b", "x" * 49, "%2e%2e", "a%00"])
def test_a_name_that_is_none_cannot_be_removed(jobs, name):
    jobs.delete(f"/jobs/schedule/{name}", 400)


def test_half_a_schedule_is_told_and_the_same_request_makes_it_whole(cloud, jobs, app, name):
    """Its first part is taken without an answer, and nothing can be looked up or undone."""
    body = {"cron": "0 7 13 * fri", "name": name, "rule": "default"}
    [first, second] = jobs.post("/jobs/schedule", {**body, "dryRun": True}, 200)["expressions"]
    cloud.lose("scheduler", "CreateSchedule", 99)
    assert jobs.post("/jobs/schedule", body, 201)["expressions"] == [first, second]
    jobs.delete(f"/jobs/schedule/{name}", 204)

    cloud.throttle("scheduler", "CreateSchedule", 99, "ThrottlingException", skip=1)
    cloud.throttle("scheduler", "DeleteSchedule", 99)
    problem = jobs.post("/jobs/schedule", body, 503)
    assert problem["unknown"] == [{"schedule": name, "expressions": [first]}]
    cloud.forget_faults()
    [half] = jobs.get("/jobs/schedule")["schedules"]
    assert (half["name"], half["missing"]) == (name, [second])
    assert "missing" not in jobs.post("/jobs/schedule", body, 201)
    assert "missing" not in jobs.get("/jobs/schedule")["schedules"][0]
    jobs.delete(f"/jobs/schedule/{name}", 204)
    assert cloud.client("scheduler").list_schedules(GroupName=jobs.resources["ScheduleGroup"])["Schedules"] == []


def test_schedules_are_listed_in_pages(jobs, app):
    names = [f"page-{n}" for n in range(5)]
    for name in names:
        jobs.post("/jobs/schedule", {"cron": "0 7 13 * FRI", "rule": "default", "name": name}, 201)
    pages = jobs.pages("/jobs/schedule?limit=2", "schedules")
    assert [schedule["name"] for page in pages for schedule in page] == names
    assert max(len(page) for page in pages) <= 2
    for name in names:
        jobs.delete(f"/jobs/schedule/{name}", 204)


# ── What comes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_schedule_submits_its_job_at_its_time(jobs, app, name):
    [node] = jobs.nodes(1, pulls(app))
    at = datetime.now(UTC) + timedelta(seconds=3)
    expression = f"at({at:%Y-%m-%dT%H:%M:%S})"
    made = jobs.post("/jobs/schedule", {"cron": expression, "name": name, "images": ["timed/app:v1"]}, 201)
    assert [datetime.fromisoformat(time) for time in made["next"]] == [at.replace(microsecond=0)]
    [command] = until(lambda: jobs.commands("schedule"), SECONDS, "the schedule's command")
    job = jobs.job(command["CommandId"], state="done", pulled=1)
    assert job["requestedBy"] == name
    assert (job["trigger"], job["outcomes"][0]["node"]) == ("schedule", node)
    assert jobs.get("/jobs/stats")["triggers"]["schedule"]["succeeded"] == 1
    jobs.api.delete(f"/jobs/schedule/{name}")


def test_one_moment_is_one_job_however_often_it_comes(cloud, jobs, app, name):
    jobs.post("/jobs/schedule", {"cron": "0 7 * * *", "name": name, "images": ["timed/app:v1"]}, 201)
    before = len(jobs.commands("schedule"))
    for moment in ("2026-11-23T07:00:00Z", "2026-11-23T07:00:00Z", "2026-11-24T07:00:00Z"):
        cloud.fire_schedule(fired(cloud, jobs, name), at=moment)
    until(lambda: len(jobs.commands("schedule")) == before + 2, SECONDS, "two commands")
    with pytest.raises(TimeoutError):
        until(lambda: len(jobs.commands("schedule")) > before + 2, 2)
    assert jobs.letters() == []
    jobs.delete(f"/jobs/schedule/{name}", 204)


def test_days_of_the_month_and_of_the_week_are_either(cloud, jobs, app, name):
    made = jobs.post("/jobs/schedule", {"cron": "0 7 13 * FRI", "name": name, "images": ["timed/app:v1"]}, 201)
    assert len(made["expressions"]) == 2
    schedules = cloud.client("scheduler").list_schedules(GroupName=jobs.resources["ScheduleGroup"])["Schedules"]
    before = len(jobs.commands("schedule"))
    for schedule in schedules:  # on Friday the 13th both come, for one job
        cloud.fire_schedule(schedule["Name"], at="2026-11-13T07:00:00Z")
    until(lambda: len(jobs.commands("schedule")) == before + 1, SECONDS, "a command")
    with pytest.raises(TimeoutError):
        until(lambda: len(jobs.commands("schedule")) > before + 1, 2)
    jobs.delete(f"/jobs/schedule/{name}", 204)


def test_a_schedule_whose_rule_is_gone_ends_in_the_dead_letter_queue_and_raises_the_alarm(cloud, app, jobs):
    stack = Uploaded(cloud, name="gone")
    stack.deploy(ClusterName="gone", Rules=json.dumps(RULES))
    deployed = Jobs(cloud, stack)
    deployed.post("/jobs/schedule", {"cron": "0 7 * * *", "name": "gone", "rule": "gpu"}, 201)
    stack.deploy(ClusterName="gone", Rules=json.dumps(RULES[:1]))
    cloud.fire_schedule("gone", group=deployed.resources["ScheduleGroup"])
    [letter] = until(deployed.letters, SECONDS, "the dead letter")
    assert letter["requestPayload"]["schedule"]["name"] == "gone"
    assert letter["requestContext"]["approximateInvokeCount"] == 3
    alarm = deployed.resources["JobsDeadLettersNotEmpty"]

    def state() -> str:
        return cloud.client("cloudwatch").describe_alarms(AlarmNames=[alarm])["MetricAlarms"][0]["StateValue"]

    until(lambda: state() == "ALARM", SECONDS, "the alarm")
    stack.delete()


def test_a_deleted_stack_leaves_no_schedule(cloud, jobs):
    stack = Uploaded(cloud, name="leaving")
    stack.deploy(ClusterName="leaving", Rules=json.dumps(RULES))
    deployed = Jobs(cloud, stack)
    group = deployed.resources["ScheduleGroup"]
    for n in range(3):
        deployed.post("/jobs/schedule", {"cron": f"{n} 7 13 * FRI", "rule": "default"}, 201)
    scheduler = cloud.client("scheduler")
    assert len(scheduler.list_schedules(GroupName=group)["Schedules"]) == 6
    stack.delete()
    names = [schedule["GroupName"] for schedule in scheduler.list_schedules()["Schedules"]]
    assert group not in names
    assert group not in [found["Name"] for found in scheduler.list_schedule_groups()["ScheduleGroups"]]


# ── Reconcile ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_reconcile_brings_every_rules_newest_images(cloud, jobs, app):
    train = jobs.push("timed-gpu/train")
    jobs.nodes(2, pulls(app), pulls(train))
    cloud.fire(jobs.resources["JobsReconcile"])

    def reconciled() -> dict[str, dict]:
        return {command["Comment"].split()[1]: command for command in jobs.commands("reconcile")}

    rules = until(lambda: len(found := reconciled()) == 2 and found, SECONDS, "a command per rule")
    assert rules.keys() == {"rule=default", "rule=gpu"}
    for command, image in ((rules["rule=default"], app), (rules["rule=gpu"], train)):
        assert command["Parameters"]["images"] == [image]
    assert jobs.get(f"/jobs/{rules['rule=gpu']['CommandId']}")["trigger"] == "reconcile"
    for command in rules.values():
        jobs.job(command["CommandId"], state="done", done=2)


def test_reconciles_that_overlap_do_not_pile_up(cloud, jobs, app):
    train = jobs.push("timed-gpu/train")
    until(lambda: not running(cloud, jobs), SECONDS, "the reconcile before to end")
    jobs.nodes(1, *[pulls(app, train, seconds=4)] * 4)
    first = jobs.invoke({"reconcile": True})
    assert decisions(first) == {"default": "sent", "gpu": "sent"}
    assert decisions(jobs.invoke({"reconcile": True})) == {"default": "still-running", "gpu": "still-running"}
    until(lambda: not running(cloud, jobs), SECONDS, "the commands to end")
    before = len(jobs.commands("reconcile"))
    for _ in range(4):
        cloud.fire(jobs.resources["JobsReconcile"])
    until(lambda: len(jobs.commands("reconcile")) == before + 2, SECONDS, "a command per rule")
    with pytest.raises(TimeoutError):
        until(lambda: len(jobs.commands("reconcile")) > before + 2, 2)
    until(lambda: not running(cloud, jobs), SECONDS, "the commands to end")


def test_a_reconcile_logs_each_command_and_by_a_word_and_a_sentence_why_a_rule_gets_nothing(cloud, jobs, app):
    train = jobs.push("timed-gpu/train")
    until(lambda: not running(cloud, jobs), SECONDS, "the reconcile before to end")
    jobs.nodes(1, *[pulls(app, train, seconds=4)] * 4)
    answers: list[dict] = []

    def both_sent_and_left_out() -> bool:
        answers.extend(jobs.invoke({"reconcile": True})["rules"])
        found = {(row["rule"], row["decision"]) for row in answers}
        return found >= {(rule, what) for rule in ("default", "gpu") for what in ("sent", "still-running")}

    until(both_sent_and_left_out, SECONDS, "both rules to be sent and to be left out")
    sent = {id_: row["rule"] for row in answers for id_ in row.get("commands", [])}
    lines = logged(cloud, jobs)
    for command, rule in sent.items():
        [line] = [line for line in lines if line.get("command.id") == command]
        assert (line["rule"], line["message"]) == (rule, f"sent 1 images by rule {rule}")
    left_out = {line["rule"]: line["message"] for line in lines if line.get("reason") == "still-running"}
    sentence = "rule {} is left out: what was sent last time has not ended"
    assert left_out == {rule: sentence.format(rule) for rule in ("default", "gpu")}
    assert not [line for line in lines if "StillRunning" in line["message"] or "Sent {" in line["message"]]
    until(lambda: not running(cloud, jobs), SECONDS, "the commands to end")


def test_a_reconcile_costs_the_same_whatever_the_number_of_nodes(cloud, jobs, app):
    costs = []
    for nodes in (1, 60):
        jobs.nodes(nodes, *[pulls(app)] * 2)
        cloud.forget_calls()
        assert set(decisions(jobs.invoke({"reconcile": True})).values()) == {"sent"}
        costs.append(cloud.calls(function=jobs.resources["Jobs"]))
        until(lambda: not running(cloud, jobs), SECONDS, "the nodes to be done")
    few, many = ({action: n for action, n in cost.items() if not action.startswith("ecr:")} for cost in costs)
    assert few == many
    assert many["ssm:SendCommand"] == 2


def test_a_rule_that_fails_is_loud_and_keeps_no_other_from_its_images(cloud, jobs, app):
    until(lambda: not running(cloud, jobs), SECONDS, "the reconcile before to end")
    before = len(jobs.commands("reconcile"))
    cloud.throttle("ssm", "SendCommand", SDK_TRIES)
    assert "default" in jobs.invoke({"reconcile": True})["error"]["errorMessage"]
    assert [c["Comment"].split()[1] for c in jobs.commands("reconcile")][: -before or None] == ["rule=gpu"]
    assert decisions(jobs.invoke({"reconcile": True}))["default"] == "sent"


def test_images_pushed_before_the_stack_was_are_brought_once_it_is_deployed(cloud, jobs, app):
    tags = {"aws:eks:cluster-name": "deployed"}
    image = jobs.push("timed/early")
    nodes = cloud.launch_many(2, tags, containerd="none", online_after=0, endings=[pulls(image)])
    stack = Uploaded(cloud, name="deployed")
    early = {"name": "early", "repositories": ["timed/early"], **EVERYTHING}
    stack.deploy(ClusterName="deployed", Rules=json.dumps([early]))
    deployed = Jobs(cloud, stack)
    [command] = until(lambda: deployed.commands("reconcile"), SECONDS, "the command")
    assert command["Parameters"]["images"] == [image]
    assert deployed.job(command["CommandId"], state="done")["nodes"]["pulled"] == 2
    cloud.remove(nodes)
    stack.delete()


def decisions(answer) -> dict[str, str]:
    rows = answer["rules"] if isinstance(answer, dict) else answer
    return {row["rule"]: row["decision"] for row in rows}


def running(cloud, jobs: Jobs) -> list[dict]:
    """Returns the reconcile's commands that have not ended."""
    return [c for c in jobs.commands("reconcile") if c["Status"] in ("Pending", "InProgress", "Delayed")]
