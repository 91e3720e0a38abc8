"""Calls an HTTP API of the local cloud as one caller, who signs what they send."""

import http.client
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from local.client import LocalCloud

SERVICE = "execute-api"


@dataclass
class Answer:
    """Says what a call is answered with."""

    status: int
    headers: dict[str, str]
    """Their names in small letters."""
    body: bytes

    def json(self) -> Any:
        """Returns the body's content."""
        return json.loads(self.body)


class HttpApi:
    """Calls of an API, under the address it has on AWS, by one caller."""

    def __init__(self, cloud: LocalCloud, url: str, **credentials: str):
        """Takes credentials as boto3 does; without them the caller is the administrator."""
        self.url = url
        self._cloud = cloud
        own = {"aws_access_key_id": cloud.access_key_id, "aws_secret_access_key": cloud.secret_access_key}
        keys = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
        self._credentials = Credentials(*((credentials or own).get(key) for key in keys))

    def get(self, path: str) -> Answer:
        """GETs a path, with its query."""
        return self.send("GET", path)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """POSTs a body of JSON; _ in a header's name stands for -."""
        sent = {"content-type": "application/json", **{name.replace("_", "-"): headers[name] for name in headers}}
        return self.send("POST", path, json.dumps(body).encode(), sent)

    def delete(self, path: str) -> Answer:
        """DELETEs a path."""
        return self.send("DELETE", path)

    def send(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None, sign: bool = True
    ) -> Answer:
        """Sends one request."""
        sent = self.signed(method, path, body, headers or {}) if sign else dict(headers or {})
        endpoint = urlsplit(self._cloud.endpoint)
        connection = http.client.HTTPConnection(endpoint.hostname, endpoint.port, timeout=60)
        try:
            connection.request(method, path, body or None, {**sent, "host": urlsplit(self.url).netloc})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, names, response.read())
        finally:
            connection.close()

    def signed(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> dict[str, str]:
        """Returns a request's headers with those of its signature (AWS Signature Version 4)."""
        request = AWSRequest(method, f"{self.url}{path}", dict(headers), body)
        SigV4Auth(self._credentials, SERVICE, self._cloud.region).add_auth(request)
        return dict(request.headers.items())
