"""Reads the cluster's nodes as `GET /nodes` tells of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from verify.jobs import Jobs, Refused
from verify.results import Results
from verify.stack import Stack

LIMIT = 500
MAX_LISTED = 10
WAITS = ("starting",)
"""Causes that pass by themselves."""


@dataclass(frozen=True)
class Node:
    """An instance of the cluster."""

    id: str
    told: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Returns its id, and the Kubernetes node's name where it is told."""
        name = self.told.get("name")
        return f"{self.id} ({name})" if name else self.id

    @property
    def state(self) -> str:
        """Returns whether SSM reaches it."""
        return self.told["ssm"]["state"]

    @property
    def is_online(self) -> bool:
        """Tells whether commands reach it now."""
        return self.state == "online"

    @property
    def is_targeted(self) -> bool:
        """Tells whether SSM finds it by its tags."""
        return self.state in ("online", "offline")

    @property
    def rules(self) -> list[str]:
        """Returns the names of the rules that take it."""
        return self.told["rules"]

    @property
    def cause(self) -> str:
        """Returns why SSM does not reach it."""
        ssm = self.told["ssm"]
        return f"{ssm['state']}: {ssm.get('message') or ssm.get('cause', '')}"

    def image(self, digest: str) -> Mapping[str, Any] | None:
        """Returns what is told of an image on it; None where nothing is."""
        return next((image for image in self.told["images"] if image["image"].endswith(f"@{digest}")), None)


def check(jobs: Jobs, stack: Stack, results: Results) -> list[Node] | None:
    """Checks that SSM reaches every node of the cluster; returns them, or None where nobody tells."""
    what = f"nodes of cluster {stack.cluster}"
    try:
        pages = list(jobs.pages("/nodes", limit=LIMIT))
    except Refused as error:
        results.broken(what, str(error))
        return None
    nodes = [Node(told["id"], told) for page in pages for told in page["nodes"]]
    if not nodes:
        results.broken(what, nobody(stack, pages[0].get("clusters")))
        return nodes
    _tell(nodes, what, results)
    return nodes


def nobody(stack: Stack, clusters: Iterable[str] | None) -> str:
    """Returns why there may be no node, with the names of the clusters that there are, where they are told."""
    none = f"EC2 knows no instance with the tag {stack.cluster_tag}={stack.cluster}"
    mend = "deploy the stack again with ClusterName, or ClusterTagKey, as the nodes have it"
    if clusters is None:
        return f"{none}: does a node run? Else {mend}"
    if names := ", ".join(clusters):
        return f"{none}; the clusters that there are: {names}. Does a node run? Else {mend}"
    return f"{none}, nor a node of any other cluster: does a node run in this account and Region?"


def _tell(nodes: list[Node], what: str, results: Results) -> None:
    online = [node for node in nodes if node.is_online]
    lost = [node for node in nodes if not node.is_online]
    if online:
        idle = sum(not node.rules for node in online)
        results.held(what, f"{len(online)} online" + (f", {idle} of them taken by no rule" if idle else ""))
    for node in lost[:MAX_LISTED]:
        passes = node.state == "unsupported" or node.told["ssm"].get("cause") in WAITS
        (results.unchecked if passes else results.broken)(f"node {node.label}", node.cause)
    if len(lost) > MAX_LISTED:
        results.broken(what, f"{len(lost) - MAX_LISTED} more are not online: GET /nodes lists them")
