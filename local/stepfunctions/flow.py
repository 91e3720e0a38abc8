"""Follows the flows of an execution: its own, those of branches and of items, each with its variables."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future

from local.ministack import stepfunctions

StateError = stepfunctions._ExecutionError
"""Says what a state fails with: an error and its cause."""


class Ended(Exception):
    """No further state is entered: the execution was stopped, or another item of the same map has failed."""


class TimedOut(Exception):
    """The execution has run for longer than it may."""


class Flow:
    """A sequence of states: the execution's own, a branch's, or that of an item of a map."""

    def __init__(self, outer: "Flow | None" = None, item: dict | None = None):
        self.ended: Future = Future()
        self.variables = dict(outer.variables) if outer else {}
        self.skipped = outer.skipped if outer else 0.0
        """The seconds that AWS would have waited and nobody did."""
        self.item = item or (outer and outer.item)
        self.state: str | None = None
        self.event = outer.event if outer else 0
        """The last event of its history."""
        self._inner: list[Flow] = []
        self._lock = threading.Lock()

    def inner(self, item: dict | None = None) -> "Flow":
        """Begins a flow within this one, which ends with it."""
        flow = Flow(self, item)
        with self._lock:
            self._inner.append(flow)
            if self.ended.done():
                flow.end()
        return flow

    def end(self) -> None:
        """Has no further state be entered, here or within."""
        with self._lock:
            if not self.ended.done():
                self.ended.set_result(None)
            inner = list(self._inner)
        for flow in inner:
            flow.end()

    def flows(self) -> Iterator["Flow"]:
        """Yields this flow and all within."""
        yield self
        for flow in list(self._inner):
            yield from flow.flows()

    def require(self) -> None:
        """Raises Ended where it has."""
        if self.ended.done():
            raise Ended
