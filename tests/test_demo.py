"""Runs what `make demo` shows: its steps, and what a person reads of them."""

import re
import subprocess
import sys

import pytest

from local.client import ROOT

STEPS = [
    "A local cloud",
    "A push: team/app:v1",
    "A launch: node",
    "The same event again",
    "What the nodes said is kept",
    "Which node holds what",
    "A job: POST /jobs",
]


@pytest.mark.timeout(240)
def test_the_demo_is_seen_to_its_end_and_tells_what_every_node_did():
    command = [sys.executable, "-m", "local.make.demo"]
    ran = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True, timeout=220)
    assert (ran.returncode, ran.stderr) == (0, "")
    said = ran.stdout
    titles = re.findall(r"\033\[1m(.+)\033\[0m", said)
    assert [title.startswith(step) for title, step in zip(titles, STEPS, strict=True)] == [True] * len(STEPS), titles

    [first] = re.findall(r"A push: team/app:v1 into the registry; node (i-[0-9a-f]+) runs", said)
    [second] = re.findall(r"A launch: node (i-[0-9a-f]+)", said)
    assert re.findall(r"^  report +(\w+) in \d+ ms", said, re.MULTILINE) == ["pulled", "pulled", "cached"]
    for node, status in ((first, "pulled"), (second, "pulled"), (first, "cached")):
        assert re.search(rf"^  {node} +app:v1 +{status} ", said, re.MULTILINE), (node, status)
    for node in (first, second):
        assert re.search(rf"^  {node} +online +default +team/app:v1 +warm +\d{{4}}-", said, re.MULTILINE), node
    assert "by rule default: done" in said and "2 of 2 done: 0 pulled, 2 cached, 0 skipped, 0 failed" in said
