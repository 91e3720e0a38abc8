"""Says what `sam deploy` would of the parameters, and what they would do, without an account."""

import difflib
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
from samcli.cli.types import CfnParameterOverridesType
from samcli.lib.config.samconfig import SamConfig

from local.client import ROOT
from local.ministack import engine
from local.settings import MAX_ENVIRONMENT
from local.stack import TEMPLATE

FUNCTION = "SettingsCheck"
MAX_SHOWN = 200
ACCOUNT = "123456789012"
"""Stands for the account, which nobody is asked for."""
STACK = "stack"
"""Stands for the stack's name, where samconfig.toml has none."""
REGION = "us-east-1"
"""SAM's own default."""
MACHINES = {"x86_64": 62, "aarch64": 183}
"""The processors in an ELF header (elf.h)."""


def main() -> None:
    """Checks the parameters that samconfig.toml has in the section CONFIG_ENV, with those in PARAMETERS over them."""
    try:
        settings = saved(ROOT, os.environ.get("CONFIG_ENV") or "default")
        parameters = parsed(settings.get("parameter_overrides")) | parsed(os.environ.get("PARAMETERS"))
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or settings.get("region", REGION)
        environment = resolved(parameters, settings.get("stack_name", STACK)) | {"AWS_REGION": region}
    except ValueError as error:
        sys.exit(str(error))
    sys.exit(subprocess.run([*command(), "check"], cwd=ROOT, env={**os.environ, **environment}, check=False).returncode)


def saved(folder: Path, section: str) -> dict[str, Any]:
    """Returns what samconfig.toml says of `sam deploy` in a section."""
    config = SamConfig(folder)
    settings = config.get_all(["deploy"], "parameters", env=section)
    if section != "default" and section not in config.document:
        raise ValueError(f"samconfig.toml has no section {section}: it has {', '.join(sections(config.document))}")
    return settings


def sections(document: dict) -> list[str]:
    """Returns the names of the sections of samconfig.toml."""
    return [name for name, content in document.items() if isinstance(content, dict)]


def parsed(overrides: Any) -> dict[str, str]:
    """Reads parameters as SAM does."""
    try:
        return CfnParameterOverridesType().convert(overrides, None, None)
    except click.BadParameter as error:
        raise ValueError(error.message) from error


def resolved(parameters: dict[str, str], stack: str = STACK) -> dict[str, str]:
    """Returns the function's environment; raises with all that CloudFormation or Lambda would refuse."""
    template = engine._parse_template((TEMPLATE if TEMPLATE.exists() else ROOT / "template.yaml").read_text())
    if refused := unknown(template, parameters) + unusable(template, parameters):
        raise ValueError("\n".join(refused))
    values = engine._resolve_parameters(template, provided(parameters))
    conditions = engine._evaluate_conditions(template, values)
    try:
        engine._evaluate_rules(template, values, conditions)
    except ValueError as error:
        raise ValueError(str(error).rpartition(" failed: ")[2]) from error
    functions = (template["Globals"]["Function"], template["Resources"][FUNCTION]["Properties"])
    variables = {name: value for function in functions for name, value in function["Environment"]["Variables"].items()}
    environment = engine._resolve_refs(variables, {}, values, conditions, {}, stack, stack)
    environment["ACCOUNT_ID"] = account(parameters)
    if (size := len(json.dumps(environment))) > MAX_ENVIRONMENT:
        most = f"and Lambda takes {MAX_ENVIRONMENT}: shorten Rules or BakeDefaults"
        raise ValueError(f"The functions' environment has {size} bytes, {most}")
    return environment


def provided(parameters: dict[str, str]) -> list[dict[str, str]]:
    """Returns parameters in the form in which a request has them."""
    return [{"Key": name, "Value": value} for name, value in parameters.items()]


def unknown(template: dict, parameters: dict[str, str]) -> list[str]:
    """Tells of parameters that SAM would leave out without a word."""
    known = template["Parameters"]
    sentences = []
    for name in parameters.keys() - known.keys():
        close = difflib.get_close_matches(name, known, 1)
        meant = f"; {close[0]} may be meant" if close else ""
        sentences.append(f"{name} is no parameter of the template, and sam deploy leaves it out{meant}")
    return sorted(sentences)


def unusable(template: dict, parameters: dict[str, str]) -> list[str]:
    """Tells of each parameter that CloudFormation would refuse, in the template's words where it has some."""
    sentences = []
    for name, definition in template["Parameters"].items():
        of_it = {name: parameters[name]} if name in parameters else {}
        try:
            engine._resolve_parameters({"Parameters": {name: definition}}, provided(of_it))
        except ValueError as error:
            described = definition.get("ConstraintDescription")
            value = json.dumps(parameters.get(name, ""))[:MAX_SHOWN]
            if name not in parameters:
                sentences.append(f"{name} is missing: {described}")
            elif described:
                sentences.append(f"{name}: {value} is not accepted: {described}")
            else:
                sentences.append(str(error))
    return sentences


def account(parameters: dict[str, str]) -> str:
    """Returns the account whose registry the defaults of bakes name, else one that stands for it."""
    named = re.search(r"\b([0-9]{12})\.dkr\.ecr\.", parameters.get("BakeDefaults", ""))
    return named[1] if named else ACCOUNT


def command() -> list[str | Path]:
    """Returns what runs the function: what `sam build` has left, where this machine can run it."""
    bootstrap = TEMPLATE.parent / FUNCTION / "bootstrap"
    if bootstrap.exists():
        with bootstrap.open("rb") as binary:
            machine = int.from_bytes(binary.read(20)[18:], "little")
        if machine == MACHINES.get(platform.machine()):
            return [bootstrap]
    print("There is no build: settings-check is compiled first, which takes minutes.", file=sys.stderr)
    return ["cargo", "run", "--quiet", "--locked", "--package", "settings-check", "--"]


if __name__ == "__main__":
    main()
