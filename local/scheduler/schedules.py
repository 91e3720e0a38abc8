"""Replaces EventBridge Scheduler: groups, schedules, and the clock that invokes what is due."""

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta

from local import background
from local.api import ApiError, Response, check, operation, page
from local.iam import permissions
from local.iam.permissions import Caller
from local.ministack import app, provisioners, scheduler
from local.scheduler import cron, targets
from local.scheduler.targets import ARN, RETRY_POLICY, SERVICE, group_arn
from local.traffic import Traffic

DEFAULT = "default"
PAGE_SIZE = 100
TICK_SECONDS = 0.5
STATUSES = {"ConflictException": 409, "ResourceNotFoundException": 404, "AccessDeniedException": 403}


class Scheduler:
    """Groups, schedules and when they are due."""

    def __init__(self, traffic: Traffic):
        self._traffic = traffic
        self._groups: dict[str, dict] = {}
        self._schedules: dict[tuple[str, str], dict] = {}
        self._due: dict[tuple[str, str], datetime | None] = {}
        self._tokens: dict[str, dict] = {}
        self._lock = threading.RLock()
        self._add_group(DEFAULT, {})
        self._operations = {
            "CreateSchedule": self.create,
            "UpdateSchedule": self.update,
            "GetSchedule": self.get,
            "ListSchedules": self.list,
            "DeleteSchedule": self.delete,
            "CreateScheduleGroup": self.create_group,
            "GetScheduleGroup": self.get_group,
            "ListScheduleGroups": self.list_groups,
            "DeleteScheduleGroup": self.delete_group,
        }

    def install(self) -> None:
        """Takes the place of ministack's, in CloudFormation too."""
        app.SERVICE_HANDLERS["scheduler"] = self.handle
        scheduler.start_scheduler = lambda: background.start(self._tick)
        provisioners._RESOURCE_HANDLERS["AWS::Scheduler::ScheduleGroup"] = {
            "create": self._create_group_resource,
            "update": lambda name, old, new, stack: (name, {"Arn": group_arn(name)}),
            "delete": self._delete_group_resource,
        }
        provisioners._RESOURCE_HANDLERS["AWS::Scheduler::Schedule"] = {
            "create": self._create_resource,
            "update": self._update_resource,
            "delete": lambda name, properties: self._forget((properties.get("GroupName", DEFAULT), name)),
        }

    async def handle(self, method: str, path: str, headers: dict, body: bytes, query: dict) -> Response:
        """Answers one request."""
        try:
            name, request = operation("scheduler", method, path, query, json.loads(body or "{}"))
            if name not in self._operations:
                raise ApiError("ValidationException", f"The local cloud has no {name}.")
            check("scheduler", name, request)
            if name in ("CreateSchedule", "UpdateSchedule"):
                role = request["Target"]["RoleArn"]
                Caller(headers, query).require("iam:PassRole", role, {}, {"iam:PassedToService": SERVICE})
            with self._lock:
                result = self._operations[name](request)
        except ApiError as error:
            answer = {"Message": error.message}
            status = STATUSES.get(error.code, 400)
            return status, {"Content-Type": "application/json", "x-amzn-errortype": error.code}, _json(answer)
        return 200, {"Content-Type": "application/json"}, _json(result)

    def create(self, request: dict) -> dict:
        """CreateSchedule; the same ClientToken makes one schedule."""
        key = _key(request)
        known = self._tokens.get(request.get("ClientToken", ""))
        if key in self._schedules and known != request:
            raise ApiError("ConflictException", f"Schedule {key[1]} already exists.")
        if key not in self._schedules:
            now = time.time()
            self._keep(key, request, {"CreationDate": now, "LastModificationDate": now})
            self._tokens[request.get("ClientToken", "")] = request
        return {"ScheduleArn": _arn(key)}

    def update(self, request: dict) -> dict:
        """UpdateSchedule: what the request leaves out is as if it had never been said."""
        key = _key(request)
        created = self._found(key)["CreationDate"]
        self._keep(key, request, {"CreationDate": created, "LastModificationDate": time.time()})
        return {"ScheduleArn": _arn(key)}

    def get(self, request: dict) -> dict:
        """GetSchedule."""
        return self._found(_key(request))

    def list(self, request: dict) -> dict:
        """ListSchedules, by group and name."""
        if "GroupName" in request:
            self._group(request["GroupName"])
        summary = ("Arn", "CreationDate", "GroupName", "LastModificationDate", "Name", "State")
        rows = [
            {name: schedule[name] for name in summary} | {"Target": {"Arn": schedule["Target"]["Arn"]}}
            for (group, name), schedule in sorted(self._schedules.items())
            if request.get("GroupName", group) == group
            and name.startswith(request.get("NamePrefix", ""))
            and request.get("State", schedule["State"]) == schedule["State"]
        ]
        return _page("Schedules", rows, request)

    def delete(self, request: dict) -> dict:
        """DeleteSchedule."""
        self._found(_key(request))
        self._forget(_key(request))
        return {}

    def create_group(self, request: dict) -> dict:
        """CreateScheduleGroup."""
        name = request["Name"]
        if name in self._groups:
            raise ApiError("ConflictException", f"Schedule group {name} already exists.")
        self._add_group(name, request)
        return {"ScheduleGroupArn": group_arn(name)}

    def get_group(self, request: dict) -> dict:
        """GetScheduleGroup."""
        return self._group(request["Name"])

    def list_groups(self, request: dict) -> dict:
        """ListScheduleGroups, by name."""
        prefix = request.get("NamePrefix", "")
        rows = [group for name, group in sorted(self._groups.items()) if name.startswith(prefix)]
        return _page("ScheduleGroups", rows, request)

    def delete_group(self, request: dict) -> dict:
        """DeleteScheduleGroup, with all its schedules."""
        name = request["Name"]
        if name == DEFAULT:
            raise ApiError("ValidationException", "The default schedule group cannot be deleted.")
        self._group(name)
        for key in [key for key in self._schedules if key[0] == name]:
            self._forget(key)
        del self._groups[name]
        return {}

    def fire(self, name: str, group: str | None, moment: str | None) -> None:
        """Has the next moment of a schedule come, or the one that is named."""
        with self._lock:
            [key] = [key for key in self._schedules if key[1] == name and group in (None, key[0])]
            schedule = self._schedules[key]
        if schedule["State"] != "ENABLED":
            raise ValueError(f"{name} is disabled.")
        at = datetime.fromisoformat(moment) if moment else self._due[key]
        if at is None:
            raise ValueError(f"{name} has no further moment.")
        background.start(targets.invoke, self._traffic, schedule, at)

    def _keep(self, key: tuple[str, str], request: dict, dates: dict) -> None:
        """Stores a schedule, or refuses it as AWS does."""
        self._group(key[0])
        target = request["Target"]
        if not permissions.service_may_assume(target["RoleArn"], SERVICE, group_arn(key[0])):
            message = "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
            raise ApiError("ValidationException", message)
        if not re.fullmatch(r"arn:aws:(lambda|sqs):[^:]+:\d{12}:.+", target["Arn"]):
            raise ApiError("ValidationException", f"Provided Arn {target['Arn']} is not supported by the local cloud.")
        if ":lambda:" in target["Arn"]:
            _check_json(target.get("Input", "{}"))
        window = request["FlexibleTimeWindow"]
        if (window["Mode"] == "OFF") == ("MaximumWindowInMinutes" in window):
            raise ApiError(
                "ValidationException", "MaximumWindowInMinutes goes with the mode FLEXIBLE, and only with it."
            )
        defaults = {"ActionAfterCompletion": "NONE", "ScheduleExpressionTimezone": "UTC", "State": "ENABLED"}
        schedule = defaults | {name: value for name, value in request.items() if name != "ClientToken"} | dates
        schedule |= {"Arn": _arn(key), "GroupName": key[0]}
        schedule["Target"] = {"RetryPolicy": RETRY_POLICY, **target}
        due = _next(schedule, datetime.now(UTC))
        self._schedules[key], self._due[key] = schedule, due

    def _forget(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._schedules.pop(key, None)
            self._due.pop(key, None)

    def _found(self, key: tuple[str, str]) -> dict:
        self._group(key[0])
        if key not in self._schedules:
            raise ApiError("ResourceNotFoundException", f"Schedule {key[1]} does not exist.")
        return self._schedules[key]

    def _group(self, name: str) -> dict:
        if name not in self._groups:
            raise ApiError("ResourceNotFoundException", f"Schedule group {name} does not exist.")
        return self._groups[name]

    def _add_group(self, name: str, request: dict) -> None:
        now = time.time()
        dates = {"CreationDate": now, "LastModificationDate": now}
        self._groups[name] = {"Arn": group_arn(name), "Name": name, "State": "ACTIVE", **dates}

    def _tick(self) -> None:
        """Invokes what is due, for ever."""
        while True:
            time.sleep(TICK_SECONDS)
            now = datetime.now(UTC)
            with self._lock:
                due = [(key, at) for key, at in self._due.items() if at and at <= now]
                for key, at in due:
                    schedule = self._schedules[key]
                    self._due[key] = _next(schedule, now)
                    if schedule["State"] == "ENABLED":
                        background.start(targets.invoke, self._traffic, schedule, at)
                    if self._due[key] is None and schedule["ActionAfterCompletion"] == "DELETE":
                        self._forget(key)

    def _create_group_resource(self, logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
        name = properties.get("Name") or provisioners._physical_name(stack, logical_id, max_len=64)
        self._provision("CreateScheduleGroup", {"Name": name, **_without(properties, "Name")})
        return name, {"Arn": group_arn(name)}

    def _delete_group_resource(self, name: str, properties: dict) -> None:
        with self._lock:
            if name in self._groups:
                self.delete_group({"Name": name})

    def _create_resource(self, logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
        name = properties.get("Name") or provisioners._physical_name(stack, logical_id, max_len=64)
        request = {"Name": name, **_typed(_without(properties, "Name"))}
        self._provision("CreateSchedule", request)
        return name, {"Arn": _arn(_key(request))}

    def _update_resource(self, name: str, old: dict, new: dict, stack: str) -> tuple[str, dict]:
        if (old.get("Name"), old.get("GroupName")) != (new.get("Name"), new.get("GroupName")):
            raise ValueError("The local cloud does not replace schedules; give the new one another logical id.")
        request = {"Name": name, **_typed(_without(new, "Name"))}
        self._provision("UpdateSchedule", request)
        return name, {"Arn": _arn(_key(request))}

    def _provision(self, name: str, request: dict) -> None:
        try:
            check("scheduler", name, request)
            with self._lock:
                self._operations[name](request)
        except ApiError as error:
            raise ValueError(f"{error.message} ({error.code})") from error


def _key(request: dict) -> tuple[str, str]:
    return request.get("GroupName", DEFAULT), request["Name"]


def _arn(key: tuple[str, str]) -> str:
    return f"{ARN}:schedule/{key[0]}/{key[1]}"


def _page(member: str, rows: list[dict], request: dict) -> dict:
    try:
        rows, rest = page(rows, request.get("NextToken"), request.get("MaxResults", PAGE_SIZE))
    except ApiError as error:
        raise ApiError("ValidationException", "Invalid NextToken provided.") from error
    return {member: rows, **rest}


def _next(schedule: dict, now: datetime) -> datetime | None:
    """Returns when a schedule is due after now; None for never."""
    created = datetime.fromtimestamp(schedule["CreationDate"], UTC)
    start = _moment(schedule.get("StartDate")) or created
    try:
        times = cron.parse(schedule["ScheduleExpression"], schedule["ScheduleExpressionTimezone"], start)
    except cron.Unusable as error:
        raise ApiError("ValidationException", str(error)) from error
    at = times.after(max(now, start - timedelta(seconds=1)))
    end = None if isinstance(times, cron.Once) else _moment(schedule.get("EndDate"))
    return None if at and end and at > end else at


def _moment(value: float | str | None) -> datetime | None:
    """Returns a date of a request, which is a number, or of a template, which is a text."""
    if value is None:
        return None
    return datetime.fromtimestamp(value, UTC) if isinstance(value, int | float) else datetime.fromisoformat(value)


def _check_json(text: str) -> None:
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        raise ApiError("ValidationException", "Invalid request provided: Input must be well-formed JSON.") from error


def _json(value: dict) -> bytes:
    return json.dumps(value).encode()


def _without(properties: dict, name: str) -> dict:
    return {key: value for key, value in properties.items() if key != name}


def _typed(properties: dict) -> dict:
    """Returns a template's properties with the numbers that it may say as texts."""
    text = json.dumps(properties)
    return json.loads(re.sub(r'("Maximum\w+"): "(\d+)"', r"\1: \2", text))
