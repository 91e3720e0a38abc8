"""Publishes the nodes' program as a stack does, a layer per processor, and tells the document's part of it."""

import json
from collections.abc import Mapping

from local import images

EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
ARTIFACT_TYPE = "application/vnd.eks-image-prefetch.program.v1"
DIGESTS = {"x86_64": "X8664Digest", "aarch64": "Arm64Digest"}
"""Says which of the published program's attributes has the digest for a processor, as `uname -m` calls it."""


def artifact(programs: Mapping[str, bytes]) -> images.Artifact:
    """Builds the artifact of the programs by processor, as functions/node-program pushes it."""
    layers = [("application/octet-stream", program) for program in programs.values()]
    built = images.manifest("application/vnd.oci.image.manifest.v1+json", (EMPTY_TYPE, b"{}"), layers)
    body = {**json.loads(built.manifest), "artifactType": ARTIFACT_TYPE}
    return images.Artifact(built.media_type, images.as_json(body), built.blobs)


def attributes(repository: str, programs: Mapping[str, bytes]) -> dict[str, str]:
    """Returns what the document's references to the published program stand for."""
    digests = {name: programs.get(processor) for processor, name in DIGESTS.items()}
    known = {name: images.digest(program) if program else "none" for name, program in digests.items()}
    return {"Repository": repository, "Deployment": "a deployment", **known}
