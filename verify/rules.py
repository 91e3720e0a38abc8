"""Reads a stack's rules, as far as a push needs them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from verify import globs


@dataclass(frozen=True)
class Rule:
    """One rule: images that match it go to nodes that match it."""

    name: str
    repositories: Sequence[str]
    tags: Sequence[str]
    keep: int
    used: bool
    """Says whether it brings only images of repositories that its nodes use."""

    @classmethod
    def parse(cls, fields: Mapping[str, Any]) -> "Rule":
        """Reads a rule of the list, with the functions' own defaults."""
        return cls(
            fields["name"],
            fields.get("repositories", ["*"]),
            fields.get("tags", ["*"]),
            int(fields.get("keep", 0)),
            fields.get("used", True) is True,
        )

    def wants(self, repository: str, tag: str) -> bool:
        """Tells whether the rule brings an image with this tag of this repository."""
        return globs.takes(self.repositories, repository) and globs.takes(self.tags, tag)


def read(configuration: Mapping[str, Any]) -> list[Rule]:
    """Returns the rules that a function's configuration has; raises ValueError where they are none."""
    try:
        rules = [Rule.parse(fields) for fields in json.loads(configuration["Environment"]["Variables"]["RULES"])]
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the environment variable RULES has no list of rules ({error!r})") from error
    if not rules:
        raise ValueError("the environment variable RULES has no rule")
    return rules
