"""The example of a warm pool: kubelet is not started on the way into the pool, and on every other way it is."""

import email
import os
import subprocess
from pathlib import Path

import pytest
from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT

RESOURCES = yaml_parse((ROOT / "examples" / "warm-pool" / "node-group.yaml").read_text())["Resources"]
USER_DATA = RESOURCES["NodeTemplate"]["Properties"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Fn::Sub"]
PARTS = email.message_from_string(USER_DATA).get_payload()


@pytest.mark.parametrize("state", ["Warmed:Stopped", "Warmed:Running"])
def test_on_the_way_into_the_pool_a_condition_keeps_kubelet_from_being_started_until_the_next_boot(tmp_path, state):
    drop_in = booted(tmp_path, f"echo {state}")
    assert drop_in.read_text() == "[Unit]\nConditionPathExists=!/run\n"
    assert (tmp_path / "reloaded").read_text() == "daemon-reload\n"


@pytest.mark.parametrize("answer", ["echo InService", "echo Terminated", "exit 22", "echo '<html>'"])
def test_on_every_other_way_and_where_nothing_is_known_kubelet_is_started(tmp_path, answer):
    assert not booted(tmp_path, answer).exists()
    assert not (tmp_path / "reloaded").exists()


def test_the_part_that_runs_at_each_boot_comes_beside_nodeadms():
    assert [part.get_content_type() for part in PARTS] == ["text/cloud-boothook", "application/node.eks.aws"]


def test_the_hook_is_there_for_the_first_instance_and_lets_it_go_on_when_its_time_is_over():
    properties = RESOURCES["NodeGroup"]["Properties"]
    [hook] = properties["LifecycleHookSpecificationList"]
    assert (hook["LifecycleTransition"], hook["DefaultResult"]) == ("autoscaling:EC2_INSTANCE_LAUNCHING", "CONTINUE")
    [tag] = properties["Tags"]
    assert tag["Key"] == {"Fn::Sub": "kubernetes.io/cluster/${ClusterName}"}
    assert (tag["Value"], tag["PropagateAtLaunch"]) == ("owned", True)


def booted(folder: Path, answer: str) -> Path:
    """Runs the part with the instance's metadata answering so; returns where its drop-in is."""
    commands = folder / "bin"
    commands.mkdir()
    # A token is asked for by PUT; what the metadata answers of the state is what is tried.
    script(commands / "curl", f'[[ "$*" == *"-X PUT"* ]] && {{ echo token; exit; }}\n{answer}')
    script(commands / "systemctl", f'echo "$*" >> {folder}/reloaded')
    run = folder / "run"
    boothook = PARTS[0].get_payload().replace("/run/systemd", f"{run}/systemd")
    environment = {"PATH": f"{commands}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-c", boothook], env=environment, check=True, timeout=10)
    return run / "systemd" / "system" / "kubelet.service.d" / "warm-pool.conf"


def script(file: Path, text: str) -> None:
    """Writes a command."""
    file.write_text(f"#!/bin/bash\n{text}\n")
    file.chmod(0o755)
