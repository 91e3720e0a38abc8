"""Answers under /_local/: knobs, faults, injected events, and what was called."""

import asyncio
import json
import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from urllib.parse import parse_qs

from local.dynamodb import tables
from local.ec2 import amis, instances, query
from local.ec2.volumes import Volumes
from local.ecr.registry import Registry
from local.ecr.repositories import MANIFEST_TYPES, Ecr
from local.eks import clusters
from local.eventbridge import events
from local.nodes import cri
from local.nodes.fleet import Fleet
from local.scheduler.schedules import Scheduler
from local.settings import ACCESS_KEY, ACCOUNT, CENTRAL_ACCOUNT, CENTRAL_HOST, REGION, REGISTRY_HOST
from local.ssm.runcommand import RunCommand
from local.stepfunctions.faults import Fault as StateFault
from local.stepfunctions.machines import States
from local.traffic import Fault, Traffic

log = logging.getLogger("local.control")

PREFIX = "/_local/"
ANY = "*"
"""Stands in a route for one part of a path."""


class Control:
    """The ASGI application under /_local/."""

    def __init__(
        self,
        folder: Path,
        endpoint: str,
        fleet: Fleet,
        ecr: Ecr,
        foreign: Registry,
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
        self.foreign = foreign
        self.run_command = run_command
        self.traffic = traffic
        self.scheduler = scheduler
        self.states = states
        self.volumes = volumes
        self._routes = self._table()

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
            "central_account": CENTRAL_ACCOUNT,
            "central_host": CENTRAL_HOST,
            "registry_url": registry.url,
            "registry_ca": str(registry.ca),
            "registry_password": registry.password,
            "foreign_host": self.foreign.hosts[0],
            "foreign_url": self.foreign.url,
            "foreign_ca": str(self.foreign.ca),
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
        options = {key: values[0] for key, values in parse_qs(scope["query_string"].decode()).items()}
        path = scope["path"].removeprefix(PREFIX).split("/")
        try:
            result = await asyncio.to_thread(self.answer, scope["method"], path, options, json.loads(body or "{}"))
            status = 200
        except (KeyError, TypeError, ValueError, cri.NotReady) as error:
            log.exception("%s %s failed", scope["method"], scope["path"])
            status, result = 400, {"error": repr(error)}
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(result).encode()})

    def answer(self, method: str, path: list[str], options: dict, body: dict):
        """Returns the answer to one request."""
        for route, work in self._routes.items():
            wanted, _, pattern = route.partition(" ")
            parts = pattern.split("/")
            if (wanted, len(parts)) == (method, len(path)) and all(map(_fits, parts, path)):
                given = [value for part, value in zip(parts, path, strict=True) if part == ANY]
                result = work(body, options, *given)
                return {} if result is None else result
        raise ValueError(f"There is no {method} {PREFIX}{'/'.join(path)}.")

    def _table(self) -> dict[str, Callable]:
        """Returns what answers each request: it gets the body, the query's options, and what stands in place of a *."""
        return {
            "GET state": lambda body, _: self.state(),
            "POST instances": lambda body, _: {
                "instance_id": self.fleet.launch(body["tags"], body.get("profile"), body.get("knobs", {}))
            },
            "POST fleet": lambda body, _: {"instance_ids": self.fleet.launch_many(**body)},
            "DELETE fleet": lambda body, _: self.fleet.remove(body["instance_ids"]),
            "POST activations": lambda body, _: {
                "instance_id": self.fleet.register(body["tags"], body.get("knobs", {}))
            },
            "POST nodes/*": self._turn_node,
            "GET nodes/*/images": self._images,
            "GET nodes/*/pid": lambda body, _, instance_id: {"pid": self.fleet.nodes[instance_id].node.pid()},
            "POST nodes/*/pods": self._run_pod,
            "DELETE nodes/*/containers/*": lambda body, _, instance_id, container: self.fleet.nodes[
                instance_id
            ].stop_container(container),
            "POST defaults": lambda body, _: vars(self.fleet.defaults).update(body),
            "POST registry": lambda body, _: self._turn_registry(self.ecr.registry, **body),
            "POST foreign-registry": lambda body, _: self._turn_registry(self.foreign, **body),
            "POST logins": lambda body, _: setattr(self.ecr, "expired", body["expired"]),
            "POST faults/*": lambda body, _, action: self.traffic.faults.update({action: Fault(**body)}),
            "POST state-faults": lambda body, _: self.traffic.state_faults.append(StateFault(**body)),
            "DELETE faults": lambda body, _: self.traffic.heal(),
            "GET executions": lambda body, _: self.states.describe(),
            "DELETE pauses": lambda body, _: self.states.release(body.get("execution"), body.get("state")),
            "DELETE executions/*/time": lambda body, _, name: self.states.expire(name),
            "POST cluster": lambda body, _: clusters.make(body["name"], body["version"]),
            "GET amis/*/*": lambda body, _, version, architecture: amis.newest(version, architecture),
            "POST amis": lambda body, _: amis.publish_newer(),
            "POST lag": lambda body, _: query.lag(body["seconds"]),
            "POST failing-snapshots": lambda body, _: self.volumes.fail_next_snapshots(body["count"]),
            "POST transactions": lambda body, _: tables.slow_down(body.get("seconds", tables.TRANSACTION_SECONDS)),
            "POST commands": lambda body, _: {
                "command_id": self.run_command.stage(body["request"], body["nodes"], body["age"])
            },
            "POST commands/*": lambda body, _, command_id: self.run_command.end(command_id, body),
            "POST rules/*": lambda body, _, rule: events.fire(rule),
            "POST schedules/*": lambda body, _, name: self.scheduler.fire(name, body.get("group"), body.get("at")),
            "POST held-events/*": lambda body, _, source: events.hold(source),
            "DELETE held-events/*": lambda body, _, source: events.let_go(source),
            "GET events": lambda body, _: events.raised(),
            "POST events": lambda body, _: events.inject(body),
            "POST registry-events": lambda body, _: self._registry_events(body["events"]),
            "GET calls": lambda body, options: self.traffic.counted(options.get("service"), options.get("function")),
            "DELETE calls": lambda body, _: self.traffic.forget(),
        }

    def _turn_node(self, body: dict, _: dict, instance_id: str) -> None:
        instances.add_tags(instance_id, body.pop("tags", {}))
        self.fleet.turn(instance_id, body)

    def _images(self, _: dict, options: dict, instance_id: str) -> dict:
        node = self.fleet.nodes[instance_id].node
        return {"id": node.image_status(options["ref"])} if "ref" in options else node.images()

    def _run_pod(self, body: dict, _: dict, instance_id: str) -> dict:
        container, is_present = self.fleet.nodes[instance_id].run_pod(body["image"])
        return {"container": container, "present": is_present}

    @staticmethod
    def _turn_registry(registry: Registry, up: bool, stall: bool = False) -> None:
        if up:
            registry.resume()
        else:
            registry.pause(stall=stall)

    def _registry_events(self, notifications: list[dict]) -> None:
        for notification in notifications:
            target = notification["target"]
            if notification["action"] == "push" and target.get("mediaType") in MANIFEST_TYPES:
                at = datetime.fromisoformat(notification["timestamp"]).timestamp()
                self.ecr.pushed(target["repository"], target["digest"], target.get("tag"), at)


def _fits(part: str, value: str) -> bool:
    return part in (ANY, value)
