"""Runs the instances that bake snapshots: what their user data sets, their role may do, and their volume has."""

import contextlib
import copy
import tomllib
from pathlib import Path

from local.ec2 import amis
from local.ec2.volumes import Volumes
from local.ecr.registry import Registry
from local.iam import permissions
from local.ministack import ec2
from local.ministack import iam as ministack_iam
from local.nodes.bottlerocket import BottlerocketNode

AGENT_ACTIONS = (
    "ssm:UpdateInstanceInformation",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
)
"""Says what the SSM agent does as the instance's role (AmazonSSMManagedInstanceCore)."""
NO_PASSWORD = "none"
"""Says what the credential provider hands out where the role may have no token."""


def may_register(instance: dict) -> bool:
    """Tells whether an instance's agent may register with SSM: its profile's role allows it, where there is one.

    Bottlerocket's does not come up with user data that it cannot read, nor where nobody has told it its host's name and
    the role may not ask EC2 for it (bottlerocket-core-kit, sources/api/pluto).
    """
    if not instance.get("IamInstanceProfile"):
        return False
    role = _role(instance)
    if amis.find(instance["ImageId"]).bottlerocket:
        settings = _settings(instance)
        if settings is None:
            return False
        named = "hostname-override" in settings.get("kubernetes", {})
        if not named and role and not permissions.role_may(role, "ec2:DescribeInstances", "*"):
            return False
    return role is None or all(permissions.role_may(role, action, "*") for action in AGENT_ACTIONS)


def node(folder: Path, registry: Registry, volumes: Volumes) -> BottlerocketNode | None:
    """Returns the node of an instance, not yet started, whose AMI is Bottlerocket's; None of another."""
    instance = ec2._instances.get(folder.name)
    if instance is None or not amis.find(instance["ImageId"]).bottlerocket:
        return None
    settings = _settings(instance) or {}
    admin = settings.get("host-containers", {}).get("admin", {}).get("enabled", False)
    role = _role(instance)
    if role and not permissions.role_may(role, "ecr:GetAuthorizationToken", "*"):
        registry = copy.copy(registry)
        registry.password = NO_PASSWORD
    machine = BottlerocketNode(folder, folder.name, registry, containers=["admin"] if admin is True else [])
    [volume] = [
        mapping["Ebs"]["VolumeId"]
        for mapping in instance["BlockDeviceMappings"]
        if mapping["DeviceName"] == amis.DATA_DEVICE
    ]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "containerd").symlink_to(volumes.folder(volume))
    return machine


def _settings(instance: dict) -> dict | None:
    """Returns what an instance's user data sets, None where Bottlerocket cannot read it."""
    with contextlib.suppress(tomllib.TOMLDecodeError):
        return tomllib.loads(instance.get("UserData", "")).get("settings", {})
    return None


def _role(instance: dict) -> str | None:
    """Returns the role of an instance's profile, None of a profile that only its ARN is known of."""
    arn = (instance.get("IamInstanceProfile") or {}).get("Arn", "")
    profile = ministack_iam._lookup_instance_profile(arn=arn)
    return ministack_iam._roles[profile["Roles"][0]]["Arn"] if profile and profile["Roles"] else None
