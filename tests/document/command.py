"""The Command document's script: how a test runs it and reads what it said."""

import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from local.make import document
from local.nodes import program
from local.nodes.node import Node
from local.nodes.running import Completed, Running

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
A_DIGEST = "sha256:" + "a" * 64
GOOD = f"{HOST}/team/app:v1@{A_DIGEST}"
PARAMETERS = json.loads(document.DOCUMENT.read_text())["parameters"]
DEFAULTS = {name: parameter["default"] for name, parameter in PARAMETERS.items() if "default" in parameter}
ROOT = Path(__file__).parent.parent.parent
PROGRAM = Path(os.environ.get("PREFETCH_IMAGES", ROOT / "target/debug/prefetch-images"))
"""Names the program that nodes run; another than `cargo build` makes can be named."""
BUILD = "make program"
PROGRAMS = {platform.machine(): PROGRAM.read_bytes()} if PROGRAM.exists() else {}
SCRIPT = document.script(program.attributes(f"{HOST}/prefetch-images/node-program", PROGRAMS))
"""The document's, of a stack that published the program."""


class Result:
    """A finished command with its reports and what it tells of usage; every line of its output must be one of these."""

    def __init__(self, completed: Completed) -> None:
        self.exit_code = completed.exit_code
        self.stdout = completed.stdout
        self.stderr = completed.stderr
        self.seconds = completed.seconds
        lines = [json.loads(line) for line in completed.stdout.splitlines()]
        self.usage = [line for line in lines if "usage" in line]
        totals = [line["usageTotals"] for line in lines if "usageTotals" in line]
        self.totals = totals[0] if totals else None
        self.reports = [line for line in lines if "usage" not in line and "usageTotals" not in line]
        told = [*self.reports, *self.usage, *({"usageTotals": these} for these in totals)]
        assert lines == told and len(totals) <= 1, "reports, then usage, then its totals"

    def only(self) -> dict:
        """Returns the one report that there must be."""
        assert len(self.reports) == 1, self.stderr
        return self.reports[0]

    def of(self, reference: str) -> dict:
        """Returns the report of one image; lines come as images are done, not as they were named."""
        [report] = [report for report in self.reports if report["image"] == reference]
        return report

    def statuses(self) -> list[str]:
        """Returns what became of each image."""
        return [report["status"] for report in self.reports]

    def outcomes(self) -> list[tuple[str, str]]:
        """Returns what became of each image and why."""
        return [(report["status"], report["reason"]) for report in self.reports]


def run(node: Node, *references: str, limit: int = 60, **how: object) -> Result:
    """Runs the document on a node; see `begin`."""
    return Result(begin(node, *references, limit=limit, **how).wait(limit))


def begin(
    node: Node,
    *references: str,
    limit: int = 60,
    script: str = SCRIPT,
    env: Mapping[str, str] = MappingProxyType({}),
    **settings: object,
) -> Running:
    """Starts the document, or another script, and returns without waiting for its end.

    `settings` are further parameters, by name. Where a node has no disk of its own, this machine's may be quite full.
    """
    if script == SCRIPT:
        install(node)
    if not node.disk_mib:
        settings = {"imageGCHighThresholdPercent": 100, **settings}
    return node.begin(script, {**parameters(*references, limit=limit, **settings), **env})


def install(node: Node) -> None:
    """Puts the program on a node, which would have to fetch it otherwise."""
    if not PROGRAMS:
        raise RuntimeError(f"there is no {PROGRAM}; build it: {BUILD}")
    node.install(PROGRAMS[platform.machine()])


def parameters(*references: str, limit: int = 60, **settings: object) -> dict[str, str]:
    """Returns the environment that the SSM agent makes of parameters, defaults included."""
    defaults = {name: parameter.get("default", "") for name, parameter in PARAMETERS.items()}
    given = {"images": " ".join(references), "executionTimeout": limit, **settings}
    values = {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in given.items()}
    assert values.keys() <= defaults.keys()
    return {f"SSM_{name}": value for name, value in {**defaults, **values}.items()}


def substituted(*references: str, **settings: object) -> str:
    """Returns the document's script as an agent that does not know ENV_VAR writes it, parameters in its text."""
    script = SCRIPT
    for variable, value in parameters(*references, **settings).items():
        placeholder = f"{{{{ {variable.removeprefix('SSM_')} }}}}"
        assert placeholder in script
        script = script.replace(placeholder, value)
    return script
