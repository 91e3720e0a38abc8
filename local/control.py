"""The control endpoints under /_local/: knobs, faults, injected events, and what was called."""

import asyncio
import json
import logging
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs

from ministack import app as ministack
from ministack.core.iam_actions import access_denied_response, extract_iam_action
from ministack.core.router import detect_service

from local import events, instances
from local.api import Response
from local.ecr import MANIFEST_TYPES, Ecr
from local.fleet import Fleet
from local.settings import ACCESS_KEY, ACCOUNT, REGION, REGISTRY_HOST

log = logging.getLogger("local.control")

PREFIX = "/_local/"
SERVER_FAULTS = ("InternalServerError", "InternalError", "ServiceUnavailable", "RequestLimitExceeded")

_dispatch = ministack._dispatch_service_request


class Traffic:
    """Counts every call of an AWS API, and fails those it was told to."""

    def __init__(self):
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, dict] = {}

    def install(self) -> None:
        """Puts itself in front of every service."""
        ministack._dispatch_service_request = self.dispatch

    async def dispatch(self, method: str, path: str, headers: dict, body: bytes, query: dict, request_id: str):
        """Counts one call and passes it on."""
        parameters = ministack._routing_params(method, path, headers, body, query)
        service = detect_service(method, path, headers, parameters)
        action = extract_iam_action(service, method, path, headers, body, parameters) or f"{service}:{method}"
        self.calls[action] += 1
        if code := self._fault(action):
            return _failure(service, action, code, headers, request_id)
        return await _dispatch(method, path, headers, body, query, request_id)

    def counted(self, service: str | None) -> dict[str, int]:
        """Returns the calls so far, of one service or all."""
        return {a: n for a, n in sorted(self.calls.items()) if service is None or a.startswith(f"{service}:")}

    def _fault(self, action: str) -> str | None:
        fault = self.faults.get(action)
        if fault is None or fault["times"] <= 0:
            return None
        fault["times"] -= 1
        return fault.get("code", "ThrottlingException")


class Control:
    """The ASGI application under /_local/."""

    def __init__(self, folder: Path, endpoint: str, fleet: Fleet, ecr: Ecr, traffic: Traffic):
        self.folder = folder
        self.endpoint = endpoint
        self.fleet = fleet
        self.ecr = ecr
        self.traffic = traffic

    def state(self) -> dict:
        """Returns how to reach the cloud, and its nodes."""
        registry = self.ecr.registry
        return {
            "folder": str(self.folder),
            "endpoint": self.endpoint,
            "account": ACCOUNT,
            "region": REGION,
            "access_key_id": ACCESS_KEY,
            "secret_access_key": ACCESS_KEY,
            "registry_host": REGISTRY_HOST,
            "registry_url": registry.url,
            "registry_ca": str(registry.ca),
            "registry_password": registry.password,
            "nodes": {
                node.instance_id: {"state": node.state, "online": node.online, "knobs": vars(node.knobs)}
                for node in list(self.fleet.nodes.values())
            },
        }

    async def __call__(self, scope, receive, send) -> None:
        """Answers one request; the work is done off the event loop, as it may block."""
        body = b""
        while (message := await receive())["type"] == "http.request":
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        query = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        path = scope["path"].removeprefix(PREFIX).split("/")
        try:
            result = await asyncio.to_thread(self.answer, scope["method"], path, query, json.loads(body or "{}"))
            status = 200
        except (KeyError, TypeError, ValueError) as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            status, result = 400, {"error": repr(error)}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(result).encode()})

    def answer(self, method: str, path: list[str], query: dict, body: dict):
        """Returns the answer to one request."""
        match method, path:
            case "GET", ["state"]:
                return self.state()
            case "POST", ["instances"]:
                profile = body.get("profile")
                return {"instance_id": self.fleet.launch(body["tags"], profile, body.get("knobs", {}))}
            case "POST", ["nodes", instance_id]:
                instances.add_tags(instance_id, body.pop("tags", {}))
                self.fleet.turn(instance_id, body)
            case "GET", ["nodes", instance_id, "images"]:
                node = self.fleet.nodes[instance_id].node
                return {"id": node.image_status(query["ref"])} if "ref" in query else node.images()
            case "POST", ["defaults"]:
                vars(self.fleet.defaults).update(body)
            case "POST", ["registry"]:
                self._turn_registry(**body)
            case "POST", ["throttle"]:
                self.traffic.faults[f"{body['service']}:{body['action']}"] = body
            case "GET", ["events"]:
                return events.raised()
            case "POST", ["events"]:
                events.inject(body)
            case "POST", ["registry-events"]:
                self._registry_events(body["events"])
            case "GET", ["calls"]:
                return self.traffic.counted(query.get("service"))
            case "DELETE", ["calls"]:
                self.traffic.calls.clear()
            case _:
                raise ValueError(f"There is no {method} {PREFIX}{'/'.join(path)}.")
        return {}

    def _turn_registry(self, up: bool, stall: bool = False) -> None:
        if up:
            self.ecr.registry.resume()
        else:
            self.ecr.registry.pause(stall=stall)

    def _registry_events(self, notifications: list[dict]) -> None:
        for notification in notifications:
            target = notification["target"]
            if notification["action"] == "push" and target.get("mediaType") in MANIFEST_TYPES:
                self.ecr.pushed(target["repository"], target["digest"], target.get("tag"))


def _failure(service: str, action: str, code: str, headers: dict, request_id: str) -> Response:
    """Returns an error in the service's own protocol."""
    message = "Rate exceeded" if "hrottl" in code else f"Injected by the local cloud: {code}"
    _, answer_headers, body = access_denied_response(
        service, action, "", request_id, error_code=code, message=message, headers=headers
    )
    if service == "ssm":
        body = json.dumps({"__type": code, "message": message}).encode()
    return 503 if code in SERVER_FAULTS else 400, answer_headers, body
