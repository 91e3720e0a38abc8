"""Runs a command on a node as the SSM agent runs it."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from local.child import descendants


@dataclass(frozen=True)
class Completed:
    """Says how a command ended; the exit code is None where it was killed by its time limit or died with its node."""

    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float


class Running:
    """A command that a node is running."""

    def __init__(self, is_node_alive: Callable[[], bool], command: Sequence[str], env: Mapping[str, str]) -> None:
        self._is_node_alive = is_node_alive
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            preexec_fn=_default_signals,
        )
        self._output: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
        self._readers = [threading.Thread(target=self._read, args=[name], daemon=True) for name in self._output]
        for reader in self._readers:
            reader.start()

    def errors(self) -> str:
        """Returns what the script has said on standard error so far."""
        return _text(self._output["stderr"])

    def output(self) -> str:
        """Returns what the script has printed so far."""
        return _text(self._output["stdout"])

    def pids(self) -> list[int]:
        """Returns the script's processes, the script itself first."""
        return descendants(self._process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to every process of the script, as systemd does when it stops the agent."""
        for pid in self.pids():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self) -> None:
        """Ends the script and all that it has started by SIGKILL, and waits for the end."""
        self.signal(signal.SIGKILL)
        self.wait(10)

    def wait(self, timeout: float) -> Completed:
        """Waits for the end, which comes by SIGKILL to the process group after `timeout` seconds."""
        expired = threading.Event()
        killer = threading.Timer(timeout, self._expire, [expired])
        killer.start()
        for reader in self._readers:
            reader.join()
        self._process.wait()
        killer.cancel()
        ended = self._process.returncode if not expired.is_set() and self._is_node_alive() else None
        stdout, stderr = (_text(self._output[name]) for name in ("stdout", "stderr"))
        return Completed(ended, stdout, stderr, time.monotonic() - self._started)

    def _read(self, name: str) -> None:
        with getattr(self._process, name) as pipe:
            while chunk := pipe.read1():
                self._output[name] += chunk

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        os.killpg(self._process.pid, signal.SIGKILL)


def _text(output: bytes | bytearray) -> str:
    return output.decode(errors="replace")


def _default_signals() -> None:
    """Undoes what this process was started with: a shell cannot trap what was ignored when it began."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
