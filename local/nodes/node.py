"""Runs a node: containerd as EKS AL2023 configures it, and commands as the SSM agent runs them."""

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import signal
import stat
import subprocess
import time
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from local.child import Child, descendants, entrance
from local.ecr.registry import TOOLS, Registry
from local.nodes import cri
from local.nodes.proxy import Proxy
from local.nodes.running import Completed, Running

START_LIMIT_SECONDS = 20
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
SOCI = "/run/soci-snapshotter-grpc/soci-snapshotter-grpc.sock"
# A kubelet that lets this machine's own disk be as full as it is.
ANY_DISK = {
    "imageGCHighThresholdPercent": 100,
    "evictionHard": {f"{fs}.available": "0%" for fs in ("imagefs", "nodefs")},
}
OWN_FILES = Path(__file__).parent / "files"

# /tmp is the node's own, with nothing in it but the node's folder where that lies there. A containerd that was killed
# comes back only where `kill_containerd` asked for it, after one second for systemd's five.
BOOT = """
set -e
folder=$1 tools=$2 soci=$3 runc=$4
mount -t proc proc /proc
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=755 varlib /var/lib
mkdir -p /run/lock /run/folder /var/lib/containerd
if [ -e "$folder/disk" ]; then
    mount -o loop "$folder/disk" /var/lib/containerd
else
    mount --bind "$folder/containerd" /var/lib/containerd
fi
mount -t overlay -o "lowerdir=/etc,upperdir=$folder/etc,workdir=$folder/etc.work" etc /etc
mount -t overlay -o "lowerdir=$folder/bin:$tools/usr/bin:$soci/usr/bin:$runc/usr/sbin:/usr/bin" bin /usr/bin
mount --bind "$folder" /run/folder
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p "$folder"
mount --move /run/folder "$folder"
rmdir /run/folder
cd /
if [ -e /etc/soci-snapshotter-grpc/config.toml ]; then
    soci-snapshotter-grpc &
fi
while containerd || true; [ -e "$folder/again" ]; do
    rm "$folder/again"
    sleep 1
done
"""


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
        disk_mib: int | None = None,
        disk_inodes: int | None = None,
        proxy: Proxy | None = None,
        neighbours: Sequence[Registry] = (),
        mirrors: Mapping[str, Registry] = types.MappingProxyType({}),
    ) -> None:
        """Describes a node that knows `registry` and its `neighbours`; nothing runs before `start`.

        Its snapshotter is containerd's default, another built-in one, or soci, which runs beside containerd.
        With `disk_mib`, containerd's files lie on a file system of that size, which holds `disk_inodes` files. With a
        `proxy`, which the units of containerd and kubelet know, it finds no registry by itself. `mirrors` are hosts
        that containerd asks first for images of the host that each stands under, or of all under `_default`.
        """
        self.folder = folder.resolve()
        self.name = name
        self.registry = registry
        self.containerd = containerd
        self.login = login
        self.snapshotter = snapshotter
        self.disk_mib = disk_mib
        self.disk_inodes = disk_inodes
        self.proxy = proxy
        self.neighbours = neighbours
        self.mirrors = mirrors
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
            ["bash", "-c", BOOT, "boot", self.folder, tools, TOOLS / "soci-snapshotter", TOOLS / "runc"],
            env=ENVIRONMENT | ({"HTTPS_PROXY": self.proxy.url} if self.proxy else {}),
            log=self.folder / "containerd.log",
        )
        self._wait_for_cri()
        if self.snapshotter == "soci":
            self._wait_for_soci()

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

    def begin(self, script: str, env: Mapping[str, str]) -> Running:
        """Starts a script as `run` does and returns without waiting for its end."""
        folder = self.folder / "orchestration" / str(next(self._numbers))
        folder.mkdir(parents=True)
        file = folder / "_script.sh"
        file.write_text(script + "\n")
        file.chmod(0o700)
        return Running(self.alive, self._enter(["sh", "-c", str(file)]), {**ENVIRONMENT, **env})

    def install(self, program: bytes) -> None:
        """Puts the program of a stack where the bootstrap looks for it, as an earlier command has done."""
        self._programs.mkdir(mode=0o700, exist_ok=True)
        file = self._programs / hashlib.sha256(program).hexdigest()
        if not file.exists():
            file.write_bytes(program)
            file.chmod(0o500)

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

    def pinned(self, reference: str) -> bool:
        """Tells whether kubelet's garbage collection would spare an image."""
        return cri.pinned(self.socket, reference)

    def kubelet_pulls(self, reference: str, socket: Path | None = None) -> None:
        """Pulls an image as kubelet does for a pod, by containerd's socket or another."""
        cri.pull_image(socket or self.socket, reference, self.registry.user, self.registry.password)

    def kubelet_removes(self, reference: str) -> None:
        """Removes an image as kubelet's garbage collection does: all its names."""
        cri.remove_image(self.socket, reference)

    def set_password(self, password: str) -> None:
        """Makes the credential provider, or the AWS CLI, hand out another password."""
        _write(self.folder / "password", password)

    def freeze(self) -> None:
        """Makes containerd hang: it keeps its socket and answers nothing until `thaw`."""
        self._signal("containerd", signal.SIGSTOP)

    def thaw(self) -> None:
        """Makes a containerd that hangs go on."""
        self._signal("containerd", signal.SIGCONT)

    def kill_containerd(self) -> None:
        """Ends containerd as the kernel does when memory is short, and returns once it is back, as by systemd."""
        (self.folder / "again").touch()
        self.socket.unlink()
        self._signal("containerd", signal.SIGKILL)
        self._wait_for_cri()

    def kill_snapshotter(self) -> None:
        """Ends the snapshotter that runs beside containerd, for good."""
        self._signal("soci-snapshotter-grpc", signal.SIGKILL)

    def processes(self) -> dict[int, str]:
        """Returns the names of the node's processes by their ids outside of it, without those that boot it."""
        assert self._child
        space = os.readlink(f"/proc/{self._child.pid}/ns/pid_for_children")
        names = {}
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if os.readlink(process / "ns/pid") == space and BOOT.encode() not in (process / "cmdline").read_bytes():
                    names[int(process.name)] = (process / "comm").read_text().strip()
        return names

    def pid(self) -> int | None:
        """Returns the process that `entrance` takes, None where the node is not running."""
        return self._child and self._child.pid

    def alive(self) -> bool:
        """Tells whether containerd runs."""
        return self._child is not None and self._child.alive()

    def _signal(self, program: str, number: signal.Signals) -> None:
        assert self._child
        for pid in descendants(self._child.pid):
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if Path(os.readlink(f"/proc/{pid}/exe")).name == program:
                    os.kill(pid, number)

    @property
    def _files(self) -> Path:
        if not self._child:
            raise RuntimeError(f"node {self.name} is not running")
        return Path(f"/proc/{self._child.pid}/root")

    @property
    def _programs(self) -> Path:
        return self._files / "var/lib/prefetch-images"

    def _enter(self, command: Sequence[str]) -> list[str]:
        if not self._child:
            raise RuntimeError(f"node {self.name} is not running")
        return [*entrance(self._child.pid), *command]

    def _write_files(self) -> None:
        for folder in ("containerd", "etc", "etc.work", "bin"):
            (self.folder / folder).mkdir(parents=True, exist_ok=True)
        self._make_disk()
        for folder in ("containerd", "docker", "eks", "kubernetes", "soci-snapshotter-grpc"):
            (self.folder / "etc" / folder).mkdir(exist_ok=True)
            os.setxattr(self.folder / "etc" / folder, "trusted.overlay.opaque", b"y")

        etc = self.folder / "etc"
        self._write_registries(etc)
        _write(etc / "containerd/config.toml", self._configuration())
        _write(etc / "containerd/base-runtime-spec.json", (OWN_FILES / "base-runtime-spec.json").read_text())
        if self.snapshotter == "soci":
            _write(etc / "soci-snapshotter-grpc/config.toml", (OWN_FILES / "soci-snapshotter.toml").read_text())
            kubelet = {"kind": "KubeletConfiguration", "imageServiceEndpoint": f"unix://{SOCI}", **ANY_DISK}
            _write(etc / "kubernetes/kubelet/config.json", json.dumps(kubelet))
        if self.proxy:
            for unit in ("containerd", "kubelet"):
                drop_in = f'[Service]\nEnvironment="HTTPS_PROXY={self.proxy.url}"\n'
                _write(etc / f"systemd/system/{unit}.service.d/http-proxy.conf", drop_in)
        shell = self.folder / "bin/sh"  # AL2023's sh is bash
        shell.unlink(missing_ok=True)
        shell.symlink_to("bash")
        self._write_login()

    def _write_registries(self, etc: Path) -> None:
        """Writes the names of the registries, the authorities that they show, and their mirrors."""
        registries = [self.registry, *self.neighbours]
        found = [] if self.proxy else registries
        hosts = ["127.0.0.1 localhost", *(f"{known.address} {' '.join(known.hosts)}" for known in found)]
        _write(etc / "hosts", "\n".join(hosts) + "\n")
        for bundle in ("ssl/certs/ca-certificates.crt", "pki/tls/certs/ca-bundle.crt"):
            _write(etc / bundle, "".join(known.ca.read_text() for known in registries))
        for host, mirror in self.mirrors.items():
            server = "" if host == "_default" else f'server = "https://{host}"\n\n'
            section = f'[host."https://{mirror.hosts[0]}"]\ncapabilities = ["pull", "resolve"]\n'
            _write(etc / f"containerd/certs.d/{host}/hosts.toml", server + section)

    def _make_disk(self) -> None:
        disk = self.folder / "disk"
        if self.disk_mib and not disk.exists():
            with disk.open("wb") as file:
                file.truncate(self.disk_mib << 20)
            inodes = ["-N", str(self.disk_inodes)] if self.disk_inodes else []
            subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", "-O", "^has_journal", *inodes, str(disk)], check=True)

    def _configuration(self) -> str:
        text = (OWN_FILES / f"containerd-{self.containerd}.toml").read_text()
        if not self.snapshotter:
            return text
        settings = f'snapshotter = "{self.snapshotter}"\n'
        if self.snapshotter == "soci":
            settings += "disable_snapshot_annotations = false\n"
            text += (OWN_FILES / "containerd-soci.toml").read_text()
        line = "discard_unpacked_layers = true\n"
        return text.replace(line, line + settings)

    def _write_login(self) -> None:
        self.set_password(self.registry.password)
        aws = self.folder / "bin/aws"
        shutil.rmtree(self.folder / "etc/eks/image-credential-provider", ignore_errors=True)
        aws.unlink(missing_ok=True)
        if self.login == "provider":
            self._write_providers()
        if self.login == "aws-cli":
            _write(aws, self._stand_in("aws"), 0o755)
        else:
            os.mknod(aws, stat.S_IFCHR)  # overlayfs's whiteout: the machine's own AWS CLI is not the node's

    def _write_providers(self) -> None:
        folder = self.folder / "etc/eks/image-credential-provider"
        config = json.loads((OWN_FILES / "image-credential-provider.json").read_text())
        _write(folder / "ecr-credential-provider", self._stand_in("ecr-credential-provider"), 0o755)
        for neighbour in self.neighbours:
            if not neighbour.anonymous:
                provider = json.loads((OWN_FILES / "private-credential-provider.json").read_text())
                config["providers"].append({**provider, "matchImages": neighbour.hosts})
                _write(self.folder / "login", f"{neighbour.user}\n{neighbour.password}\n")
                _write(folder / provider["name"], self._stand_in(provider["name"]), 0o755)
        _write(folder / "config.json", json.dumps(config, indent=2))

    def _stand_in(self, name: str) -> str:
        text = (OWN_FILES / name).read_text().replace("@PASSWORD_FILE@", str(self.folder / "password"))
        return text.replace("@LOGIN_FILE@", str(self.folder / "login"))

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

    def _wait_for_soci(self) -> None:
        """Waits for the snapshotter, which containerd asks for nothing before it needs it."""
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while self.shell(f"test -S {SOCI} || echo waiting"):
            if time.monotonic() > deadline:
                self.kill_running()
                raise RuntimeError(f"node {self.name}: SOCI's snapshotter did not start")
            time.sleep(0.03)


def _write(file: Path, content: str, mode: int = 0o644) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content)
    file.chmod(mode)
