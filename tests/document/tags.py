"""The document that resolves tags: how a test runs its script and reads what it said."""

import json
from collections.abc import Mapping
from types import MappingProxyType

from local.make import document
from local.nodes import program
from local.nodes.node import Node
from local.nodes.running import Completed, Running

from .command import HOST, PROGRAMS, install

PARAMETERS = json.loads(document.TAGS_DOCUMENT.read_text())["parameters"]
SCRIPT = document.script(program.attributes(f"{HOST}/prefetch-images/node-program", PROGRAMS), document.TAGS_DOCUMENT)


class Resolved:
    """A finished command with its answers; every line of its output must be one."""

    def __init__(self, completed: Completed) -> None:
        self.exit_code = completed.exit_code
        self.stdout = completed.stdout
        self.stderr = completed.stderr
        self.seconds = completed.seconds
        self.lines = [json.loads(line) for line in completed.stdout.splitlines()]
        for line in self.lines:
            assert line.keys() in ({"tag", "digest"}, {"tag", "reason", "message"}), line
        self.tags = [line["tag"] for line in self.lines]
        self.messages = " | ".join(line.get("message", "") for line in self.lines)

    def answers(self) -> list[str]:
        """Returns the digest of each tag, or the reason why there is none."""
        return [line.get("digest") or line["reason"] for line in self.lines]


def resolve(node: Node, *tags: str, limit: int = 60, env: Mapping[str, str] = MappingProxyType({})) -> Resolved:
    """Runs the document on a node."""
    return Resolved(begin(node, *tags, limit=limit, env=env).wait(limit))


def begin(node: Node, *tags: str, limit: int = 60, env: Mapping[str, str] = MappingProxyType({})) -> Running:
    """Starts the document and returns without waiting for its end."""
    install(node)
    return node.begin(SCRIPT, {"SSM_tags": " ".join(tags), "SSM_executionTimeout": str(limit), **env})


def substituted(*tags: str, limit: int = 60) -> str:
    """Returns the document's script as an agent that does not know ENV_VAR writes it, parameters in its text."""
    return SCRIPT.replace("{{ tags }}", " ".join(tags)).replace("{{ executionTimeout }}", str(limit))
