"""Plays Lambda's side of a function: starts it, hands it events over the Runtime API, and takes the time."""

import contextlib
import json
import select
import socket
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benches.http1 import Connection, Request

LIMIT_SECONDS = 30
NEXT = "/2018-06-01/runtime/invocation/next"


SETTINGS = {
    "MODE": "send",
    "CLUSTER_NAME": "prod",
    "CLUSTER_TAG_KEY": "aws:eks:cluster-name",
    "DOCUMENT_NAME": "eks-image-prefetch-prefetch-images",
    "DELIVERY_TIMEOUT_SECONDS": "600",
    "EXECUTION_TIMEOUT_SECONDS": "3600",
    "IMAGE_GC_HIGH_THRESHOLD_PERCENT": "85",
    "MAX_PARALLEL_IMAGE_PULLS": "2",
    "MAX_CONNECTIONS": "3",
    "BOOT_LIST": "Disabled",
    "LAUNCH_MAX_CONNECTIONS": "12",
    "MAX_BANDWIDTH_MIB": "0",
    "TABLE_NAME": "outcomes",
    "RECORDS_BUCKET": "records",
    "NODE_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/nodes",
    "RESULT_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/results",
    "OUTCOME_RETENTION_DAYS": "30",
    "USED_WITHIN_DAYS": "14",
    "MAX_RECEIVE_COUNT": "30",
    "MAX_RETRIES": "2",
    "SWEEP_INTERVAL": "rate(15 minutes)",
    "ACCOUNT_ID": "123456789012",
    "SCHEDULE_GROUP": "schedules",
    "SCHEDULE_ROLE_ARN": "arn:aws:iam::123456789012:role/schedule",
    "JOBS_DEAD_LETTERS_ARN": "arn:aws:sqs:eu-central-1:123456789012:jobs",
    "ALLOW_ANY_REPOSITORY": "false",
}
RULE = {
    "name": "default",
    "repositories": ["*"],
    "tags": ["*"],
    "used": False,
    "neighbours": False,
    "nodes": {},
    "newest": 1,
    "maxConcurrency": "50",
    "maxErrors": "100%",
}
LAMBDA = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "eu-central-1",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "128",
    "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
    "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
    "AWS_LAMBDA_LOG_FORMAT": "JSON",
    "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/bench",
    "AWS_LAMBDA_LOG_LEVEL": "INFO",
    "AWS_LAMBDA_LOG_STREAM_NAME": "bench",
    "LANG": "en_US.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "TZ": ":UTC",
}


def environment(rule: Mapping[str, Any] | None = None, **more: str) -> dict[str, str]:
    """Returns what Lambda and the template set for a function: one rule, for what is used or not, and `rule`."""
    return {**LAMBDA, **SETTINGS, "RULES": json.dumps([{**RULE, **(rule or {})}]), **more}


@dataclass(frozen=True)
class Invocation:
    """From the event handed out to the answer received, or to the error."""

    seconds: float
    answer: Any
    is_error: bool = False


class Function:
    """One execution environment: a process, and a Runtime API that serves nobody else.

    There is no thread: this process waits for the function, and what it waits for is what it measures.
    """

    def __init__(self, command: Sequence[str | Path], environment: Mapping[str, str], log: Path):
        self.log = log
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._connections: list[Connection] = []
        address = "{}:{}".format(*self._listener.getsockname())
        with log.open("wb") as output:
            started = time.perf_counter()
            self._process = subprocess.Popen(
                [str(word) for word in command],
                env={**environment, "AWS_LAMBDA_RUNTIME_API": address},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        try:
            self._idle = self._until_idle()
        except BaseException:
            self.end()
            raise
        self.init_seconds = time.perf_counter() - started

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.end()

    @property
    def pid(self) -> int:
        """Returns the id of the function's process."""
        return self._process.pid

    def invoke(self, event: bytes) -> Invocation:
        """Hands out an event, takes the answer, and waits until the function asks for the next event."""
        invocation = self.attempt(event)
        if invocation.is_error:
            raise RuntimeError(f"the function failed: {invocation.answer}\n{self._last_words()}")
        return invocation

    def attempt(self, event: bytes, limit: float = LIMIT_SECONDS) -> Invocation:
        """Hands out an event whose invocation has so many seconds, and takes the answer or the error."""
        request_id = str(uuid.uuid4())
        headers = {
            "lambda_runtime_aws_request_id": request_id,
            "lambda_runtime_deadline_ms": str(int((time.time() + limit) * 1000)),
            "lambda_runtime_invoked_function_arn": "arn:aws:lambda:eu-central-1:123456789012:function:bench",
            "lambda_runtime_trace_id": "Root=1-5bef4de7-ad49b0e87f6ef6c87fc2e700;Parent=9a9197af755a6419;Sampled=0",
        }
        started = time.perf_counter()
        self._idle.answer("200 OK", "application/json", event, **headers)
        connection, request = self._request(limit)
        seconds = time.perf_counter() - started
        connection.answer("202 Accepted", "application/json", b'{"status":"OK"}')
        self._idle = self._until_idle()
        is_error = not request.path.endswith(f"/{request_id}/response")
        return Invocation(seconds, json.loads(request.body), is_error)

    def peak_memory(self) -> int:
        """Returns the most bytes the function ever had in memory."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))

    def end(self) -> None:
        """Kills the function."""
        self._process.kill()
        self._process.wait()
        for connection in self._connections:
            connection.close()
        self._listener.close()

    def _until_idle(self) -> Connection:
        connection, request = self._request()
        if (request.method, request.path) != ("GET", NEXT):
            raise RuntimeError(
                f"the function did not start: {request.path}: {request.body.decode()}\n{self._last_words()}"
            )
        return connection

    def _request(self, limit: float = LIMIT_SECONDS) -> tuple[Connection, Request]:
        deadline = time.monotonic() + limit
        while time.monotonic() < deadline and self._process.poll() is None:
            ready, _, _ = select.select([self._listener, *self._connections], [], [], 1)
            for source in ready:
                if source is self._listener:
                    self._connections.append(Connection(self._listener.accept()[0]))
                elif request := source.read():
                    return source, request
                else:
                    self._connections.remove(source)
                    source.close()
        raise RuntimeError(f"the function did not answer; exit code {self._process.poll()}\n{self._last_words()}")

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self.log.read_text(errors="replace")[-2000:]
        return ""
