"""The kinds of commands that are killed: what each finds on the node, and what has to be there after the next."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from local.images import Artifact
from local.nodes import cri
from local.nodes.pods import Pods

from ..command import parameters
from ..state import by_digest, by_tag, chain_ids, eventually, image_id
from .held import COMMITTED, Held, Looker

PULLED_AT = "prefetch-images/pulled-at"
USED = "prefetch-images/used"
SOON_SECONDS = 2


@dataclass(frozen=True)
class Pushed:
    """An image in the registry."""

    reference: str
    image: Artifact


class Kind:
    """A kind of command; this one leaves the node as it is."""

    name = ""

    def __init__(self, looker: Looker) -> None:
        self.looker = looker
        self.before = looker.held()

    def variables(self) -> Mapping[str, str]:
        """Returns the command's environment."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Makes the node one that the command has work on."""

    def untrue(self, lines: Sequence[dict]) -> list[str]:
        """Returns what a command that was killed has claimed and what is not so."""
        return []

    def wrong(self, lines: Sequence[dict], earlier: Sequence[dict]) -> list[str]:
        """Returns what is not right after the next command, of which the killed one may have printed some lines."""
        return []

    def run(self) -> list[str]:
        """Runs what the next command has brought; returns what of it does not run."""
        return []

    def clear(self) -> list[str]:
        """Makes the node as it was before; returns what stays on it."""
        return []


class Pull(Kind):
    """A command for images that are not there."""

    name = "pull of two images, one of them by a download of its own"
    settings: Mapping[str, object] = {"maxParallelImagePulls": 2}

    def __init__(self, looker: Looker, pods: Pods, pushed: Sequence[Pushed]) -> None:
        super().__init__(looker)
        self.pods = pods
        self.pushed = pushed

    def wanted(self) -> Sequence[Pushed]:
        """Returns the images that the command names."""
        return self.pushed

    def variables(self) -> Mapping[str, str]:
        """Returns the command's environment."""
        references = [pushed.reference for pushed in self.wanted()]
        return parameters(*references, imageGCHighThresholdPercent=100, **self.settings)

    def untrue(self, lines: Sequence[dict]) -> list[str]:
        """Returns what a command that was killed has claimed and what is not so; none of its images failed."""
        told = [line for line in lines if "status" in line]
        failed = [f"says {line}" for line in told if line["status"] not in ("pulled", "cached")]
        images = [pushed for pushed in self.wanted() if any(line["image"] == pushed.reference for line in told)]
        return failed + [f"tells of {found}" for pushed in images for found in self.lacking(pushed)]

    def wrong(self, lines: Sequence[dict], earlier: Sequence[dict]) -> list[str]:
        """Returns which images are not there as if nothing had happened."""
        told = {line["image"]: line["status"] for line in lines if "status" in line}
        if told.keys() != {pushed.reference for pushed in self.wanted()} or set(told.values()) - {"pulled", "cached"}:
            return [f"the next command says {lines}"]
        found = [] if eventually(self.foreign, [], SOON_SECONDS) else self.foreign()
        held = self.looker.held()
        for pushed in self.wanted():
            found += [*self.lacking(pushed), *self.unlabelled(held, pushed), *self.unpinned(pushed)]
        return found

    def lacking(self, pushed: Pushed) -> list[str]:
        """Returns what is missing of an image for kubelet to find it and to start a container of it."""
        held = self.looker.held()
        wanted = image_id(pushed.image)
        found = [
            f"no {name}"
            for name in (by_tag(pushed.reference), by_digest(pushed.reference))
            if held.names.get(name) is None or held.names[name].digest != pushed.image.digest
        ]
        found += [f"no {blob}" for blob in (pushed.image.digest, wanted) if blob not in held.blobs]
        found += [f"no {chain}" for chain in chain_ids(pushed.image) if held.snapshots.get(chain) != COMMITTED]
        for name in () if found else (by_tag(pushed.reference), by_digest(pushed.reference)):
            if not eventually(lambda name=name: self.looker.cri_id(name), wanted, SOON_SECONDS):
                found.append(f"CRI does not know {name}")
        return found

    def unpinned(self, pushed: Pushed) -> list[str]:
        """Returns the names by which an image is not pinned, or pinned though nobody wants it."""
        wanted = bool(self.settings.get("pin"))
        names = by_tag(pushed.reference), by_digest(pushed.reference)
        is_wrong = lambda name: not eventually(lambda: self.looker.is_pinned(name), wanted, SOON_SECONDS)  # noqa: E731
        return [f"pinned, or not: {name}" for name in names if is_wrong(name)]

    def unlabelled(self, held: Held, pushed: Pushed) -> list[str]:
        """Returns by what it is not to be seen that an image is ours."""
        names = by_tag(pushed.reference), by_digest(pushed.reference)
        records = held.blobs.get(pushed.image.digest, {})
        wanted = [f"{PULLED_AT}/{name.partition('@')[0]}" for name in names]
        found = [f"no label {label} on the manifest" for label in wanted if label not in records]
        moments = {held.names[name].labels.get(PULLED_AT) for name in names if name in held.names}
        moments |= {records[label].split()[0] for label in wanted if label in records}
        return found + ([f"labels of {pushed.reference}: {moments}"] if len(moments) != 1 or None in moments else [])

    def foreign(self) -> list[str]:
        """Returns what is there that is of no image of the command."""
        held = self.looker.held()
        images = [pushed.image for pushed in self.wanted()]
        names = {name for pushed in self.wanted() for name in (by_tag(pushed.reference), by_digest(pushed.reference))}
        names |= {image_id(image) for image in images}
        blobs = {blob for image in images for blob in (image.digest, *image.blobs)}
        layers = {chain for image in images for chain in chain_ids(image)}
        beside = (held.names.keys() - names, held.blobs.keys() - blobs, held.snapshots.keys() - layers)
        known = (self.before.names, self.before.blobs, self.before.snapshots)
        return [f"beside it {what}" for more, old in zip(beside, known, strict=True) for what in more - old.keys()]

    def run(self) -> list[str]:
        """Runs a pod of each image; returns those that do not run, and what else does."""
        node, foreign = self.looker.node, self.foreign_processes
        found = [] if eventually(foreign, set(), SOON_SECONDS) else [f"runs: {foreign()}"]
        for pushed in self.wanted():
            container = self.pods.run(by_tag(pushed.reference))
            found += [] if cri.container_runs(node.socket, container) else [f"no container of {pushed.reference}"]
        self.pods.remove()
        return found

    def foreign_processes(self) -> set[str]:
        """Returns the processes of the node that are neither containerd nor pods."""
        return set(self.looker.node.processes().values()) - {"containerd", "containerd-shim", "program"}

    def clear(self) -> list[str]:
        """Removes the images; returns what is held by something else than their names."""
        self.looker.remove([*self.looker.held().names.keys() - self.before.names.keys()])
        return [] if eventually(self.stays, [], SOON_SECONDS) else [f"held by nothing: {self.stays()}"]

    def stays(self) -> list[str]:
        """Returns what is there that was not there in the beginning."""
        held = self.looker.held()
        more = (held.names.keys() - self.before.names.keys()) | (held.blobs.keys() - self.before.blobs.keys())
        return sorted(more | (held.snapshots.keys() - self.before.snapshots.keys()))


class FirstPull(Pull):
    """The first pull after a boot, of an image of which containerd itself fetches all."""

    name = "first pull after a boot"

    def prepare(self) -> None:
        """Removes what commands keep."""
        self.looker.forget()


class Replacing(Pull):
    """A pull that lets go of the image that it replaces, and pins its own."""

    name = "pull with keep and pin, which lets go of another image"
    settings: Mapping[str, object] = {"keep": 1, "pin": True}

    def __init__(self, looker: Looker, pods: Pods, pushed: Sequence[Pushed]) -> None:
        super().__init__(looker, pods, pushed)
        self._turn = 0

    def wanted(self) -> Sequence[Pushed]:
        """Returns the one of the two whose turn it is."""
        return [self.pushed[self._turn % 2]]

    def prepare(self) -> None:
        """Forgets what was named lately, which is left to pods that start."""
        self.looker.forget("named")

    def clear(self) -> list[str]:
        """Gives the other image its turn; nothing stays but this one."""
        self._turn += 1
        return []


class Usage(Kind):
    """A command without images: which are in use on a node whose pods run one of ours."""

    name = "which images are in use"

    def __init__(self, looker: Looker, pushed: Pushed) -> None:
        super().__init__(looker)
        self.pushed = pushed

    def variables(self) -> Mapping[str, str]:
        """Returns the command's environment."""
        return parameters()

    def prepare(self) -> None:
        """Forgets what was counted."""
        self.looker.forget()
        self.looker.unlabel(self.pushed.image.digest, USED)

    def wrong(self, lines: Sequence[dict], earlier: Sequence[dict]) -> list[str]:
        """Returns what the next command does not tell, and what both have counted."""
        told = [line for line in lines if "usage" in line]
        totals = [line["usageTotals"] for line in (*earlier, *lines) if "usageTotals" in line]
        found = [] if [line["usage"] for line in told] == [self.pushed.reference] else [f"the next one tells {lines}"]
        for field, most in (("podImages", 1), ("podImagesPresent", 1), ("firstUsedBytes", self.pushed.image.size)):
            if sum(these[field] for these in totals) > most:
                found.append(f"{field} is counted twice: {totals}")
        held = self.looker.held()
        return found + ([] if USED in held.blobs[self.pushed.image.digest] else ["the use is not noted"])


class Resolve(Kind):
    """A command that asks which digests tags stand for, the first after a boot."""

    name = "which digests tags stand for"

    def __init__(self, looker: Looker, pushed: Sequence[Pushed]) -> None:
        super().__init__(looker)
        self.pushed = pushed

    def variables(self) -> Mapping[str, str]:
        """Returns the command's environment."""
        tags = " ".join(by_tag(pushed.reference) for pushed in self.pushed)
        return {"SSM_tags": tags, "SSM_executionTimeout": "60"}

    def prepare(self) -> None:
        """Removes what commands keep."""
        self.looker.forget()

    def untrue(self, lines: Sequence[dict]) -> list[str]:
        """Returns the answers that are none of the registry's."""
        digests = {by_tag(pushed.reference): pushed.image.digest for pushed in self.pushed}
        return [f"says {line}" for line in lines if line.get("digest") != digests.get(line["tag"])]

    def wrong(self, lines: Sequence[dict], earlier: Sequence[dict]) -> list[str]:
        """Returns the answers that are missing or none of the registry's."""
        missing = {by_tag(pushed.reference) for pushed in self.pushed} - {line["tag"] for line in lines}
        return self.untrue(lines) + [f"no answer for {tag}" for tag in sorted(missing)]
