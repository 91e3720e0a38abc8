"""Runs a real OCI registry that wants a login as ECR does."""

import ctypes
import ctypes.util
import http.client
import json
import os
import re
import secrets
import signal
import ssl
import time
from collections.abc import Sequence
from pathlib import Path

from local.child import Child, descendants
from local.ecr.authority import Authority

TOOLS = Path(__file__).parents[2] / ".tools"
START_LIMIT_SECONDS = 10
ACCESS = re.compile(r'"((?:GET|HEAD|POST|PUT|PATCH|DELETE) \S+) HTTP/[\d.]+" (\d+)')


class Registry:
    """Runs docker-registry on port 443 of a loopback address, under the host names of ECR or others, for one user."""

    def __init__(
        self,
        folder: Path,
        address: str,
        hosts: Sequence[str],
        password: str,
        notify_url: str | None = None,
        *,
        user: str = "AWS",
        anonymous: bool = False,
    ) -> None:
        self.folder = folder
        self.address = address
        self.hosts = list(hosts)
        self.user = user
        self.password = password
        self.notify_url = notify_url
        self.url = f"https://{address}"
        self.anonymous = anonymous
        """Says whether no login is asked for; takes effect at the next start."""
        self._child: Child | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder / "ca")
        self.ca = self.authority.certificate

    def start(self) -> None:
        """Starts the registry and returns once it answers."""
        binary = TOOLS / "docker-registry/usr/bin/docker-registry"
        if not binary.exists():
            raise RuntimeError(f"{binary} is missing; local/install-node-tools unpacks it")
        configuration = self.folder / "registry.json"
        configuration.write_text(json.dumps(self._configuration(), indent=2))
        self._child = Child(
            [binary, "serve", configuration],
            env={"PATH": os.defpath, "SSL_CERT_FILE": str(self.ca), "OTEL_TRACES_EXPORTER": "none"},
            log=self.folder / "registry.log",
        )
        self._wait_until_it_answers()

    def stop(self) -> None:
        """Ends the registry; what was pushed stays in the folder."""
        if self._child:
            self._child.kill()
            self._child = None

    def pause(self, *, stall: bool = False) -> None:
        """Takes the registry down: connections are refused or, with `stall`, accepted and never answered."""
        if stall:
            self._signal(signal.SIGSTOP)
        else:
            self.stop()

    def resume(self) -> None:
        """Brings a paused registry back."""
        if self._child:
            self._signal(signal.SIGCONT)
        else:
            self.start()

    def requests(self, repository: str = "") -> list[str]:
        """Returns "METHOD path status" of every request so far, of one repository if given."""
        log = (self.folder / "registry.log").read_text()
        return [f"{request} {status}" for request, status in ACCESS.findall(log) if f"/v2/{repository}" in request]

    def _configuration(self) -> dict:
        certificate, key = self.authority.issue("registry", self.hosts, [self.address])
        configuration = {
            "version": 0.1,
            "log": {"level": "warn", "accesslog": {"disabled": False}},
            "storage": {"filesystem": {"rootdirectory": str(self.folder / "storage")}, "delete": {"enabled": True}},
            "http": {
                "addr": f"{self.address}:443",
                "secret": secrets.token_hex(),
                "tls": {"certificate": str(certificate), "key": str(key)},
            },
        }
        if not self.anonymous:
            users = self.folder / "htpasswd"
            users.write_text(f"{self.user}:{bcrypt(self.password)}\n")
            configuration["auth"] = {"htpasswd": {"realm": "ecr", "path": str(users)}}
        if self.notify_url:
            endpoint = {"name": "cloud", "url": self.notify_url, "timeout": "5s", "threshold": 3, "backoff": "1s"}
            configuration["notifications"] = {"endpoints": [endpoint]}
        return configuration

    def _wait_until_it_answers(self) -> None:
        assert self._child
        context = ssl.create_default_context(cafile=str(self.ca))
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while True:
            connection = http.client.HTTPSConnection(self.address, timeout=1, context=context)
            try:
                connection.request("GET", "/v2/")
                connection.getresponse()
                return
            except OSError as error:
                if not self._child.alive() or time.monotonic() > deadline:
                    words = self._child.last_words()
                    self.stop()
                    raise RuntimeError(f"no registry on {self.address}:443 ({error}): {words}") from error
                time.sleep(0.02)
            finally:
                connection.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._child
        for pid in descendants(self._child.pid):
            if Path(f"/proc/{pid}/exe").resolve().name == "docker-registry":
                os.kill(pid, number)


def bcrypt(password: str) -> str:
    """Returns a bcrypt hash, the one kind docker-registry reads; it looks at the first 72 bytes only."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    hashed = library.crypt(password.encode()[:72], b"$2b$04$" + secrets.token_hex(11).encode())
    if not hashed or not hashed.startswith(b"$2b$"):
        raise RuntimeError("this machine's libcrypt does not know bcrypt; install libxcrypt (Debian: libcrypt1)")
    return hashed.decode()
