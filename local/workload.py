"""Has pods run on the nodes of a local cloud, and gives them images of another registry than AWS's."""

from local import images
from local.client import LocalCloud


def run_pod(cloud: LocalCloud, node: str, image: str) -> tuple[str, bool]:
    """Runs a pod on a node as kubelet does; returns its container and whether the image was there."""
    answer = cloud.control("POST", f"nodes/{node}/pods", {"image": image})
    return answer["container"], answer["present"]


def stop_container(cloud: LocalCloud, node: str, container: str) -> None:
    """Ends a container on a node, which its pod keeps."""
    cloud.control("DELETE", f"nodes/{node}/containers/{container}")


def push_foreign(cloud: LocalCloud, repository: str, tag: str, image: images.Artifact) -> str:
    """Pushes an image to the other registry, which is up from then on, and returns its full reference."""
    turn_foreign_registry(cloud, up=True)
    digest = images.push(cloud.foreign_url, cloud.foreign_ca, "", repository, tag, image)
    return f"{cloud.foreign_host}/{repository}:{tag}@{digest}"


def turn_foreign_registry(cloud: LocalCloud, up: bool) -> None:
    """Takes the other registry up, or down, as it is at first."""
    cloud.control("POST", "foreign-registry", {"up": up})
