"""Serves layers from elsewhere, over connections that are limited, as ECR's registry does: by nginx on loopback."""

import contextlib
import copy
import fcntl
import os
import re
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from benches.pulls import free_address
from local.child import Child
from local.ecr.registry import TOOLS, Registry

SO_MAX_PACING_RATE = 47
"""Limits the bytes per second that a connection is written (Linux, socket.h); a listener hands it on to each."""
NGINX = TOOLS / "nginx/usr/sbin/nginx"
CONFIGURATION = """
daemon off; user root; pid {folder}/pid; error_log stderr warn;
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/access.log; sendfile on; tcp_nodelay on;
  client_body_temp_path {folder}/1; proxy_temp_path {folder}/2; fastcgi_temp_path {folder}/3;
  uwsgi_temp_path {folder}/4; scgi_temp_path {folder}/5;
  ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_session_tickets off; ssl_buffer_size 16k;
  server {{
    listen {address}:443 ssl;
    keepalive_requests 100000;
    location ~ "^/v2/.+/blobs/sha256:(..)([0-9a-f]+)$" {{
      default_type application/octet-stream;
      alias {storage}/docker/registry/v2/blobs/sha256/$1/$1$2/data;
    }}
    location / {{ proxy_pass https://{registry}; proxy_set_header Host $host; }}
  }}
}}
"""


@contextlib.contextmanager
def limited(registry: Registry, megabytes_per_second: float) -> Iterator[Registry]:
    """Runs the host of which a connection brings so much, 0 for no limit, and gives the registry as nodes see it."""
    distant = copy.copy(registry)
    distant.address = free_address()
    certificate, key = registry.authority.issue("limited", registry.hosts, [distant.address])
    with tempfile.TemporaryDirectory() as folder:
        configuration = Path(folder, "nginx.conf")
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder,
                address=distant.address,
                certificate=certificate,
                key=key,
                registry=registry.address,
                storage=registry.folder / "storage",
            )
        )
        # nginx's own limit_rate lets the first second's worth of each request pass at once.
        with socket.create_server((distant.address, 443)) as listener:
            if megabytes_per_second:
                listener.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, int(megabytes_per_second * 1e6))
            inherited = fcntl.fcntl(listener, fcntl.F_DUPFD, 10)  # Child has its own use for the lower ones
        command = [NGINX, "-c", configuration, "-p", folder]
        child = Child(command, env={"NGINX": f"{inherited};"}, log=Path(folder, "nginx.log"), files=[inherited])
        os.close(inherited)
        try:
            yield distant
        finally:
            child.kill()


def served(log: str) -> int:
    """Returns the bytes of layers that nginx's access log tells of."""
    return sum(int(size) for size in re.findall(r'"GET \S+/blobs/\S+ HTTP/1.1" 20[06] (\d+)', log))
