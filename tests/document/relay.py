"""A relay at containerd's socket, or another of gRPC: it sees what is asked, and keeps back or refuses some of it."""

import contextlib
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hpack import Decoder

from .state import eventually

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, CONTINUATION = 0, 1, 3, 9
END_STREAM, END_HEADERS, PADDED, PRIORITY = 1, 4, 8, 32
CANCEL = struct.pack(">I", 8)

STATUS = "/runtime.v1.ImageService/ImageStatus"
PULL = "/runtime.v1.ImageService/PullImage"
IMAGES = "/containerd.services.images.v1.Images"
SNAPSHOTS = "/containerd.services.snapshots.v1.Snapshots"


@dataclass(frozen=True)
class Frame:
    """A frame of HTTP/2 (RFC 9113, 4.1)."""

    kind: int
    flags: int
    stream: int
    content: bytes

    def encoded(self) -> bytes:
        """Returns the frame as it is sent."""
        return (
            struct.pack(">I", len(self.content))[1:]
            + struct.pack(">BBI", self.kind, self.flags, self.stream)
            + (self.content)
        )


class Relay:
    """Stands where a Unix socket stood, which is moved aside, and passes on what comes."""

    def __init__(self, place: Path) -> None:
        self.behind = place.with_name(f"{place.name}.behind")
        """The socket itself, for those who are not to be kept back."""
        self._place = place
        self._held: dict[str, threading.Event] = {}
        self._refused: dict[str, tuple[int, str]] = {}
        self._calls: list[str] = []
        self._waiting: list[str] = []
        self._listener = socket.socket(socket.AF_UNIX)

    def start(self) -> None:
        """Takes the socket's place."""
        self._place.rename(self.behind)
        self._listener.bind(str(self._place))
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Lets everything pass, and gives the socket its place back; connections that stand go on."""
        for method in list(self._held):
            self.release(method)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.behind.rename(self._place)

    def hold(self, method: str) -> None:
        """Keeps back every request of a method from now on, until `release`."""
        self._held[method] = threading.Event()

    def release(self, method: str) -> None:
        """Sends what was kept back."""
        self._held.pop(method).set()

    def refuse(self, method: str, status: int, message: str = "") -> None:
        """Answers every request of a method with a status of gRPC from now on."""
        self._refused[method] = status, message

    def allow(self, method: str) -> None:
        """Refuses a method no longer."""
        del self._refused[method]

    def wait_for(self, method: str) -> None:
        """Returns once a request of the method is kept back."""
        assert eventually(lambda: method in self._waiting, seconds=20), f"nothing asks for {method}"

    def calls(self) -> list[str]:
        """Returns the methods that were asked for so far."""
        return list(self._calls)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self.behind))
                connection = _Connection(self, client, server)
                for pump in (connection.pass_on, connection.pass_back):
                    threading.Thread(target=pump, daemon=True).start()

    def _seen(self, method: str) -> tuple[threading.Event | None, tuple[int, str] | None]:
        """Remembers a request, and returns what keeps it back and what it is answered with."""
        self._calls.append(method)
        return self._held.get(method), self._refused.get(method)


@dataclass
class _Connection:
    """One connection of a client, and the one behind it."""

    relay: Relay
    client: socket.socket
    server: socket.socket
    to_client: threading.Lock = field(default_factory=threading.Lock)
    to_server: threading.Lock = field(default_factory=threading.Lock)
    kept: dict[int, list[Frame]] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)

    def pass_on(self) -> None:
        """Passes on what the client asks."""
        decoder, block = Decoder(), b""
        with contextlib.suppress(OSError, EOFError), self.server:
            self.server.sendall(_exactly(self.client, len(PREFACE)))
            for frame in _frames(self.client):
                kept = frame.kind == DATA and self._keep(frame)
                if kept or (frame.kind == DATA and frame.stream in self.refused):
                    continue
                self._send(frame)
                if frame.kind in (HEADERS, CONTINUATION):
                    block += _header_block(frame)
                    if frame.flags & END_HEADERS:
                        self._begin(frame.stream, dict(decoder.decode(block))[":path"])
                        block = b""
                if frame.kind == RST_STREAM:
                    self.kept.pop(frame.stream, None)
        _shut(self.server)

    def pass_back(self) -> None:
        """Passes back what the server answers."""
        with contextlib.suppress(OSError, EOFError), self.client:
            for frame in _frames(self.server):
                if frame.stream not in self.refused or frame.stream == 0:
                    self._answer(frame)
        _shut(self.client)

    def _begin(self, stream: int, method: str) -> None:
        held, refused = self.relay._seen(method)
        if refused:
            self.refused.add(stream)
            self._send(Frame(RST_STREAM, 0, stream, CANCEL))
            self._answer(Frame(HEADERS, END_HEADERS | END_STREAM, stream, _trailers(*refused)))
        elif held:
            self.kept[stream] = []
            threading.Thread(target=self._send_later, args=[stream, held, method], daemon=True).start()

    def _keep(self, frame: Frame) -> bool:
        with self.to_server:
            if frame.stream not in self.kept:
                return False
            self.kept[frame.stream].append(frame)
            return True

    def _send_later(self, stream: int, held: threading.Event, method: str) -> None:
        self.relay._waiting.append(method)
        held.wait()
        with self.to_server, contextlib.suppress(OSError):
            for frame in self.kept.pop(stream, []):
                self.server.sendall(frame.encoded())

    def _send(self, frame: Frame) -> None:
        with self.to_server:
            self.server.sendall(frame.encoded())

    def _answer(self, frame: Frame) -> None:
        with self.to_client:
            self.client.sendall(frame.encoded())


@contextlib.contextmanager
def relaying(place: Path) -> Iterator[Relay]:
    """Stands at a socket for a while."""
    relay = Relay(place)
    relay.start()
    try:
        yield relay
    finally:
        relay.stop()


def _frames(connection: socket.socket) -> Iterator[Frame]:
    while True:
        head = _exactly(connection, 9)
        kind, flags, stream = struct.unpack(">BBI", head[3:])
        yield Frame(kind, flags, stream & 0x7FFFFFFF, _exactly(connection, int.from_bytes(head[:3])))


def _exactly(connection: socket.socket, size: int) -> bytes:
    content = b""
    while len(content) < size:
        part = connection.recv(size - len(content))
        if not part:
            raise EOFError
        content += part
    return content


def _header_block(frame: Frame) -> bytes:
    content = frame.content
    if frame.kind == HEADERS and frame.flags & PADDED:
        content = content[1 : len(content) - content[0]]
    if frame.kind == HEADERS and frame.flags & PRIORITY:
        content = content[5:]
    return content


def _trailers(status: int, message: str) -> bytes:
    """Returns headers that are an answer of gRPC by themselves, none of which either side has to remember."""
    fields = [("content-type", "application/grpc"), ("grpc-status", str(status)), ("grpc-message", message)]
    return b"\x88" + b"".join(b"\x00" + _literal(name) + _literal(value) for name, value in fields)


def _literal(text: str) -> bytes:
    """Returns a string literal of HPACK (RFC 7541, 5.2), which may be as long as a message is."""
    content, size = text.encode(), b""
    if len(content) < 127:
        return bytes([len(content)]) + content
    rest = len(content) - 127
    while rest > 127:
        size += bytes([rest & 127 | 128])
        rest >>= 7
    return b"\x7f" + size + bytes([rest]) + content


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
