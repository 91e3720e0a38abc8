"""Commands that are killed at some of their system calls; `make kills` takes far more of them."""

import random
import time
from pathlib import Path

import pytest

from .kills.nodes import kill_all, table

POINTS = 8
"""Says how many there are of each kind of command, on each containerd."""


@pytest.mark.timeout(300)
def test_after_a_command_that_was_killed_at_any_system_call_the_next_succeeds_and_nothing_stays(tmp_path: Path) -> None:
    seed, wrong = time.time_ns(), []

    def sample(calls: int) -> list[int]:
        return sorted(random.Random(seed).sample(range(1, calls + 1), POINTS))

    rows = kill_all(tmp_path, sample, tell=wrong.append)

    assert not wrong, f"seed {seed}"
    assert all(row.killed >= POINTS / 2 for row in rows), table(rows)
