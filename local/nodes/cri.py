"""Calls containerd as kubelet does: whether an image is here, to pull or remove it, and to run a pod."""

import subprocess
from pathlib import Path

SERVICE = "/runtime.v1.ImageService"
RUNTIME = "/runtime.v1.RuntimeService"
RUNNING = 1
"""A container's state, as CRI numbers them."""
HOST_NETWORK = b"\x08\x02"
"""A NamespaceOption whose network is the node's: `network` is field 1, NODE is 2."""


class NotReady(Exception):
    """CRI does not answer, or not yet."""


def image_status(socket: Path, reference: str) -> str | None:
    """Returns the id under which CRI knows an image, None where it knows none."""
    image = _image(socket, reference)
    return _field(image, 1).decode() if image else None


def pinned(socket: Path, reference: str) -> bool:
    """Tells whether CRI holds an image to be exempt from garbage collection."""
    return bool(_field(_image(socket, reference), 8))


def pull_image(socket: Path, reference: str, user: str, password: str) -> None:
    """Pulls an image."""
    login = _text(1, user) + _text(2, password)
    _call(socket, f"{SERVICE}/PullImage", _message(1, _text(1, reference)) + _message(2, login))


def remove_image(socket: Path, reference: str) -> None:
    """Removes an image with all its names."""
    _call(socket, f"{SERVICE}/RemoveImage", _message(1, _text(1, reference)))


def run_sandbox(socket: Path, name: str) -> str:
    """Runs a pod's sandbox on the node's network and returns its id."""
    return _field(_call(socket, f"{RUNTIME}/RunPodSandbox", _message(1, _sandbox(name))), 1).decode()


def start_container(socket: Path, sandbox: str, name: str, reference: str, named: str = "", volume: str = "") -> str:
    """Creates and starts a container of a pod's sandbox, of an image that is there, and returns its id.

    A kubelet gives the image's id for the `reference`, and beside it what the pod has `named`. An image that is the
    container's `volume` is mounted at /volume.
    """
    security = _message(2, _message(3, HOST_NETWORK))
    image = _text(1, reference) + (_text(18, named) if named else b"")
    mount = _text(1, "/volume") + _varint(3 << 3) + _varint(1) + _message(9, _text(1, volume))
    mounts = _message(7, mount) if volume else b""
    configuration = _message(1, _text(1, name)) + _message(2, image) + mounts + _message(15, security)
    request = _text(1, sandbox) + _message(2, configuration) + _message(3, _sandbox(name))
    container = _field(_call(socket, f"{RUNTIME}/CreateContainer", request), 1).decode()
    _call(socket, f"{RUNTIME}/StartContainer", _text(1, container))
    return container


def container_runs(socket: Path, container: str) -> bool:
    """Tells whether a container runs."""
    status = _field(_call(socket, f"{RUNTIME}/ContainerStatus", _text(1, container)), 1)
    return _field(status, 3) == _varint(RUNNING)


def stop_container(socket: Path, container: str) -> None:
    """Kills a container, which stays as an ended one."""
    _call(socket, f"{RUNTIME}/StopContainer", _text(1, container))


def remove_sandbox(socket: Path, sandbox: str) -> None:
    """Stops a pod and removes it with its container."""
    for method in ("StopPodSandbox", "RemovePodSandbox"):
        _call(socket, f"{RUNTIME}/{method}", _text(1, sandbox))


def _sandbox(name: str) -> bytes:
    """Returns a PodSandboxConfig."""
    metadata = _text(1, name) + _text(2, name) + _text(3, "default")
    return _message(1, metadata) + _message(8, _message(2, _message(1, HOST_NETWORK)))


def _image(socket: Path, reference: str) -> bytes:
    return _field(_call(socket, f"{SERVICE}/ImageStatus", _message(1, _text(1, reference))), 1)


def _call(socket: Path, method: str, request: bytes) -> bytes:
    frame = b"\0" + len(request).to_bytes(4, "big") + request
    curl = ["curl", "-sS", "--noproxy", "*", "--max-time", "60", "--http2-prior-knowledge"]
    curl += ["--unix-socket", str(socket), "-D", "/dev/stderr", "--data-binary", "@-"]
    curl += ["-H", "content-type: application/grpc", "-H", "te: trailers", f"http://localhost{method}"]
    answer = subprocess.run(curl, input=frame, check=False, capture_output=True, timeout=70)
    if b"grpc-status: 0" not in answer.stderr:
        raise NotReady(answer.stderr.decode(errors="replace").strip())
    return answer.stdout[5:]


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _text(number: int, content: str) -> bytes:
    return _message(number, content.encode())


def _varint(value: int) -> bytes:
    encoded = b""
    while value > 0x7F:
        encoded += bytes([value & 0x7F | 0x80])
        value >>= 7
    return encoded + bytes([value])


def _field(message: bytes, wanted: int) -> bytes:
    """Returns the first field `wanted` of a protobuf message, b"" if it has none or 0."""
    position = 0
    while position < len(message):
        key, position = _read_varint(message, position)
        value, position = _read_varint(message, position)
        if key & 7 == 2:
            content, position = message[position : position + value], position + value
        else:
            content = _varint(value) if value else b""
        if key >> 3 == wanted:
            return content
    return b""


def _read_varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[position]
        value |= (byte & 0x7F) << shift
        position += 1
        shift += 7
        if byte < 0x80:
            return value, position
