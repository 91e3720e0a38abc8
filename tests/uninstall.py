"""The commands of docs/deploy.md that remove what a deleted stack has baked."""

import re
import subprocess
import sys
from pathlib import Path

from local.client import ROOT, LocalCloud

AWS = Path(__file__).with_name("aws_cli.py")


def uninstall(cloud: LocalCloud, folder: Path, stack: str, cluster: str) -> None:
    """Runs the commands of docs/deploy.md for a stack and a cluster; fails where one of them does."""
    aws = folder / "aws"
    aws.write_text(f'#!/bin/sh\nexec {sys.executable} {AWS} "$@"\n')
    aws.chmod(0o755)
    script = commands().replace("<stack>", stack).replace("<cluster>", cluster)
    environment = cloud.env()
    ran = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        env={**environment, "PATH": f"{folder}:{environment['PATH']}"},
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stderr


def commands() -> str:
    """Returns the commands below Uninstall that come after the stack's deletion."""
    section = (ROOT / "docs" / "deploy.md").read_text().partition("\n## Uninstall\n")[2]
    *_, last = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return last
