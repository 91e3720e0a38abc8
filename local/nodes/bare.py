"""Runs a node without a container runtime: scripts as plain processes, for tests of the emulation itself."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Completed:
    """Says how a script ended; no exit code means it was killed at its time limit."""

    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float


class BareNode:
    """Has the methods of `nodes.node.Node` that a command needs."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._running: list[subprocess.Popen] = []

    def start(self) -> None:
        """Makes the folder the scripts run in."""
        self.folder.mkdir(parents=True, exist_ok=True)

    def stop(self) -> None:
        """Kills what still runs."""
        self.kill_running()

    def run(self, script: str, env: Mapping[str, str], timeout: float) -> Completed:
        """Runs a script with a clean environment in a process group of its own."""
        started = time.monotonic()
        process = subprocess.Popen(
            ["/bin/sh", "-c", script],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._running.append(process)
        try:
            stdout, stderr = process.communicate(timeout=timeout)
            exit_code = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            stdout, stderr = process.communicate()
            exit_code = None
        self._running.remove(process)
        return Completed(exit_code, stdout, stderr, time.monotonic() - started)

    def kill_running(self) -> None:
        """Kills every script that runs."""
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)

    def pid(self) -> None:
        """Returns none: there is nothing to enter."""

    def images(self) -> dict[str, str]:
        """Returns no images: there is no container runtime."""
        return {}

    def image_status(self, ref: str) -> None:
        """Returns nothing: there is no container runtime."""
