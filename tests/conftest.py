"""Fixtures that test files share."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent))

from local.client import LocalCloud


@pytest.fixture(scope="session")
def cloud():
    """One local cloud for the whole run."""
    with LocalCloud() as cloud:
        yield cloud
