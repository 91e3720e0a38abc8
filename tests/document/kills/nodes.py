"""The nodes on which commands are killed, one of each containerd, side by side."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local import images
from local.ecr.registry import Registry
from local.nodes.node import Node
from local.nodes.pods import Pods, pausing

from ..command import HOST
from ..nodes import a_password, free_address
from ..state import by_tag
from .held import Looker
from .kinds import FirstPull, Kind, Pull, Pushed, Replacing, Resolve, Usage
from .sweep import Killer, Row, sweep

VERSIONS = ("2.1", "1.7")
MIB = 1 << 20
Points = Callable[[int], Iterable[int]]
Tell = Callable[[str], None]


def kill_all(folder: Path, points: Points, *, kind: str = "", tell: Tell = print) -> list[Row]:
    """Kills commands of each kind whose name has these words, on each containerd."""
    registry = Registry(folder / "registry", free_address(), [HOST], a_password())
    registry.start()
    try:
        pushed = {name: push(registry, name, **options) for name, options in IMAGES.items()}

        def on(containerd: str) -> list[Row]:
            return kill_on(Node(folder / containerd, containerd, registry, containerd), pushed, points, kind, tell)

        with ThreadPoolExecutor() as pool:
            return [row for rows in pool.map(on, VERSIONS) for row in rows]
    finally:
        registry.stop()


IMAGES = {
    "large": {"layers": 3, "zeros": 3 * MIB, "compressed": False},
    "small": {"layers": 2},
    "v1": {"layers": 2},
    "v2": {"layers": 1},
}
"""Says what is pushed; what is larger than 8 MiB is downloaded by the program itself."""


def push(registry: Registry, name: str, **options: int) -> Pushed:
    """Pushes an image: two versions of one repository, or one of its own."""
    image = pausing(name, **options)
    repository, tag = ("team/versions", name) if name.startswith("v") else (f"team/{name}", "v1")
    images.push(registry.url, registry.ca, registry.password, repository, tag, image)
    return Pushed(f"{HOST}/{repository}:{tag}@{image.digest}", image)


def kill_on(node: Node, pushed: dict[str, Pushed], points: Points, kind: str, tell: Tell) -> list[Row]:
    """Kills commands of each kind on one node."""
    node.start()
    try:
        killer = Killer(node)
        return [sweep(each, killer, node, points, tell) for each in kinds(node, killer, pushed, kind)]
    finally:
        node.stop()


def kinds(node: Node, killer: Killer, pushed: dict[str, Pushed], words: str) -> Iterator[Kind]:
    """Yields the kinds of commands whose names have these words; the last is of a node on which pods stay."""
    pods, looker = Pods(node), Looker(node)
    pulls: Sequence[tuple[type[Pull], Sequence[str]]] = [
        (Pull, ["large", "small"]),
        (FirstPull, ["small"]),
        (Replacing, ["v1", "v2"]),
    ]
    for kind, names in pulls:
        if words in kind.name:
            yield kind(looker, pods, [pushed[name] for name in names])
    if words in Resolve.name:
        yield Resolve(looker, [pushed["large"], pushed["small"]])
    if words in Usage.name:
        kind = FirstPull(looker, pods, [pushed["v1"]])
        assert killer.run(kind.variables()).exit_code == 0
        pods.run(by_tag(pushed["v1"].reference))
        yield Usage(looker, pushed["v1"])


def table(rows: Iterable[Row]) -> str:
    """Returns the rows as a table in Markdown."""
    lines = [
        "| command | containerd | system calls | killed | ended before | the next | wrong |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        following = "; ".join(f"{count} {words}" for words, count in sorted(row.next_ones.items()))
        cells = (row.kind, row.containerd, row.calls, row.killed, row.ended, following, len(row.wrong))
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)
