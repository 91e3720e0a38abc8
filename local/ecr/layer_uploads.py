"""Adds the calls by which ECR's own API takes an image: layers in parts, then the manifest."""

import base64
import hashlib
import json
import uuid

from local import images
from local.api import ApiError
from local.ecr.registry import Registry
from local.ministack import ecr
from local.settings import ACCOUNT

PART_BYTES = 10 << 20
"""Says how large a part ECR suggests."""
MAX_PART_BYTES = 20 << 20
"""Says how large a part may be (ECR API reference, UploadLayerPart)."""
MIN_PART_BYTES = 5 << 20
"""Says how large a part is that is not the last (ECR API reference, CompleteLayerUpload)."""


class LayerUploads:
    """The uploads under way, and what becomes of them in the registry."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self._parts: dict[str, list[bytes]] = {}
        self.operations = {
            "BatchCheckLayerAvailability": self.check,
            "InitiateLayerUpload": self.initiate,
            "UploadLayerPart": self.take_part,
            "CompleteLayerUpload": self.complete,
            "PutImage": self.put_image,
        }

    def check(self, request: dict) -> dict:
        """BatchCheckLayerAvailability."""
        name = _existing(request)
        with self._session() as registry:
            layers = [
                {
                    "layerDigest": digest,
                    "layerAvailability": "AVAILABLE" if _has(registry, name, digest) else "UNAVAILABLE",
                }
                for digest in request["layerDigests"]
            ]
        return {"layers": layers, "failures": []}

    def initiate(self, request: dict) -> dict:
        """InitiateLayerUpload."""
        _existing(request)
        upload = str(uuid.uuid4())
        self._parts[upload] = []
        return {"uploadId": upload, "partSize": PART_BYTES}

    def take_part(self, request: dict) -> dict:
        """UploadLayerPart: parts come in their order, each as long as it says."""
        name, parts = _existing(request), self._upload(request)
        part = base64.b64decode(request["layerPartBlob"])
        received = sum(map(len, parts))
        first, last = request["partFirstByte"], request["partLastByte"]
        if first != received or last - first + 1 != len(part) or len(part) > MAX_PART_BYTES:
            raise ApiError(
                "InvalidLayerPartException", f"The part {first}-{last} is not valid; {received} bytes are here."
            )
        parts.append(part)
        return {
            "registryId": ACCOUNT,
            "repositoryName": name,
            "uploadId": request["uploadId"],
            "lastByteReceived": last,
        }

    def complete(self, request: dict) -> dict:
        """CompleteLayerUpload: the parts become a layer where they have its digest."""
        name, parts, [digest, *_] = _existing(request), self._upload(request), request["layerDigests"]
        layer = b"".join(parts)
        if not layer:
            raise ApiError("EmptyUploadException", "The specified layer upload does not contain any layer parts.")
        if any(len(part) < MIN_PART_BYTES for part in parts[:-1]):
            raise ApiError(
                "LayerPartTooSmallException", f"Layer parts must be at least {MIN_PART_BYTES} bytes in size."
            )
        if images.digest(layer) != digest:
            raise ApiError("InvalidLayerException", "The layer digest does not match the layer that was uploaded.")
        del self._parts[request["uploadId"]]
        with self._session() as registry:
            if _has(registry, name, digest):
                raise ApiError("LayerAlreadyExistsException", f"The layer with digest '{digest}' already exists.")
            images.upload_blob(registry.request, name, digest, layer)
        return {"registryId": ACCOUNT, "repositoryName": name, "uploadId": request["uploadId"], "layerDigest": digest}

    def put_image(self, request: dict, tagged: dict[str, str]) -> dict:
        """PutImage, into a repository with these digests by tag; of the push itself the registry tells."""
        name, manifest, tag = _existing(request), request["imageManifest"].encode(), request.get("imageTag")
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        if request.get("imageDigest", digest) != digest:
            raise ApiError("ImageDigestDoesNotMatchException", "The image's digest is another than the specified one.")
        # Also where the digest is the same (aws/containers-roadmap#2179).
        if tag in tagged and ecr._repositories[name]["imageTagMutability"] == "IMMUTABLE":
            message = f"The image tag '{tag}' already exists in the '{name}' repository and cannot be overwritten"
            raise ApiError("ImageTagAlreadyExistsException", f"{message} because the tag is immutable.")
        if tagged.get(tag) == digest:
            raise ApiError(
                "ImageAlreadyExistsException", f"Image with digest '{digest}' and tag '{tag}' already exists."
            )
        body = json.loads(manifest)
        with self._session() as registry:
            missing = [
                blob["digest"] for blob in [body["config"], *body["layers"]] if not _has(registry, name, blob["digest"])
            ]
            if missing:
                raise ApiError(
                    "LayersNotFoundException", f"Layers with digests '{missing}' required for pushing not found"
                )
            path = f"/v2/{name}/manifests/{tag or digest}"
            media_type = {"Content-Type": request.get("imageManifestMediaType", body["mediaType"])}
            registry.request("PUT", path, manifest, media_type, images.STORED)
        id_ = {"imageDigest": digest} | ({"imageTag": tag} if tag else {})
        return {
            "image": {
                "registryId": ACCOUNT,
                "repositoryName": name,
                "imageId": id_,
                "imageManifest": request["imageManifest"],
            }
        }

    def _upload(self, request: dict) -> list[bytes]:
        if request["uploadId"] not in self._parts:
            raise ApiError("UploadNotFoundException", f"The upload with id '{request['uploadId']}' could not be found.")
        return self._parts[request["uploadId"]]

    def _session(self) -> images.Session:
        return images.Session(self.registry.url, self.registry.ca, "AWS", self.registry.password)


def _existing(request: dict) -> str:
    """Returns the name of the repository that a request is about."""
    name = request["repositoryName"]
    if name not in ecr._repositories:
        message = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
        raise ApiError("RepositoryNotFoundException", message)
    return name


def _has(registry: images.Session, name: str, digest: str) -> bool:
    status, _ = registry.request("HEAD", f"/v2/{name}/blobs/{digest}", b"", images.OCTETS, (200, 404))
    return status == 200
