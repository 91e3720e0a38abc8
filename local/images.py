"""Makes real OCI images and artifacts in memory, and pushes them over HTTP."""

import base64
import dataclasses
import gzip
import hashlib
import http.client
import io
import json
import platform
import random
import ssl
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

OCI = "application/vnd.oci.image"
DOCKER = "application/vnd.docker"
OCTETS = {"Content-Type": "application/octet-stream"}
STORED = (200, 201, 202)
PIECE = 64 << 20
OWN_ARCHITECTURE = "arm64" if platform.machine() == "aarch64" else "amd64"
"""Names this machine's processor, as images do."""

Request = Callable[[str, str, bytes, Mapping[str, str], Sequence[int]], tuple[int, str]]
"""Sends method, path, body and headers to a registry; returns the status, one of those accepted, and the Location."""


@dataclass(frozen=True)
class Artifact:
    """One manifest with the blobs and the child manifests that it refers to."""

    media_type: str
    manifest: bytes
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    children: Sequence["Artifact"] = ()
    platform: Mapping[str, str] | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """Returns the manifest's digest."""
        return digest(self.manifest)

    @property
    def size(self) -> int:
        """Returns the compressed size in bytes: manifest, configuration and layers, without children."""
        return len(self.manifest) + sum(map(len, self.blobs.values()))


def image(
    content: str = "hello",
    *,
    architecture: str = "amd64",
    system: str = "linux",
    layers: int = 1,
    layer_bytes: int = 0,
    zeros: int = 0,
    small_files: int = 0,
    base: Artifact | None = None,
    compressed: bool = True,
    tells_size: bool = False,
    docker: bool = False,
    program: bytes = b"",
) -> Artifact:
    """Builds an image whose layers hold `content` and, each, `layer_bytes` of random data, zeros and small files.

    They lie upon the layers of `base`. With `tells_size`, the manifest says how large they are once unpacked, in
    eStargz's annotation; otherwise only the media type of those that are not compressed does. A container of the image
    runs `program`, where that is given.
    """
    tars = [
        archive(_files(content, number, layer_bytes, zeros, small_files, program if number == 0 else b""))
        for number in range(layers)
    ]
    configuration = _configuration(architecture, system, bool(program), [*_layers_of(base), *map(digest, tars)])
    manifest_type, config_type, layer_type = _media_types(docker, compressed)
    built = manifest(
        manifest_type,
        (config_type, configuration),
        [(layer_type, gzip.compress(tar, compresslevel=1, mtime=0) if compressed else tar) for tar in tars],
        platform={"architecture": architecture, "os": system},
        sizes=[len(tar) for tar in tars] if tells_size else (),
    )
    return upon(base, built) if base else built


def _files(content: str, layer: int, noisy: int, zeros: int, small_files: int, program: bytes) -> dict[str, bytes]:
    """Returns the files of one of an image's layers."""
    return {
        "program": program,
        f"layer-{layer}.txt": content.encode(),
        f"layer-{layer}.bin": noise(f"{content}{layer}", noisy),
        f"layer-{layer}.zeros": bytes(zeros),
        **{f"layer-{layer}/{file}": b"x" for file in range(small_files)},
    }


def _configuration(architecture: str, system: str, runs: bool, layers: list[str]) -> bytes:
    """Returns the configuration of an image that consists of these layers."""
    return as_json(
        {
            "architecture": architecture,
            "os": system,
            "created": "2024-01-01T00:00:00Z",
            "config": {"Cmd": ["/program" if runs else "/layer-0.txt"]},
            "rootfs": {"type": "layers", "diff_ids": layers},
        }
    )


def _layers_of(base: Artifact | None) -> list[str]:
    """Returns the digests of an image's layers, unpacked; none of no image."""
    return json.loads(base.blobs[json.loads(base.manifest)["config"]["digest"]])["rootfs"]["diff_ids"] if base else []


def _media_types(docker: bool, compressed: bool) -> tuple[str, str, str]:
    """Returns the media types of a manifest, a configuration and a layer, in Docker's names or OCI's."""
    if docker:
        layer = f"{DOCKER}.image.rootfs.diff.tar{'.gzip' if compressed else ''}"
        return f"{DOCKER}.distribution.manifest.v2+json", f"{DOCKER}.container.image.v1+json", layer
    return f"{OCI}.manifest.v1+json", f"{OCI}.config.v1+json", f"{OCI}.layer.v1.tar{'+gzip' if compressed else ''}"


def upon(base: Artifact, image: Artifact) -> Artifact:
    """Puts the layers of `image` upon those of `base`."""
    body = json.loads(image.manifest)
    body["layers"] = json.loads(base.manifest)["layers"] + body["layers"]
    return dataclasses.replace(image, manifest=as_json(body), blobs={**base.blobs, **image.blobs})


def index(children: Sequence[Artifact], *, docker: bool = False) -> Artifact:
    """Builds a multi-platform index, or Docker's manifest list, of `children`."""
    media_type = f"{DOCKER}.distribution.manifest.list.v2+json" if docker else f"{OCI}.index.v1+json"
    rows = [
        descriptor(child.media_type, child.manifest)
        | ({"platform": child.platform} if child.platform else {})
        | ({"annotations": child.annotations} if child.annotations else {})
        for child in children
    ]
    return Artifact(
        media_type,
        as_json({"schemaVersion": 2, "mediaType": media_type, "manifests": rows}),
        children=children,
    )


def multi_platform(content: str = "hello", *architectures: str, **options: int) -> Artifact:
    """Builds an index of one image per architecture, amd64 and arm64 if none is named."""
    return index([image(content, architecture=name, **options) for name in architectures or ("amd64", "arm64")])


def attestation(subject: Artifact) -> Artifact:
    """Builds the attestation manifest that BuildKit puts beside `subject` in an index."""
    statement = as_json({"_type": "https://in-toto.io/Statement/v0.1", "subject": [{"digest": subject.digest}]})
    built = manifest(
        f"{OCI}.manifest.v1+json",
        (f"{OCI}.config.v1+json", as_json({"architecture": "unknown", "os": "unknown"})),
        [("application/vnd.in-toto+json", statement)],
        platform={"architecture": "unknown", "os": "unknown"},
    )
    reference = {
        "vnd.docker.reference.digest": subject.digest,
        "vnd.docker.reference.type": "attestation-manifest",
    }
    return Artifact(built.media_type, built.manifest, built.blobs, (), built.platform, reference)


def chart(name: str = "hello") -> Artifact:
    """Builds a Helm chart as `helm push` stores it."""
    return manifest(
        f"{OCI}.manifest.v1+json",
        ("application/vnd.cncf.helm.config.v1+json", as_json({"name": name, "version": "0.1.0", "apiVersion": "v2"})),
        [("application/vnd.cncf.helm.chart.content.v1.tar+gzip", gzip.compress(archive({f"{name}/Chart.yaml": b""})))],
    )


def signature(subject: Artifact) -> Artifact:
    """Builds a cosign signature of `subject`, to be pushed under `signature_tag(subject)`."""
    payload = as_json({"critical": {"image": {"docker-manifest-digest": subject.digest}}})
    return manifest(
        f"{OCI}.manifest.v1+json",
        (f"{OCI}.config.v1+json", as_json({"architecture": "", "os": "", "rootfs": {"type": "layers"}})),
        [("application/vnd.dev.cosign.simplesigning.v1+json", payload)],
    )


def signature_tag(subject: Artifact) -> str:
    """Returns the tag under which cosign stores the signature of `subject`."""
    return subject.digest.replace(":", "-") + ".sig"


def oci_archive(name: str, image: Artifact) -> bytes:
    """Returns a tar file from which containerd imports an image under a name (OCI image layout)."""
    row = descriptor(image.media_type, image.manifest) | {"annotations": {"io.containerd.image.name": name}}
    contents = [image.manifest, *image.blobs.values()]
    return archive(
        {
            "oci-layout": as_json({"imageLayoutVersion": "1.0.0"}),
            "index.json": as_json({"schemaVersion": 2, "manifests": [row]}),
            **{f"blobs/sha256/{digest(content).removeprefix('sha256:')}": content for content in contents},
        }
    )


def push(
    registry_url: str,
    ca: Path,
    password: str,
    repository: str,
    tag: str | None,
    artifact: Artifact,
    user: str = "AWS",
) -> str:
    """Pushes an artifact, its blobs and children first, as `docker push` does, and returns its digest."""
    with Session(registry_url, ca, user, password) as session:
        upload(session.request, repository, tag, artifact)
    return artifact.digest


def upload(request: Request, repository: str, tag: str | None, artifact: Artifact) -> None:
    """Uploads an artifact, blobs and children first, each blob in one piece (OCI distribution specification)."""
    for child in artifact.children:
        upload(request, repository, None, child)
    for name, blob in artifact.blobs.items():
        upload_blob(request, repository, name, blob)
    path = f"/v2/{repository}/manifests/{tag or artifact.digest}"
    request("PUT", path, artifact.manifest, {"Content-Type": artifact.media_type}, STORED)


def upload_blob(request: Request, repository: str, name: str, blob: bytes) -> None:
    """Uploads a blob in one piece, where it is not there yet."""
    status, _ = request("HEAD", f"/v2/{repository}/blobs/{name}", b"", OCTETS, (200, 404))
    if status == 200:
        return
    _, location = request("POST", f"/v2/{repository}/blobs/uploads/", b"", OCTETS, STORED)
    target = urlsplit(location)
    query = f"{target.query}&" if target.query else ""
    request("PUT", f"{target.path}?{query}digest={name}", blob, OCTETS, STORED)


class Session:
    """Speaks the registry's HTTP API over one connection."""

    def __init__(self, url: str, ca: Path, user: str, password: str) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        self._connection = http.client.HTTPSConnection(urlsplit(url).netloc, timeout=60, context=context)
        self._login = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()

    def request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], accept: Sequence[int]
    ) -> tuple[int, str]:
        """Sends a request, as Request says."""
        self._connection.request(method, path, body, {**headers, "Authorization": self._login})
        response = self._connection.getresponse()
        answer = response.read()
        if response.status not in accept:
            raise RuntimeError(f"{method} {path}: {response.status} {answer.decode(errors='replace')[:500]}")
        return response.status, response.headers.get("Location", "")


def manifest(
    media_type: str,
    configuration: tuple[str, bytes],
    layers: Sequence[tuple[str, bytes]],
    platform: Mapping[str, str] | None = None,
    sizes: Sequence[int] = (),
) -> Artifact:
    """Builds a manifest of a configuration and layers, each given as (media type, content).

    `sizes` are what the layers take unpacked, to be told in eStargz's annotation.
    """
    body = {
        "schemaVersion": 2,
        "mediaType": media_type,
        "config": descriptor(*configuration),
        "layers": [descriptor(*layer) for layer in layers],
    }
    for layer, size in zip(body["layers"], sizes, strict=False):
        layer["annotations"] = {"io.containers.estargz.uncompressed-size": str(size)}
    blobs = {digest(content): content for _, content in [configuration, *layers]}
    return Artifact(media_type, as_json(body), blobs, platform=platform)


def descriptor(media_type: str, content: bytes) -> dict:
    """Returns the OCI descriptor of some content."""
    return {"mediaType": media_type, "digest": digest(content), "size": len(content)}


def digest(content: bytes) -> str:
    """Returns the sha256 digest of some content."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def noise(seed: str, size: int) -> bytes:
    """Returns `size` bytes that look random and are the same for the same seed."""
    generator = random.Random(seed)  # which gives less than 256 MiB at once
    return b"".join(generator.randbytes(min(PIECE, size - at)) for at in range(0, size, PIECE))


def archive(files: Mapping[str, bytes]) -> bytes:
    """Returns a tar file of `files`; empty ones are left out."""
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as tar:
        for name, content in files.items():
            if content:
                entry = tarfile.TarInfo(name)
                entry.size, entry.mode = len(content), 0o755
                tar.addfile(entry, io.BytesIO(content))
    return output.getvalue()


def as_json(value: object) -> bytes:
    """Returns compact JSON."""
    return json.dumps(value, separators=(",", ":")).encode()
