"""Names of stacks that AWS would refuse are refused before anything is built or deployed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from local.client import ROOT
from local.make.stack_name import configured, refusal

NAMES = json.loads(Path(__file__).with_name("stack-names.json").read_text())


@pytest.mark.parametrize(("name", "sentence"), NAMES.items(), ids=json.dumps)
def test_a_name_that_aws_refuses_is_refused_with_what_is_accepted(name, sentence):
    assert refusal(name) == sentence


def test_the_names_of_samconfig_are_looked_at_whatever_environment_they_are_of(tmp_path):
    samconfig = tmp_path / "samconfig.toml"
    samconfig.write_text(
        'version = 0.1\n[default.deploy.parameters]\nstack_name = "one"\n'
        '[eu.global.parameters]\nstack_name = "two"\n[eu.deploy.parameters]\nstack_name = "two"\n[eu.build]\n'
    )
    assert configured(samconfig) == ["one", "two"]
    assert configured(tmp_path / "none") == []


def test_the_projects_own_name_is_accepted():
    assert configured() and not [name for name in configured() if refusal(name)]


def test_the_program_says_so_on_stderr_and_ends_with_1():
    ran = subprocess.run(
        [sys.executable, "-m", "local.make.stack_name", "fine", "aws-prod"],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == refusal("aws-prod") + "\n"
