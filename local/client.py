"""Starts a local cloud for tests, the demo and the benches, turns its knobs and calls its APIs."""

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import boto3
import botocore.session
from botocore.config import Config

from local import images
from local.child import descendants, told

ROOT = Path(__file__).parent.parent
UNCONFIGURED = {"profile": (None, None, None, None), "config_file": (None, None, os.devnull, None)}
"""Has botocore look at nobody's profile and configuration."""

END_SECONDS = 30
"""Says how long a cloud may take to end; it takes one second, on a busy machine some."""

DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

T = TypeVar("T")


class LocalCloud:
    """A local cloud of one's own: `with LocalCloud() as cloud: …`."""

    def __init__(self, **settings: str):
        self.settings = settings
        self._process: subprocess.Popen | None = None
        self._state: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "local", "up"],
            cwd=ROOT,
            env={**os.environ, **self.settings},
            stdout=subprocess.PIPE,
            text=True,
        )
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"The local cloud did not start; exit code {self._process.wait()}.")
        return self._knowing(json.loads(line))

    @classmethod
    def running(cls, state: dict[str, Any]) -> Self:
        """Returns a client of a cloud that somebody else has started, and said this of."""
        return cls()._knowing(state)

    def _knowing(self, state: dict[str, Any]) -> Self:
        self._state = state
        self._session = boto3.Session(botocore_session=botocore.session.Session(UNCONFIGURED))
        return self

    def __exit__(self, *_) -> None:
        self._process.terminate()
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired as error:
            living = [told(pid) for pid in descendants(self._process.pid)]
            self._process.kill()  # what it has started dies with it
            self._process.wait()
            raise RuntimeError(f"The local cloud had not ended after {END_SECONDS} s: {', '.join(living)}") from error

    def __getattr__(self, name: str) -> Any:
        """Returns what the cloud said of itself: endpoint, account, region, registry_url, registry_ca …"""
        with contextlib.suppress(KeyError):
            return self.__dict__["_state"][name]
        raise AttributeError(name)

    def env(self) -> dict[str, str]:
        """Returns the environment for sam, aws and other tools: the cloud's endpoint, nothing ambient of AWS."""
        ambient = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        loopback = "127.0.0.0/8,127.0.0.1,localhost"
        return ambient | {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "SAM_CLI_TELEMETRY": "0",
            "NO_PROXY": loopback,
            "no_proxy": loopback,
        }

    def client(self, service: str, config: Config | None = None, **options: Any):
        """Returns a boto3 client, the administrator's unless the options hold other credentials."""
        return self._session.client(
            service,
            config=Config(proxies={}).merge(config or Config()),
            endpoint_url=self.endpoint,
            region_name=self.region,
            **{
                "aws_access_key_id": self.access_key_id,
                "aws_secret_access_key": self.secret_access_key,
                **options,
            },
        )

    def push(self, repository: str, tag: str | None, image: images.Artifact) -> str:
        """Pushes an image and returns its digest once ECR knows it."""
        digest = images.push(self.registry_url, self.registry_ca, self.registry_password, repository, tag, image)
        wanted = {"imageDigest": digest} | ({"imageTag": tag} if tag else {})
        ecr = self.client("ecr")

        def known() -> bool:
            with contextlib.suppress(ecr.exceptions.ImageNotFoundException, ecr.exceptions.RepositoryNotFoundException):
                return bool(ecr.describe_images(repositoryName=repository, imageIds=[wanted])["imageDetails"])
            return False

        until(known, 10, f"ECR to know {repository}:{tag}")
        return digest

    def launch(self, tags: Mapping[str, str], profile: str | None = "eks-node", **knobs: Any) -> str:
        """Runs one instance with any tags, `aws:` ones too, and the knobs of its node; returns its id.

        Of one with the tag aws:autoscaling:groupName Auto Scaling tells too.
        """
        body = {"tags": dict(tags), "profile": profile, "knobs": knobs}
        return self.control("POST", "instances", body)["instance_id"]

    def launch_many(
        self,
        count: int,
        tags: Mapping[str, str],
        profile: str | None = "eks-node",
        age: float = 0,
        operator: str | None = None,
        subnet: str | None = None,
        **knobs: Any,
    ) -> list[str]:
        """Has many instances run, for that many seconds already, of which no event is raised; returns their ids.

        An operator is the service that manages them, such as eks.amazonaws.com. Without a subnet it is the default one.
        """
        body = {"count": count, "tags": dict(tags), "profile": profile, "age": age, "operator": operator}
        return self.control("POST", "fleet", {**body, "subnet": subnet, "knobs": knobs})["instance_ids"]

    def register(self, tags: Mapping[str, str], **knobs: Any) -> str:
        """Has a machine outside EC2 be registered with SSM, with the knobs of its node; returns its id, mi-…."""
        return self.control("POST", "activations", {"tags": dict(tags), "knobs": knobs})["instance_id"]

    def remove(self, instance_ids: Sequence[str]) -> None:
        """Has instances be no more, of which no event is raised."""
        self.control("DELETE", "fleet", {"instance_ids": list(instance_ids)})

    def terminate(self, instance_id: str) -> None:
        """Terminates an instance."""
        self.client("ec2").terminate_instances(InstanceIds=[instance_id])

    def cluster(self, name: str, version: str = "1.33") -> dict:
        """Makes an EKS cluster, or gives it another version; returns its version, subnets and security group.

        Its network has two private subnets and a public one, and stays the same.
        """
        return self.control("POST", "cluster", {"name": name, "version": version})

    def ami(self, architecture: str = "x86_64", version: str = "1.33") -> str:
        """Returns the id of Bottlerocket's newest AMI for a version of Kubernetes, as its public parameter does."""
        return self.control("GET", f"amis/{version}/{architecture}")

    def publish_amis(self) -> None:
        """Has Bottlerocket publish new AMIs: all public parameters take other values."""
        self.control("POST", "amis", {})

    def fail_snapshots(self, count: int = 1) -> None:
        """Has the next snapshots that would be complete end in error."""
        self.control("POST", "failing-snapshots", {"count": count})

    @contextlib.contextmanager
    def lagging_ec2(self, seconds: float) -> Iterator[None]:
        """Has EC2 list, and know by their ids, instances and snapshots that long after they were made."""
        self.control("POST", "lag", {"seconds": seconds})
        try:
            yield
        finally:
            self.control("POST", "lag", {"seconds": 0})

    def turn(self, instance_id: str, **knobs: Any) -> None:
        """Sets knobs of a node: online, online_after, delay, die_on_command, endings, agent; `tags` adds tags."""
        self.control("POST", f"nodes/{instance_id}", knobs)

    def turn_defaults(self, **knobs: Any) -> None:
        """Sets knobs for instances launched later."""
        self.control("POST", "defaults", knobs)

    def turn_registry(self, up: bool, stall: bool = False) -> None:
        """Takes the registry down (refusing, or with `stall` accepting and never answering) or up again."""
        self.control("POST", "registry", {"up": up, "stall": stall})

    @contextlib.contextmanager
    def expired_logins(self) -> Iterator[None]:
        """Has ECR hand out logins that its registry does not take."""
        self.control("POST", "logins", {"expired": True})
        try:
            yield
        finally:
            self.control("POST", "logins", {"expired": False})

    def throttle(
        self,
        service: str,
        action: str,
        times: int,
        code: str = "ThrottlingException",
        skip: int = 0,
        function: str | None = None,
        per_second: float | None = None,
    ) -> None:
        """Fails the next calls of an action, after some that pass, in place of what was set before; none with 0.

        With a function only its calls are meant, with a rate those above it. Of a transaction the code may be a
        cancellation reason, of a BatchGetItem UnprocessedKeys; Empty answers with status 200 and nothing of what was
        asked for.
        """
        fault = {"times": times, "code": code, "skip": skip, "function": function, "per_second": per_second}
        self._set_fault(service, action, fault)

    def slow_down(self, service: str, action: str, seconds: float, times: int = 10_000) -> None:
        """Has the next calls of an action take so long, in place of what was set before."""
        self._set_fault(service, action, {"times": times, "code": None, "seconds": seconds})

    def lose(self, service: str, action: str, times: int, function: str | None = None) -> None:
        """Has the next calls of an action be carried out and answered with a server error; with a function only its."""
        fault = {"times": times, "code": "InternalServerError", "function": function, "lost": True}
        self._set_fault(service, action, fault)

    def kill(self, function: str, service: str, action: str, when: Literal["before", "after"], skip: int = 0) -> None:
        """Kills the function at a call it makes, before AWS carries it out or after, once; its answer is lost."""
        self._set_fault(service, action, {"times": 1, "skip": skip, "function": function, "dies": when})

    def forget_faults(self) -> None:
        """Has every call answered as it should be."""
        self.control("DELETE", "faults")

    def fault_state(
        self,
        state: str,
        does: Literal["fail", "hang", "pause"] = "fail",
        when: Literal["before", "after"] = "before",
        **fault: Any,
    ) -> None:
        """Has something happen to a state of a state machine when it is next entered or tried again (`faults.Fault`).

        A task fails, throttled by its service unless `error` and `cause` say otherwise, or hangs until its time is
        over; any state can be made to pause until `release`. `after` its call is made, a task's answer is lost. Further
        fields: `times`, `skip`, `execution` (its name).
        """
        self.control("POST", "state-faults", {"state": state, "does": does, "when": when, **fault})

    def release(self, state: str | None = None, execution: str | None = None) -> None:
        """Has executions go on that pause in a state, or in any."""
        self.control("DELETE", "pauses", {"state": state, "execution": execution})

    def expire(self, execution: str) -> None:
        """Has the time that an execution may take, named or by its ARN, be over: it ends as TIMED_OUT."""
        self.control("DELETE", f"executions/{execution}/time")

    def executions(self, machine: str | None = None) -> list[dict]:
        """Returns the executions of a state machine or of all, oldest first: name, arn, status, error, cause, states.

        `states` are those that it is in, outermost first, or the one it failed in; in those of `paused` it waits.
        """
        return [row for row in self.control("GET", "executions") if machine in (None, row["machine"])]

    def _set_fault(self, service: str, action: str, fault: dict) -> None:
        self.control("POST", f"faults/{service}:{action}", fault)

    @contextlib.contextmanager
    def slow_transactions(self, seconds: float) -> Iterator[None]:
        """Has DynamoDB's transactions take that long, so that more of them meet on a row."""
        self.control("POST", "transactions", {"seconds": seconds})
        try:
            yield
        finally:
            self.control("POST", "transactions", {})

    def stage_command(
        self,
        document: str,
        parameters: Mapping[str, list[str]],
        comment: str,
        nodes: Mapping[str, Mapping | None],
        age: float = 0,
        **request: Any,
    ) -> str:
        """Makes a command as if it had been sent that many seconds ago; returns its id.

        Its nodes need not exist: each ends as said (`scripted.Ending`), all at once; of None nothing is heard.
        """
        request |= {"DocumentName": document, "Parameters": dict(parameters), "Comment": comment}
        return self.control("POST", "commands", {"request": request, "nodes": dict(nodes), "age": age})["command_id"]

    def end_command(self, command_id: str, nodes: Mapping[str, Mapping]) -> None:
        """Ends a staged command on nodes of which nothing was heard."""
        self.control("POST", f"commands/{command_id}", dict(nodes))

    @contextlib.contextmanager
    def holding_events(self, source: str) -> Iterator[Callable[[], list[dict]]]:
        """Holds the events of a service back: they are lost, but for those that the caller takes and sends."""
        self.control("POST", f"held-events/{source}", {})
        taken: list[dict] = []

        def take() -> list[dict]:
            taken.extend(self.control("DELETE", f"held-events/{source}"))
            return taken

        try:
            yield take
        finally:
            take()

    def fire(self, rule: str) -> None:
        """Has a scheduled rule's moment come."""
        self.control("POST", f"rules/{rule}", {})

    def fire_schedule(self, name: str, at: str | None = None, group: str | None = None) -> None:
        """Has the next moment of a schedule of EventBridge Scheduler come, or the one that is named."""
        self.control("POST", f"schedules/{name}", {"at": at, "group": group})

    def send_event(self, event: dict) -> None:
        """Delivers a whole event of an AWS service to EventBridge."""
        self.control("POST", "events", event)

    def events(self, detail_type: str | None = None) -> list[dict]:
        """Returns the events of AWS services so far, of one detail-type or all."""
        raised = self.control("GET", "events")
        return [event for event in raised if detail_type in (None, event["detail-type"])]

    def calls(self, service: str | None = None, function: str | None = None) -> dict[str, int]:
        """Returns how often each action was called since the start or `forget_calls`, by all or by one caller.

        A caller is a function or a state machine.
        """
        chosen = {name: value for name, value in (("service", service), ("function", function)) if value}
        return self.control("GET", f"calls?{urllib.parse.urlencode(chosen)}")

    def forget_calls(self) -> None:
        """Starts counting from zero."""
        self.control("DELETE", "calls")

    def images(self, instance_id: str) -> dict[str, str]:
        """Returns the names and digests in containerd's k8s.io namespace of a node."""
        return self.control("GET", f"nodes/{instance_id}/images")

    def image_status(self, instance_id: str, ref: str) -> str | None:
        """Returns the id of the image that kubelet would see on a node under that reference."""
        query = urllib.parse.urlencode({"ref": ref})
        return self.control("GET", f"nodes/{instance_id}/images?{query}")["id"]

    def state(self) -> dict:
        """Returns the cloud's addresses, nodes and snapshots."""
        return self.control("GET", "state")

    def until_online(self, *instance_ids: str, seconds: float = 10) -> None:
        """Waits until SSM can reach the nodes."""

        def online() -> bool:
            nodes = self.state()["nodes"]
            return all(nodes[instance_id]["online"] for instance_id in instance_ids)

        until(online, seconds, "the nodes to be online")

    def control(self, method: str, path: str, body: Any = None) -> Any:
        """Calls a control endpoint."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint}/_local/{path}", data=data, method=method)
        try:
            with DIRECT.open(request, timeout=60) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error


def until(condition: Callable[[], T], seconds: float, what: str = "the condition", every: float = 0.05) -> T:
    """Waits until the condition holds, looked at every so often, and returns its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"Waited {seconds} s for {what}.")
        time.sleep(every)
    return value
