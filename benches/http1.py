"""Speaks as much of HTTP/1.1 as an SDK does, in microseconds: http.server takes longer than what is measured."""

import socket
from dataclasses import dataclass
from typing import BinaryIO


@dataclass(frozen=True)
class Request:
    """One request; the names of its headers are in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Connection:
    """One connection of a client, request after request."""

    def __init__(self, connection: socket.socket):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = connection
        self._reader: BinaryIO = connection.makefile("rb")

    def fileno(self) -> int:
        """Returns the file descriptor, for select."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes the connection."""
        self._reader.close()
        self._socket.close()

    def read(self) -> Request | None:
        """Returns the next request, None where the client has closed."""
        line = self._reader.readline()
        if not line:
            return None
        method, path, _ = line.decode().split(" ", 2)
        headers = {}
        while line := self._reader.readline().decode().strip():
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if "transfer-encoding" in headers:
            raise ValueError(f"{method} {path}: chunked requests are not read here")
        if headers.get("expect") == "100-continue":
            self._socket.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        return Request(method, path, headers, self._reader.read(int(headers.get("content-length", 0))))

    def answer(self, status: str, content_type: str, body: bytes, **headers: str) -> None:
        """Sends a response in one piece."""
        head = {"content-type": content_type, "content-length": str(len(body)), **headers}
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in head.items())
        self._socket.sendall(f"HTTP/1.1 {status}\r\n{lines}\r\n".encode() + body)
