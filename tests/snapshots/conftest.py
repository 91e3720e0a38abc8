"""One stack for all files here, on a cloud of their own, and a snapshot that is published."""

import pytest
from bakes import Bakes, pulled
from uploaded import Uploaded

from local import images
from local.client import LocalCloud

from .builders import NAME


@pytest.fixture(scope="package")
def cloud():
    """A cloud of their own, in which AWS's waiting takes a quarter of its usual time: nothing real is waited for."""
    with LocalCloud(LOCAL_TIME_SCALE="0.005", LOCAL_SCHEDULES="off") as cloud:
        yield cloud


@pytest.fixture(scope="package")
def bakes(cloud):
    """A stack whose commands soon run out of time, and which may give its builders another role."""
    stack = Uploaded(cloud, NAME)
    roles = f"arn:aws:iam::{cloud.account}:role/other-builder"
    stack.deploy(
        ClusterName=NAME,
        Repositories="snapshots/app",
        DeliveryTimeout="30",
        ExecutionTimeout="60",
        BakeDefaults='{"architectures": ["x86_64"]}',
        BakeRoleArns=roles,
    )
    return Bakes(cloud, stack)


@pytest.fixture
def app(bakes) -> str:
    """The newest image of the rule, which builders pull, and a snapshot of which is published."""
    image = bakes.push("snapshots/app", "v1", images.image("app"))
    bakes.script(pulled(image))
    bakes.bake()
    return image
