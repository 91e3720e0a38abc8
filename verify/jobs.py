"""Calls the stack's jobs API as its callers do."""

import itertools
import json
import time
import urllib.parse
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import HTTPClientError

from verify.aws import Account, Answer

SERVICE = "execute-api"
TRIES = 3
PATIENCE_SECONDS = 10
"""After which time a call is not tried again: what a run made has to be removed before its ten minutes are over."""
PASSING = (429, 500, 502, 503, 504)
"""Says what API Gateway answers where another try may fare better."""
MAX_PAGES = 30


class Refused(Exception):
    """An answer that is none, in words, with its status where there is one."""

    def __init__(self, words: str, status: int | None = None):
        super().__init__(words)
        self.status = status


class Jobs:
    """Calls of the API at its address."""

    def __init__(self, account: Account, url: str):
        self._account = account
        self._url = url.rstrip("/")

    def get(self, path: str, **query: Any) -> dict:
        """Returns what a GET is answered with."""
        return self._call("GET", f"{path}?{urllib.parse.urlencode(query)}" if query else path)

    def post(self, path: str, body: Any) -> dict:
        """Returns what a POST is answered with; one that might be lost on its way is sent again."""
        return self._call("POST", path, json.dumps(body).encode())

    def delete(self, path: str) -> dict:
        """Returns what a DELETE is answered with."""
        return self._call("DELETE", path)

    def pages(self, path: str, **query: Any) -> Iterator[dict]:
        """Yields the pages of a list, as many as anybody would read."""
        for _ in range(MAX_PAGES):
            page = self.get(path, **query)
            yield page
            if not page.get("next"):
                return
            query["next"] = page["next"]

    def _call(self, method: str, path: str, body: bytes = b"") -> dict:
        headers = {"content-type": "application/json"} if body else {}
        gives_up = time.monotonic() + PATIENCE_SECONDS
        for attempt in itertools.count(1):
            try:
                answer = self._account.send(method, f"{self._url}{path}", body, headers, SERVICE)
                if answer.status < 400:
                    return answer.json()
                words = _in_words(f"{method} {path.partition('?')[0]}", answer)
                refusal, passes = Refused(words, answer.status), answer.status in PASSING
            except HTTPClientError as error:
                refusal, passes = Refused(f"{self._url} does not answer: {error}"), True
            if not passes or attempt == TRIES or time.monotonic() > gives_up:
                raise refusal
            time.sleep(attempt)
        raise AssertionError("unreachable")


def _in_words(call: str, answer: Answer) -> str:
    try:
        body = answer.json()
        detail = body.get("detail") or body.get("message") or answer.text()
        fields = (f"{error['field']} takes {error['accepted']}" for error in body.get("errors", []))
        detail = "; ".join([detail, *fields])
    except (AttributeError, KeyError, ValueError):
        detail = answer.text()
    if answer.status == 403:
        return f"{call} is answered with 403, {detail}: the caller needs execute-api:Invoke there"
    if answer.status >= 500:
        return f"{call} is answered with {answer.status}, {detail}: the log of jobs has the cause"
    return f"{call} is answered with {answer.status}, {detail}"
