"""Gives a process a share of one CPU, as Lambda does by memory."""

import contextlib
import os
from pathlib import Path
from typing import Self

ROOT = Path("/sys/fs/cgroup")
PERIOD_SECONDS = 0.1
"""In which the share is counted: the kernel's default."""

FULL_CPU_MEMORY = 1769
"""At how many MB a function has one whole CPU (AWS Lambda, Configure function memory)."""


class Unavailable(Exception):
    """This machine lets nobody set a CPU quota."""


class CpuQuota:
    """A control group with a function's share of one CPU. A process that is added to it is throttled from then on."""

    def __init__(self, memory: int):
        period = round(PERIOD_SECONDS * 1e6)
        quota = round(period * memory / FULL_CPU_MEMORY)
        if "cpu" in _words(ROOT / "cgroup.subtree_control"):  # version 2
            self._folder, self._limits = ROOT, {"cpu.max": f"{quota} {period}"}
        elif (ROOT / "cpu/cpu.cfs_quota_us").exists():  # version 1
            self._folder, self._limits = ROOT / "cpu", {"cpu.cfs_period_us": period, "cpu.cfs_quota_us": quota}
        else:
            raise Unavailable(f"no CPU controller of cgroup version 2 or 1 under {ROOT}")
        self._folder /= f"prefetch-bench-{os.getpid()}"

    def __enter__(self) -> Self:
        try:
            self._folder.mkdir()
            for name, value in self._limits.items():
                (self._folder / name).write_text(str(value))
        except OSError as error:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            raise Unavailable(f"{self._folder} cannot be made: {error}") from error
        return self

    def __exit__(self, *_) -> None:
        self._folder.rmdir()

    def add(self, pid: int) -> None:
        """Throttles a process with all its threads."""
        (self._folder / "cgroup.procs").write_text(str(pid))


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []
