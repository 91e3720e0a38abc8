"""Adds Bottlerocket's newest AMIs, which public parameters of SSM name, and the processor each runs on."""

import hashlib
import re
import time
from dataclasses import dataclass

from local.api import ApiError
from local.ministack import ec2
from local.settings import REGION

PARAMETER = re.compile(r"/aws/service/bottlerocket/aws-k8s-(1\.\d{2})/(x86_64|arm64)/latest/image_id")
VERSIONS = range(28, 36)
"""The minor versions of Kubernetes that Bottlerocket has an AMI for."""
OTHER_DEVICES = {"/dev/xvda": 8}
BOTTLEROCKET_DEVICES = {"/dev/xvda": 2, "/dev/xvdb": 20}
DATA_DEVICE = "/dev/xvdb"
"""Bottlerocket's data volume, on which containerd keeps its images (Bottlerocket, concepts)."""
ARM_TYPE = re.compile(r"(a1|[a-z]+\d+[a-z]*g[a-z]*|[a-z]+\dgen)\..+")

_generation = 1
_known: dict[str, "Ami"] = {}


@dataclass(frozen=True)
class Ami:
    """Says what an instance is launched from."""

    id: str
    architecture: str = "x86_64"
    bottlerocket: bool = False

    @property
    def devices(self) -> dict[str, int]:
        """Returns the sizes of its volumes in GiB by their device, the root's first."""
        return BOTTLEROCKET_DEVICES if self.bottlerocket else OTHER_DEVICES


def publish_newer() -> None:
    """Has Bottlerocket publish new AMIs."""
    global _generation
    _generation += 1


def newest(version: str, architecture: str) -> str:
    """Returns the id of Bottlerocket's newest AMI for a version of Kubernetes."""
    digest = hashlib.sha256(f"{version} {architecture} {_generation}".encode()).hexdigest()
    ami = Ami(f"ami-{digest[:17]}", architecture, bottlerocket=True)
    _known[ami.id] = ami
    return ami.id


def parameter(name: str) -> dict | None:
    """Returns a public parameter, None where there is none of that name."""
    match = PARAMETER.fullmatch(name)
    if not match or int(match[1].removeprefix("1.")) not in VERSIONS:
        return None
    return {
        "Name": name,
        "Type": "String",
        "Value": newest(match[1], match[2]),
        "Version": _generation,
        "LastModifiedDate": time.time(),
        "ARN": f"arn:aws:ssm:{REGION}::parameter{name}",
        "DataType": "text",
    }


def find(ami: str) -> Ami:
    """Returns an AMI, or refuses an id that is none."""
    if not re.fullmatch("ami-([0-9a-f]{8}|[0-9a-f]{17})", ami):
        raise ApiError("InvalidAMIID.Malformed", f'Invalid id: "{ami}"')
    if ami in _known:
        return _known[ami]
    if ami in ec2._images or any(ami == stub[0] for stub in ec2._STUB_AMIS):
        return Ami(ami)
    raise ApiError("InvalidAMIID.NotFound", f"The image id '[{ami}]' does not exist")


def architecture_of(instance_type: str) -> str:
    """Returns the processor of an instance type."""
    return "arm64" if ARM_TYPE.fullmatch(instance_type) else "x86_64"
