"""Counts every call of an AWS API, and has one fail, be slow, or kill the function that makes it, where told to."""

import asyncio
import json
import threading
import time
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from local.api import Response
from local.dynamodb import tables
from local.lambda_ import functions
from local.ministack import app, iam_actions, router
from local.stepfunctions.faults import Fault as StateFault

SERVER_FAULTS = ("InternalServerError", "InternalError", "ServiceUnavailable", "SlowDown", "RequestLimitExceeded")
UNPROCESSED = "UnprocessedKeys"
EMPTY = "Empty"

_dispatch = app._dispatch_service_request
_extract_action = iam_actions.extract_iam_action
"""As ministack has it: ours names none for what is checked elsewhere (`iam.permissions`)."""


@dataclass
class Fault:
    """Says what becomes of the next calls of an action."""

    times: int
    """Says how many calls; 0 makes it none."""
    code: str | None = "ThrottlingException"
    """The error they are answered with: AWS's code, a cancellation reason of a transaction, UnprocessedKeys, or
    Empty: status 200, and nothing of what was asked for. None: they succeed."""
    seconds: float = 0.0
    """Says how long whoever calls waits before."""
    skip: int = 0
    """Says how many calls pass before."""
    per_second: float | None = None
    """Says how many calls of a second pass, and as many at once; those above them meet the fault. None: all meet it."""
    function: str | None = None
    """The function whose calls are meant; None: everybody's."""
    dies: Literal["before", "after"] | None = None
    """The function's process is killed instead, before the call is carried out or after, when nothing is answered."""
    lost: bool = False
    """The call is carried out, and answered with the error for all that."""
    _full_at: float = 0.0
    """Says when as many calls as possible pass at once again."""

    def passes(self, now: float) -> bool:
        """Returns whether a call is within the rate, and counts it then."""
        full_at = max(now, self._full_at) + 1 / self.per_second
        if full_at > now + 1:
            return False
        self._full_at = full_at
        return True


class Traffic:
    """Stands in front of every service."""

    def __init__(self):
        self.faults: dict[str, Fault] = {}
        self.state_faults: list[StateFault] = []
        self._calls: Counter[tuple[str | None, str]] = Counter()
        self._lock = threading.Lock()

    def install(self) -> None:
        """Puts itself there."""
        app._dispatch_service_request = self.dispatch

    async def dispatch(self, method: str, path: str, headers: dict, body: bytes, query: dict, request_id: str):
        """Counts one call and passes it on."""
        parameters = app._routing_params(method, path, headers, body, query)
        service = router.detect_service(method, path, headers, parameters)
        action = _extract_action(service, method, path, headers, body, parameters) or f"{service}:{method}"
        function = functions.caller(router.extract_access_key_id(headers, query))
        with self._lock:
            self._calls[function, action] += 1
            fault = self._fault(action, function)
        if fault and fault.seconds:
            await asyncio.sleep(fault.seconds)
        if fault and fault.lost:
            await _dispatch(method, path, headers, body, query, request_id)
        if fault and fault.code and not fault.dies:
            return _failure(service, action, fault.code, headers, body, request_id)
        if fault and fault.dies == "before":
            functions.kill(function)
            return _failure(service, action, "ServiceUnavailable", headers, body, request_id)
        response = await _dispatch(method, path, headers, body, query, request_id)
        if fault and fault.dies:
            functions.kill(function)
        return response

    def strike(self, action: str) -> Fault | None:
        """Returns what is to become of a call that an AWS service makes itself; None where it is to succeed."""
        with self._lock:
            return self._fault(action, None)

    def strike_state(self, execution: str, state: str, when: str) -> StateFault | None:
        """Returns what is to become of a state of an execution now; None where it is to go on."""
        with self._lock:
            for fault in self.state_faults:
                if (fault.state, fault.when) != (state, when) or fault.execution not in (None, execution):
                    continue
                if fault.skip:
                    fault.skip -= 1
                elif fault.times:
                    fault.times -= 1
                    return fault
        return None

    def heal(self) -> None:
        """Has everything be answered as it should be."""
        self.faults.clear()
        self.state_faults.clear()

    def counted(self, service: str | None, function: str | None) -> dict[str, int]:
        """Returns the calls so far, of one service or all, of one function or everybody."""
        counts: Counter[str] = Counter()
        for (caller, action), count in sorted(self._calls.items(), key=lambda item: item[0][1]):
            if function in (None, caller) and (service is None or action.startswith(f"{service}:")):
                counts[action] += count
        return dict(counts)

    def forget(self) -> None:
        """Starts counting from zero."""
        self._calls.clear()

    def _fault(self, action: str, function: str | None) -> Fault | None:
        fault = self.faults.get(action)
        if fault is None or fault.times <= 0 or (fault.function and fault.function != function):
            return None
        if fault.dies and function is None:
            return None
        if fault.skip:
            fault.skip -= 1
            return None
        if fault.per_second and fault.passes(time.monotonic()):
            return None
        fault.times -= 1
        return fault


def _failure(service: str, action: str, code: str, headers: dict, body: bytes, request_id: str) -> Response:
    """Returns an error in the service's own protocol."""
    if action == "dynamodb:TransactWriteItems" and code in tables.CANCELLATIONS:
        return tables.cancelled(json.loads(body), code)
    if code == EMPTY:
        return _empty(service, action)
    if action == "dynamodb:BatchGetItem" and code == UNPROCESSED:
        return tables.unprocessed(json.loads(body))
    message = "Rate exceeded" if "hrottl" in code else f"Injected by the local cloud: {code}"
    _, answer_headers, refusal = iam_actions.access_denied_response(
        service, action, "", request_id, error_code=code, message=message, headers=headers
    )
    if service == "ssm":
        refusal = json.dumps({"__type": code, "message": message}).encode()
    return 503 if code in SERVER_FAULTS else 400, answer_headers, refusal


def _empty(service: str, action: str) -> Response:
    """Returns an answer of the service's own protocol that says nothing."""
    if service == "ec2":
        return 200, {"Content-Type": "text/xml"}, f"<{action.partition(':')[2]}Response/>".encode()
    return 200, {"Content-Type": "application/x-amz-json-1.1"}, b"{}"
