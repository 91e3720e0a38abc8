"""A cluster whose nodes run pods: what runs on them, and what its deployed stack knows, sends and brings."""

import itertools
from collections import defaultdict
from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from jobs import Jobs
from settling import Settling
from uploaded import Uploaded

from local import workload
from local.client import LocalCloud, until
from local.nodes.pods import pausing

SECONDS = 40
"""Limits how long anything may take to happen, in seconds."""
ENDED = ("Success", "Failed", "Cancelled", "TimedOut")


class Cluster:
    """Nodes, the pods that were run on them, and from `deploy` on the stack."""

    jobs: Jobs
    settling: Settling

    def __init__(self, cloud: LocalCloud, name: str):
        self.cloud, self.tags = cloud, {"aws:eks:cluster-name": name}
        self.stack = Uploaded(cloud, name)
        self.nodes: list[str] = []
        self.newest: dict[str, str] = {}
        """The references of the last images that were pushed, by repository."""
        self.runs: dict[str, set[str]] = defaultdict(set)
        """The nodes that run each image, as pods name it with its digest."""
        self.brought: dict[str, set[str]] = defaultdict(set)
        """Those of them that had it before a pod asked for it."""
        self._sizes: dict[str, int] = {}

    def launch_before(self, *containerds: str) -> None:
        """Has nodes run, with these versions of containerd, of whose launch nobody hears."""
        for containerd in containerds:
            self.nodes += self.cloud.launch_many(1, self.tags, online_after=0, containerd=containerd)

    def launch(self) -> str:
        """Launches a node, of which EC2 tells, and returns its id."""
        self.anew("NodeLaunch")
        self.nodes.append(self.cloud.launch(self.tags, online_after=0))
        return self.nodes[-1]

    def deploy(self, **parameters: str) -> None:
        """Deploys the stack."""
        self.stack.deploy(ClusterName=self.stack.name, **parameters)
        self.jobs, self.settling = Jobs(self.cloud, self.stack), Settling(self.cloud, self.stack)

    def push(self, repository: str, tag: str) -> str:
        """Pushes an image that pods can run and returns its full reference."""
        image = pausing(f"{repository}:{tag}")
        digest = self.cloud.push(repository, tag, image)
        reference = f"{self.cloud.registry_host}/{repository}:{tag}@{digest}"
        self.newest[repository], self._sizes[reference] = reference, image.size
        return reference

    def push_foreign(self, repository: str, tag: str, content: str = "") -> str:
        """Pushes an image to the registry that is not of AWS's and returns its full reference."""
        image = pausing(content or f"{repository}:{tag}")
        reference = workload.push_foreign(self.cloud, repository, tag, image)
        self._sizes[reference] = image.size
        return reference

    def run(self, node: str, reference: str) -> tuple[str, bool]:
        """Runs a pod that names an image by its tag; returns its container and whether the image was there."""
        container, was_there = workload.run_pod(self.cloud, node, by_tag(reference))
        if was_there and node not in self.runs[reference]:
            self.brought[reference].add(node)
        self.runs[reference].add(node)
        return container, was_there

    def run_to_its_end(self, node: str, reference: str) -> None:
        """Runs a pod whose container ends before anybody looks."""
        container, _ = workload.run_pod(self.cloud, node, by_tag(reference))
        workload.stop_container(self.cloud, node, container)
        self.runs[reference] |= set()

    def size(self, *references: str) -> int:
        """Returns the compressed size of images together."""
        return sum(self._sizes[reference] for reference in references)

    # What comes of it

    def launched(self, node: str) -> tuple[dict, dict]:
        """Waits for the two commands that a node's launch becomes: of what neighbours run, and of the rule's newest."""

        def sent() -> list[dict]:
            commands = [*self.jobs.commands("neighbours"), *self.jobs.commands("launch")]
            commands = [command for command in commands if node in command["InstanceIds"]]
            return commands if all(self.stack.report(command["CommandId"], node) for command in commands) else []

        neighbours, launch = until(lambda: both if len(both := sent()) == 2 else None, SECONDS, "the launch's commands")
        return neighbours, launch

    def carrying(self, image: str) -> list[dict]:
        """Returns the commands of pushes that bring an image."""
        return [command for command in self.jobs.commands("push") if image in images_of(command)]

    def usage(self) -> dict:
        """Returns what the jobs API tells of usage, of a process that remembers nothing of before."""
        self.anew("Jobs")
        return self.jobs.get("/usage?rule=default")

    def expected_usage(self) -> dict:
        """Returns what it is to tell of the pods that were run, all of them today."""
        today = datetime.now(UTC).date().isoformat()
        images = [
            {
                "image": image,
                "firstSeen": today,
                "lastSeen": today,
                "nodes": len(self.runs[image]),
                "prefetchedNodes": len(self.brought[image]),
                "bytes": self._sizes[image],
            }
            for image in sorted(self.runs)
        ]
        return {"rule": "default", "known": True, "since": today, "usedWithinDays": 14, "images": images}

    def used(self) -> set[str]:
        """Returns the repositories of this account of which images run or ran."""
        return {repository(image) for image in self.runs if image.startswith(self.cloud.registry_host)}

    def held(self, node: str) -> set[str]:
        """Returns the names with a tag that a node has of its images, with their digests."""
        names = self.cloud.images(node).items()
        return {f"{name}@{digest}" for name, digest in names if "/" in name and "@" not in name}

    def reconcile(self) -> list[dict]:
        """Reconciles and returns the commands that this became, once they have ended."""
        self.anew("Jobs")
        before = [command["CommandId"] for command in self.stack.commands()]
        [rule] = self.stack.invoke("Jobs", {"reconcile": True})["rules"]
        assert rule["decision"] == "sent", rule
        return self.until_ended("inventory", "reconcile", besides=before)

    def until_ended(self, *triggers: str, besides: Collection[str] = ()) -> list[dict]:
        """Waits until there are commands of all these triggers that have ended, and returns them."""

        def ended() -> list[dict]:
            new = [command for trigger in triggers for command in self.jobs.commands(trigger)]
            new = [command for command in new if command["CommandId"] not in besides]
            are_all = {trigger(command) for command in new} == set(triggers)
            return new if are_all and all(command["Status"] in ENDED for command in new) else []

        commands = until(ended, SECONDS, "the commands to end")
        self.settling.until_quiet()
        return commands

    def unheard_reconcile(self) -> list[dict]:
        """Reconciles and returns the events by which commands ended on nodes, which nobody has been told."""
        with self.cloud.holding_events("aws.ssm") as take:
            self.reconcile()
            events = take()
        return [event for event in events if "instance-id" in event["detail"] and event["detail"]["status"] in ENDED]

    def tell(self, events: Iterable[dict]) -> None:
        """Tells events, and waits until they are settled."""
        for event in events:
            self.cloud.send_event(event)
        self.settling.until_quiet()

    def anew(self, function: str) -> None:
        """Has a function begin anew: a process remembers for half a minute what nodes run."""
        client, name = self.cloud.client("lambda"), self.stack.resources()[function]
        timeout = client.get_function_configuration(FunctionName=name)["Timeout"]
        client.update_function_configuration(FunctionName=name, Timeout=timeout)

    def remove(self) -> None:
        """Deletes the stack and has the nodes be no more."""
        self.stack.delete()
        self.cloud.remove(self.nodes)


def by_tag(reference: str) -> str:
    """Returns a reference without its digest."""
    return reference.partition("@")[0]


def by_digest(reference: str) -> str:
    """Returns a reference without its tag."""
    named, _, digest = reference.partition("@")
    return f"{named.rpartition(':')[0]}@{digest}"


def repository(reference: str) -> str:
    """Returns the repository of a reference that has a tag."""
    return by_tag(reference).partition("/")[2].rpartition(":")[0]


def images_of(*commands: dict) -> list[str]:
    """Returns the images that commands name, in their order."""
    return list(itertools.chain.from_iterable(command["Parameters"]["images"][0].split() for command in commands))


def trigger(command: dict) -> str:
    """Returns what a command was sent for."""
    return command["Comment"].partition(" ")[0]
