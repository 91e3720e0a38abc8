"""Starts child processes that never outlive their parent."""

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

# Process 1 of a private PID namespace: ends, and with it the whole namespace, when the command ends or when the
# parent does, however it dies, for then the pipe on standard input is closed.
INIT = 'exec 3<&0 </dev/null; read -r <&3 & "$@" 3<&- & wait -n'


class Child:
    """Runs a command in a PID and mount namespace of its own that dies with this process, even by SIGKILL."""

    def __init__(
        self, command: Sequence[str | Path], *, env: Mapping[str, str], log: Path, files: Sequence[int] = ()
    ) -> None:
        """Starts the command, which also inherits these open files."""
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "bash", "-c", INIT, "init", *map(str, command)],
                env=dict(env),
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                start_new_session=True,
                pass_fds=files,
            )

    @property
    def pid(self) -> int:
        """Returns the process whose mount and child PID namespaces are the command's."""
        return self._process.pid

    def alive(self) -> bool:
        """Tells whether the command still runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """Kills every process of the namespace and waits until they are gone."""
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()

    def last_words(self) -> str:
        """Returns the end of the log, for error messages."""
        return self.log.read_text(errors="replace")[-2000:]


def entrance(pid: int) -> list[str]:
    """Returns what runs a command inside the namespaces of a child, put before it."""
    namespaces = f"/proc/{pid}/ns"
    return ["nsenter", f"--mount={namespaces}/mnt", f"--pid={namespaces}/pid_for_children", "--"]


def descendants(pid: int) -> list[int]:
    """Returns the processes below `pid`, nearest first."""
    try:
        children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended meanwhile
        return []
    return children + [descendant for child in children for descendant in descendants(child)]


def told(pid: int) -> str:
    """Returns what a process is and what it is at."""
    with contextlib.suppress(OSError):
        process = Path("/proc", str(pid))
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        return f"{(process / 'comm').read_text().strip()} ({pid}) {state} {(process / 'wchan').read_text()}".strip()
    return f"({pid}) gone"
