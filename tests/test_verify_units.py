"""Tests what a verification decides by itself: names that a rule takes, the table, and causes in words."""

import json
import socket
import string
import subprocess
import sys

import pytest
from botocore.exceptions import ClientError
from hypothesis import assume, given
from hypothesis import strategies as st

from local import images
from local.client import ROOT
from verify import aws, globs, inventory, jobs, nodes, outcomes, push, repository, rules, run
from verify.repository import Place
from verify.results import BROKEN, HELD, UNCHECKED, Results, table
from verify.stack import Resource, Stack

ACCOUNT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_CONFIG_FILE": "/dev/null",
    "NO_PROXY": "127.0.0.1",
}
DIGEST = images.digest(b"")
PARTS = st.sampled_from(["*", "**", "?", "[a-c]", "[!a-z]", "a", "app", "-", "/", ".", "team/"])
GLOBS = st.lists(st.tuples(st.sampled_from(["", "!"]), st.lists(PARTS, min_size=1, max_size=5)), min_size=1, max_size=4)
STACKS = st.from_regex(r"[a-zA-Z][-a-zA-Z0-9]{0,40}", fullmatch=True)
WORDS = st.text(string.ascii_lowercase, min_size=2, max_size=8)


@given(GLOBS, STACKS)
def test_a_repository_of_a_rule_is_one_that_the_rule_takes_and_ecr_too(parts, stack):
    made = [f"{exclusion}{''.join(pieces)}" for exclusion, pieces in parts]
    for name in globs.repositories(made, stack):
        assert globs.takes(made, name)
        assert globs.is_repository(name)


@given(GLOBS, st.from_regex("[0-9a-f]{8}", fullmatch=True))
def test_a_tag_of_a_rule_is_one_that_the_rule_takes_and_a_registry_too(parts, unique):
    made = [f"{exclusion}{''.join(pieces)}".replace("/", "") or "*" for exclusion, pieces in parts]
    tag = globs.tag(made, unique)
    assert tag is None or (globs.takes(made, tag) and globs.TAG.fullmatch(tag))


@given(WORDS, WORDS, STACKS)
def test_whoever_takes_all_below_a_prefix_leaves_a_name(team, other, stack):
    [name] = globs.repositories([f"{team}/*", f"!{other}-{team}"], stack)
    assert name.startswith(f"{team}/")


@given(WORDS, st.text(string.ascii_lowercase + "/-.", min_size=1, max_size=12))
def test_a_plain_name_is_a_glob_that_takes_itself_alone(name, other):
    assume(other != name)
    assert globs.takes([name], name)
    assert not globs.takes([name], other)


@pytest.mark.parametrize(
    ("patterns", "name"),
    [
        (["*"], "prod-verify"),
        (["team/*"], "team/prod-verify"),
        (["team/*", "!team/*-verify"], "team/verify-prod"),
        (["!*-debug"], "prod-verify"),
        (["*-app"], "prod-verify-app"),
        (["*/app*"], "prod-verify/app"),
        (["team/app", "team/*"], "team/prod-verify"),
        (["app-[0-9]?*"], "app-0xprod-verify"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_repository_of_a_rule_is_named_for_the_stack_where_the_rule_leaves_that(patterns, name):
    assert globs.repositories(patterns, "Prod") == [name]


def test_a_repository_that_a_rule_names_outright_is_not_made():
    assert globs.repositories(["team/app", "team/app-?"], "Prod") == []


@pytest.mark.parametrize(
    ("patterns", "tag"),
    [(["*"], "0-verify-1f"), (["v*"], "v0-verify-1f"), (["v[0-9]*.*.*"], "v00-verify-1f.."), (["latest"], "latest")],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_the_tag_of_a_rule_is_unique_where_the_rule_leaves_that(patterns, tag):
    assert globs.tag(patterns, "1f") == tag


def test_rules_are_read_with_the_functions_own_defaults():
    [rule] = rules.read(configuration([{"name": "all"}]))
    assert rule.wants("any/repository", "any-tag")
    assert rule.keep == 0


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"repositories": ["*"]}]', "[{},]"])
def test_rules_that_are_none_are_refused_with_a_reason(text):
    with pytest.raises(ValueError, match=r"."):
        rules.read({"Environment": {"Variables": {"RULES": text}}})


def test_what_the_caller_may_not_ask_is_not_checked_and_what_may_not_says_so():
    results = Results()
    with results.checking("alarms"):
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "DescribeAlarms")
    [row] = results.rows
    assert row.state == UNCHECKED
    assert row.cause.startswith("the caller may not DescribeAlarms")


def test_the_table_breaks_long_causes_and_keeps_to_its_width():
    results = Results()
    results.held("functions", "6")
    results.broken("rule ImagePushImageArrived", "it is DISABLED: aws events enable-rule --name " + "long-name-" * 3)
    text = table(results.rows, 80)
    assert max(map(len, text.splitlines())) <= 80
    assert [line.split("  ")[0] for line in text.splitlines()[:2]] == ["checked", "functions"]
    assert "DISABLED" in text


@pytest.mark.parametrize(
    ("clusters", "said"),
    [
        (None, "EC2 knows no instance with the tag aws:eks:cluster-name=prod: does a node run?"),
        (["dev", "staging"], "the clusters that there are: dev, staging."),
        ([], "nor a node of any other cluster"),
    ],
)
def test_a_cluster_without_nodes_is_said_with_the_clusters_that_there_are(clusters, said):
    assert said in nodes.nobody(stack(), clusters)


def test_a_dead_letter_says_its_cause_wherever_aws_has_put_it():
    of_lambda = {"Body": json.dumps({"responsePayload": {"errorMessage": "rule default: denied"}})}
    of_eventbridge = {"Body": "{}", "MessageAttributes": {"ERROR_MESSAGE": {"StringValue": "no such function"}}}
    assert inventory.cause(of_lambda) == "rule default: denied"
    assert inventory.cause(of_eventbridge) == "no such function"
    event = {"detail-type": "EC2 Instance State-change Notification", "detail": {"instance-id": "i-1"}}
    assert inventory.cause({"Body": json.dumps(event)}) == f'{event["detail-type"]} {{"instance-id": "i-1"}}'
    assert inventory.cause({"Body": "anything\nelse"}) == "anything else"


def test_a_rule_that_a_parameter_switches_off_may_be_off():
    events = Events("DISABLED")
    reconcile = Resource("JobsReconcile", "AWS::Events::Rule", "reconcile")
    arrived = Resource("ImagePushImageArrived", "AWS::Events::Rule", "arrived")
    assert inventory.fault_of_rule(events, stack(ReconcileInterval=""), reconcile) == ""
    assert "is DISABLED" in inventory.fault_of_rule(events, stack(ReconcileInterval="rate(1 hour)"), reconcile)
    assert "aws events enable-rule --name arrived" in inventory.fault_of_rule(events, stack(), arrived)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"level":"ERROR","fields":{"message":"rule default: no"}}', "rule default: no"),
        ('{"level":"INFO","message":"event 1 is ignored: no rule"}', "event 1 is ignored: no rule"),
        ("plain\ttext", "plain text"),
    ],
)
def test_a_line_of_a_functions_log_is_told_by_its_message(line, said):
    assert push.message(line) == said


@pytest.mark.parametrize(
    ("status", "reason", "said"),
    [
        ("pulled", "", "pulled in 1.5 s"),
        ("failed", "denied", "failed: denied; the node's role needs AmazonEC2ContainerRegistryPullOnly"),
        ("skipped", "no-space", "skipped: no-space; its disk is full"),
        ("failed", "never-heard-of", "failed: never-heard-of; the reasons in docs/operate.md"),
    ],
)
def test_what_became_of_a_node_is_said_with_what_to_do(status, reason, said):
    outcome = {"status": status, "retrying": False, "images": [{"reason": reason, "seconds": 1.5}]}
    assert outcomes.outcome_in_words(outcome).startswith(said)


@pytest.mark.parametrize(
    ("status", "reasons", "is_foreign"),
    [
        ("skipped", ["platform"], True),
        ("skipped", ["invalid-platform"], True),
        ("skipped", ["hybrid-node"], True),
        ("skipped", ["no-space"], False),
        ("skipped", ["platform", "no-space"], False),
        ("failed", ["platform"], False),
        ("skipped", [], False),
    ],
)
def test_a_node_that_cannot_hold_the_image_is_told_from_one_that_lacks_it(status, reasons, is_foreign):
    assert outcomes.is_foreign({"status": status, "images": [{"reason": reason} for reason in reasons]}) is is_foreign


def test_a_run_has_failed_where_something_did_not_hold_and_not_where_it_was_not_checked():
    results = Results()
    results.held("a")
    results.unchecked("b", "may not")
    assert [results.count(state) for state in (HELD, BROKEN, UNCHECKED)] == [1, 0, 1]


def test_a_push_of_a_stack_that_observes_is_held_and_nothing_is_waited_for():
    job = {"id": "1", "trigger": "push", "rule": "default", "state": "observed", "images": [f"app:v1@{DIGEST}"]}
    [rule] = rules.read(configuration([{"name": "default"}]))
    image = images.Artifact("", b"")
    pushed = push.Push(None, stack(Mode="observe"), Pages({"jobs": [job]}), Place("app", "v1", True), image, [rule], 0)
    results = Results()
    assert push.jobs(pushed, results) == {}
    [row] = results.rows
    assert (row.state, "observed only" in row.cause) == (HELD, True)


@pytest.mark.parametrize(
    ("used", "log", "held"),
    [
        (True, "event 1 is ignored: no node of default runs an image of app, or lately ran one", True),
        (True, "event 1 is ignored: no rule wants app:v1", False),
        (False, "event 1 is ignored: no node of default runs an image of app, or lately ran one", False),
    ],
)
def test_a_push_that_no_node_would_run_is_held_and_a_job_brings_its_image(monkeypatch, used, log, held):
    asked = []
    api = Pages({"jobs": []})
    monkeypatch.setattr(api, "post", lambda path, body: asked.append(body) or {"jobs": [{"id": "2"}]}, raising=False)
    monkeypatch.setattr(push, "_log", lambda pushed: [log])
    monkeypatch.setattr(push, "_missing", lambda pushed, others: "no job")
    [rule] = rules.read(configuration([{"name": "default", "used": used}]))
    image = images.Artifact("", b"")
    pushed = push.Push(None, stack(), api, Place("app", "v1", True), image, [rule], 0)
    results = Results()
    assert push.jobs(pushed, results) == ({"default": "2"} if held else {})
    assert [row.state for row in results.rows] == [HELD if held else BROKEN]
    assert (asked, pushed.sent) == (([{"images": ["app:v1"], "rule": "default"}], ["2"]) if held else ([], []))


@pytest.mark.parametrize(
    ("rule", "wanted", "said"),
    [
        ({"repositories": ["team/*"]}, None, "team/prod-verify exists already; delete it where it is of a run"),
        ({"repositories": ["team/app"]}, None, "the rules leave no name for it: default takes team/app. REPOSITORY="),
        ({"repositories": ["team/*"]}, "other/app", "no rule takes images of REPOSITORY=other/app"),
        ({"mode": "send"}, "team/app", "team/app exists already, and for minutes the image would be its newest"),
        ({"tags": ["latest"]}, "team/app", "team/app:latest exists already, and is not replaced"),
    ],
)
def test_nothing_is_pushed_where_that_could_touch_what_is_not_the_runs_own(rule, wanted, said):
    ecr, results = Ecr(), Results()
    mode = rule.pop("mode", "observe")
    list_ = rules.read(configuration([{"name": "default", **rule}]))
    with (
        pytest.raises(repository.NoRepository) as error,
        repository.place(ecr, list_, stack(Mode=mode), wanted, images.Artifact("", b""), results),
    ):
        pass
    assert said in str(error.value)
    assert (ecr.removed, results.rows) == ([], [])


def test_only_the_image_is_removed_from_a_repository_that_was_there():
    ecr, results = Ecr(), Results()
    list_ = rules.read(configuration([{"name": "default"}]))
    ecr.tags = ()
    image = images.multi_platform("x")
    with repository.place(ecr, list_, stack(Mode="observe"), "team/app", image, results) as place:
        assert not place.is_own
    assert ecr.removed == [image.digest, *(child.digest for child in image.children)]


@pytest.mark.parametrize(
    ("parameters", "found", "said"),
    [
        ({}, ["online"], ""),
        ({}, None, "the jobs API, which would tell what became of it, cannot be asked"),
        ({}, [], "no node that SSM knows is taken by a rule"),
        ({}, ["never-registered"], "no node that SSM knows is taken by a rule"),
        ({"BakeAfterPushMinutes": "5"}, ["online"], "it would begin a bake, which launches builders"),
        ({"BakeAfterPushMinutes": "5", "Mode": "observe"}, [], ""),
    ],
)
def test_nothing_is_pushed_where_it_would_launch_something_or_reach_nobody(parameters, found, said):
    told = [{"id": "i-1", "ssm": {"state": state}, "rules": ["default"]} for state in found or []]
    listed = None if found is None else [nodes.Node(one["id"], one) for one in told]
    obstacle = run.obstacle(Events("ENABLED"), stack(**parameters), listed)
    assert obstacle.startswith(said)
    assert bool(obstacle) == bool(said)


@pytest.mark.parametrize(("body", "said"), [("time.sleep(9)", "TimeIsUp"), ("held_back()", "done, then TimeIsUp")])
def test_a_run_ends_with_its_time_but_not_in_the_middle_of_removing_what_it_made(body, said):
    program = f"""
import time
from verify import interrupts

def held_back():
    with interrupts.undisturbed():
        time.sleep(1.5)
        print("done, then ", end="")

interrupts.listen(1)
try:
    {body}
except interrupts.TimeIsUp:
    print("TimeIsUp")
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=20)
    assert (ran.stdout, ran.stderr) == (f"{said}\n", "")


def test_an_endpoint_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(aws, "HTTP_SECONDS", (0.2, 0.2))
    monkeypatch.setattr(jobs, "TRIES", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        for name, value in {**ACCOUNT, "AWS_ENDPOINT_URL": endpoint}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(jobs.Refused, match="does not answer"):
            jobs.Jobs(aws.Account(), "https://api.execute-api.eu-central-1.amazonaws.com").get("/nodes")


class Ecr:
    """An account whose ECR has the repository that anybody asks for, with some tags."""

    class exceptions:  # as boto3 spells it
        class RepositoryAlreadyExistsException(Exception): ...

        class RepositoryNotFoundException(Exception): ...

        class ImageNotFoundException(Exception): ...

    def __init__(self):
        self.tags: tuple[str, ...] = ("latest",)
        self.removed: list[str] = []

    def client(self, _: str) -> "Ecr":
        return self

    def create_repository(self, **_: str) -> None:
        raise self.exceptions.RepositoryAlreadyExistsException

    def describe_repositories(self, **_: list) -> dict:
        return {}

    def describe_images(self, imageIds: list, **_: str) -> dict:
        if imageIds[0]["imageTag"] not in self.tags:
            raise self.exceptions.ImageNotFoundException
        return {}

    def batch_delete_image(self, imageIds: list, **_: str) -> dict:
        self.removed += [id_["imageDigest"] for id_ in imageIds]
        return {}


class Pages:
    """An API that answers with one page."""

    def __init__(self, page: dict):
        self._page = page

    def pages(self, _: str, **__: int) -> list[dict]:
        return [self._page]


class Events:
    """An account whose EventBridge knows every rule, each in one state and with a target."""

    def __init__(self, state: str):
        self._state = state

    def client(self, _: str) -> "Events":
        return self

    def describe_rule(self, **_: str) -> dict:
        return {"State": self._state}

    def list_targets_by_rule(self, **_: str) -> dict:
        return {"Targets": [{"Id": "one"}]}


def configuration(list_: list) -> dict:
    return {"Environment": {"Variables": {"RULES": json.dumps(list_)}}}


def stack(**parameters: str) -> Stack:
    own = {"ClusterName": "prod", "ClusterTagKey": "aws:eks:cluster-name"}
    arn = "arn:aws:cloudformation:eu-central-1:123456789012:stack/prod/1"
    return Stack("prod", "CREATE_COMPLETE", arn, own | parameters, {}, {})
