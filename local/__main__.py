"""Runs the local cloud in the foreground until Ctrl-C, SIGTERM or the end of its parent: `python -m local up`."""

import argparse
import ctypes
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from local import guide
from local.child import Child

ROOT = Path(__file__).parent.parent
START_SECONDS = 30
PREFIX = "local-cloud-"
OWN_PROC = ("sh", "-c", 'mount -t proc proc /proc && exec "$@"', "sh")
"""Runs a command with a /proc that shows its own PID namespace, which the nodes are found by."""
PR_SET_PDEATHSIG = 1


def main() -> None:
    """Parses the command line."""
    parser = argparse.ArgumentParser(prog="python -m local", description=__doc__)
    up = parser.add_subparsers(dest="command", required=True).add_parser("up", help="start the local cloud")
    up.add_argument("--port", type=int, default=0, help="port of the AWS endpoint (default: a free one)")
    up.add_argument("--guide", action="store_true", help="say what runs and how to go on, instead of a line of JSON")
    options = parser.parse_args()
    sys.exit(run(options.port, guide.open_to if options.guide else _print))


def run(port: int, tell: Callable[[dict, int], AbstractContextManager]) -> int:
    """Runs the cloud until told to stop, and tells of it once it answers; leaves no process and no file behind."""
    _end_with_parent()
    for end in (signal.SIGTERM, signal.SIGINT):  # a shell starts background jobs with SIGINT ignored
        signal.signal(end, signal.default_int_handler)
    _sweep()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    log = folder / "server.log"
    command = [*OWN_PROC, sys.executable, "-m", "local.server", folder, str(port)]
    server = Child(command, env=_environment(folder), log=log)
    try:
        with tell(json.loads(_ready(folder, server)), server.pid):
            while server.alive():
                time.sleep(0.1)
        raise RuntimeError("The local cloud has ended by itself.")
    except KeyboardInterrupt:
        return 0
    except RuntimeError as error:
        print(error, log.read_text(errors="replace"), sep="\n", file=sys.stderr)
        return 1
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        server.kill()
        shutil.rmtree(folder)


def _print(state: dict, _: int) -> AbstractContextManager:
    """Tells a program that has started the cloud, in one line of JSON."""
    print(json.dumps(state), flush=True)
    return nullcontext()


def _ready(folder: Path, server: Child) -> str:
    """Waits for the server's one line of state."""
    deadline = time.monotonic() + START_SECONDS
    while not (folder / "ready.json").exists():
        if not server.alive() or time.monotonic() > deadline:
            raise RuntimeError("The local cloud did not start.")
        time.sleep(0.02)
    return (folder / "ready.json").read_text()


def _environment(folder: Path) -> dict[str, str]:
    """Returns the server's whole environment: nothing of the user's but the search path and our own settings."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    ours = {name: value for name, value in os.environ.items() if name.startswith("LOCAL_")}
    return {"HOME": str(folder), "LANG": "C.UTF-8", "PATH": path, "PYTHONPATH": str(ROOT), **ours}


def _sweep() -> None:
    """Removes the folders of clouds that were killed and could not do it themselves."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _end_with_parent() -> None:
    """Has the kernel send SIGTERM when the parent dies, however it dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    main()
