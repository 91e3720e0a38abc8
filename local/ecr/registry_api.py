"""Replaces ministack's registry: the real one's HTTP API at the cloud's endpoint, under the registry's name."""

import asyncio
import http.client
import ssl
from urllib.parse import urlencode

from local.api import Response
from local.ecr.registry import Registry
from local.ministack import app

PASSED_ON = ("accept", "authorization", "content-type", "range")
NOT_PASSED_BACK = ("connection", "content-length", "date", "transfer-encoding")


class RegistryApi:
    """Passes such requests on to the registry."""

    def __init__(self, registry: Registry):
        self.registry = registry

    def install(self) -> None:
        """Puts the registry in the place of ministack's own."""
        app._handle_ecr_registry_request = self.handle

    async def handle(self, method: str, path: str, headers: dict, body: bytes, query: dict) -> Response | None:
        """Answers one request; None where it is about something else."""
        if not app._is_ecr_registry_path(path) or headers.get("host") not in self.registry.hosts:
            return None
        passed = {name: value for name, value in headers.items() if name in PASSED_ON}
        sent = urlencode([(name, value) for name, values in query.items() for value in values])
        target = f"{path}?{sent}" if sent else path
        return await asyncio.to_thread(self._ask, method, target, body, {**passed, "Host": headers["host"]})

    def _ask(self, method: str, target: str, body: bytes, headers: dict[str, str]) -> Response:
        context = ssl.create_default_context(cafile=str(self.registry.ca))
        connection = http.client.HTTPSConnection(self.registry.address, timeout=60, context=context)
        try:
            connection.request(method, target, body, headers)
            response = connection.getresponse()
            told = {name: value for name, value in response.getheaders() if name.lower() not in NOT_PASSED_BACK}
            return response.status, told, response.read()
        except OSError as error:
            return 503, {"Content-Type": "text/plain"}, str(error).encode()
        finally:
            connection.close()
