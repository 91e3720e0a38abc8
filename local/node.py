"""A node: containerd as EKS AL2023 configures it, and commands that run as the SSM agent runs them."""

import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from local import cri
from local.child import Child
from local.registry import TOOLS, Registry, descendants

START_LIMIT_SECONDS = 20
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
OWN_FILES = Path(__file__).parent / "node_files"

BOOT = """
set -e
folder=$1 tools=$2
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=755 varlib /var/lib
mkdir -p /run/lock /var/lib/containerd
mount --bind "$folder/containerd" /var/lib/containerd
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/etc.work" etc /etc
mount -t overlay -o "lowerdir=$folder/bin:$tools/usr/bin:/usr/bin" bin /usr/bin
cd /
exec containerd
"""


@dataclass(frozen=True)
class Completed:
    """How a command ended; the exit code is None where it was killed by its time limit or died with its node."""

    exit_code: int | None
    stdout: str
    stderr: str
    seconds: float


class Node:
    """One machine of a cluster. Its state lives in `folder`; the machine that it runs on is not written to."""

    def __init__(
        self,
        folder: Path,
        name: str,
        registry: Registry,
        containerd: str = "1.7",
        *,
        login: Literal["provider", "aws-cli", "none"] = "provider",
        snapshotter: str | None = None,
    ) -> None:
        self.folder = folder.resolve()
        self.name = name
        self.registry = registry
        self.containerd = containerd
        self.login = login
        self.snapshotter = snapshotter
        self._child: Child | None = None
        self._numbers = itertools.count(1)

    @property
    def socket(self) -> Path:
        """Returns containerd's socket as this process sees it."""
        return self._files / "run/containerd/containerd.sock"

    def start(self) -> None:
        """Boots the node, for the first time or again, and returns once CRI answers."""
        tools = TOOLS / f"containerd-{self.containerd}"
        if not (tools / "usr/bin/containerd").exists():
            raise RuntimeError(f"{tools} holds no containerd; local/install-node-tools unpacks it")
        if os.geteuid() != 0:
            raise RuntimeError("a node needs root: it mounts and unshares")
        self._write_files()
        self._child = Child(
            ["bash", "-c", BOOT, "boot", self.folder, tools], env=ENVIRONMENT, log=self.folder / "containerd.log"
        )
        self._wait_for_cri()

    def stop(self) -> None:
        """Ends the node and deletes its folder."""
        self.kill_running()
        shutil.rmtree(self.folder, ignore_errors=True)

    def kill_running(self) -> None:
        """Ends the node as a power cut does: containerd and whatever runs; `start` boots it again."""
        child, self._child = self._child, None
        if child:
            child.kill()

    def run(self, script: str, env: Mapping[str, str], timeout: float) -> Completed:
        """Runs a script as the SSM agent does: a file, `sh -c`, SIGKILL to its group after `timeout` seconds."""
        return self.begin(script, env).wait(timeout)

    def begin(self, script: str, env: Mapping[str, str]) -> "Running":
        """Starts a script as `run` does and returns without waiting for its end."""
        folder = self.folder / "orchestration" / str(next(self._numbers))
        folder.mkdir(parents=True)
        file = folder / "_script.sh"
        file.write_text(script + "\n")
        file.chmod(0o700)
        return Running(self, self._enter(["sh", "-c", str(file)]), {**ENVIRONMENT, **env})

    def shell(self, command: str) -> str:
        """Runs a shell command on the node and returns its output; raises where it fails."""
        return subprocess.run(
            self._enter(["sh", "-c", command]), env=ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout

    def images(self) -> dict[str, str]:
        """Returns the digest under each name that containerd holds for Kubernetes."""
        rows = [line.split() for line in self.shell("ctr -n k8s.io images ls").splitlines()[1:]]
        return {row[0]: row[2] for row in rows}

    def image_status(self, reference: str) -> str | None:
        """Returns the id under which kubelet would find an image, None where it would pull."""
        return cri.image_status(self.socket, reference)

    def set_password(self, password: str) -> None:
        """Makes the credential provider, or the AWS CLI, hand out another password."""
        _write(self.folder / "password", password)

    def freeze(self) -> None:
        """Makes containerd hang: it keeps its socket and answers nothing until the node ends."""
        assert self._child
        for pid in descendants(self._child.pid):
            if Path(f"/proc/{pid}/exe").resolve().name == "containerd":
                os.kill(pid, signal.SIGSTOP)

    def alive(self) -> bool:
        """Tells whether containerd runs."""
        return self._child is not None and self._child.alive()

    @property
    def _files(self) -> Path:
        if not self._child:
            raise RuntimeError(f"node {self.name} is not running")
        return Path(f"/proc/{self._child.pid}/root")

    def _enter(self, command: Sequence[str]) -> list[str]:
        if not self._child:
            raise RuntimeError(f"node {self.name} is not running")
        namespaces = f"/proc/{self._child.pid}/ns"
        enter = ["nsenter", f"--mount={namespaces}/mnt", f"--pid={namespaces}/pid_for_children"]
        return [*enter, "--", *command]

    def _write_files(self) -> None:
        for folder in ("containerd", "etc", "etc.work", "bin"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        for folder in ("containerd", "docker", "eks"):
            (self.folder / "etc" / folder).mkdir(exist_ok=True)
            os.setxattr(self.folder / "etc" / folder, "trusted.overlay.opaque", b"y")

        etc = self.folder / "etc"
        _write(etc / "hosts", f"127.0.0.1 localhost\n{self.registry.address} {' '.join(self.registry.hosts)}\n")
        for bundle in ("ssl/certs/ca-certificates.crt", "pki/tls/certs/ca-bundle.crt"):
            _write(etc / bundle, self.registry.ca.read_text())
        _write(etc / "containerd/config.toml", self._configuration())
        _write(etc / "containerd/base-runtime-spec.json", json.dumps({"ociVersion": "1.1.0"}))
        shell = self.folder / "bin/sh"  # AL2023's sh is bash
        shell.unlink(missing_ok=True)
        shell.symlink_to("bash")
        self._write_login()

    def _configuration(self) -> str:
        text = (OWN_FILES / f"containerd-{self.containerd}.toml").read_text()
        if not self.snapshotter:
            return text
        line = "discard_unpacked_layers = true\n"
        return text.replace(line, f'{line}snapshotter = "{self.snapshotter}"\n')

    def _write_login(self) -> None:
        self.set_password(self.registry.password)
        password = str(self.folder / "password")
        provider = self.folder / "etc/eks/image-credential-provider"
        aws = self.folder / "bin/aws"
        shutil.rmtree(provider, ignore_errors=True)
        aws.unlink(missing_ok=True)
        if self.login == "provider":
            _write(provider / "config.json", (OWN_FILES / "image-credential-provider.json").read_text())
            standin = (OWN_FILES / "ecr-credential-provider").read_text()
            _write(provider / "ecr-credential-provider", standin.replace("@PASSWORD_FILE@", password), 0o755)
        if self.login == "aws-cli":
            _write(aws, (OWN_FILES / "aws").read_text().replace("@PASSWORD_FILE@", password), 0o755)
        else:
            os.mknod(aws, stat.S_IFCHR)  # overlayfs's whiteout: the machine's own AWS CLI is not the node's

    def _wait_for_cri(self) -> None:
        assert self._child
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while True:
            try:
                if self.socket.exists():
                    self.image_status("none")
                    return
            except cri.NotReady:
                pass
            if not self._child.alive() or time.monotonic() > deadline:
                words = self._child.last_words()
                self.kill_running()
                raise RuntimeError(f"node {self.name}: containerd {self.containerd} did not start: {words}")
            time.sleep(0.03)


class Running:
    """A command that a node is running."""

    def __init__(self, node: Node, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._node = node
        self._started = time.monotonic()
        self._process = subprocess.Popen(
            command,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )

    def pids(self) -> list[int]:
        """Returns the script's processes, the script itself first."""
        return descendants(self._process.pid)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to every process of the script, as systemd does when it stops the agent."""
        for pid in self.pids():
            os.kill(pid, number)

    def wait(self, timeout: float) -> Completed:
        """Waits for the end, which comes by SIGKILL to the process group after `timeout` seconds."""
        expired = threading.Event()
        killer = threading.Timer(timeout, self._expire, [expired])
        killer.start()
        stdout, stderr = self._process.communicate()
        killer.cancel()
        ended = self._process.returncode if not expired.is_set() and self._node.alive() else None
        return Completed(ended, _text(stdout), _text(stderr), time.monotonic() - self._started)

    def _expire(self, expired: threading.Event) -> None:
        expired.set()
        os.killpg(self._process.pid, signal.SIGKILL)


def _text(output: bytes) -> str:
    return output.decode(errors="replace")


def _write(file: Path, content: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)
