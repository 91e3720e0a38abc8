"""One deployed stack for all files here, and the images that its rules take."""

import json

import pytest
from jobs import Jobs
from uploaded import Uploaded

from .rules import RULES


@pytest.fixture(scope="package")
def jobs(cloud):
    stack = Uploaded(cloud, name="jobs")
    with cloud.holding_events("aws.cloudformation"):  # whose reconcile would take what nodes are told to answer
        stack.deploy(ClusterName="jobs", Rules=json.dumps(RULES), JobsRateLimit="10000")
    with cloud.holding_events("aws.ecr"):  # what is pushed is brought by jobs only
        yield Jobs(cloud, stack)
    stack.delete()


@pytest.fixture(scope="package")
def app(jobs):
    """An image that the rule `default` takes."""
    return jobs.push("team/app")


@pytest.fixture(scope="package")
def shared(jobs):
    """An image that two rules take."""
    return jobs.push("team/shared")


@pytest.fixture(autouse=True)
def nothing_is_left(cloud, jobs):
    """Ends the nodes of each test, and its faults."""
    yield
    cloud.forget_faults()
    jobs.clear()
