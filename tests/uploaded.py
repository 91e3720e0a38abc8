"""The stack for tests that are not about its deployment: SAM uploads it once, CloudFormation deploys it."""

import functools
import hashlib
import tempfile
from pathlib import Path

from local.client import LocalCloud
from local.stack import BRINGS_EVERYTHING, TEMPLATE, Stack, sam

QUICK = {"Delay": 0.5, "MaxAttempts": 180}


class Uploaded(Stack):
    """One deployment of what SAM has uploaded: each `sam deploy` takes ten seconds of a processor."""

    def deploy(self, template: Path = TEMPLATE, **parameters: str) -> None:
        """Creates the stack, or updates it; parameters that are not named have their defaults, or bring everything."""
        named = {**BRINGS_EVERYTHING, **parameters}
        cloudformation = self.cloud.client("cloudformation")
        verb = "update" if self._is_there() else "create"
        getattr(cloudformation, f"{verb}_stack")(
            StackName=self.name,
            TemplateURL=uploaded(self.cloud, template),
            Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in named.items()],
            Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
        )
        cloudformation.get_waiter(f"stack_{verb}_complete").wait(StackName=self.name, WaiterConfig=QUICK)

    def delete(self) -> None:
        """Deletes the stack."""
        cloudformation = self.cloud.client("cloudformation")
        cloudformation.delete_stack(StackName=self.name)
        cloudformation.get_waiter("stack_delete_complete").wait(StackName=self.name, WaiterConfig=QUICK)

    def _is_there(self) -> bool:
        stacks = self.cloud.client("cloudformation").list_stacks()["StackSummaries"]
        return any(row["StackName"] == self.name and row["StackStatus"] != "DELETE_COMPLETE" for row in stacks)


@functools.cache
def uploaded(cloud: LocalCloud, built: Path) -> str:
    """Has SAM upload what was built and returns the address of the template that names it.

    It lies under a prefix of its own: `sam delete` removes what other deployments have uploaded.
    """
    with tempfile.NamedTemporaryFile(suffix=".yaml") as template:
        where = ["--resolve-s3", "--s3-prefix", "uploaded", "--output-template-file", template.name]
        sam(cloud, "package", "--template-file", str(built), *where)
        body = Path(template.name).read_bytes()
    s3 = cloud.client("s3")
    [bucket] = [row["Name"] for row in s3.list_buckets()["Buckets"] if row["Name"].startswith("aws-sam-cli-managed")]
    key = f"uploaded/{hashlib.sha256(body).hexdigest()}.template"
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    return f"https://s3.{cloud.region}.amazonaws.com/{bucket}/{key}"
