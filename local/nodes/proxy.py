"""Runs a proxy, through which alone a network can be reached (CONNECT, RFC 9110, 9.3.6)."""

import contextlib
import socket
import threading
from collections.abc import Mapping


class Proxy:
    """Listens on a loopback address and leads to the hosts that it knows."""

    def __init__(self, address: str, hosts: Mapping[str, str], port: int = 3128) -> None:
        self.hosts = hosts
        """The addresses of the hosts that can be reached."""
        self.url = f"http://{address}:{port}"
        self._listener = socket.socket()
        self._listener.bind((address, port))
        self._asked: list[str] = []

    def start(self) -> None:
        """Begins to lead."""
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        """Takes no more connections."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def asked(self) -> list[str]:
        """Returns the hosts that were asked for so far, with their ports."""
        return list(self._asked)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._lead, args=[client], daemon=True).start()

    def _lead(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                part = client.recv(4096)
                if not part:
                    return
                head += part
            method, target, _ = head.decode("latin-1").split(" ", 2)
            self._asked.append(target)
            host, _, port = target.rpartition(":")
            if method != "CONNECT" or host not in self.hosts:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
                return
            with socket.create_connection((self.hosts[host], int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=_pump, args=[server, client], daemon=True)
                back.start()
                _pump(client, server)
                back.join()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(64 << 10):
            sink.sendall(part)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
