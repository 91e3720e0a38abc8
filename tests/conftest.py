"""Fixtures that test files share, and how the tests are spread over the processes that run them."""

import sys
from collections import Counter
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

sys.path.insert(0, str(Path(__file__).parent.parent))

from _pytest.nodeid import coerce_node_id
from probe import probe

from local.client import LocalCloud

WITH_A_CLOUD = (
    "test_bake.py",
    "test_bake_faults.py",
    "test_bake_triggers.py",
    "test_boot_lists.py",
    "test_examples.py",
    "test_jobs_contract.py",
    "test_jobs_count.py",
    "test_jobs_nodes.py",
    "test_jobs_schedule.py",
    "test_launches.py",
    "test_local_api.py",
    "test_local_autoscaling.py",
    "test_local_builders.py",
    "test_local_cloud.py",
    "test_local_commands.py",
    "test_local_custom_resources.py",
    "test_local_ec2.py",
    "test_local_ecr.py",
    "test_local_functions.py",
    "test_local_instances.py",
    "test_local_metrics.py",
    "test_local_parameters.py",
    "test_local_run_command.py",
    "test_local_scheduler.py",
    "test_local_simulation.py",
    "test_local_state_machines.py",
    "test_local_states.py",
    "test_local_stores.py",
    "test_node_program.py",
    "test_observe.py",
    "test_play.py",
    "test_pods.py",
    "test_produce.py",
    "test_references.py",
    "test_results.py",
    "test_results_faults.py",
    "test_sending.py",
    "test_settings.py",
    "test_stack.py",
    "test_uninstall.py",
    "test_usage.py",
    "test_verify.py",
    "test_walls.py",
    "test_warm_pool.py",
)
WITH_ONE_STACK = ("jobs_api", "snapshots")
"""Names the folders whose files share a stack."""


class OneCloudPerFile(LoadScopeScheduling):
    """Keeps the tests of a file or folder with a local cloud in one process, and hands out all others one by one."""

    def _split_scope(self, nodeid: str) -> str:
        file = Path(nodeid.partition("::")[0])
        if file.parent.name in WITH_ONE_STACK:
            return str(file.parent)
        return str(file) if file.name in WITH_A_CLOUD else nodeid


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> OneCloudPerFile:
    """Spreads the tests."""
    return OneCloudPerFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives each test an id of its own, for xdist runs an id once; schemathesis leaves the operation out of it."""
    for item in items:
        if not item.nodeid.endswith(item.name):
            item._id = coerce_node_id(f"{item.parent.nodeid}::{item.name}")
    shared = [nodeid for nodeid, count in Counter(item.nodeid for item in items).items() if count > 1]
    if shared:
        raise pytest.UsageError(f"several tests have one id: {', '.join(shared)}")


@pytest.fixture(scope="session")
def cloud():
    """One local cloud for all tests that one process runs; whose schedule is to fire, has it fired."""
    with LocalCloud(LOCAL_SCHEDULES="off") as cloud:
        yield cloud


@pytest.fixture(scope="session")
def probe_stack(cloud):
    """The outputs of the stack in local_cloud/template.yaml, which every file that uses it shares."""
    with probe(cloud) as (outputs, _):
        yield outputs
