"""Deploys the stack on a local cloud as every SAM user does, and reads it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from local.client import ROOT, LocalCloud

SAM = Path(sys.executable).with_name("sam")
TEMPLATE = ROOT / os.environ.get("BUILD_DIR", ".aws-sam/build") / "template.yaml"
"""Names what `sam build` leaves; what `make local` builds has a folder of its own, as it goes to no account."""
SAM_SECONDS = 90
"""Says how long SAM may take; ten seconds, on a busy machine some thirty. What it waits for it asks for every 30."""

EVERYTHING = {"used": False, "neighbours": False}
"""Says of a rule that it brings all that it takes: the nodes of a local cloud run no pods, and would use nothing."""
BRINGS_EVERYTHING = {"Used": "false", "Neighbours": "false", "ImageGCHighThresholdPercent": "100"}
"""Says the same of the rule that the parameters make, where a deployment does not say otherwise, and that nodes pull
whatever room there is: their disk is this machine's, which may be quite full."""

TABLE_COLUMNS = "2000"
"""Says how wide SAM's tables are, so that a reason stands on one line."""


class Stack:
    """One deployment of the template."""

    def __init__(self, cloud: LocalCloud, name: str = "eks-image-prefetch"):
        self.cloud = cloud
        self.name = name

    def deploy(self, template: Path = TEMPLATE, **parameters: str) -> None:
        """Runs `sam deploy`, new or as an update."""
        named = {**BRINGS_EVERYTHING, **parameters}
        overrides = [f"{name}={json.dumps(value)}" for name, value in named.items()]
        self._sam(
            "deploy",
            "--template-file",
            str(template),
            "--resolve-s3",
            "--no-confirm-changeset",
            "--no-fail-on-empty-changeset",
            "--capabilities",
            "CAPABILITY_IAM",
            "CAPABILITY_AUTO_EXPAND",
            "--parameter-overrides",
            *overrides,
        )

    def delete(self) -> None:
        """Runs `sam delete`."""
        self._sam("delete", "--no-prompts")

    def resources(self) -> dict[str, str]:
        """Returns the physical ids of the stack's resources by logical id."""
        answer = self.cloud.client("cloudformation").describe_stack_resources(StackName=self.name)
        return {resource["LogicalResourceId"]: resource["PhysicalResourceId"] for resource in answer["StackResources"]}

    def outputs(self) -> dict[str, str]:
        """Returns the stack's outputs."""
        stack = self.cloud.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}

    def invoke(self, function: str, payload: Any) -> dict:
        """Invokes a function by its logical id and waits for its answer; `error` is there where it failed."""
        answer = self.cloud.client("lambda").invoke(
            FunctionName=self.resources()[function], Payload=json.dumps(payload).encode()
        )
        body = json.load(answer["Payload"])
        return {"error": body} if "FunctionError" in answer else body

    def commands(self, trigger: str = "") -> list[dict]:
        """Returns the commands that were sent for a trigger, newest first."""
        pages = self.cloud.client("ssm").get_paginator("list_commands").paginate()
        commands = [command for page in pages for command in page["Commands"]]
        wanted = [command for command in commands if command["Comment"].startswith(trigger)]
        return sorted(wanted, key=lambda command: command["RequestedDateTime"], reverse=True)

    def report(self, command_id: str, instance_id: str) -> list[dict] | None:
        """Returns a node's report, a line per image; None while the command has not ended there."""
        ssm = self.cloud.client("ssm")
        try:
            invocation = ssm.get_command_invocation(CommandId=command_id, InstanceId=instance_id)
        except ssm.exceptions.InvocationDoesNotExist:
            return None
        if invocation["Status"] in ("Pending", "InProgress", "Delayed"):
            return None
        lines = invocation["StandardOutputContent"].splitlines()
        return [json.loads(line) for line in lines if line.startswith('{"image":')]

    def _sam(self, command: str, *arguments: str) -> None:
        sam(self.cloud, command, "--stack-name", self.name, *arguments)


def sam(cloud: LocalCloud, command: str, *arguments: str) -> None:
    """Runs a command of SAM's against a cloud."""
    try:
        ran = subprocess.run(
            [SAM, command, "--region", cloud.region, *arguments],
            cwd=ROOT,
            env={**cloud.env(), "COLUMNS": TABLE_COLUMNS},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=SAM_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        log = Path(cloud.folder, "server.log").read_text(errors="replace")[-2000:]
        said = f"{(error.stdout or b'').decode()}\n{log}"
        raise RuntimeError(f"sam {command} had not ended after {SAM_SECONDS} s:\n{said}") from error
    if ran.returncode:
        raise RuntimeError(f"sam {command} ended with {ran.returncode}:\n{ran.stdout}")
