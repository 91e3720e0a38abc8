"""`make verify`: what it says of a stack that works, and of stacks that are broken on purpose."""

import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
from probe import credentials
from roles import make_role
from uploaded import Uploaded

from local import images
from local.client import ROOT, LocalCloud, until
from local.stack import Stack

NAME, NOWHERE = "proven", "nowhere"
CLUSTER = {"aws:eks:cluster-name": NAME}
POLICY = json.loads((ROOT / "verify" / "policy.json").read_text())["Statement"]
SECONDS = 100
"""Limits how long a run may take here, in seconds."""


PARAMETERS = {"ClusterName": NAME, "Repositories": "proof/*,!proof/kept-*"}


@dataclass
class Ran:
    """Tells how a run ended."""

    code: int
    rows: dict[str, tuple[str, str]]
    """Result and cause by what was checked."""
    said: str

    def states(self, state: str) -> set[str]:
        """Returns what is in a state."""
        return {what for what, (found, _) in self.rows.items() if found == state}

    def row(self, what: str) -> tuple[str, str]:
        """Returns result and cause of the one row that begins so."""
        [row] = [row for name, row in self.rows.items() if name.startswith(what)] or [("missing", self.said)]
        return row


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name=NAME)
    stack.deploy(**PARAMETERS)
    yield stack
    stack.delete()


@pytest.fixture(scope="module")
def node(cloud, stack):
    """A node of the cluster, with a real containerd, that SSM can reach."""
    node = cloud.launch(CLUSTER, online_after=0)
    cloud.until_online(node)
    yield node
    cloud.terminate(node)


@pytest.fixture
def lost(cloud, node):
    """The node, of whose agent SSM hears nothing any more."""
    cloud.turn(node, online=False)
    yield node
    cloud.turn(node, online=True)


@pytest.fixture(scope="module")
def nowhere(cloud):
    """A stack of whose cluster no node runs."""
    stack = Uploaded(cloud, name=NOWHERE)
    stack.deploy(ClusterName=NOWHERE, Repositories="nowhere/*")
    yield stack
    stack.delete()


@pytest.fixture(autouse=True)
def nothing_is_left(cloud):
    before = repositories(cloud)
    yield
    cloud.forget_faults()
    assert repositories(cloud) == before


def test_of_a_stack_that_works_everything_holds_by_no_more_permissions_than_are_documented(cloud, stack, node):
    caller = credentials(cloud, make_role(cloud, "verifier", "ec2.amazonaws.com", *POLICY))
    ran = verified(cloud, stack, caller)
    assert (ran.code, ran.states("did not hold"), ran.states("not checked")) == (0, set(), set()), ran.said
    assert ran.row(f"image on node {node} (ip-")[1].startswith("pulled in ")
    assert ran.rows["SSM's event: rule default's command has ended"][1] == "the job's row says 1 node"
    assert ran.rows["SSM's events: rule default's command has ended on a node"][1] == "1 outcome"
    assert ran.rows["GET /nodes shows the image as warm"][1] == "on 1"
    assert {
        "functions",
        "EventBridge rules",
        "event source mappings",
        "dead-letter queues",
        "alarms",
    } <= ran.rows.keys()
    assert ran.rows["what the run made is removed"][1] == "repository proof/proven-verify"
    document = stack.resources()["PrefetchImages"]
    sent = [command for command in stack.commands() if command["DocumentName"] == document]
    about = [command["Comment"] for command in sent if "proven-verify" in command["Parameters"]["images"][0]]
    assert [comment.split()[0] for comment in about] == ["push"]


def test_a_repository_that_is_there_gets_the_image_only_while_the_stack_observes_and_stays(cloud, stack, lost):
    cloud.push("proof/app", "v1", images.image("app"))
    try:
        sends = verified(cloud, stack, arguments=["--repository", "proof/app"])
        stack.deploy(**PARAMETERS, Mode="observe")
        observes = verified(cloud, stack, arguments=["--repository", "proof/app"])
        described = cloud.client("ecr").describe_images(repositoryName="proof/app")["imageDetails"]
    finally:
        cloud.client("ecr").delete_repository(repositoryName="proof/app", force=True)
        stack.deploy(**PARAMETERS)
    assert "proof/app exists already" in sends.said
    state, cause = observes.row("job of the push by rule default")
    assert (state, "observed only" in cause) == ("held", True), observes.said
    assert observes.rows["what the run made is removed"][1].startswith("proof/app:0-verify-")
    assert [image["imageTags"] for image in described] == [["v1"]]


def test_a_push_rule_that_is_off_is_said_with_the_command_that_turns_it_on(cloud, stack, node):
    rule = stack.resources()["ImagePushImageArrived"]
    cloud.client("events").disable_rule(Name=rule)
    try:
        ran = verified(cloud, stack)
    finally:
        cloud.client("events").enable_rule(Name=rule)
    assert ran.code == 1, ran.said
    assert broken(ran, "rule ImagePushImageArrived", "is DISABLED", f"aws events enable-rule --name {rule}")
    assert ran.rows["a push"][0] == "not checked"
    assert "no event of ECR's reaches image-push" in ran.rows["a push"][1]


def test_a_node_that_is_offline_is_said_with_the_likely_cause_and_its_command_is_cancelled(cloud, stack, lost):
    ran = verified(cloud, stack)
    assert ran.code == 1, ran.said
    assert broken(ran, f"node {lost}", "offline: SSM has heard nothing of its agent")
    assert ran.rows["job of the push by rule default"][0] == "held"
    said = ("not checked", "SSM does not reach it; the command to it is cancelled")
    assert ran.row(f"image on node {lost} (ip-") == said
    document = stack.resources()["PrefetchImages"]
    sent = [command for command in stack.commands("push") if command["DocumentName"] == document]
    assert sent[0]["Status"] in ("Cancelling", "Cancelled")


def test_reports_that_nobody_hears_of_are_said_by_what_ssm_knows(cloud, stack, node):
    rule = stack.resources()["NodeReported"]
    cloud.client("events").disable_rule(Name=rule)
    try:
        ran = verified(cloud, stack, arguments=["--wait-seconds", "10"])
    finally:
        cloud.client("events").enable_rule(Name=rule)
    assert ran.code == 1, ran.said
    assert broken(ran, "rule NodeReported", "is DISABLED")
    assert broken(
        ran,
        "SSM's events: rule default's command has ended on a node",
        f"ended on {node} (ip-",
        "(Success), and the stack has not heard of it",
    )


def test_a_registry_that_refuses_the_login_is_said(cloud, stack, node):
    with cloud.expired_logins():
        ran = verified(cloud, stack)
    assert ran.code == 1, ran.said
    assert broken(ran, "push of proof/proven-verify:", "refuses the login that ECR gave (401")
    state, cause = ran.rows["a dry run sends nothing"]
    assert (state, "rule takes a rule" in cause) == ("not checked", True), cause


def test_ctrl_c_leaves_nothing(cloud, stack, node):
    cloud.turn(node, delay=20)
    before = len(stack.commands("push"))
    process = begun(cloud, stack)
    try:
        until(lambda: len(stack.commands("push")) > before, 30, "the push's command")
        assert "proof/proven-verify" in repositories(cloud)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        cloud.turn(node, delay=0)
    assert process.returncode == 1, said
    assert broken(parsed(1, said), "the rest", "the run was stopped")


def test_a_send_permission_that_was_taken_away_is_said_by_iam_and_by_the_function(cloud, stack, node):
    iam = cloud.client("iam")
    role = {"RoleName": stack.resources()["ImagePushRole"], "PolicyName": "send-prefetch-images"}
    document = iam.get_role_policy(**role)["PolicyDocument"]
    iam.delete_role_policy(**role)
    try:
        ran = verified(cloud, stack)
    finally:
        iam.put_role_policy(**role, PolicyDocument=json.dumps(document))
    assert ran.code == 1, ran.said
    assert broken(
        ran, "IAM: the document may be sent to the cluster's nodes", "ImagePush's role may not ssm:SendCommand"
    )
    assert broken(
        ran, "job of the push by rule default", "image-push says: ", "not authorized", "deploy the stack again"
    )


def test_a_stack_without_nodes_is_said_and_no_command_is_sent_for_nobody(cloud, nowhere):
    allowed = [
        {**row, "Action": [name for name in listed(row["Action"]) if not name.startswith("iam:")]} for row in POLICY
    ]
    caller = credentials(cloud, make_role(cloud, "narrow", "ec2.amazonaws.com", *allowed))
    ran = verified(cloud, nowhere, caller)
    assert ran.code == 1, ran.said
    assert broken(ran, "nodes of cluster nowhere", "EC2 knows no instance with the tag aws:eks:cluster-name=nowhere")
    assert "its command would match none" in ran.rows["a push"][1]
    state, cause = ran.rows["IAM: AWS-RunShellScript is refused"]
    assert (state, "the caller may not SimulatePrincipalPolicy" in cause) == ("not checked", True)
    assert ran.states("did not hold") == {"nodes of cluster nowhere"}


def test_a_missing_function_and_a_queue_that_nobody_reads_are_said(cloud, nowhere):
    resources, aws = nowhere.resources(), cloud.client("lambda")
    mapping = resources["NodeLaunchLaunched"]
    aws.update_event_source_mapping(UUID=mapping, Enabled=False)
    aws.delete_function(FunctionName=resources["BakeSweep"])
    ran = verified(cloud, nowhere)
    assert ran.code == 1, ran.said
    assert broken(ran, "function BakeSweep", "it is missing: deploy the stack again")
    assert broken(ran, "mapping NodeLaunchLaunched", "it is Disabled", f"--uuid {mapping} --enabled")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nobody"], "There is no stack 'nobody' in eu-central-1"),
        (["probe"], "The stack 'probe' is no deployment of EKS image prefetch"),
        ([], "the following arguments are required: stack"),
        (["nobody", "--wait-seconds", "soon"], "a whole number from 10 to 300"),
        (["nobody", "--repository", "Team/App"], "a repository's name"),
    ],
    ids=["no such stack", "another stack", "no stack", "no number", "no repository"],
)
@pytest.mark.usefixtures("probe_stack")
def test_who_calls_it_wrongly_is_told_so_in_one_sentence(cloud, arguments, sentence):
    ran = subprocess.run(
        [sys.executable, "-m", "verify", *arguments],
        cwd=ROOT,
        env=cloud.env(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert sentence in ran.stderr
    assert "Traceback" not in ran.stderr


def test_make_passes_on_what_is_named_on_its_command_line_and_nothing_else():
    told = ["make", "--dry-run", "verify", "STACK=prod", "WAIT_SECONDS=60"]
    ran = subprocess.run(told, cwd=ROOT, env={**os.environ, "REPOSITORY": "ci/own"}, capture_output=True, text=True)
    assert re.search(r"^python -m verify 'prod' +--wait-seconds '60'$", ran.stdout, re.MULTILINE), ran.stdout


def verified(cloud: LocalCloud, stack: Stack, caller: dict | None = None, arguments: list[str] = ()) -> Ran:
    """Runs the program against a stack, as the administrator or another caller."""
    process = begun(cloud, stack, caller, arguments)
    said, _ = process.communicate(timeout=SECONDS)
    return parsed(process.returncode, said)


def begun(cloud: LocalCloud, stack: Stack, caller: dict | None = None, arguments: list[str] = ()) -> subprocess.Popen:
    own = {name.upper(): value for name, value in (caller or {}).items()}
    return subprocess.Popen(
        [sys.executable, "-m", "verify", stack.name, *arguments],
        cwd=ROOT,
        env={**cloud.env(), **own, "COLUMNS": "900"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def parsed(code: int, said: str) -> Ran:
    rows = re.findall(r"^(.+?)  +(held|did not hold|not checked)(?:  +(.*))?$", said, re.MULTILINE)
    return Ran(code, {what: (state, cause) for what, state, cause in rows}, said)


def broken(ran: Ran, what: str, *causes: str) -> bool:
    """Returns whether a row that begins so did not hold, for these causes."""
    state, cause = ran.row(what)
    assert state == "did not hold", (what, state, cause, ran.said)
    assert [text for text in causes if text not in cause] == [], cause
    return True


def repositories(cloud: LocalCloud) -> set[str]:
    pages = cloud.client("ecr").get_paginator("describe_repositories").paginate()
    return {row["repositoryName"] for page in pages for row in page["repositories"]}


def listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
