"""The examples, run as a pipeline runs them."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread, Timer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from settling import ended, line
from uploaded import Uploaded

from local import images
from local.client import ROOT, until

CLUSTER = {"aws:eks:cluster-name": "pipeline"}
WAIT = ROOT / "examples" / "prefetch-and-wait"


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="pipeline")
    stack.deploy(ClusterName="pipeline", Repositories="pipeline/*")
    yield stack
    stack.delete()


@pytest.fixture
def nodes(cloud, stack):
    """Two nodes of the cluster that SSM can reach."""
    nodes = [cloud.launch(CLUSTER, online_after=0) for _ in range(2)]
    cloud.until_online(*nodes)
    yield nodes
    for node in nodes:
        cloud.terminate(node)


def test_a_pipeline_waits_until_every_node_is_warm(cloud, stack, nodes):
    digest = cloud.push("pipeline/app", "v1", images.image("pipeline", layer_bytes=1 << 20))
    ran = wait(cloud, stack, "pipeline/app:v1")
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "rule default: 2 of 2 nodes done, 2 warm"
    image = f"{cloud.state()['registry_host']}/pipeline/app@{digest}"
    assert all(cloud.image_status(node, image) for node in nodes)


def test_a_pipeline_signs_with_the_temporary_credentials_of_its_role(cloud, stack, nodes):
    cloud.push("pipeline/app", "v2", images.image("release", layer_bytes=1 << 20))
    ran = wait(cloud, stack, "pipeline/app:v2", **role(cloud, "execute-api:Invoke"))
    assert (ran.returncode, ran.stderr) == (0, "")
    ran = wait(cloud, stack, "pipeline/app:v2", **role(cloud, "ecr:GetAuthorizationToken"))
    assert ran.returncode == 2
    assert "answered 403" in ran.stderr


def test_enough_warm_nodes_let_a_pipeline_go_on_before_the_last_has_said_anything(cloud, stack, nodes):
    cloud.push("pipeline/most", "v1", images.image("most"))
    late = cloud.launch(CLUSTER, online_after=0, containerd="none", delay=3600)
    cloud.until_online(late)
    ran = wait(cloud, stack, "pipeline/most:v1", WARM_PERCENT="60")
    cloud.terminate(late)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[-1] == "rule default: 2 of 3 nodes done, 2 warm"


def test_a_node_that_cannot_hold_the_image_does_not_hold_up_the_pipeline_and_is_named_with_its_reason(
    cloud, stack, nodes
):
    digest = cloud.push("pipeline/mixed", "v1", images.image("mixed"))
    image = f"{cloud.registry_host}/pipeline/mixed:v1@{digest}"
    # What the push itself sends comes first, to the node that ends by script.
    until(
        lambda: [c for c in stack.commands("push") if digest in c["Parameters"]["images"][0]], 20, "the push's command"
    )
    foreign = ended(line(image, "skipped", "platform"))
    arm = cloud.launch(CLUSTER, online_after=0, containerd="none", endings=[foreign] * 3)
    windows = cloud.launch(CLUSTER, online_after=0, containerd="none", platform="Windows")
    cloud.until_online(arm, windows)
    ran = wait(cloud, stack, "pipeline/mixed:v1")
    cloud.terminate(arm)
    cloud.terminate(windows)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "rule default: 4 of 4 nodes done, 2 warm, 2 that cannot hold it" in ran.stdout.splitlines()
    reasons = {arm: "skipped, platform", windows: "skipped, invalid-platform"}
    for node, reason in reasons.items():
        [told] = [told for told in ran.stdout.splitlines() if told.startswith(f"  {node} ")]
        assert told.endswith(reason)


def test_a_node_that_stays_cold_stops_the_pipeline_and_is_named_with_its_reason(cloud, stack, nodes):
    cloud.push("pipeline/arm", "v1", images.index([images.image("arm", architecture="arm64")]))
    ran = wait(cloud, stack, "pipeline/arm:v1")
    assert ran.returncode == 1
    instances = cloud.client("ec2").describe_instances(InstanceIds=nodes)["Reservations"]
    names = {i["InstanceId"]: i["PrivateDnsName"] for reservation in instances for i in reservation["Instances"]}
    assert all(f"  {node} {names[node]}: " in ran.stdout for node in nodes)
    assert "skipped, platform" in ran.stdout


def test_an_image_that_no_node_can_run_stops_the_pipeline_though_another_warms_them_all(cloud, stack, nodes):
    cloud.push("pipeline/app", "both", images.image("both"))
    digest = cloud.push("pipeline/arm", "both", images.index([images.image("arm", architecture="arm64")]))
    ran = wait(cloud, stack, "pipeline/app:both", "pipeline/arm:both")
    assert (ran.returncode, ran.stderr) == (1, "")
    assert "rule default: 2 of 2 nodes done, 2 warm" in ran.stdout.splitlines()
    assert ran.stdout.splitlines()[-1] == f"  {cloud.registry_host}/pipeline/arm:both@{digest} is on no node"


def test_what_the_api_refuses_is_told_by_its_field(cloud, stack):
    ran = wait(cloud, stack, "pipeline/app:never-pushed")
    assert ran.returncode == 2
    assert "images[0]" in ran.stderr


def test_a_pipeline_waits_no_longer_than_it_is_told_to(cloud, stack):
    cloud.push("pipeline/late", "v1", images.image("late"))
    node = cloud.launch(CLUSTER, online_after=0, containerd="none", delay=3600)
    cloud.until_online(node)
    ran = wait(cloud, stack, "pipeline/late:v1", WAIT_SECONDS="1")
    cloud.terminate(node)
    assert ran.returncode == 3
    assert "is not done after 1 seconds" in ran.stderr


AMD, ARM = "host/team/app:v1@sha256:aa", "host/team/arm:v1@sha256:bb"


@pytest.mark.parametrize(
    ("percent", "jobs", "ended", "last"),
    [
        # An amd64-only cluster: its nodes are warm by the one image, and nobody has the other.
        ("100", [([AMD, ARM], 2, 0, [{AMD: "pulled", ARM: "skipped"}] * 2)], 1, f"  {ARM} is on no node"),
        ("60", [([AMD, ARM], 2, 0, [{AMD: "cached", ARM: "skipped"}] * 2)], 1, f"  {ARM} is on no node"),
        ("0", [([AMD, ARM], 2, 0, [{AMD: "pulled", ARM: "skipped"}] * 2)], 0, None),
        # A mixed one: each image is on its own.
        ("100", [([AMD, ARM], 2, 0, [{AMD: "pulled", ARM: "skipped"}, {AMD: "skipped", ARM: "cached"}])], 0, None),
        # One rule for each kind of node, and one image: the other rule's nodes cannot hold it.
        ("100", [([AMD], 1, 0, [{AMD: "pulled"}]), ([AMD], 1, 1, [{AMD: "skipped"}])], 0, None),
        ("100", [([AMD], 1, 1, [{AMD: "skipped"}]), ([AMD], 1, 0, [{AMD: "pulled"}])], 0, None),
        # Nobody can hold it.
        ("100", [([AMD], 2, 2, [{AMD: "skipped"}] * 2)], 1, f"  {AMD} is on no node"),
        # No node at all is still no warm one.
        ("100", [([AMD], 0, 0, [])], 1, f"  {AMD} is on no node"),
    ],
)
def test_a_pipeline_goes_on_where_each_image_is_on_a_node_and_each_job_is_warm_that_can_be(percent, jobs, ended, last):
    answers = {f"job-{k}": pages(f"job-{k}", *job) for k, job in enumerate(jobs)}
    with api(answers) as (url, asked):
        ran = waited(url, WARM_PERCENT=percent)
    assert (ran.returncode, ran.stderr) == (ended, "")
    if last:
        assert ran.stdout.splitlines()[-1] == last
    else:
        assert "is on no node" not in ran.stdout
    assert all("&next=" not in path for path in asked)


def test_a_mixed_cluster_opens_at_100_percent_with_the_fields_own_numbers():
    nodes = [{AMD: "pulled"}] * 6 + [{AMD: "skipped"}] * 4
    with api({"job-0": pages("job-0", [AMD], 10, 4, nodes)}) as (url, _):
        ran = waited(url)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (
        0,
        "rule default: 10 of 10 nodes done, 6 warm, 4 that cannot hold it",
    )


def test_an_image_that_is_on_no_node_yet_is_waited_for_while_a_job_runs():
    seen = [{AMD: "pulled", ARM: "skipped"}]
    [running] = pages("job-0", [AMD, ARM], 2, 0, seen)
    answers = {"job-0": [running | {"state": "running"}]}
    with api(answers) as (url, _):
        done = {"job-0": pages("job-0", [AMD, ARM], 2, 0, [*seen, {AMD: "skipped", ARM: "pulled"}])}
        Timer(2, answers.update, [done]).start()
        ran = waited(url, WARM_PERCENT="50")
        assert (ran.returncode, ran.stderr) == (0, "")
        answers["job-0"] = [running | {"state": "running"}]
        ran = waited(url, WARM_PERCENT="50", WAIT_SECONDS="1")
    assert (ran.returncode, ran.stderr) == (3, "Not every image is on a node after 1 seconds.\n")


def test_an_image_is_looked_for_page_by_page_and_no_further_than_it_is_found():
    nodes = [{AMD: "pulled", ARM: "skipped"}] * 2500 + [{AMD: "skipped", ARM: "pulled"}] + [{AMD: "cached"}] * 2000
    with api({"job-0": pages("job-0", [AMD, ARM], len(nodes), 0, nodes)}) as (url, asked):
        ran = waited(url)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert [path.partition("next=")[2] for path in asked if "next=" in path] == ["1000", "2000"]


@pytest.mark.parametrize("name", ["JOBS_URL", "AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_pipeline_that_lacks_a_variable_is_told_which(tmp_path, name, value):
    assert name in wrongly_called(tmp_path, **{name: value})


@pytest.mark.parametrize(
    ("name", "value", "accepted"),
    [
        ("JOBS_URL", "abcdef.execute-api", "the stack's output JobsUrl"),
        ("WAIT_SECONDS", "30m", "a whole number from 0 to 999999999"),
        ("WAIT_SECONDS", "-1", "a whole number from 0 to 999999999"),
        ("WAIT_SECONDS", "1800; exit 0", "a whole number from 0 to 999999999"),
        ("WARM_PERCENT", "most", "a whole number from 0 to 100"),
        ("WARM_PERCENT", "101", "a whole number from 0 to 100"),
        ("WARM_PERCENT", "99.5", "a whole number from 0 to 100"),
    ],
)
def test_a_value_that_is_none_is_told_with_what_is_accepted(tmp_path, name, value, accepted):
    said = wrongly_called(tmp_path, **{name: value})
    assert said == f"prefetch-and-wait: {name} is '{value}' and takes {accepted}.\n"


def test_a_pipeline_without_an_image_is_told_what_it_takes(tmp_path):
    assert wrongly_called(tmp_path, images=()) == (
        "prefetch-and-wait: it takes the images to bring, such as team/app:v7.\n"
    )


@pytest.mark.parametrize(
    ("curl", "has_jq", "said"),
    [
        (None, True, "it takes curl, which is not on PATH"),
        ("7.88.1", False, "it takes jq, which is not on PATH"),
        ("7.85.0", True, "it takes curl 7.86 or newer, and this is 7.85.0"),
        ("6.99.0", True, "it takes curl 7.86 or newer, and this is 6.99.0"),
    ],
)
def test_a_pipeline_that_lacks_a_program_is_told_which(tmp_path, curl, has_jq, said):
    assert wrongly_called(tmp_path, curl=curl, has_jq=has_jq) == f"prefetch-and-wait: {said}.\n"


def test_options_that_are_empty_have_their_defaults(tmp_path):
    # What is looked at last is refused: all before it was taken.
    assert "6.99.0" in wrongly_called(tmp_path, curl="6.99.0", WAIT_SECONDS="", WARM_PERCENT="")


def test_a_number_with_noughts_before_it_is_that_number(tmp_path):
    ran = called(tmp_path, curl="8.0.0", WAIT_SECONDS="00", WARM_PERCENT="08")
    assert (ran.returncode, ran.stderr) == (3, "The API gave no answer after 0 seconds.\n")


def pages(job: str, images_: list[str], total: int, not_applicable: int, nodes: list[dict[str, str]]) -> list[dict]:
    """Returns a job that is done as the API tells it, page by page, by what became of each image on each node."""
    status = [next((s for s in ("pulled", "cached") if s in node.values()), "skipped") for node in nodes]
    skipped = status.count("skipped") - not_applicable
    counted = {"pulled": status.count("pulled"), "cached": status.count("cached"), "skipped": skipped, "failed": 0}
    told = {"total": total, "done": total, "notApplicable": not_applicable, "retrying": 0, "retried": 0, **counted}
    outcomes = [
        {
            "node": f"i-{k:017x}",
            "images": [{"image": image, "status": status, "reason": "-"} for image, status in node.items()],
        }
        for k, node in enumerate(nodes)
    ]
    starts = range(0, max(len(outcomes), 1), 1000)
    return [
        {"id": job, "rule": "default", "state": "done", "nodes": told, "images": images_}
        | {"outcomes": outcomes[start : start + 1000]}
        | ({"next": str(start + 1000)} if start + 1000 < len(outcomes) else {})
        for start in starts
    ]


@contextmanager
def api(jobs: dict[str, list[dict]]) -> Iterator[tuple[str, list[str]]]:
    """Serves the jobs API with these jobs; gives its address and the paths that are asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            sent = [{"id": job, "images": pages[0]["images"]} for job, pages in jobs.items()]
            self.answer(202, {"jobs": sent})

        def do_GET(self) -> None:
            asked.append(self.path)
            url = urlsplit(self.path)
            start = int(parse_qs(url.query).get("next", ["0"])[0])
            self.answer(200, jobs[url.path.rpartition("/")[2]][start // 1000])

        def answer(self, status: int, body: dict) -> None:
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


def waited(url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the example before an API of our own."""
    names = ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = os.environ | dict.fromkeys(names, "any") | {"JOBS_URL": url} | environment
    return subprocess.run(
        [WAIT, "team/app:v1"], env=environment, check=False, capture_output=True, text=True, timeout=60
    )


def wrongly_called(path: Path, images: tuple[str, ...] = ("team/app:v1",), **change: Any) -> str:
    """Runs the example with something changed that it does not take, and returns what it says."""
    ran = called(path, images, **change)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    return ran.stderr


def called(
    path: Path,
    images: tuple[str, ...] = ("team/app:v1",),
    curl: str | None = "8.14.1",
    has_jq: bool = True,
    **change: str | None,
) -> subprocess.CompletedProcess[str]:
    """Runs the example with programs of its own: a curl of that version, which reaches nothing, and a jq."""
    for program in ("bash", "env", "mktemp", "rm", "date", "sleep"):
        (path / program).symlink_to(shutil.which(program))
    if curl:
        (path / "curl").write_text(
            f'#!/usr/bin/env bash\n[[ $1 == --version ]] || exit 7\necho "curl {curl} (x86_64)"\n'
        )
        (path / "curl").chmod(0o755)
    if has_jq:
        (path / "jq").symlink_to(shutil.which("jq"))
    names = ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = dict.fromkeys(names, "any") | {"JOBS_URL": "https://127.0.0.1:1", "PATH": str(path)} | change
    given = {name: value for name, value in environment.items() if value is not None}
    return subprocess.run([WAIT, *images], env=given, check=False, capture_output=True, text=True, timeout=20)


def role(cloud, action: str) -> dict[str, str]:
    """Returns the environment of who has taken a role that allows an action."""
    iam, name = cloud.client("iam"), f"pipeline-{action.partition(':')[0]}"
    anyone = {"Effect": "Allow", "Principal": {"AWS": cloud.account}, "Action": "sts:AssumeRole"}
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(anyone))["Role"]["Arn"]
    allowed = policy({"Effect": "Allow", "Action": action, "Resource": "*"})
    iam.put_role_policy(RoleName=name, PolicyName=name, PolicyDocument=allowed)
    taken = cloud.client("sts").assume_role(RoleArn=arn, RoleSessionName="release")["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": taken["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": taken["SecretAccessKey"],
        "AWS_SESSION_TOKEN": taken["SessionToken"],
    }


def policy(statement: dict) -> str:
    """Returns a policy of one statement."""
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def wait(cloud, stack, *images: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the example for images; the API's name on the local cloud stands for that on AWS."""
    api = urlsplit(stack.outputs()["JobsUrl"]).netloc.partition(".")[0]
    url = f"http://{api}.execute-api.localhost:{urlsplit(cloud.endpoint).port}"
    environment = {**cloud.env(), "AWS_REGION": cloud.region, "JOBS_URL": url, **environment}
    return subprocess.run([WAIT, *images], env=environment, check=False, capture_output=True, text=True, timeout=120)
