"""Answers under /_local/: knobs, faults, injected events, and what was called."""

import asyncio
import json
import logging
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs

from local.dynamodb import tables
from local.ec2 import amis, instances, query
from local.ec2.volumes import Volumes
from local.ecr.repositories import MANIFEST_TYPES, Ecr
from local.eks import clusters
from local.eventbridge import events
from local.nodes.fleet import Fleet
from local.scheduler.schedules import Scheduler
from local.settings import ACCESS_KEY, ACCOUNT, REGION, REGISTRY_HOST
from local.ssm.runcommand import RunCommand
from local.stepfunctions import asl
from local.stepfunctions.machines import States
from local.traffic import Fault, Traffic

log = logging.getLogger("local.control")

PREFIX = "/_local/"


class Control:
    """The ASGI application under /_local/."""

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        fleet: Fleet,
        ecr: Ecr,
        run_command: RunCommand,
        traffic: Traffic,
        scheduler: Scheduler,
        states: States,
        volumes: Volumes,
    ):
        self.folder = folder
        self.endpoint = endpoint
        self.fleet = fleet
        self.ecr = ecr
        self.run_command = run_command
        self.traffic = traffic
        self.scheduler = scheduler
        self.states = states
        self.volumes = volumes

    def state(self) -> dict:
        """Returns how to reach the cloud, its nodes and its snapshots."""
        registry = self.ecr.registry
        return {
            "snapshots": self.volumes.snapshots(),
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
        asked = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        path = scope["path"].removeprefix(PREFIX).split("/")
        try:
            result = await asyncio.to_thread(self.answer, scope["method"], path, asked, json.loads(body or "{}"))
            status = 200
        except (KeyError, TypeError, ValueError) as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            status, result = 400, {"error": repr(error)}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(result).encode()})

    def answer(self, method: str, path: list[str], asked: dict, body: dict):
        """Returns the answer to one request."""
        match method, path:
            case "GET", ["state"]:
                return self.state()
            case "POST", ["instances"]:
                profile = body.get("profile")
                return {"instance_id": self.fleet.launch(body["tags"], profile, body.get("knobs", {}))}
            case "POST", ["fleet"]:
                return {"instance_ids": self.fleet.launch_many(**body)}
            case "POST", ["activations"]:
                return {"instance_id": self.fleet.register(body["tags"], body.get("knobs", {}))}
            case "DELETE", ["fleet"]:
                self.fleet.remove(body["instance_ids"])
            case "POST", ["nodes", instance_id]:
                instances.add_tags(instance_id, body.pop("tags", {}))
                self.fleet.turn(instance_id, body)
            case "GET", ["nodes", instance_id, "images"]:
                node = self.fleet.nodes[instance_id].node
                return {"id": node.image_status(asked["ref"])} if "ref" in asked else node.images()
            case "POST", ["defaults"]:
                vars(self.fleet.defaults).update(body)
            case "POST", ["registry"]:
                self._turn_registry(**body)
            case "POST", ["logins"]:
                self.ecr.expired = body["expired"]
            case "POST", ["faults", action]:
                self.traffic.faults[action] = Fault(**body)
            case "POST", ["state-faults"]:
                self.traffic.state_faults.append(asl.Fault(**body))
            case "DELETE", ["faults"]:
                self.traffic.heal()
            case "GET", ["executions"]:
                return self.states.describe()
            case "DELETE", ["pauses"]:
                self.states.release(body.get("execution"), body.get("state"))
            case "DELETE", ["executions", name, "time"]:
                self.states.expire(name)
            case "POST", ["cluster"]:
                return clusters.make(body["name"], body["version"])
            case "GET", ["amis", version, architecture]:
                return amis.newest(version, architecture)
            case "POST", ["amis"]:
                amis.publish_newer()
            case "POST", ["lag"]:
                query.lag(body["seconds"])
            case "POST", ["failing-snapshots"]:
                self.volumes.fail_next_snapshots(body["count"])
            case "POST", ["transactions"]:
                tables.slow_down(body.get("seconds", tables.TRANSACTION_SECONDS))
            case "POST", ["commands"]:
                return {"command_id": self.run_command.stage(body["request"], body["nodes"], body["age"])}
            case "POST", ["commands", command_id]:
                self.run_command.end(command_id, body)
            case "POST", ["rules", rule]:
                events.fire(rule)
            case "POST", ["schedules", name]:
                self.scheduler.fire(name, body.get("group"), body.get("at"))
            case "POST", ["held-events", source]:
                events.hold(source)
            case "DELETE", ["held-events", source]:
                return events.let_go(source)
            case "GET", ["events"]:
                return events.raised()
            case "POST", ["events"]:
                events.inject(body)
            case "POST", ["registry-events"]:
                self._registry_events(body["events"])
            case "GET", ["calls"]:
                return self.traffic.counted(asked.get("service"), asked.get("function"))
            case "DELETE", ["calls"]:
                self.traffic.forget()
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
                at = datetime.fromisoformat(notification["timestamp"]).timestamp()
                self.ecr.pushed(target["repository"], target["digest"], target.get("tag"), at)
