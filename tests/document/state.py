"""Reads what a node holds."""

import json
import time

from local.images import OWN_ARCHITECTURE, Artifact, digest
from local.nodes.node import Node

OTHER_ARCHITECTURE = "amd64" if OWN_ARCHITECTURE == "arm64" else "arm64"


def by_tag(reference: str) -> str:
    """Returns registry/repository:tag of a reference that holds a digest too."""
    return reference.partition("@")[0]


def by_digest(reference: str) -> str:
    """Returns registry/repository@digest of a reference that may hold a tag too."""
    name, _, digest = reference.partition("@")
    registry, _, repository = name.partition("/")
    return f"{registry}/{repository.partition(':')[0]}@{digest}"


def own(image: Artifact) -> Artifact:
    """Returns the image that this machine runs, of an index or of itself."""
    wanted = {"architecture": OWN_ARCHITECTURE, "os": "linux"}
    return next((child for child in image.children if child.platform == wanted), image)


def image_id(image: Artifact) -> str:
    """Returns the id by which CRI knows an image: its configuration's digest."""
    return json.loads(own(image).manifest)["config"]["digest"]


def node_finds(node: Node, reference: str) -> str | None:
    """Returns what CRI answers once it has noticed names that ctr made, which takes it some 0.3 seconds."""
    eventually(lambda: node.image_status(reference) is not None, True)
    return node.image_status(reference)


def tags(node: Node, reference: str) -> str:
    """Returns the digest of the image that the reference's tag stands for on the node."""
    return node.images()[by_tag(reference)]


def snapshots(node: Node, snapshotter: str) -> int:
    """Returns how many snapshots one of the node's snapshotters holds for Kubernetes."""
    return len(node.shell(f"ctr -n k8s.io snapshots --snapshotter {snapshotter} ls").splitlines()) - 1


def eventually(look, wanted=True, seconds: float = 5) -> bool:
    """Looks again and again until it sees what is wanted; tells whether it did in time."""
    deadline = time.monotonic() + seconds
    while look() != wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def wait_for_file(node: Node, file: str) -> None:
    """Returns once a file exists on the node."""
    assert eventually(lambda: node.shell(f"ls {file} 2>/dev/null || true").strip(), file)


def names(node: Node, image: Artifact) -> set[str]:
    """Returns every name that an image has on the node."""
    return {name for name, digest in node.images().items() if digest == image.digest}


def labels(node: Node, name: str) -> dict[str, str]:
    """Returns the labels of one of the node's names."""
    rows = node.shell(f"ctr -n k8s.io images ls 'name=={name}'").splitlines()[1:]
    assert len(rows) == 1, f"no {name} on the node"
    last = rows[0].split()[-1]
    return dict(label.partition("=")[::2] for label in last.split(",")) if "=" in last else {}


def chain_id(image: Artifact) -> str:
    """Returns the snapshot that a container of the image stands on."""
    return chain_ids(image)[-1]


def chain_ids(image: Artifact) -> list[str]:
    """Returns the snapshots of an image's layers, the lowest first."""
    configuration = json.loads(own(image).blobs[image_id(image)])
    chains: list[str] = []
    for layer in configuration["rootfs"]["diff_ids"]:
        chains.append(digest(f"{chains[-1]} {layer}".encode()) if chains else layer)
    return chains


def layer_digests(image: Artifact) -> list[str]:
    """Returns the digests of an image's layers."""
    return [layer["digest"] for layer in json.loads(own(image).manifest)["layers"]]


def set_kubelet(node: Node, **settings: object) -> None:
    """Writes kubelet's configuration, to where EKS has it."""
    text = json.dumps({"kind": "KubeletConfiguration", **settings})
    node.shell(f"mkdir -p /etc/kubernetes/kubelet; cat >/etc/kubernetes/kubelet/config.json <<'END'\n{text}\nEND")


def used_bytes(node: Node) -> int:
    """Returns how much of the file system that containerd stores on is used."""
    return int(node.shell("df --block-size=1 --output=used /var/lib/containerd").split()[-1])
