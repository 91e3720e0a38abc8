"""Stands before a registry, under its names: slow, breaking off, redirecting as ECR does, refusing, or serving what
no registry would store."""

import base64
import contextlib
import hashlib
import http.client
import re
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from local.ecr.registry import Registry

BLOB_HOST = "prod-eu-west-1-starport-layer-bucket.s3.eu-west-1.amazonaws.com"
CHUNK = 64 << 10
SMALL = 16 << 10
"""Bytes below which a blob is no layer worth keeping back."""
BLOB = re.compile(r"/v2/(.+)/blobs/(sha256:[0-9a-f]{64})$")
MANIFEST = re.compile(r"/v2/(.+)/manifests/(.+)$")
PASSED_ON = ("Accept", "Range")
PASSED_BACK = ("Content-Type", "Content-Length", "Content-Range", "Docker-Content-Digest", "Accept-Ranges")


class Front:
    """Serves a registry's images from an address of its own; what is pushed goes to the registry itself."""

    redirects = False
    """Says whether blobs are to be had at BLOB_HOST only, which refuses a login."""
    bytes_per_second: int | None = None
    """Says how fast each blob is sent."""
    breaks_after: int | None = None
    """The byte of a blob that is never sent, nor any beyond: the connection is closed there."""
    breaks_each_after: int | None = None
    """Tells after how many bytes of a layer each connection is closed."""
    ignores_ranges = False
    """Says whether whoever asks for a part of a layer gets all of it."""
    refusals: Callable[[str], int | None] = staticmethod(lambda path: None)
    """Says which status a path is answered with instead of what it asks for."""
    only_containerd = False
    """Says whether none but containerd is answered."""
    keeps_back: Callable[[str], bool] = staticmethod(lambda path: False)
    """Says which paths, beside layers, are answered only once what is kept back is sent."""
    page: bytes | None = None
    """Says what is answered to everything, as HTML with status 200, by one that is no registry."""
    names_digest: str | None = None
    """The digest that is named of every manifest that is offered, whatever it has."""
    refuses_at_blob_host: int | None = None
    """The status that is answered for blobs where they are to be had at BLOB_HOST."""

    def __init__(self, registry: Registry, address: str) -> None:
        self.registry = registry
        self.address = address
        self.hosts = [*registry.hosts, BLOB_HOST]
        self.ca = registry.ca
        self.user = registry.user
        self.anonymous = registry.anonymous
        self.password = registry.password
        """The one password that is accepted, from the next request on."""
        self.takes_for: dict[str, str] = {}
        """Blobs, by digest, in whose place others are sent."""
        self.sent: Counter[str] = Counter()
        """Says how many bytes of each blob were sent, by digest."""
        self.authorizations: set[str] = set()
        """The Authorization headers that came."""
        self._kept_back = 0
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._requests: list[str] = []
        self._sending: dict[object, str] = {}
        self._most_at_once = 0
        self._open = threading.Event()
        self._open.set()
        self._lock = threading.Lock()
        self._server: _Server | None = None
        certificate, key = registry.authority.issue("front", self.hosts, [address])
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(certificate, key)

    def start(self) -> None:
        """Begins to answer."""
        self._server = _Server(self, self._tls)
        threading.Thread(target=self._server.serve_forever, args=[0.02], daemon=True).start()

    def stop(self) -> None:
        """Breaks every connection off and takes no more."""
        server, self._server = self._server, None
        if server:
            self.release()
            server.shutdown()
            server.server_close()
            server.break_connections()

    def hold(self) -> None:
        """Keeps layers back from now on, until `release`; small blobs, such as configurations, pass."""
        self._open.clear()

    def release(self) -> None:
        """Sends what was kept back."""
        self._open.set()

    def wait_until_open(self, path: str) -> None:
        """Returns at once for a path that is not kept back."""
        if self.keeps_back(path):
            self._kept_back += 1
            self._open.wait()

    def is_asked_in_vain(self) -> bool:
        """Tells whether something beside layers was asked for while it is kept back."""
        return self._kept_back > 0

    def being_pulled(self) -> set[str]:
        """Returns the repositories of which layers are being sent or kept back."""
        with self._lock:
            return set(self._sending.values())

    def most_at_once(self) -> int:
        """Returns of how many repositories at once layers were sent or kept back, at most."""
        return self._most_at_once

    def requests(self, repository: str = "") -> list[str]:
        """Returns "METHOD path status" of every request so far, of one repository if given."""
        return [request for request in self._requests if f"/v2/{repository}" in request]

    def offer(self, repository: str, tag: str, media_type: str, manifest: bytes) -> str:
        """Serves a manifest that may be anything, and returns its digest."""
        digest = f"sha256:{hashlib.sha256(manifest).hexdigest()}"
        for name in (tag, digest):
            self._manifests[repository, name] = media_type, manifest
        return digest

    def login(self) -> str:
        """Returns the Authorization header that is accepted."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()

    def log(self, request: str) -> None:
        """Remembers a request that was answered."""
        self._requests.append(request)

    def manifest(self, path: str) -> tuple[str, bytes] | None:
        """Returns the type and content of a manifest that was offered, None for any other path."""
        match = MANIFEST.match(path)
        return self._manifests.get((match[1], match[2])) if match else None

    @contextlib.contextmanager
    def sending(self, repository: str):
        """Counts a layer while it is sent, which begins when layers are not kept back."""
        me = object()
        with self._lock:
            self._sending[me] = repository
            self._most_at_once = max(self._most_at_once, len(set(self._sending.values())))
        try:
            self._open.wait()
            yield
        finally:
            with self._lock:
                del self._sending[me]


class _Server(ThreadingHTTPServer):
    """Speaks TLS and knows its connections."""

    daemon_threads = True

    def __init__(self, front: Front, tls: ssl.SSLContext) -> None:
        super().__init__((front.address, 443), _Handler)
        self.front = front
        self._tls = tls
        self._connections: set[socket.socket] = set()

    def finish_request(self, request: socket.socket, client_address) -> None:
        """Makes the connection one of TLS, in its own thread."""
        with contextlib.suppress(OSError), self._tls.wrap_socket(request, server_side=True) as connection:
            self._connections.add(connection)
            try:
                super().finish_request(connection, client_address)
            finally:
                self._connections.discard(connection)

    def break_connections(self) -> None:
        """Ends all connections, whatever they are about."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address) -> None:
        """Keeps quiet: clients that go away are part of what is tested."""


class _Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def do_GET(self) -> None:
        """Answers with the content, or with what stands in its way."""
        front = self.server.front
        path = urlsplit(self.path).path
        front.wait_until_open(path)
        status = front.refusals(path)
        if front.only_containerd and not self.headers["User-Agent"].startswith("containerd/"):
            status = 503
        if "Authorization" in self.headers:
            front.authorizations.add(self.headers["Authorization"])
        at_blob_host = self.headers["Host"] == BLOB_HOST
        blob = BLOB.match(path)
        if status:
            self._answer(status, b'{"errors":[]}')
        elif front.page:
            self._answer(200, front.page, {"Content-Type": "text/html"})
        elif at_blob_host and ("Authorization" in self.headers or "X-Amz-Signature" not in self.path):
            self._answer(400, b"<Error><Code>InvalidArgument</Code><Message>Only one auth mechanism allowed</Message>")
        elif at_blob_host and front.refuses_at_blob_host:
            self._answer(front.refuses_at_blob_host, b"<Error><Code>AccessDenied</Code></Error>")
        elif not (at_blob_host or front.anonymous or self.headers["Authorization"] == front.login()):
            self._answer(401, b'{"errors":[{"code":"UNAUTHORIZED"}]}', {"WWW-Authenticate": 'Basic realm="ecr"'})
        elif manifest := front.manifest(path):
            digest = front.names_digest or f"sha256:{hashlib.sha256(manifest[1]).hexdigest()}"
            self._answer(200, manifest[1], {"Content-Type": manifest[0], "Docker-Content-Digest": digest})
        elif blob and front.redirects and not at_blob_host:
            self._answer(307, b"", {"Location": f"https://{BLOB_HOST}{path}?X-Amz-Signature=0"})
        else:
            self._pass_on(path)

    do_HEAD = do_GET

    def log_request(self, code="-", size="-") -> None:
        """Remembers the request."""
        self.server.front.log(f"{self.command} {self.path} {int(code)}")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _pass_on(self, path: str) -> None:
        front = self.server.front
        login = base64.b64encode(f"{front.registry.user}:{front.registry.password}".encode()).decode()
        headers = {name: self.headers[name] for name in PASSED_ON if name in self.headers}
        if front.ignores_ranges:
            headers.pop("Range", None)
        context = ssl.create_default_context(cafile=str(front.ca))
        upstream = http.client.HTTPSConnection(front.registry.address, timeout=60, context=context)
        with contextlib.closing(upstream):
            for digest, other in front.takes_for.items():
                path = path.replace(digest, other)
            upstream.request(self.command, path, headers={**headers, "Authorization": f"Basic {login}"})
            response = upstream.getresponse()
            self.send_response(response.status)
            for name in PASSED_BACK:
                if name in response.headers:
                    self.send_header(name, response.headers[name])
            self.end_headers()
            blob = BLOB.match(path)
            if self.command == "HEAD":
                return
            if not blob or int(response.headers["Content-Length"]) < SMALL:
                content = response.read()
                self.wfile.write(content)
                if blob:
                    front.sent[blob[2]] += len(content)
                return
            with front.sending(blob[1]):
                self._send(response, blob[2])

    def _send(self, response: http.client.HTTPResponse, digest: str) -> None:
        front, left = self.server.front, self.server.front.breaks_each_after
        sent = int(response.headers.get("Content-Range", "bytes 0-").removeprefix("bytes ").split("-")[0])
        while chunk := response.read(CHUNK):
            if front.breaks_after is not None and sent + len(chunk) > front.breaks_after:
                self.wfile.write(chunk[: max(0, front.breaks_after - sent)])
                return self._break()
            if left is not None and len(chunk) > left:
                self.wfile.write(chunk[:left])
                front.sent[digest] += left
                return self._break()
            self.wfile.write(chunk)
            sent += len(chunk)
            left = left and left - len(chunk)
            front.sent[digest] += len(chunk)
            if front.bytes_per_second:
                time.sleep(len(chunk) / front.bytes_per_second)

    def _break(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_WR)
