"""Gives a stack's roles their permissions boundaries, which ministack's CloudFormation leaves out."""

from ministack.services import iam
from ministack.services.cloudformation import provisioners

from local.cloudformation import resources


def install() -> None:
    """Has CloudFormation set a role's boundary."""
    resources.complete("AWS::IAM::Role", _bound, lambda name: provisioners._iam_role_delete(name, {}))


def _bound(name: str, properties: dict) -> None:
    boundary = properties.get("PermissionsBoundary")
    if boundary and (refused := iam._boundary_policy_error(boundary)):
        resources.succeed(refused)
    iam._roles[name]["PermissionsBoundary"] = boundary
