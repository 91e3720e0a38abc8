"""Looks at what a node holds at one moment, as containerd and its own folder tell."""

import contextlib
import fcntl
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local.nodes.node import Node

from .grpc import Client, Fields, fields, labels, nested, text, texts

SERVICES = "/containerd.services"
COMMITTED = 3
"""A snapshot's kind, as containerd numbers them: an unpacked layer."""
RUN = "/run/prefetch-images"
KEPT = {"lock", "waiting", "queue", "config", "leases-checked", "begun", "download", "named", "usage"}
"""Names what commands keep, of which the folders in EMPTY hold nothing."""
EMPTY = ("begun", "download", "queue")
LOCKS = ("lock", "waiting", "usage")


@dataclass(frozen=True)
class Name:
    """Holds the digest that a name stands for, and its labels."""

    digest: str
    labels: dict[str, str]


@dataclass(frozen=True)
class Held:
    """Holds everything that containerd keeps for Kubernetes."""

    names: dict[str, Name]
    blobs: dict[str, dict[str, str]]
    snapshots: dict[str, int]
    leases: set[str]
    ingests: set[str]


class Looker:
    """Looks at one node, over one connection."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._client = Client(node.socket)
        self.folder = Path(f"/proc/{node.pid()}/root{RUN}")

    def close(self) -> None:
        """Closes the connection."""
        self._client.close()

    def held(self) -> Held:
        """Returns what containerd holds."""
        snapshots = self._all("snapshots.v1.Snapshots/List", text(1, "overlayfs"))
        return Held(
            names={texts(name, 1)[0]: _name(name) for name in self._all("images.v1.Images/List")},
            blobs={texts(blob, 1)[0]: labels(blob, 5) for blob in self._all("content.v1.Content/List")},
            snapshots={texts(snapshot, 1)[0]: snapshot[3][0] for snapshot in snapshots},
            leases={texts(lease, 1)[0] for lease in self._all("leases.v1.Leases/List")},
            ingests={texts(ingest, 3)[0] for ingest in self._all("content.v1.Content/ListStatuses")},
        )

    def cri_id(self, reference: str) -> str | None:
        """Returns the id under which CRI knows an image, None where it knows none."""
        image = self._image(reference)
        return texts(image, 1)[0] if image else None

    def is_pinned(self, reference: str) -> bool:
        """Tells whether CRI holds an image to be exempt from garbage collection."""
        return bool(self._image(reference)[8])

    def remove(self, names: list[str]) -> None:
        """Removes names, and what they alone held; it is gone afterwards."""
        for name in names:
            self._client.call(f"{SERVICES}.images.v1.Images/Delete", text(1, name) + b"\x10\x01")

    def unlabel(self, digest: str, label: str) -> None:
        """Removes a label from a blob."""
        info = text(1, digest) + nested(5, text(1, label))
        request = nested(1, info) + nested(2, text(1, f"labels.{label}"))
        self._client.call(f"{SERVICES}.content.v1.Content/Update", request)

    def forget(self, folder: str = ".") -> None:
        """Removes what commands keep, or one folder of it."""
        shutil.rmtree(self.folder / folder, ignore_errors=True)

    def files(self) -> set[str]:
        """Returns what commands should not have left in their folder."""
        left = {file.name for file in self._list(".")} - KEPT
        return left | {f"{folder}/{file.name}" for folder in EMPTY for file in self._list(folder)}

    def locked(self) -> set[str]:
        """Returns the locks that somebody holds."""
        return {name for name in LOCKS if (self.folder / name).exists() and not _is_free(self.folder / name)}

    def _image(self, reference: str) -> Fields:
        [answer] = self._client.call("/runtime.v1.ImageService/ImageStatus", nested(1, text(1, reference)))
        return fields(b"".join(answer[1]))

    def _all(self, method: str, request: bytes = b"") -> Iterator:
        for answer in self._client.call(f"{SERVICES}.{method}", request):
            yield from (fields(row) for row in answer[1])

    def _list(self, folder: str) -> list[Path]:
        with contextlib.suppress(FileNotFoundError):
            return [*(self.folder / folder).iterdir()]
        return []


def _name(message) -> Name:
    return Name(texts(fields(message[3][0]), 2)[0], labels(message, 2))


def _is_free(file: Path) -> bool:
    with file.open() as lock, contextlib.suppress(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
