"""Replays an event on a local cloud that has PARAMETERS: `python -m local.make.invoke FUNCTION EVENT`."""

import argparse
import json
import os
import sys
from pathlib import Path

from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT, LocalCloud
from local.make.check import parsed, unknown
from local.stack import Stack


def main() -> None:
    """Prints the function's answer as JSON; exit code 1 where it failed."""
    parser = argparse.ArgumentParser(prog="python -m local.make.invoke", description=__doc__)
    parser.add_argument("function", choices=functions(), help="the function's name in the template")
    parser.add_argument("event", type=Path, help="a file of JSON, such as those in events/")
    arguments = parser.parse_args()
    payload = json.loads(arguments.event.read_text())
    try:
        parameters = {"ClusterName": "demo"} | given(os.environ.get("PARAMETERS"))
    except ValueError as error:
        sys.exit(str(error))
    with LocalCloud() as cloud:
        stack = Stack(cloud)
        stack.deploy(**parameters)
        answer = stack.invoke(arguments.function, payload)
    print(json.dumps(answer, indent=2))
    sys.exit("error" in answer)


def given(overrides: str | None) -> dict[str, str]:
    """Reads parameters as SAM does; raises where the template has no such parameter, which SAM would leave out."""
    parameters = parsed(overrides)
    if refused := unknown(template(), parameters):
        raise ValueError("\n".join(refused))
    return parameters


def functions() -> list[str]:
    """Returns the template's functions by their names there."""
    resources = template()["Resources"]
    return sorted(name for name, resource in resources.items() if resource["Type"] == "AWS::Serverless::Function")


def template() -> dict:
    """Returns the template as it is deployed."""
    return yaml_parse((ROOT / "template.yaml").read_text())


if __name__ == "__main__":
    main()
