"""Reads a deployed stack, as CloudFormation tells of it."""

from collections.abc import Mapping
from dataclasses import dataclass

from botocore.exceptions import ClientError

from verify.aws import Account

USABLE = ("CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "IMPORT_COMPLETE")


class Unknown(Exception):
    """There is no such stack, or it is no deployment of this template; in one sentence."""


@dataclass(frozen=True)
class Resource:
    """A resource of a stack."""

    logical: str
    type: str
    physical: str


@dataclass(frozen=True)
class Stack:
    """One deployment of the template."""

    name: str
    status: str
    arn: str
    parameters: Mapping[str, str]
    outputs: Mapping[str, str]
    resources: Mapping[str, Resource]

    @property
    def is_usable(self) -> bool:
        """Tells whether the last deployment has come to an end at which everything is there."""
        return self.status in USABLE

    @property
    def observes(self) -> bool:
        """Tells whether the stack sends nothing to any node."""
        return self.parameters.get("Mode", "send") == "observe"

    @property
    def cluster(self) -> str:
        """Returns the cluster's name."""
        return self.parameters["ClusterName"]

    @property
    def cluster_tag(self) -> str:
        """Returns the key of the tag that every node of the cluster carries."""
        return self.parameters["ClusterTagKey"]

    def arn_of(self, service: str, resource: str, account: str | None = None) -> str:
        """Returns the ARN of something in the stack's Region, in its account or in another, such as none."""
        _, partition, _, region, own, _ = self.arn.split(":", 5)
        return f"arn:{partition}:{service}:{region}:{own if account is None else account}:{resource}"

    def of(self, type_: str) -> list[Resource]:
        """Returns the resources of a type, by logical id."""
        return sorted((row for row in self.resources.values() if row.type == type_), key=lambda row: row.logical)

    def physical(self, logical: str) -> str:
        """Returns what a resource is called; an empty text where the stack has none of it."""
        row = self.resources.get(logical)
        return row.physical if row else ""


def find(account: Account, name: str) -> Stack:
    """Returns a stack; raises `Unknown` where it is none that can be verified."""
    cloudformation = account.client("cloudformation")
    found = _described(account, name)
    outputs = {row["OutputKey"]: row["OutputValue"] for row in found.get("Outputs", [])}
    if "JobsUrl" not in outputs and found["StackStatus"] not in USABLE:
        raise Unknown(
            f"The stack {name!r} is {found['StackStatus']}, and nothing of it can be asked:"
            f" aws cloudformation describe-stack-events --stack-name {name} says why."
        )
    if "JobsUrl" not in outputs:
        raise Unknown(f"The stack {name!r} is no deployment of EKS image prefetch: it has no output JobsUrl.")
    pages = cloudformation.get_paginator("list_stack_resources").paginate(StackName=found["StackName"])
    rows = [row for page in pages for row in page["StackResourceSummaries"]]
    return Stack(
        found["StackName"],
        found["StackStatus"],
        found["StackId"],
        {row["ParameterKey"]: row["ParameterValue"] for row in found.get("Parameters", [])},
        outputs,
        {
            row["LogicalResourceId"]: Resource(
                row["LogicalResourceId"], row["ResourceType"], row.get("PhysicalResourceId", "")
            )
            for row in rows
            if not row["ResourceStatus"].startswith("DELETE")
        },
    )


def _described(account: Account, name: str) -> dict:
    """Returns a stack as CloudFormation describes it; raises `Unknown` where there is none."""
    try:
        return account.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    except ClientError as error:
        if error.response["Error"]["Code"] == "ValidationError":
            raise Unknown(
                f"There is no stack {name!r} in {account.region}: STACK=<name> is its name as sam deploy has it, and"
                " AWS_REGION its Region."
            ) from error
        raise
