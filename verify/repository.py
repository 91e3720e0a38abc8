"""Makes the repository that a run pushes to, or takes one that it is told to use and leaves it as it was."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from local import images
from verify import globs
from verify.aws import Account
from verify.interrupts import undisturbed
from verify.results import Results, progress, said
from verify.rules import Rule
from verify.stack import Stack

CLEANED = "what the run made is removed"


class NoRepository(Exception):
    """There is no repository to push to, in words."""


@dataclass(frozen=True)
class Place:
    """Says where an image is pushed to."""

    repository: str
    tag: str
    is_own: bool
    """Says whether the run made the repository, and removes it."""


@contextlib.contextmanager
def place(
    account: Account,
    rules: Sequence[Rule],
    stack: Stack,
    wanted: str | None,
    artifact: images.Artifact,
    results: Results,
) -> Iterator[Place]:
    """Yields where an image can be pushed that rules want, the first of them if possible; leaves nothing of it."""
    unique = artifact.digest.rpartition(":")[2][:8]
    found = None
    try:
        with undisturbed():
            if wanted:
                found = _told(account, rules, unique, wanted, stack.observes)
            else:
                found = _made(account, rules, stack.name, unique)
        yield found
    finally:
        with undisturbed():
            if found:
                _remove(account, found, artifact, results)


def _made(account: Account, rules: Sequence[Rule], stack: str, unique: str) -> Place:
    """Makes a repository of which a rule takes images."""
    ecr = account.client("ecr")
    taken = []
    for rule in rules:
        tag = globs.tag(rule.tags, unique)
        for name in globs.repositories(rule.repositories, stack) if tag else ():
            try:
                ecr.create_repository(repositoryName=name)
            except ecr.exceptions.RepositoryAlreadyExistsException:
                taken.append(name)
                continue
            progress(f"Made the repository {name}, of which rule {rule.name} takes images.")
            return Place(name, tag, True)
    if taken:
        why = f"{', '.join(dict.fromkeys(taken))} exists already; delete it where it is of a run that was killed"
    else:
        why = f"the rules leave no name for it: {_in_words(rules)}"
    raise NoRepository(
        f"no repository can be made whose images a rule takes: {why}. REPOSITORY=<name> names one to make and to"
        " push to; where the stack observes it may be there already, and stays"
    )


def _told(account: Account, rules: Sequence[Rule], unique: str, name: str, observes: bool) -> Place:
    """Takes the repository that was named, or makes it; none from which a push would take an image from a node."""
    takers = [rule for rule in rules if globs.takes(rule.repositories, name)]
    tags = [tag for rule in takers if (tag := globs.tag(rule.tags, unique))]
    if not tags:
        raise NoRepository(f"no rule takes images of REPOSITORY={name}; the rules are {_in_words(rules)}")
    ecr = account.client("ecr")
    try:
        ecr.describe_repositories(repositoryNames=[name])
    except ecr.exceptions.RepositoryNotFoundException:
        ecr.create_repository(repositoryName=name)
        return Place(name, tags[0], True)
    if not observes:
        raise NoRepository(
            f"{name} exists already, and for minutes the image would be its newest: nodes that are launched then would"
            " get it in the place of your own. Name one that does not exist, or run this while the stack observes"
        )
    with contextlib.suppress(ecr.exceptions.ImageNotFoundException):
        ecr.describe_images(repositoryName=name, imageIds=[{"imageTag": tags[0]}])
        raise NoRepository(f"{name}:{tags[0]} exists already, and is not replaced. Name another repository")
    return Place(name, tags[0], False)


def _in_words(rules: Sequence[Rule]) -> str:
    return "; ".join(f"{rule.name} takes {' '.join(rule.repositories)}" for rule in rules)


def _remove(account: Account, place: Place, artifact: images.Artifact, results: Results) -> None:
    """Removes what was pushed, with the repository where it is the run's own."""
    ecr = account.client("ecr")
    try:
        if place.is_own:
            ecr.delete_repository(repositoryName=place.repository, force=True)
        else:
            _remove_image(ecr, place, artifact)
    except ecr.exceptions.RepositoryNotFoundException:
        pass
    except (BotoCoreError, ClientError) as error:
        results.broken(CLEANED, f"{said(error)}; {_by_hand(place)}")
        return
    results.held(CLEANED, f"repository {place.repository}" if place.is_own else f"{place.repository}:{place.tag}")


def _remove_image(ecr: Any, place: Place, artifact: images.Artifact) -> None:
    """Removes the index, then the images of its platforms, which ECR keeps as long as an index names them."""
    for parts in ([artifact], artifact.children):
        ids = [{"imageDigest": part.digest} for part in parts]
        answer = ecr.batch_delete_image(repositoryName=place.repository, imageIds=ids)
        refused = [row for row in answer.get("failures", []) if row["failureCode"] != "ImageNotFound"]
        if refused:
            raise ClientError(
                {"Error": {"Code": refused[0]["failureCode"], "Message": refused[0].get("failureReason", "")}},
                "BatchDeleteImage",
            )


def _by_hand(place: Place) -> str:
    if place.is_own:
        return f"remove it: aws ecr delete-repository --force --repository-name {place.repository}"
    image = f"--repository-name {place.repository} --image-ids imageTag={place.tag}"
    return f"remove the image: aws ecr batch-delete-image {image}"
