"""Reaches AWS as the environment names it: clients that never wait long, and plain requests to AWS's own hosts."""

import functools
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import boto3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.exceptions import NoCredentialsError, NoRegionError
from botocore.httpsession import URLLib3Session
from botocore.utils import get_environ_proxies

CONFIG = Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 3, "mode": "standard"})
HTTP_SECONDS = (5, 35)
"""For connecting and for the answer: API Gateway gives up after 30 seconds (quotas of HTTP APIs)."""


@dataclass(frozen=True)
class Answer:
    """Says what a request is answered with."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Returns the body's content."""
        return json.loads(self.body)

    def text(self) -> str:
        """Returns the beginning of the body in one line."""
        return " ".join(self.body.decode(errors="replace").split())[:500]


class Account:
    """The account and Region of the environment, as every AWS tool finds them."""

    def __init__(self):
        self._session = boto3.Session()
        if not self._session.region_name:
            raise NoRegionError
        if not self._session.get_credentials():
            raise NoCredentialsError
        self.region: str = self._session.region_name
        self._endpoint = os.environ.get("AWS_ENDPOINT_URL")
        core = self._session._session
        self._ca = core.get_config_variable("ca_bundle") or True

    @functools.cache  # noqa: B019  it lives as long as the process
    def client(self, service: str) -> Any:
        """Returns a client of a service."""
        return self._session.client(service, config=CONFIG)

    def send(
        self, method: str, url: str, body: bytes = b"", headers: Mapping[str, str] | None = None, sign: str = ""
    ) -> Answer:
        """Sends a request, signed for a service where one is named.

        Where `AWS_ENDPOINT_URL` is set, it goes there under its own host's name: that endpoint stands for all of AWS.
        """
        request = AWSRequest(method, url, dict(headers or {}), body)
        if sign:
            credentials = self._session.get_credentials().get_frozen_credentials()
            SigV4Auth(credentials, sign, self.region).add_auth(request)
        if self._endpoint:
            parts, endpoint = urlsplit(url), urlsplit(self._endpoint)
            request.headers["Host"] = parts.netloc
            request.url = urlunsplit(parts._replace(scheme=endpoint.scheme, netloc=endpoint.netloc))
        proxies = get_environ_proxies(request.url)
        response = URLLib3Session(verify=self._ca, proxies=proxies, timeout=HTTP_SECONDS).send(request.prepare())
        return Answer(response.status_code, response.headers, response.content)
