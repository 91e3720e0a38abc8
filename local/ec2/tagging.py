"""Reads the tags of EC2 resources, and those that a request gives to what it makes."""

import types
from collections.abc import Mapping

from local.api import ApiError
from local.ministack import ec2

NONE: Mapping[str, str] = types.MappingProxyType({})

MAX_TAGS, MAX_KEY, MAX_VALUE = 50, 128, 256
"""Tags of a resource, and characters of a key and of a value (EC2, tag restrictions)."""


def of(resource_id: str) -> dict[str, str]:
    """Returns a resource's tags."""
    return {tag["Key"]: tag.get("Value", "") for tag in ec2._tags.get(resource_id, [])}


def put(resource_id: str, tags: Mapping[str, str]) -> None:
    """Sets tags of a resource."""
    if tags:
        ec2._tags[resource_id] = listed(of(resource_id) | dict(tags))


def listed(tags: Mapping[str, str]) -> list[dict[str, str]]:
    """Returns tags as AWS lists them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def shown(resource: dict, id_: str) -> dict:
    """Returns a resource with its tags, which are found by the member that is its id."""
    return {**resource, "Tags": listed(of(resource[id_]))}


def checked(tags: list[dict], present: Mapping[str, str] = NONE) -> dict[str, str]:
    """Returns the tags of a request, or refuses what is none, reserved or too many."""
    found = {tag["Key"]: tag.get("Value", "") for tag in tags}
    if len(found) < len(tags):
        raise ApiError("InvalidParameterValue", "Duplicate tag keys found. Tag keys are case sensitive.")
    for key, value in found.items():
        if key.startswith("aws:"):
            message = f"Value ( {key} ) for parameter key is invalid. Tag keys starting with 'aws:' are reserved"
            raise ApiError("InvalidParameterValue", f"{message} for internal use")
        if not 1 <= len(key) <= MAX_KEY:
            raise ApiError("InvalidParameterValue", f"Tag key exceeds the maximum length of {MAX_KEY} characters")
        if len(value) > MAX_VALUE:
            raise ApiError("InvalidParameterValue", f"Tag value exceeds the maximum length of {MAX_VALUE} characters")
    if len([key for key in {**present, **found} if not key.startswith("aws:")]) > MAX_TAGS:
        raise ApiError("TagLimitExceeded", "The maximum number of Tags for a resource has been reached.")
    return found


def specified(request: dict, kind: str) -> dict[str, str]:
    """Returns the tags that a request gives what it makes of one kind."""
    specifications = request.get("TagSpecifications", [])
    return checked([tag for row in specifications if row.get("ResourceType") == kind for tag in row.get("Tags", [])])


def requested(tags: Mapping[str, str]) -> dict[str, str | list[str]]:
    """Returns the keys of a request's context that speak of the tags it sets."""
    return {f"aws:RequestTag/{key}": value for key, value in tags.items()} | (
        {"aws:TagKeys": list(tags)} if tags else {}
    )
