"""Executes Amazon States Language in its JSONata form, as Step Functions does a standard workflow."""

import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from datetime import UTC, datetime
from typing import Any

from local import background
from local.settings import scaled
from local.stepfunctions import expressions, retries
from local.stepfunctions.faults import Fault
from local.stepfunctions.flow import Ended, Flow, StateError, TimedOut

MAX_PAYLOAD = 256 << 10
"""Bytes of what a state takes, hands on, or is answered (Step Functions, quotas of state executions)."""
MAP_CONCURRENCY = 40
"""Items of an inline map that run at a time where it sets no limit (Step Functions, Map state)."""
NO_TIMEOUT = 99_999_999
"""Seconds that a task may take which says nothing (Amazon States Language, TimeoutSeconds)."""


class Run:
    """One execution."""

    def __init__(
        self,
        definition: dict,
        context: dict,
        perform: Callable[[str, Any], Any],
        strike: Callable[[str, str, dict, str], Fault | None],
        record: Callable[[int, str, dict], int],
    ):
        """Describes an execution that has not begun.

        `perform` makes the call of a task; `strike` tells what is to become of a state of an execution, before or
        after; `record` writes an event of the history behind another and returns its number.
        """
        self.flow = Flow()
        self.flow.event = 1
        self.paused: list[tuple[str, Future]] = []
        """The states that wait to be released."""
        self._definition = definition
        self._context = context
        self._perform = perform
        self._strike = strike
        self._record = record
        self._started = time.monotonic()
        self._limit = definition.get("TimeoutSeconds", float("inf"))

    def output(self) -> Any:
        """Runs all states and returns the last one's output; raises StateError, TimedOut or Ended."""
        return self._states(self._definition, self._context["Execution"]["Input"], self.flow)

    def expire(self) -> None:
        """Has the time that the execution may take be over."""
        self._limit = 0.0
        self.flow.end()

    def entered(self) -> list[str]:
        """Returns the names of the states that it is in, outermost first."""
        return [flow.state for flow in self.flow.flows() if flow.state and (flow is self.flow or not flow.ended.done())]

    def _states(self, part: dict, value: Any, flow: Flow) -> Any:
        """Runs a whole machine, branch or item processor."""
        name = part["StartAt"]
        while name:
            self._require(flow)
            value, name = _Visit(self, flow, name, part["States"][name], value).output_and_next()
        flow.state = None
        return value

    def _require(self, flow: Flow) -> None:
        """Raises where no further state is to be entered."""
        if self._remaining(flow) <= 0:
            raise TimedOut
        flow.require()

    def _remaining(self, flow: Flow) -> float:
        """Returns the seconds of AWS's that the execution still has."""
        return self._limit - (time.monotonic() - self._started) - flow.skipped

    def _sleep(self, flow: Flow, seconds: float) -> None:
        """Waits as AWS would, in the local cloud's time."""
        really = scaled(min(seconds, max(0.0, self._remaining(flow))))
        wait([flow.ended], really)
        flow.skipped += seconds - really
        self._require(flow)

    def _outcome(self, flow: Flow, work: Future, timeout: float) -> Any:
        """Waits for work that is under way elsewhere and that is not scaled; raises what it fails with."""
        remaining = self._remaining(flow)
        wait([work, flow.ended], _or_ever(min(timeout, remaining)), FIRST_COMPLETED)
        self._require(flow)
        if not work.done():
            raise StateError("States.Timeout", "")
        return work.result()

    def _pause(self, flow: Flow, state: str) -> None:
        """Keeps a state until it is released, or will never be."""
        pause = state, Future()
        self.paused.append(pause)
        wait([pause[1], flow.ended], _or_ever(self._remaining(flow)), FIRST_COMPLETED)
        self.paused.remove(pause)
        self._require(flow)


class _Visit:
    """A state that a flow is in."""

    def __init__(self, run: Run, flow: Flow, name: str, state: dict, value: Any):
        self.run, self.flow, self.name, self.state, self.input = run, flow, name, state, value
        self.retries = 0
        self.entered = _now()
        flow.state = name

    def output_and_next(self) -> tuple[Any, str | None]:
        """Goes through the state."""
        kind = self.state["Type"]
        self.record(f"{kind}StateEntered", stateEnteredEventDetails={"name": self.name, "input": _json(self.input)})
        if kind != "Task":
            self.suffer("before")
        output, next_ = getattr(self, f"_{kind.lower()}")()
        output = _checked(output)
        details = {"name": self.name, "output": _json(output)}
        self.record(f"{kind}StateExited", stateExitedEventDetails=details)
        return output, next_

    def record(self, kind: str, **details: dict) -> None:
        """Writes an event of the execution's history."""
        self.flow.event = self.run._record(self.flow.event, kind, details)

    def suffer(self, when: str) -> None:
        """Has happen to the state what it was told to."""
        if not (fault := self.run._strike(self.run._context["Execution"]["Name"], self.name, self.state, when)):
            return
        if fault.does == "pause":
            self.run._pause(self.flow, self.name)
        elif fault.does == "hang":
            self.run._sleep(self.flow, self._timeout())
            raise StateError("States.Timeout", "")
        else:
            raise StateError(fault.error, fault.cause)

    # ── The types of states ─────────────────────────────────────────────────────────────────────────────────────────

    def _pass(self) -> tuple[Any, str | None]:
        return self._leave(self.state, self.input, {})

    def _choice(self) -> tuple[Any, str | None]:
        for choice in self.state["Choices"]:
            if self._typed(choice["Condition"], "Condition", bool):
                return self._leave(choice, self.input, {})
        if "Default" not in self.state:
            raise StateError("States.NoChoiceMatched", f"No choice of {self.name} matches, and there is no default.")
        return self._leave({**self.state, "Next": self.state["Default"]}, self.input, {})

    def _wait(self) -> tuple[Any, str | None]:
        if "Seconds" in self.state:
            seconds = self._typed(self.state["Seconds"], "Seconds", int)
            if seconds < 0:
                raise StateError("States.QueryEvaluationError", f"Seconds cannot be negative but was: {seconds}")
        else:
            until = self._typed(self.state["Timestamp"], "Timestamp", str)
            try:
                seconds = (datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds()
            except (TypeError, ValueError) as error:
                message = f"The Timestamp field cannot be parsed as an ISO-8601 date-time: {until}"
                raise StateError("States.QueryEvaluationError", message) from error
        self.run._sleep(self.flow, max(0.0, seconds))
        return self._leave(self.state, self.input, {})

    def _succeed(self) -> tuple[Any, str | None]:
        return self._leave(self.state, self.input, {})

    def _fail(self) -> tuple[Any, str | None]:
        raise StateError(*(self._typed(self.state.get(field, ""), field, str) for field in ("Error", "Cause")))

    def _task(self) -> tuple[Any, str | None]:
        return self._tried(self._call)

    def _parallel(self) -> tuple[Any, str | None]:
        def branches() -> Any:
            value = self._arguments()
            parts = self.state["Branches"]
            return self._together(parts, [value] * len(parts), [self.flow.inner() for _ in parts], len(parts))

        return self._tried(branches)

    def _map(self) -> tuple[Any, str | None]:
        return self._tried(self._items)

    # ── What they do ────────────────────────────────────────────────────────────────────────────────────────────────

    def _call(self) -> Any:
        """Makes the call of a task."""
        arguments, timeout = self._arguments(), self._timeout()
        kind, _, action = self.state["Resource"].partition(":states:::")[2].rpartition(":")
        facts = {"resourceType": kind, "resource": action}
        scheduled = {**facts, "region": self.run._context["Execution"]["Id"].split(":")[3]}
        self.record("TaskScheduled", taskScheduledEventDetails={**scheduled, "parameters": _json(arguments)})
        self.record("TaskStarted", taskStartedEventDetails=facts)
        try:
            self.suffer("before")
            call = _started(self.run._perform, self.state["Resource"], arguments)
            result = self.run._outcome(self.flow, call, timeout)
            self.suffer("after")
        except StateError as error:
            details = {**facts, "error": error.error, "cause": error.cause}
            timed_out = error.error == "States.Timeout"
            kind, field = ("TaskTimedOut", "taskTimedOut") if timed_out else ("TaskFailed", "taskFailed")
            self.record(kind, **{f"{field}EventDetails": details})
            raise
        result = _checked(result)
        self.record("TaskSucceeded", taskSucceededEventDetails={**facts, "output": _json(result)})
        return result

    def _items(self) -> list:
        """Runs an inline map's processor on every item."""
        items = self._typed(self.state.get("Items", self.input), "Items", list)
        limit = self._typed(self.state.get("MaxConcurrency", 0), "MaxConcurrency", int)
        self.record("MapStateStarted", mapStateStartedEventDetails={"length": len(items)})
        flows = [self.flow.inner({"Index": index, "Value": item}) for index, item in enumerate(items)]
        values = items
        if "ItemSelector" in self.state:
            values = [self._evaluated(self.state["ItemSelector"], flow=flow) for flow in flows]
        parts = [self.state["ItemProcessor"]] * len(items)
        return self._together(parts, values, flows, limit or MAP_CONCURRENCY)

    def _together(self, parts: list[dict], values: list, flows: list[Flow], limit: int) -> list:
        """Runs flows side by side, so many at a time; the first that fails ends the others, which catch nothing."""
        slots = threading.Semaphore(limit)
        kind = self.state["Type"]
        sides = zip(range(len(parts)), parts, values, flows, strict=True)
        runs = [_started(self._one_of_many, slots, *side) for side in sides]
        pending = set(runs)
        try:
            while pending:
                wait([*pending, self.flow.ended], return_when=FIRST_COMPLETED)
                for done in [run for run in pending if run.done()]:
                    pending.remove(done)
                    if isinstance(error := done.exception(), StateError | TimedOut):
                        self.record(f"{kind}StateFailed")
                        raise error
                self.run._require(self.flow)
        finally:
            for flow in flows:
                flow.end()
        self.flow.skipped = max((flow.skipped for flow in flows), default=self.flow.skipped)
        self.record(f"{kind}StateSucceeded")
        return [run.result() for run in runs]

    def _one_of_many(self, slots: threading.Semaphore, index: int, part: dict, value: Any, flow: Flow) -> Any:
        """Runs one of the flows that run side by side, once there is a slot for it."""
        with slots:
            self.run._require(flow)
            self._iteration("Started", index, flow)
            try:
                output = self.run._states(part, value, flow)
            except (StateError, Ended, TimedOut) as error:
                self._iteration("Failed" if isinstance(error, StateError) else "Aborted", index, flow)
                raise
            self._iteration("Succeeded", index, flow)
            return output

    def _iteration(self, outcome: str, index: int, flow: Flow) -> None:
        if self.state["Type"] == "Map":
            details = {f"mapIteration{outcome}EventDetails": {"name": self.name, "index": index}}
            flow.event = self.run._record(flow.event, f"MapIteration{outcome}", details)

    def _tried(self, attempt: Callable[[], Any]) -> tuple[Any, str | None]:
        """Makes an attempt under the state's retriers and catchers."""
        counts: dict[int, int] = {}
        while True:
            try:
                result = attempt()
                return self._leave(self.state, result, {"result": result})
            except StateError as error:
                failure = error
            if (delay := retries.delay(self.state.get("Retry", []), failure.error, counts)) is None:
                break
            self.run._sleep(self.flow, delay)
            self.retries += 1
        self.run._require(self.flow)
        for catcher in self.state.get("Catch", []):
            if retries.matches(catcher["ErrorEquals"], failure.error):
                output = {"Error": failure.error, "Cause": failure.cause}
                return self._leave(catcher, output, {"errorOutput": output})
        raise failure

    def _leave(self, fields: dict, default: Any, bindings: dict) -> tuple[Any, str | None]:
        """Evaluates what a state, or the choice or catcher by which it is left, assigns and puts out."""
        output = self._evaluated(fields["Output"], bindings) if "Output" in fields else default
        assigned = self._evaluated(fields.get("Assign", {}), bindings)
        self.flow.variables.update(assigned)  # what it assigns, a state does not see itself
        return output, fields.get("Next")

    # ── Expressions ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _arguments(self) -> Any:
        return _checked(self._evaluated(self.state["Arguments"]) if "Arguments" in self.state else self.input)

    def _timeout(self) -> float:
        return self._typed(self.state.get("TimeoutSeconds", NO_TIMEOUT), "TimeoutSeconds", int)

    def _typed(self, template: Any, field: str, wanted: type) -> Any:
        """Evaluates a field that has to be of one type."""
        value = self._evaluated(template)
        if not isinstance(value, wanted) or (wanted is int and isinstance(value, bool)):
            names = {bool: "boolean", int: "integer", str: "string", list: "array"}
            message = (
                f"The JSONata expression specified for the field '{field}' returned an unexpected result type."
                f" Expected '{names[wanted]}', but was: {_json(value)}"
            )
            raise StateError("States.QueryEvaluationError", message)
        return value

    def _evaluated(self, template: Any, bindings: dict | None = None, flow: Flow | None = None) -> Any:
        """Returns a template with its expressions evaluated."""
        flow = flow or self.flow
        context = {
            **self.run._context,
            "State": {"Name": self.name, "EnteredTime": self.entered, "RetryCount": self.retries},
            **({"Map": {"Item": flow.item}} if flow.item else {}),
        }
        states = {"input": self.input, "context": context, **(bindings or {})}
        try:
            return expressions.evaluate(template, {**flow.variables, "states": states})
        except expressions.Unusable as error:
            raise StateError("States.QueryEvaluationError", str(error)) from error


def _checked(value: Any) -> Any:
    """Returns what is small enough to be handed on."""
    if (size := len(_json(value).encode())) > MAX_PAYLOAD:
        message = f"The state returned a result with {size} bytes, more than the {MAX_PAYLOAD} allowed."
        raise StateError("States.DataLimitExceeded", message)
    return value


def _started(work: Callable, *arguments: Any) -> Future:
    """Starts work in a thread of its own."""
    future: Future = Future()

    def run() -> None:
        try:
            future.set_result(work(*arguments))
        except (StateError, Ended, TimedOut) as error:
            future.set_exception(error)
        except BaseException as error:
            future.set_exception(StateError("States.Runtime", f"The local cloud itself failed: {error!r}"))
            raise

    background.start(run)
    return future


def _or_ever(seconds: float) -> float | None:
    return None if seconds == float("inf") else max(0.0, seconds)


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
