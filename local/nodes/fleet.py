"""Has EC2 instances become nodes that SSM reaches, each as its knobs say."""

import copy
import dataclasses
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from local import background
from local.ec2 import instances
from local.ministack import ec2
from local.nodes import builders
from local.nodes.pods import Pods

MAX_COMMANDS = 5
"""Says how many commands the SSM agent runs at a time (amazon-ssm-agent, CommandWorkersLimit)."""


@dataclass
class Knobs:
    """Says how a node behaves."""

    online: bool = True
    """False: the agent does not answer, the network is gone."""
    online_after: float = 1.0
    """Seconds from `running` until SSM can reach the node."""
    delay: float = 0.0
    """Seconds by which every command takes longer."""
    die_on_command: bool = False
    """The node dies in the middle of the next command."""
    platform: str = "Linux"
    """Says what the agent says it runs on."""
    agent: str = "new"
    """`old`: the agent knows no interpolationType and substitutes parameters in the script's text."""
    containerd: str = "2.1"
    """The containerd it runs, where its AMI is not Bottlerocket's; `none` for a node without a container runtime."""
    login: str = "provider"
    """Says where it gets the registry's login: kubelet's credential `provider`, the `aws-cli`, or `none`."""
    endings: list[dict] = dataclasses.field(default_factory=list)
    """Says how its next commands end, by script instead of by running (`scripted.Ending`)."""
    managed: bool | None = None
    """Says whether the agent may register with SSM; None: when the instance has an instance profile."""


class ManagedNode:
    """One instance as SSM sees it, and the node behind it, which starts when first needed."""

    def __init__(self, instance_id: str, knobs: Knobs, make: Callable):
        self.instance_id = instance_id
        self.knobs = knobs
        self.agent_slots = threading.Semaphore(MAX_COMMANDS)
        self.running_since: float | None = None
        self.died = False
        self.seen: float | None = None
        """Says when the agent last answered, as far as anybody looked."""
        self._registered = False
        self._make = make
        self._node = None
        self._pods: Pods | None = None
        self._powered = False
        self._power_cuts = 0
        self._lock, self._pods_lock = threading.Lock(), threading.Lock()

    @property
    def online(self) -> bool:
        """Returns whether the agent answers."""
        self.observe()
        return self._reachable()

    @property
    def registered(self) -> bool:
        """Returns whether the agent has ever answered and the instance still exists."""
        self.observe()
        return self._registered and self.state in ("running", "stopping", "stopped")

    @property
    def state(self) -> str | None:
        """Returns the instance's state."""
        return instances.state(self.instance_id)

    @property
    def node(self):
        """Returns the node itself, started."""
        with self._lock:
            if self._node is None:
                self._node = self._make(self.instance_id, self.knobs)
            if not self._powered:
                self._node.start()
                self._powered = True
            return self._node

    def run_pod(self, reference: str) -> tuple[str, bool]:
        """Runs a pod as kubelet does; returns its container and whether its image was there."""
        node = self.node
        with self._pods_lock:
            self._pods = self._pods or Pods(node)
            return self._pods.schedule(reference)

    def stop_container(self, container: str) -> None:
        """Ends a container, which its pod keeps."""
        self._pods.stop(container)

    def observe(self) -> None:
        """Registers the node with SSM once its agent answers; it stays registered when it goes offline again."""
        if self._reachable():
            self._registered, self.seen = True, time.time()

    def wait_online(self, until: float, cancelled: Callable[[], bool]) -> bool:
        """Waits until the agent answers; returns False at that moment of time.monotonic(), or when cancelled."""
        while not self.online:
            if time.monotonic() >= until or cancelled():
                return False
            time.sleep(0.02)
        return True

    def run(self, script: str, env: dict[str, str], timeout: float):
        """Runs a script; returns None when the node dies while it runs."""
        node = self.node
        if self.knobs.die_on_command:
            background.later(self.knobs.delay or 0.3, self.die)
        else:
            time.sleep(self.knobs.delay)
        power_cuts = self._power_cuts
        completed = node.run(script, env, timeout)
        if self.knobs.die_on_command:
            self.die()  # where the command was quicker
        return None if self.died or self._power_cuts > power_cuts else completed

    def die(self) -> None:
        """Ends the node as a crash does: nothing on it answers any more."""
        self.died = True
        self.node.kill_running()

    def power_off(self) -> None:
        """Ends the node; what is on its disks stays, and it boots again when it is next needed."""
        self._power_cuts += 1
        with self._lock:
            if self._powered:
                self._node.kill_running()
                self._powered, self._pods = False, None

    def stop(self) -> None:
        """Ends the node and removes what it has left."""
        self.died = True
        with self._lock:
            if self._node is not None:
                self._node.stop()
                self._node, self._powered = None, False

    def _reachable(self) -> bool:
        return (
            self._may_register()
            and self.knobs.online
            and not self.died
            and self.running_since is not None
            and time.monotonic() >= self.running_since + self.knobs.online_after
        )

    def _may_register(self) -> bool:
        if self.knobs.managed is not None:
            return self.knobs.managed
        instance = ec2._instances.get(self.instance_id)
        return bool(instance and builders.may_register(instance))


class HybridNode(ManagedNode):
    """A machine outside EC2 as SSM sees it, which was registered by a hybrid activation."""

    @property
    def state(self) -> str:
        """Returns that the machine runs: SSM knows no other state of it."""
        return "running"

    def _may_register(self) -> bool:
        return True


class Fleet:
    """Every instance that was launched, and every machine outside EC2 that was registered."""

    def __init__(self, make: Callable):
        self.defaults = Knobs()
        self.nodes: dict[str, ManagedNode] = {}
        self._make = make
        self._lock = threading.Lock()
        instances.on_change(self._instance_changed)

    def node(self, instance_id: str) -> ManagedNode | None:
        """Returns the node of an instance, None for an unknown one."""
        if instance_id not in ec2._instances:
            return self.nodes.get(instance_id)
        with self._lock:
            if instance_id not in self.nodes:
                self.nodes[instance_id] = ManagedNode(instance_id, copy.deepcopy(self.defaults), self._make)
            return self.nodes[instance_id]

    def registered(self, instance_ids: Iterable[str] | None = None) -> list[ManagedNode]:
        """Returns the nodes SSM knows, of these instances or all, in a stable order."""
        ids = list(self.nodes) if instance_ids is None else self.nodes.keys() & set(instance_ids)
        nodes = (self.nodes.get(instance_id) for instance_id in sorted(ids))
        return [node for node in nodes if node and node.registered]

    def turn(self, instance_id: str, knobs: dict) -> None:
        """Sets some knobs of a node."""
        node = self.node(instance_id)
        node.observe()
        node.knobs = dataclasses.replace(node.knobs, **knobs)

    def launch(self, tags: dict[str, str], profile: str | None, knobs: dict) -> str:
        """Runs one instance whose node behaves as the knobs say; returns its id."""
        instance_id = instances.launch(tags, profile)
        self.turn(instance_id, knobs)
        return instance_id

    def launch_many(
        self,
        count: int,
        tags: dict[str, str],
        profile: str | None,
        knobs: dict,
        age: float = 0,
        operator: str | None = None,
        subnet: str | None = None,
    ) -> list[str]:
        """Has instances run, of which nobody is told; returns their ids."""
        ids = instances.launch_many(count, tags, profile, age, operator, subnet)
        wanted = dataclasses.replace(self.defaults, **knobs)
        for instance_id in ids:
            node = ManagedNode(instance_id, copy.deepcopy(wanted), self._make)
            node.running_since = time.monotonic() - age
            self.nodes[instance_id] = node
        return ids

    def register(self, tags: dict[str, str], knobs: dict) -> str:
        """Has a machine outside EC2 be registered, whose node behaves as the knobs say; returns its id."""
        id_ = f"mi-{random.getrandbits(68):017x}"
        node = HybridNode(id_, dataclasses.replace(copy.deepcopy(self.defaults), **knobs), self._make)
        node.running_since = time.monotonic()
        instances.add_tags(id_, tags)
        self.nodes[id_] = node
        return id_

    def remove(self, instance_ids: list[str]) -> None:
        """Has instances be no more, of which nobody is told."""
        instances.remove(instance_ids)
        for instance_id in instance_ids:
            if node := self.nodes.pop(instance_id, None):
                node.stop()

    def stop(self) -> None:
        """Ends every node."""
        ends = [background.start(node.stop) for node in self.nodes.values()]
        for end in ends:
            end.join()

    def _instance_changed(self, instance_id: str, state: str) -> None:
        node = self.node(instance_id)
        node.running_since = time.monotonic() if state == "running" else None
        if state == "stopping":
            node.power_off()
        if state in ("shutting-down", "terminated"):
            node.stop()
