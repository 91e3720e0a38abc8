"""The local cloud begins and ends as one: stacks, processes and folders leave nothing behind."""

import contextlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from probe import CONTENT, delete, deploy, probe, refused

from local import images
from local.client import ROOT, LocalCloud, until


def test_a_stack_updates_in_place_and_leaves_nothing_behind():
    with LocalCloud() as cloud, probe(cloud) as (stack, upload):
        ssm = cloud.client("ssm")
        upload("document.json", json.dumps({**CONTENT, "description": "newer"}))
        deploy(cloud, "update")
        described = ssm.describe_document(Name=stack["Document"])["Document"]
        assert (described["DefaultVersion"], described["Description"]) == ("2", "newer")

        delete(cloud)
        assert ssm.list_documents()["DocumentIdentifiers"] == []
        assert cloud.client("lambda").list_functions()["Functions"] == []
        assert cloud.client("lambda").list_event_source_mappings()["EventSourceMappings"] == []
        assert cloud.client("sqs").list_queues().get("QueueUrls", []) == []
        assert cloud.client("events").list_rules()["Rules"] == []
        assert cloud.client("iam").list_roles()["Roles"] == []
        assert cloud.client("logs").describe_log_groups()["logGroups"] == []


def test_two_clouds_do_not_disturb_each_other(cloud):
    with LocalCloud() as other:
        assert (other.endpoint, other.registry_url) != (cloud.endpoint, cloud.registry_url)
        other.push("elsewhere", "v1", images.image())
        with refused("RepositoryNotFoundException"):
            cloud.client("ecr").describe_images(repositoryName="elsewhere")


def test_nothing_ambient_of_aws_reaches_the_tools(cloud, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert cloud.state()["account"] == cloud.client("sts").get_caller_identity()["Account"]
    assert {name for name in cloud.env() if name.startswith("AWS_")} == {
        "AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED", "AWS_ENDPOINT_URL",
        "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE",
    }  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_everything_ends_with_the_cloud(end):
    process = subprocess.Popen([sys.executable, "-m", "local", "up"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = folder_of(json.loads(process.stdout.readline()))
    assert processes_of(folder)
    process.send_signal(end)
    assert process.wait(10) == 0
    assert not processes_of(folder)
    assert not folder.exists()


def test_everything_ends_when_the_parent_is_killed():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'local', 'up'])"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = folder_of(json.loads(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    until(lambda: not processes_of(folder) and not folder.exists(), 10, "the cloud to end")


def test_no_process_outlives_a_cloud_that_is_killed_and_the_next_one_sweeps_its_folder():
    process = subprocess.Popen([sys.executable, "-m", "local", "up"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = folder_of(json.loads(process.stdout.readline()))
    process.kill()
    process.wait()
    until(lambda: not processes_of(folder), 10, "the processes to end")
    with LocalCloud():
        assert not folder.exists()


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def folder_of(state: dict) -> Path:
    """Returns the folder of a cloud from the line it printed."""
    return Path(state["folder"])


def processes_of(folder: Path) -> list[str]:
    """Returns the processes whose command line or environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes() + (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
    return found
