"""Checks state machines when they are made, and has executions run as their machine's role."""

import dataclasses
import json
import logging
import re
import threading
from datetime import UTC, datetime
from typing import Any

from local.api import Response
from local.eventbridge import events
from local.iam import permissions
from local.ministack import cloudwatch, provisioners, responses, stepfunctions
from local.settings import ACCOUNT, REGION
from local.stepfunctions import asl, definitions
from local.stepfunctions.faults import Fault
from local.stepfunctions.flow import Ended, StateError, TimedOut
from local.stepfunctions.integrations import Integration, Origin
from local.traffic import Traffic

log = logging.getLogger("local.states")

SERVICE = "states.amazonaws.com"
TYPE = "AWS::StepFunctions::StateMachine"
LOG_DELIVERY = (
    *(f"logs:{action}LogDelivery" for action in ("Create", "Get", "Update", "Delete")),
    "logs:ListLogDeliveries",
    "logs:PutResourcePolicy",
    "logs:DescribeResourcePolicies",
    "logs:DescribeLogGroups",
)
"""Says what a role needs for a machine that logs (Step Functions, logging in CloudWatch Logs)."""
NAME = re.compile(r"""[^\s<>{}\[\]?*"#%\\^|~`$&,;:/\x00-\x1f\x7f-\x9f]{1,80}""")
MAX_INPUT = 256 << 10
"""Bytes of an execution's input (Step Functions, quotas of state executions)."""
MAX_EVENTS = 25_000
"""Events of an execution's history (Step Functions, quotas of state executions)."""
METRICS = {
    "SUCCEEDED": "ExecutionsSucceeded",
    "FAILED": "ExecutionsFailed",
    "TIMED_OUT": "ExecutionsTimedOut",
    "ABORTED": "ExecutionsAborted",
}
EVENTS = {
    "SUCCEEDED": ("ExecutionSucceeded", "executionSucceeded"),
    "FAILED": ("ExecutionFailed", "executionFailed"),
    "TIMED_OUT": ("ExecutionTimedOut", "executionTimedOut"),
    "ABORTED": ("ExecutionAborted", "executionAborted"),
}

ENDS = {kind for kind, _ in EVENTS.values()}

_start_execution = stepfunctions._start_execution
_create_machine = stepfunctions._create_state_machine
_update_machine = stepfunctions._update_state_machine
_delete_machine = stepfunctions._delete_state_machine
_resource = provisioners._RESOURCE_HANDLERS[TYPE]


class States:
    """Every execution."""

    def __init__(self, traffic: Traffic):
        self._traffic = traffic
        self._runs: dict[str, asl.Run] = {}
        self._lock = threading.RLock()

    def install(self) -> None:
        """Takes the place of ministack's interpreter, and checks what it accepts."""
        stepfunctions._start_execution = self.start
        stepfunctions._run_execution = self._execute
        stepfunctions._stop_execution = self.stop
        stepfunctions._emit_execution_status_event = _announce
        stepfunctions._create_state_machine = lambda request: _refusal(request) or _create_machine(request)
        stepfunctions._update_state_machine = _update
        stepfunctions._delete_state_machine = self._delete
        provisioners._RESOURCE_HANDLERS[TYPE] = {**_resource, "create": _create_resource, "delete": self._end_resource}

    def start(self, request: dict) -> Response:
        """StartExecution; the same name and input mean the execution that is there while it runs."""
        name, text = request.get("name"), request.get("input", "{}")
        if name is not None and not NAME.fullmatch(name):
            return responses.error_response_json("InvalidName", f"Invalid Name: '{name}'", 400)
        if len(text.encode()) > MAX_INPUT:
            return responses.error_response_json("InvalidExecutionInput", "The input is larger than 262144 bytes", 400)
        try:
            json.loads(text)
        except json.JSONDecodeError as error:
            return responses.error_response_json(
                "InvalidExecutionInput", f"Invalid State Machine Execution Input: '{error}'", 400
            )
        with self._lock:
            machine = stepfunctions._state_machines.get(request["stateMachineArn"])
            execution = machine and name and stepfunctions._executions.get(_arn(machine, name))
            if execution and execution["status"] == "RUNNING" and execution["input"] == text:
                return responses.json_response(
                    {"executionArn": execution["executionArn"], "startDate": execution["startDate"]}
                )
            response = _start_execution(request)
        if response[0] == 200:
            _measure(machine["stateMachineArn"], "ExecutionsStarted")
        return response

    def stop(self, request: dict) -> Response:
        """StopExecution: no further state is entered, and nothing is caught."""
        execution = stepfunctions._executions.get(request["executionArn"])
        if not execution:
            message = f"Execution Does Not Exist: '{request['executionArn']}'"
            return responses.error_response_json("ExecutionDoesNotExist", message, 400)
        self._finish(execution, "ABORTED", error=request.get("error"), cause=request.get("cause"))
        if run := self._runs.get(execution["executionArn"]):
            run.flow.end()
        return responses.json_response({"stopDate": execution["stopDate"]})

    def expire(self, name: str) -> None:
        """Has the time that an execution may take be over."""
        for run in self._named(name):
            run.expire()

    def release(self, name: str | None, state: str | None) -> None:
        """Has executions go on that wait in a state, one or all of them."""
        for run in self._named(name):
            for paused, released in list(run.paused):
                if state in (None, paused):
                    released.set_result(None)

    def describe(self) -> list[dict]:
        """Returns all executions, oldest first, with the states that each is in, or failed in, and where it pauses."""
        return [
            {
                **{field: execution.get(field) for field in ("name", "status", "error", "cause")},
                "arn": execution["executionArn"],
                "machine": execution["stateMachineArn"],
                "states": run.entered() if (run := self._runs.get(execution["executionArn"])) else [],
                "paused": [state for state, _ in run.paused] if run else [],
            }
            for execution in list(stepfunctions._executions.values())
        ]

    def _named(self, name: str | None) -> list[asl.Run]:
        runs = {arn: run for arn, run in self._runs.items() if name in (None, arn, arn.rpartition(":")[2])}
        if name and not runs:
            raise ValueError(f"There is no execution {name}.")
        return list(runs.values())

    def _execute(self, arn: str) -> None:
        """Runs an execution to its end."""
        execution = stepfunctions._executions[arn]
        machine = stepfunctions._state_machines[execution["stateMachineArn"]]
        run = self._runs[arn] = asl.Run(
            json.loads(machine["definition"]),
            _context(execution, machine),
            lambda resource, arguments: _perform(execution, machine, resource, arguments),
            self._strike,
            lambda previous, kind, details: self._record(execution, previous, kind, details),
        )
        if execution["status"] != "RUNNING":
            run.flow.end()
        try:
            output = run.output()
            self._finish(execution, "SUCCEEDED", output=json.dumps(output, separators=(",", ":")))
        except TimedOut:
            self._finish(execution, "TIMED_OUT")
        except StateError as error:
            self._finish(execution, "FAILED", error=error.error, cause=error.cause)
        except Ended:
            log.info("%s was stopped.", arn)
        except Exception as error:
            self._finish(execution, "FAILED", error="States.Runtime", cause=f"The local cloud itself failed: {error!r}")
            raise

    def _finish(self, execution: dict, status: str, **outcome: Any) -> None:
        """Gives an execution its last status, unless it has one, and says so to EventBridge and CloudWatch."""
        with self._lock:
            if execution["status"] != "RUNNING":
                return
            outcome = {field: value for field, value in outcome.items() if value is not None}
            kind, field = EVENTS[status]
            self._record(execution, len(execution["events"]), kind, {f"{field}EventDetails": outcome})
            execution |= {"status": status, "stopDate": responses.now_iso(), **outcome}
        _announce(execution)
        _measure(execution["stateMachineArn"], METRICS[status])

    def _record(self, execution: dict, previous: int, kind: str, details: dict) -> int:
        with self._lock:
            if len(execution["events"]) >= MAX_EVENTS and kind not in ENDS:
                message = f"The execution reached the maximum number of history events ({MAX_EVENTS})."
                raise StateError("States.Runtime", message)
            event = stepfunctions._add_event(execution, kind, {"previousEventId": previous, **details})
            return event["id"]

    def _strike(self, execution: str, state: str, fields: dict, when: str) -> Fault | None:
        fault = self._traffic.strike_state(execution, state, when)
        if fault and fault.does == "fail" and not fault.error:
            error = Integration(fields["Resource"]).throttling()
            return dataclasses.replace(fault, error=error.error, cause=error.cause)
        return fault

    def _delete(self, request: dict) -> Response:
        """DeleteStateMachine: its executions are terminated, and are no more."""
        for execution in list(stepfunctions._executions.values()):
            if execution["stateMachineArn"] == request["stateMachineArn"]:
                self.stop({"executionArn": execution["executionArn"]})
        return _delete_machine(request)

    def _end_resource(self, arn: str, properties: dict) -> None:
        """The state machine of a stack, likewise."""
        self._delete({"stateMachineArn": arn})


def _perform(execution: dict, machine: dict, resource: str, arguments: Any) -> Any:
    if not permissions.service_may_assume(machine["roleArn"], SERVICE, machine["stateMachineArn"]):
        raise StateError("States.Runtime", f"{SERVICE} is not authorized to assume {machine['roleArn']}")
    origin = Origin(machine["roleArn"], machine["name"], (execution["executionArn"], machine["stateMachineArn"]))
    return Integration(resource).perform(arguments, origin)


def _context(execution: dict, machine: dict) -> dict:
    """Returns the context object as far as it is the same in every state."""
    return {
        "Execution": {
            "Id": execution["executionArn"],
            "Input": json.loads(execution["input"]),
            "Name": execution["name"],
            "RedriveCount": 0,
            "RoleArn": machine["roleArn"],
            "StartTime": _iso(execution["startDate"]),
        },
        "StateMachine": {"Id": machine["stateMachineArn"], "Name": machine["name"]},
    }


def _announce(execution: dict) -> None:
    """Raises the event of an execution's status (EventBridge, Step Functions Execution Status Change)."""
    status = execution["status"]
    succeeded = status == "SUCCEEDED"
    detail = {
        **{field: execution[field] for field in ("executionArn", "stateMachineArn", "name", "status", "input")},
        "startDate": _milliseconds(execution["startDate"]),
        "stopDate": _milliseconds(execution["stopDate"]),
        "inputDetails": {"included": True},
        "output": execution["output"] if succeeded else None,
        "outputDetails": {"included": True} if succeeded else None,
        "error": execution.get("error"),
        "cause": execution.get("cause"),
        "stateMachineVersionArn": None,
        "stateMachineAliasArn": None,
        "redriveCount": 0,
        "redriveDate": None,
        "redriveStatus": "NOT_REDRIVABLE" if status in ("RUNNING", "SUCCEEDED") else "REDRIVABLE",
        "redriveStatusReason": "",
    }
    events.emit("aws.states", "Step Functions Execution Status Change", detail, [execution["executionArn"]])


def _measure(machine: str, metric: str) -> None:
    cloudwatch.record_metric("AWS/States", metric, 1, "Count", {"StateMachineArn": machine})
    cloudwatch._evaluate_all_alarms()


def _update(request: dict) -> Response:
    known = stepfunctions._state_machines.get(request["stateMachineArn"])
    return (known and _refusal({**known, **request})) or _update_machine(request)


def _refusal(request: dict) -> Response | None:
    """Returns why a machine cannot be made, None where it can."""
    if faults := definitions.faults(request["definition"]):
        message = f"Invalid State Machine Definition: '{', '.join(faults)}'"
        return responses.error_response_json("InvalidDefinition", message, 400)
    role = request["roleArn"]
    machine = request.get("stateMachineArn") or _machine_arn(request["name"])
    if not permissions.service_may_assume(role, SERVICE, machine):
        message = f"Neither the global service principal {SERVICE}, nor the regional one is authorized to assume"
        return responses.error_response_json("AccessDeniedException", f"{message} the provided role.", 400)
    logging_ = request.get("loggingConfiguration") or {}
    if (logging_.get("level") or logging_.get("Level") or "OFF") != "OFF":
        missing = [action for action in LOG_DELIVERY if not permissions.role_may(role, action, "*")]
        if missing:
            message = "The state machine IAM Role is not authorized to access the Log Destination"
            return responses.error_response_json("AccessDeniedException", f"{message} ({', '.join(missing)})", 400)
    return None


def _create_resource(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
    """The state machine of a stack, likewise."""
    name = properties.get("StateMachineName") or provisioners._physical_name(stack, logical_id, max_len=80)
    request = {
        "name": name,
        "definition": provisioners._sfn_definition(properties),
        "roleArn": properties["RoleArn"],
        "loggingConfiguration": properties.get("LoggingConfiguration"),
    }
    if refusal := _refusal(request):
        raise provisioners._sfn_service_error(refusal)
    return _resource["create"](logical_id, properties, stack)


def _machine_arn(name: str) -> str:
    return f"arn:aws:states:{REGION}:{ACCOUNT}:stateMachine:{name}"


def _arn(machine: dict, name: str) -> str:
    return f"arn:aws:states:{REGION}:{ACCOUNT}:execution:{machine['name']}:{name}"


def _moment(iso: str) -> datetime:
    return datetime.fromisoformat(iso).astimezone(UTC)


def _iso(iso: str) -> str:
    return _moment(iso).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(iso: str | None) -> int | None:
    return int(_moment(iso).timestamp() * 1000) if iso else None
