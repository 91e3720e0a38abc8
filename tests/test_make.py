"""The Makefile's commands whose answer somebody reads: nothing else goes to stdout."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from local.client import ROOT
from local.make.invoke import functions, given

NOISE = "#!/bin/sh\necho noise of $0\n"
ANSWER = "#!/bin/sh\nprintf '%s\\n' \"$*\"\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The Makefile beside tools that are there already, talk much, and do nothing."""
    (tmp_path / "Makefile").write_text((ROOT / "Makefile").read_text())
    requirements = tmp_path / "local" / "requirements.txt"
    venv = tmp_path / ".tools" / "venv"
    stubs = {
        venv / "bin" / "cargo": NOISE,
        venv / "bin" / "sam": NOISE,
        venv / "bin" / "python": ANSWER,
        requirements.with_name("install-node-tools"): NOISE,
    }
    for path, text in stubs.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    requirements.touch()
    (venv / ".ready").touch()
    os.utime(requirements, (0, 0))
    return tmp_path


def test_an_event_is_replayed_and_only_the_answer_is_on_stdout(folder):
    ran = make(folder, "invoke", "FUNCTION=Jobs", "EVENT=events/jobs.stats.json")
    assert ran.stdout == "-m local.make.invoke Jobs events/jobs.stats.json\n"
    assert "noise" in ran.stderr


def test_a_bake_is_begun_with_the_input_as_it_is_and_only_its_output_is_on_stdout(folder):
    ran = make(folder, "bake", "STACK=prod", INPUT='{"rules": ["none of $HOME"]}')
    assert ran.stdout == '-m local.make.bake prod {"rules": ["none of $HOME"]}\n'


def test_what_is_played_is_handed_on_as_the_shell_reads_it(folder):
    ran = make(folder, "play", 'DO=jobs POST /jobs \'{"rule": "gpu"}\'')
    assert ran.stdout == '-m local.make.play jobs POST /jobs {"rule": "gpu"}\n'


def test_events_are_produced_as_the_command_line_says_and_not_the_environment(folder):
    ran = make(folder, "produce", "STACK=prod", "EVENTS=1000", "PER_SECOND=5", "DUPLICATES=5%", KIND="report")
    assert ran.stdout == "-m local.make.produce prod --events 1000 --per-second 5 --duplicates 5%\n"


def test_a_stacks_name_is_looked_at_before_anything_is_built(folder):
    (folder / ".tools" / "venv" / "bin" / "python").write_text("#!/bin/sh\nexit 1\n")
    ran = make(folder, "deploy", fails=True)
    assert "noise" not in ran.stdout + ran.stderr


def test_every_function_of_the_template_can_be_replayed_and_has_events():
    events = {path.name.partition(".")[0] for path in (ROOT / "events").iterdir()}
    assert {"BakePlan", "BakeSweep", "ImagePush", "Jobs", "NodeLaunch", "NodeResult"} <= set(functions())
    assert {"".join(part.title() for part in name.split("-")) for name in events} == set(functions())


def test_a_parameter_that_the_template_lacks_is_told_before_an_event_is_replayed():
    with pytest.raises(ValueError, match="CentralRegistry is no parameter of the template"):
        given("CentralRegistry=210987654321")
    assert given(None) == given("") == {}


def test_a_replayed_event_is_answered_on_stdout_by_the_function_alone_and_by_its_parameters():
    command = [sys.executable, "-m", "local.make.invoke", "ImagePush", "events/image-push.central-registry.json"]
    env = {**os.environ, "PARAMETERS": "CentralRegistries=210987654321 Repositories=other/*"}
    ran = subprocess.run(command, cwd=ROOT, env=env, check=False, capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    assert (json.loads(ran.stdout)["decision"], json.loads(ran.stdout)["reason"]) == ("ignored", "no-rule")


def make(folder: Path, *arguments: str, fails: bool = False, **environment: str) -> subprocess.CompletedProcess[str]:
    ran = subprocess.run(
        ["make", *arguments],
        cwd=folder,
        env={**{name: value for name, value in os.environ.items() if not name.startswith("MAKE")}, **environment},
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ran.returncode != 0) is fails, ran.stderr
    return ran
