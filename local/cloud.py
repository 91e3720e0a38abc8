"""Builds the whole cloud as one application: ministack with our layer in it, registry, nodes, control endpoints."""

import json
import os
import random
import socket
from pathlib import Path

from hypercorn.asyncio import serve as serve_asgi
from hypercorn.config import Config

from local.apigateway import http_apis
from local.autoscaling import groups
from local.cloudformation import custom_resources, stack_events
from local.cloudwatch import metrics
from local.control import PREFIX, Control
from local.dynamodb import tables
from local.ec2 import instances, launch_templates, query
from local.ec2.launches import Launches
from local.ec2.volumes import Volumes
from local.ecr.registry import Registry
from local.ecr.registry_api import RegistryApi
from local.ecr.repositories import Ecr
from local.eventbridge import events
from local.iam import permissions, roles, simulation
from local.lambda_ import asynchronous, functions, vpc
from local.ministack import app
from local.nodes import builders
from local.nodes.bare import BareNode
from local.nodes.fleet import Fleet, Knobs
from local.nodes.node import Node
from local.s3 import buckets
from local.scheduler.schedules import Scheduler
from local.settings import CENTRAL_HOST, FOREIGN_REGISTRY_HOST, REGISTRY_HOST
from local.sqs import queues
from local.ssm import document_resource
from local.ssm.operations import Ssm
from local.stepfunctions.machines import States
from local.traffic import Traffic

REGISTRY_PORT = 443


MODULES = (
    permissions,
    document_resource,
    functions,
    queues,
    asynchronous,
    events,
    stack_events,
    custom_resources,
    query,
    instances,
    groups,
    launch_templates,
    http_apis,
    tables,
    buckets,
    metrics,
    roles,
    simulation,
    vpc,
)
"""Says what is installed in ministack, in this order, before the parts that have a state of their own."""


async def serve(folder: Path, listener: socket.socket, endpoint: str) -> None:
    """Starts the registry and serves on the listener until killed."""
    notify_url = f"{endpoint}{PREFIX}registry-events"
    hosts = [REGISTRY_HOST, CENTRAL_HOST]
    registry = Registry(folder / "registry", _free_address(), hosts, os.urandom(24).hex(), notify_url)
    foreign = Registry(folder / "foreign", _free_address(), [FOREIGN_REGISTRY_HOST], "", anonymous=True)
    volumes = Volumes(folder / "ebs")
    fleet = Fleet(lambda instance_id, knobs: _node(folder / "nodes" / instance_id, registry, foreign, volumes, knobs))
    ssm, ecr, traffic = Ssm(fleet), Ecr(registry), Traffic()
    scheduler, states = Scheduler(traffic), States(traffic)
    control = Control(folder, endpoint, fleet, ecr, foreign, ssm.run_command, traffic, scheduler, states, volumes)
    parts = (ssm, ecr, traffic, scheduler, states, volumes, Launches(volumes), RegistryApi(registry))
    for layer in (*MODULES, *parts):
        layer.install()
    registry.start()
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    await serve_asgi(_application(control, folder / "ready.json"), config)


def _application(control: Control, ready: Path):
    """Returns the ASGI application; it writes the file once ministack has started."""

    async def application(scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await app.app(scope, receive, _announcing(send, ready, control))
        elif scope["type"] == "http" and scope["path"].startswith(PREFIX):
            await control(scope, receive, send)
        else:
            await app.app(scope, receive, send)

    return application


def _announcing(send, ready: Path, control: Control):
    async def announce(message) -> None:
        await send(message)
        if message["type"] == "lifespan.startup.complete":
            partial = ready.with_suffix(".partial")
            partial.write_text(json.dumps(control.state()))
            partial.rename(ready)

    return announce


def _node(folder: Path, registry: Registry, foreign: Registry, volumes: Volumes, knobs: Knobs) -> Node | BareNode:
    """Returns the node behind an instance, not yet started."""
    if builder := builders.node(folder, registry, volumes):
        return builder
    if knobs.containerd == "none":
        return BareNode(folder)
    return Node(folder, folder.name, registry, knobs.containerd, login=knobs.login, neighbours=[foreign])


def _free_address() -> str:
    """Returns a loopback address whose port 443 nobody has."""
    while True:
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        with socket.socket() as probe:
            try:
                probe.bind((address, REGISTRY_PORT))
            except PermissionError as error:
                raise SystemExit(f"The registry needs port {REGISTRY_PORT} of {address}: {error}.") from error
            except OSError:
                continue
        return address
