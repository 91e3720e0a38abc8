"""`make cloud` and `make play`: what runs is told, and one command each launches, pushes, looks and enters."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from local import images
from local.client import ROOT, LocalCloud


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    """A cloud that `make cloud` runs: what it has said, and what plays on it."""
    place = tmp_path_factory.mktemp("play") / "cloud.json"
    env = {**os.environ, "LOCAL_CLOUD_FILE": str(place), "LOCAL_SCHEDULES": "off"}
    command = [sys.executable, "-m", "local", "up", "--guide"]
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True)
    said = []
    while not said or "make verify" not in said[-1]:
        line = process.stdout.readline()
        assert line, f"the cloud did not start: {said}"
        said.append(line)

    def play(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "local.make.play", *words]
        return subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=60)

    yield "".join(said), play, place
    process.terminate()
    assert process.wait(10) == 0
    assert not place.exists()


@pytest.fixture(scope="module")
def node(played) -> str:
    _, play, _ = played
    return done(play("launch")).strip()


def test_it_is_said_what_runs_and_how_to_go_on(played):
    said, _, place = played
    state = json.loads(place.read_text())
    for name in ("endpoint", "account", "region", "access_key_id", "registry_host", "registry_url", "registry_ca"):
        assert state[name] in said
    assert "make play DO='push team/app:v1'" in said
    assert place.stat().st_mode & 0o077 == 0


def test_tools_of_aws_are_told_where_the_cloud_is(played):
    _, play, place = played
    exports = done(play("env"))
    assert f"export AWS_ENDPOINT_URL={json.loads(place.read_text())['endpoint']}\n" in exports
    assert all(line.startswith("export ") for line in exports.splitlines())


def test_a_node_is_launched_and_listed(played, node):
    _, play, _ = played
    assert re.fullmatch("i-[0-9a-f]{17}", node)
    assert f"{node}  running, online in SSM" in done(play("nodes"))


def test_a_shell_is_inside_the_node_that_is_named_or_the_newest(played, node):
    _, play, _ = played
    assert "io.containerd" in done(play("shell", node, "ctr", "plugins", "ls"))
    assert "dkr.ecr" in done(play("shell", "cat", "/etc/hosts"))
    assert play("shell", "sh", "-c", "exit 7").returncode == 7


def test_an_image_is_pushed_and_another_one_each_time(played):
    _, play, _ = played
    first, second = (done(play("push", "team/app:v1", "--mib", "0")).split() for _ in range(2))
    assert first[0] == "team/app:v1"
    assert re.fullmatch("sha256:[0-9a-f]{64}", first[1])
    assert first[1] != second[1]


def test_an_image_of_the_registry_outside_aws_is_pushed_there_and_not_to_ecr(played):
    _, play, place = played
    name, digest = done(play("push", "quay.io/team/foreign:v1", "--mib", "0")).split()
    cloud = LocalCloud.running(json.loads(place.read_text()))
    with images.Session(cloud.foreign_url, cloud.foreign_ca, "AWS", "") as session:
        accepted = {"Accept": f"{images.OCI}.manifest.v1+json"}
        status, _ = session.request("HEAD", f"/v2/team/foreign/manifests/{digest}", b"", accepted, (200, 404))
    assert (name, status) == ("quay.io/team/foreign:v1", 200)
    repositories = cloud.client("ecr").describe_repositories()["repositories"]
    assert not [found for found in repositories if "foreign" in found["repositoryName"]]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["push", "team/app"], "The image team/app is not accepted: it takes a repository and a tag"),
        (["push", "Team/App:v1"], "is not accepted"),
        (["push", "docker.io/library/nginx:1.27"], "There is no registry docker.io to push to"),
        (["deploy", "Used"], "The parameter Used is not accepted: it takes a name and a value"),
        (["shell", "i-0000000000000000f", "true"], "There is no node i-0000000000000000f"),
        (["jobs"], "There is no stack yet: make play DO=deploy"),
        (["jobs", "GET", "/nodes"], "There is no stack yet: make play DO=deploy"),
    ],
)
def test_what_cannot_be_done_is_told_in_a_sentence(played, words, reason):
    _, play, _ = played
    ran = play(*words)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert reason in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize("kept", [None, "no json", '{"endpoint": "http://127.0.0.1:9", "region": "eu-central-1"}'])
def test_without_a_cloud_it_is_said_how_to_start_one(tmp_path: Path, kept: str | None):
    place = tmp_path / "cloud.json"
    if kept:
        place.write_text(kept)
    command = [sys.executable, "-m", "local.make.play", "nodes"]
    env = {**os.environ, "LOCAL_CLOUD_FILE": str(place)}
    ran = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert "make cloud" in ran.stderr or "start it again" in ran.stderr
    assert "Traceback" not in ran.stderr


def done(ran: subprocess.CompletedProcess[str]) -> str:
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
