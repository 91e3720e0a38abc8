"""Pushes to ECR's registry by its HTTP API, with the login that ECR gives."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from botocore.exceptions import HTTPClientError

from local import images
from verify.aws import Account


class PushRefused(Exception):
    """The registry does not take what is pushed, in words."""


class Registry:
    """The account's registry, logged in to."""

    def __init__(self, account: Account):
        self._account = account
        [login] = account.client("ecr").get_authorization_token()["authorizationData"]
        self.host = urlsplit(login["proxyEndpoint"]).netloc
        self._login = f"Basic {login['authorizationToken']}"

    def push(self, repository: str, tag: str, artifact: images.Artifact) -> None:
        """Pushes an image or an index of images."""
        try:
            images.upload(self._request, repository, tag, artifact)
        except HTTPClientError as error:
            raise PushRefused(f"the registry {self.host} does not answer: {error}") from error

    def _request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], accept: Sequence[int]
    ) -> tuple[int, str]:
        url = f"https://{self.host}{path}"
        answer = self._account.send(method, url, body, {**headers, "Authorization": self._login})
        if answer.status == 401:
            raise PushRefused(
                f"the registry {self.host} refuses the login that ECR gave (401, {answer.text()}): is there a proxy, or"
                " an endpoint with a policy of its own, on the way to it?"
            )
        if answer.status == 403:
            raise PushRefused(f"the caller may not push to {self.host} (403): {answer.text()}")
        if answer.status not in accept:
            raise PushRefused(f"the registry answers {method} {path} with {answer.status}: {answer.text()}")
        return answer.status, answer.headers.get("Location", "")
