"""Replays an event through a function on a local cloud: `python -m local.make.invoke FUNCTION EVENT`."""

import argparse
import json
import sys
from pathlib import Path

from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT, LocalCloud
from local.stack import Stack


def main() -> None:
    """Prints the function's answer as JSON; exit code 1 where it failed."""
    parser = argparse.ArgumentParser(prog="python -m local.make.invoke", description=__doc__)
    parser.add_argument("function", choices=functions(), help="the function's name in the template")
    parser.add_argument("event", type=Path, help="a file of JSON, such as those in events/")
    arguments = parser.parse_args()
    payload = json.loads(arguments.event.read_text())
    with LocalCloud() as cloud:
        stack = Stack(cloud)
        stack.deploy(ClusterName="demo")
        answer = stack.invoke(arguments.function, payload)
    print(json.dumps(answer, indent=2))
    sys.exit("error" in answer)


def functions() -> list[str]:
    """Returns the template's functions by their names there."""
    resources = yaml_parse((ROOT / "template.yaml").read_text())["Resources"]
    return sorted(name for name, resource in resources.items() if resource["Type"] == "AWS::Serverless::Function")


if __name__ == "__main__":
    main()
