"""Answers what a function asks of AWS for one cell, and has one of its calls fail."""

import collections
import contextlib
import socket
import threading
import time
from typing import Self
from urllib.parse import parse_qs

from benches.http1 import Connection, Request

from .faults import GARBAGE, SLOW_SECONDS, Call, Fault, reset
from .world import World


class Endpoint:
    """Serves on loopback, a thread for each connection, until the cell is over."""

    def __init__(self, world: World, failing: tuple[Call, Fault, int] | None = None):
        self.world = world
        self.failing = failing
        self.calls: list[Call] = []
        self.failed = 0
        """Counts the calls that failed so far."""
        self._counts: collections.Counter[tuple[str, str]] = collections.Counter()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self._over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        """Returns the endpoint's address."""
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the function was killed
            connection = Connection(plain)
            while request := connection.read():
                if not self._answer(plain, connection, request):
                    break

    def _answer(self, plain: socket.socket, connection: Connection, request: Request) -> bool:
        """Answers a request, and tells whether another may come on the connection."""
        service, operation = operation_of(request)
        fault = self._fault(service, operation)
        if fault and fault.name == "timeout":
            self._over.wait()
            connection.close()
            return False
        if fault and not fault.is_done:
            connection.answer(*fault.answer(service))
            return True
        with self._lock:
            answer = self.world.answer(service, operation, request)
        if fault and fault.name == "reset":
            connection.close()
            reset(plain)
            return False
        if fault and fault.name == "slow":
            time.sleep(SLOW_SECONDS)
        connection.answer(*(GARBAGE if fault and fault.name == "garbage" else answer))
        return True

    def _fault(self, service: str, operation: str) -> Fault | None:
        with self._lock:
            self._counts[service, operation] += 1
            number = self._counts[service, operation]
            self.calls.append(Call(service, operation, number))
            if not self.failing:
                return None
            call, fault, times = self.failing
            is_it = (service, operation) == (call.service, call.operation) and number >= call.number
            if not is_it or self.failed >= times:
                return None
            self.failed += 1
            return fault


def operation_of(request: Request) -> tuple[str, str]:
    """Returns the service and the operation of a request, by what each protocol has of its own."""
    target = request.headers.get("x-amz-target")
    if target:
        prefix, _, operation = target.partition(".")
        names = {"AmazonSSM": "ssm", "DynamoDB": "dynamodb", "AmazonEC2Con": "ecr", "AmazonSQS": "sqs"}
        return next(name for start, name in names.items() if prefix.startswith(start)), operation
    if request.headers.get("content-type") == "application/x-www-form-urlencoded":
        form = parse_qs(request.body.decode())
        return "ec2" if form["Version"] == ["2016-11-15"] else "autoscaling", form["Action"][0]
    if request.path.startswith("/schedules"):
        kind = "Schedules" if request.path.partition("?")[0] == "/schedules" else "Schedule"
        verb = {"GET": "List" if kind == "Schedules" else "Get", "POST": "Create", "DELETE": "Delete"}
        return "scheduler", verb[request.method] + kind
    return "s3", {"PUT": "PutObject"}[request.method]
