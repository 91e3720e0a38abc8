"""Puts ECR's API over the real registry: a pushed image is known to DescribeImages and raises AWS's events."""

import base64
import json
import random
import re
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime

from local.api import ApiError, Response, answer, check
from local.ecr.layer_uploads import LayerUploads
from local.ecr.registry import Registry
from local.eventbridge import events
from local.ministack import app, ecr
from local.settings import ACCOUNT, CENTRAL_ACCOUNT, REGISTRY_HOST

INDEX_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
MANIFEST_TYPES = (
    *INDEX_TYPES,
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
SHARED = ("DescribeImages", "BatchGetImage")
"""Lists what repositories of another account allow this one."""
TOKEN_SECONDS = 12 * 60 * 60
"""Says how long an authorization token is valid (ECR, GetAuthorizationToken)."""


@dataclass
class Image:
    """A manifest in a repository."""

    repository: str
    digest: str
    media_type: str
    manifest: dict
    tags: list[str] = field(default_factory=list)
    pushed_at: float = field(default_factory=time.time)
    status: str = "ACTIVE"

    @property
    def artifact_type(self) -> str | None:
        """Returns the artifact's media type; an index has none."""
        return self.manifest.get("artifactType") or self.manifest.get("config", {}).get("mediaType")

    def describe(self, size: int) -> dict:
        """Returns AWS's ImageDetail."""
        detail = {
            "registryId": ACCOUNT,
            "repositoryName": self.repository,
            "imageDigest": self.digest,
            "imageSizeInBytes": size,
            "imagePushedAt": self.pushed_at,
            "imageManifestMediaType": self.media_type,
            "imageStatus": self.status,
        }
        if self.tags:
            detail["imageTags"] = sorted(self.tags)
        if self.artifact_type:
            detail["artifactMediaType"] = self.artifact_type
        return detail


class Ecr:
    """The operations of the ECR API that are ours, and the registry's notifications."""

    def __init__(self, registry: Registry):
        self.registry = registry
        self.images: dict[str, dict[str, Image]] = {}
        self.expired = False
        """Says whether the logins that are handed out have expired."""
        self._deleted: dict[str, float] = {}
        """Says when each repository was deleted last."""
        self._lock = threading.Lock()
        self._uploads = LayerUploads(registry)
        self.operations = {
            **self._uploads.operations,
            "PutImage": self.put_image,
            "DescribeRepositories": self.describe_repositories,
            "DescribeImages": self.describe_images,
            "BatchGetImage": self.get_images,
            "BatchDeleteImage": self.delete_images,
            "UpdateImageStorageClass": self.move_image,
            "DeleteRepository": self.delete_repository,
            "GetAuthorizationToken": self.authorize,
        }

    def install(self) -> None:
        """Puts these operations in front of ministack's."""
        app.SERVICE_HANDLERS["ecr"] = self.handle
        ecr._delete_repository = self._delete_with_stack

    async def handle(self, method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
        """Answers one request."""
        operation = headers.get("x-amz-target", "").rpartition(".")[2]
        request = json.loads(body or "{}")
        try:
            if operation in self.operations:
                check("ecr", operation, request)
                account = _asked_account(operation, request)
                return answer(_of_account(self.operations[operation](request), account))
        except ApiError as error:
            return error.response()
        return await ecr.handle_request(method, path, headers, body, query)

    def pushed(self, repository: str, digest: str, tag: str | None, at: float) -> None:
        """Takes note of a push: the tag moves to the image, and ECR's event is raised.

        The registry tells of it a little later; the repository may be deleted since.
        """
        if at < self._deleted.get(repository, 0):
            return
        media_type, manifest = self._manifest(repository, digest)
        with self._lock:
            if repository not in ecr._repositories:
                ecr._create_repository({"repositoryName": repository})
            images = self.images.setdefault(repository, {})
            image = images.setdefault(digest, Image(repository, digest, media_type, manifest))
            if tag:
                for other in images.values():
                    other.tags = [kept for kept in other.tags if kept != tag]
                image.tags.append(tag)
        self._raise("PUSH", image, tag or "")

    def describe_repositories(self, request: dict) -> dict:
        """DescribeRepositories, paged."""
        names = request.get("repositoryNames") or sorted(ecr._repositories)
        for name in names:
            self._repository(name)
        names, rest = _page(names, request, 100)
        return {"repositories": [ecr._repo_shape(ecr._repositories[name]) for name in names], **rest}

    def describe_images(self, request: dict) -> dict:
        """DescribeImages, paged, in no order; of active images unless others are asked for."""
        images = self._repository(request["repositoryName"])
        wanted = request.get("filter", {}).get("imageStatus", "ACTIVE")
        if "imageIds" in request:
            if request.keys() & {"maxResults", "nextToken"}:
                message = "Invalid parameter at 'maxResults' failed to satisfy constraint: not with 'imageIds'"
                raise ApiError("InvalidParameterException", message)
            found = [self._image(request["repositoryName"], id_, wanted) for id_ in request["imageIds"]]
        else:
            found = [image for image in images.values() if wanted in ("ANY", image.status)]
            random.Random(request["repositoryName"]).shuffle(found)
        status = request.get("filter", {}).get("tagStatus", "ANY")
        if status != "ANY":
            found = [image for image in found if bool(image.tags) == (status == "TAGGED")]
        found, rest = _page(found, request, 100)
        return {"imageDetails": [image.describe(self._size(image)) for image in found], **rest}

    def get_images(self, request: dict) -> dict:
        """BatchGetImage: the manifests as the registry has them."""
        found, failures = [], []
        for id_ in request["imageIds"]:
            try:
                image = self._image(request["repositoryName"], id_)
            except ApiError as error:
                if error.code != "ImageNotFoundException":
                    raise
                reason = "Requested image not found"
                failures.append({"imageId": id_, "failureCode": "ImageNotFound", "failureReason": reason})
                continue
            media_type, manifest = self._request(image.repository, image.digest, "GET")
            row = {
                "registryId": ACCOUNT,
                "repositoryName": image.repository,
                "imageId": {"imageDigest": image.digest, **id_},
                "imageManifest": manifest.decode(),
                "imageManifestMediaType": media_type,
            }
            found.append(row)
        return {"images": found, "failures": failures}

    def put_image(self, request: dict) -> dict:
        """PutImage; the registry tells a moment later, and then the image is known."""
        images = self._repository(request["repositoryName"])
        tagged = {tag: image.digest for image in images.values() for tag in image.tags}
        return self._uploads.put_image(request, tagged)

    def delete_images(self, request: dict) -> dict:
        """BatchDeleteImage: a tag goes alone while others stay, a digest goes with all its tags."""
        deleted, failures = [], []
        for id_ in request["imageIds"]:
            try:
                deleted += self._delete(self._image(request["repositoryName"], id_), id_.get("imageTag"))
            except ApiError as error:
                failures.append({"imageId": id_, "failureCode": "ImageNotFound", "failureReason": error.message})
        return {"imageIds": deleted, "failures": failures}

    def move_image(self, request: dict) -> dict:
        """UpdateImageStorageClass: into the archive, or out of it."""
        image = self._image(request["repositoryName"], request["imageId"])
        target = request["targetStorageClass"]
        image.status = "ARCHIVED" if target == "ARCHIVE" else "ACTIVE"
        moved_at = "last-archived-at" if target == "ARCHIVE" else "last-activated-at"
        detail = {
            "result": "SUCCESS",
            "repository-name": image.repository,
            "image-digest": image.digest,
            "action-type": "UPDATE_STORAGE_CLASS",
            "target-storage-class": target,
            moved_at: datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        }
        events.emit("aws.ecr", "ECR Image Action", detail, [])
        return {
            "registryId": ACCOUNT,
            "repositoryName": image.repository,
            "imageId": {"imageDigest": image.digest},
            "imageStatus": image.status,
        }

    def delete_repository(self, request: dict) -> dict:
        """DeleteRepository."""
        name = request["repositoryName"]
        images = self._repository(name)
        if images and not request.get("force"):
            message = f"The repository with name '{name}' in registry with id '{ACCOUNT}' cannot be deleted"
            raise ApiError("RepositoryNotEmptyException", f"{message} because it still contains images")
        self.images.pop(name, None)
        self._deleted[name] = time.time()
        return {"repository": ecr._repo_shape(ecr._repositories.pop(name))}

    def _delete_with_stack(self, request: dict) -> Response:
        """Deletes a repository as CloudFormation does."""
        try:
            return answer(self.delete_repository(request))
        except ApiError as error:
            return error.response()

    def authorize(self, request: dict) -> dict:
        """GetAuthorizationToken: the login of the registry."""
        password = "expired" if self.expired else self.registry.password
        token = base64.b64encode(f"AWS:{password}".encode()).decode()
        data = {
            "authorizationToken": token,
            "expiresAt": time.time() + TOKEN_SECONDS,
            "proxyEndpoint": f"https://{REGISTRY_HOST}",
        }
        return {"authorizationData": [data]}

    def _repository(self, name: str) -> dict[str, Image]:
        if name not in ecr._repositories:
            message = f"The repository with name '{name}' does not exist in the registry with id '{ACCOUNT}'"
            raise ApiError("RepositoryNotFoundException", message)
        return self.images.get(name, {})

    def _image(self, repository: str, id_: dict, status: str = "ANY") -> Image:
        digest, tag = id_.get("imageDigest"), id_.get("imageTag")
        for image in self._repository(repository).values():
            is_it = digest in (None, image.digest) and (tag is None or tag in image.tags)
            if is_it and status in ("ANY", image.status):
                return image
        wanted = f"{{imageDigest:'{digest or 'null'}', imageTag:'{tag or 'null'}'}}"
        message = f"The image with imageId {wanted} does not exist within the repository with name '{repository}'"
        raise ApiError("ImageNotFoundException", f"{message} in the registry with id '{ACCOUNT}'")

    def _delete(self, image: Image, tag: str | None) -> list[dict]:
        gone = [tag] if tag else image.tags
        image.tags = [kept for kept in image.tags if kept not in gone]
        if not image.tags:
            del self.images[image.repository][image.digest]
            self._request(image.repository, image.digest, "DELETE")
        self._raise("DELETE", image, gone[0] if gone else "")
        return [{"imageDigest": image.digest, "imageTag": tag} for tag in gone] or [{"imageDigest": image.digest}]

    def _size(self, image: Image) -> int:
        """Returns the compressed size; of an index that of its largest image."""
        children = image.manifest.get("manifests")
        if children is None:
            return sum(layer["size"] for layer in image.manifest.get("layers", []))
        images = self.images[image.repository]
        return max((self._size(images[c["digest"]]) for c in children if c["digest"] in images), default=0)

    def _raise(self, action: str, image: Image, tag: str) -> None:
        detail = {
            "result": "SUCCESS",
            "repository-name": image.repository,
            "image-digest": image.digest,
            "action-type": action,
            "image-tag": tag,
            "manifest-media-type": image.media_type,
        }
        if image.artifact_type:
            detail["artifact-media-type"] = image.artifact_type
        events.emit("aws.ecr", "ECR Image Action", detail, [])

    def _manifest(self, repository: str, digest: str) -> tuple[str, dict]:
        media_type, body = self._request(repository, digest, "GET")
        return media_type, json.loads(body)

    def _request(self, repository: str, digest: str, method: str) -> tuple[str, bytes]:
        login = base64.b64encode(f"AWS:{self.registry.password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.registry.url}/v2/{repository}/manifests/{digest}",
            method=method,
            headers={"Authorization": f"Basic {login}", "Accept": ", ".join(MANIFEST_TYPES)},
        )
        context = ssl.create_default_context(cafile=self.registry.ca)
        with urllib.request.urlopen(request, context=context, timeout=10) as response:
            return response.headers["Content-Type"], response.read()


def _asked_account(operation: str, request: dict) -> str:
    """Returns the account whose registry is asked, where that is this one or its repositories allow it."""
    account = request.get("registryId", ACCOUNT)
    if account != ACCOUNT and (account != CENTRAL_ACCOUNT or operation not in SHARED):
        resource = f"the registry of account {account}"
        message = f"ecr:{operation} on {resource} because no resource-based policy allows the ecr:{operation} action"
        raise ApiError("AccessDeniedException", f"The caller is not authorized to perform: {message}")
    return account


def _of_account(answered: dict, account: str) -> dict:
    """Has images be of the account that was asked."""
    for row in [*answered.get("imageDetails", []), *answered.get("images", [])]:
        row["registryId"] = account
    return answered


def _page(rows: list, request: dict, default: int) -> tuple[list, dict]:
    """Returns one page and its token, spelled as ECR spells them."""
    token = request.get("nextToken", "0")
    if not re.fullmatch("[0-9]{1,9}", token):
        raise ApiError("InvalidParameterException", "Invalid parameter at 'nextToken' failed to satisfy constraint")
    start = int(token)
    end = start + request.get("maxResults", default)
    return rows[start:end], {"nextToken": str(end)} if end < len(rows) else {}
