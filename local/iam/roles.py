"""Gives a stack's roles their permissions boundaries, which ministack's CloudFormation leaves out."""

from local.cloudformation import resources
from local.ministack import iam, provisioners


def install() -> None:
    """Has CloudFormation set a role's boundary."""
    resources.complete("AWS::IAM::Role", _bound, lambda name: provisioners._iam_role_delete(name, {}))


def _bound(name: str, properties: dict) -> None:
    boundary = properties.get("PermissionsBoundary")
    if boundary and (refused := iam._boundary_policy_error(boundary)):
        resources.succeed(refused)
    iam._roles[name]["PermissionsBoundary"] = boundary
