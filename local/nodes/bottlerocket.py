"""Runs a Bottlerocket node: a host without a shell, a control container for SSM's commands, host containers.

Taken from the sources of bottlerocket-core-kit (host-ctr: mounts and namespaces; containerd's configuration) and of the
containers' two images (which programs there are). Each place sees only what the real one has; only programs of the
stand-ins themselves use /run/machine, through which they reach this machine's own.
"""

import contextlib
import os
import shutil
import stat
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from local.child import descendants
from local.ecr.registry import Registry
from local.nodes.node import ENVIRONMENT, OWN_FILES, START_LIMIT_SECONDS, Node
from local.nodes.running import Running

FILES = OWN_FILES / "bottlerocket"
MACHINE = "/run/machine"
STATE = "/run/host-containers"
# Until the host's own programs are in place, this machine's still are.
MACHINE_ENVIRONMENT = {**ENVIRONMENT, "PATH": f"{MACHINE}/bin:{MACHINE}/sbin:{ENVIRONMENT['PATH']}"}
# What the SSM agent hands on to commands in the control container.
CONTAINER_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}

COREUTILS = """
    [ arch b2sum base32 base64 basename basenc cat chcon chgrp chmod chown chroot cksum comm cp csplit cut date dd df
    dir dircolors dirname du echo env expand expr factor false fmt fold groups head hostid id install join link ln
    logname ls md5sum mkdir mkfifo mknod mktemp mv nice nl nohup nproc numfmt od paste pathchk pinky pr printenv printf
    ptx pwd readlink realpath rm rmdir runcon seq sha1sum sha224sum sha256sum sha384sum sha512sum shred shuf sleep sort
    split stat stdbuf stty sum sync tac tail tee test timeout touch tr true truncate tsort tty uname unexpand uniq
    unlink users vdir wc who whoami yes
"""
UTIL_LINUX = """
    chrt dmesg fallocate findmnt flock ionice ipcrm ipcs kill logger lsblk lscpu lsipc lslocks lsmem lsns more mount
    nsenter prlimit renice setsid taskset umount unshare
"""
# The container image of Amazon Linux 2023; it has no findutils, no procps, no util-linux.
AMAZON_LINUX = f"{COREUTILS} awk bash curl egrep fgrep grep sed sh"
PROGRAMS = {
    "host": f"{COREUTILS} {UTIL_LINUX} containerd ctr egrep fgrep find grep pgrep pkill ps xargs",
    "control": f"{AMAZON_LINUX} jq lscpu",
    "admin": f"{AMAZON_LINUX} {UTIL_LINUX} free jq openssl pgrep pidof pkill ps top uptime vmstat",
}
PROGRAMS["prefetch"] = PROGRAMS["admin"]
HOST_CONTAINERS = ("prefetch", "admin")
"""Those from which the document can work, in the order in which it looks; both have the admin container's image."""

HOST = """
set -e
folder=$1 machine=$2 state=$3
mkdir -p $machine/bin $machine/sbin $state/{admin,prefetch,control}
mount --bind /usr/bin $machine/bin
mount --bind /usr/sbin $machine/sbin
export PATH=$machine/bin:$machine/sbin
mount --bind "$folder/host/bin" /usr/bin
mount --bind "$folder/host/bin" /usr/sbin
mount --bind "$folder/host/local" /usr/local
mount --bind "$folder/host/libexec" /usr/libexec
"""

# A container's root: its own file system, with what host-ctr mounts into every host container, and more into a
# superpowered one.
CONTAINER = """
set -e
name=$1 folder=$2 machine=$3 state=$4
export PATH=$machine/bin:$machine/sbin
cd $state/$name
mount -t tmpfs -o mode=755 root .
cd $state/$name
cp -P /bin /sbin /lib* .
mkdir -p usr etc dev proc root run tmp mnt opt/bin var/tmp var/lib/amazon/ssm .bottlerocket old
chmod 1777 tmp var/tmp
if [[ $name != control ]]; then
    mkdir .bottlerocket/rootfs
    mount --rbind / .bottlerocket/rootfs
    mount -o remount,bind,ro .bottlerocket/rootfs
    ln -s $machine/bin/bash opt/bin/bash
fi
mkdir -p .bottlerocket/host-containers/current
mount --bind "$folder/host-containers/$name" .bottlerocket/host-containers/current
mount --rbind /usr usr
mount -o remount,bind,ro usr
mount --bind "$folder/$name/bin" usr/bin
mount --bind "$folder/$name/empty" usr/sbin
mount --bind "$folder/$name/local" usr/local
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=755,size=64m run run
for place in bin sbin; do
    mkdir -p run/machine/$place
    mount --bind $machine/$place run/machine/$place
done
touch run/api.sock
mount --bind /run/api.sock run/api.sock
cp /etc/hosts etc/hosts
cp /etc/os-release etc/bottlerocket-release
printf 'root:x:0:0:root:/root:/bin/bash\\n' >etc/passwd
printf 'root:x:0:\\napi:x:274:\\n' >etc/group
if [[ $name == control ]]; then
    mount --bind "$folder/orchestration" var/lib/amazon/ssm
fi
[[ $name == control ]] || echo $$ >/run/host-containers/$name.starting
pivot_root . old
cd /
[[ $name == control ]] || mv /old/run/host-containers/$name.starting /old/run/host-containers/$name.pid
umount -l /old
rmdir /old
exec -a "$name" sleep infinity </dev/null
"""


class BottlerocketNode(Node):
    """One machine that runs Bottlerocket, with containerd 2.1."""

    def __init__(
        self,
        folder: Path,
        name: str,
        registry: Registry,
        *,
        containers: Collection[str] = ("admin",),
        powerless: Collection[str] = (),
        curl: str | None = None,
        snapshotter: str | None = None,
        **options: object,
    ) -> None:
        """Describes a node; nothing runs before `start`. Of a Node's `options` it takes disk, neighbours and mirrors.

        Of its host containers, admin and prefetch, those in `containers` run, and those that are `powerless` are not
        superpowered: they may not enter the host. `curl` is what a lesser curl in there says of itself. The
        `snapshotter` soci is configured, but does not run.
        """
        super().__init__(folder, name, registry, "2.1", **options)
        self.containers = containers
        self.powerless = powerless
        self.curl = curl
        self.other_snapshotter = snapshotter
        self._helpers: list[subprocess.Popen] = []
        self._running: dict[str, subprocess.Popen] = {}
        self._control: int | None = None

    def start(self) -> None:
        """Boots the node and returns once CRI answers and the containers run."""
        super().start()
        self._on_host(["bash", "-c", HOST, "host", str(self.folder), MACHINE, STATE])
        self._begin_on_host([str(self.folder / "apiserver"), "/run/api.sock", STATE])
        self._wait_for(lambda: (self._files / "run/api.sock").exists(), "the API server")
        self.set("admin", "superpowered", "admin" not in self.powerless)
        self.set("admin", "enabled", False)
        for container in self.containers:
            self.switch_on(container)
        control = self._begin_container("control", ["unshare", "--mount", "--pid", "--fork"])
        self._wait_for(lambda: _sleeping(control) is not None, "the control container")
        self._control = _sleeping(control)

    def kill_running(self) -> None:
        """Ends the node as a power cut does."""
        super().kill_running()
        for helper in self._helpers:
            helper.wait()
        self._helpers, self._running, self._control = [], {}, None

    def set(self, container: str, setting: str, value: bool) -> None:
        """Sets host-containers.`container`.`setting`, and does nothing about it."""
        (self._state / f"{container}.{setting}").write_text(str(value).lower())

    def silence(self, silent: bool) -> None:
        """Has the API server tell no settings, or tell them again."""
        file = self._state / "silent"
        file.touch() if silent else file.unlink()

    def announce(self, container: str) -> None:
        """Enables a host container, which takes a while to start."""
        self.set(container, "superpowered", container not in self.powerless)
        self.set(container, "enabled", True)

    def switch_on(self, container: str) -> None:
        """Enables a host container and returns once it runs."""
        self.announce(container)
        self._running[container] = self._begin_container(container, ["unshare", "--mount"])
        self._wait_for((self._state / f"{container}.pid").exists, f"the {container} container")

    def switch_off(self, container: str) -> None:
        """Disables a host container: it ends, with everything in it."""
        self.set(container, "enabled", False)
        file = self._state / f"{container}.pid"
        pid = int(file.read_text())
        file.unlink()
        self.shell(
            f"container=$(readlink /proc/{pid}/ns/mnt); for process in /proc/[0-9]*; do"
            ' [[ $(readlink "$process/ns/mnt") != "$container" ]] || kill -KILL "${process#/proc/}"; done'
        )
        process = self._running.pop(container)
        self._helpers.remove(process)
        process.wait()

    def begin(self, script: str, env: Mapping[str, str]) -> Running:
        """Starts a script as the SSM agent does in the control container, as a file of its orchestration folder."""
        number = next(self._numbers)
        folder = self.folder / "orchestration" / str(number)
        folder.mkdir(parents=True)
        file = folder / "_script.sh"
        file.write_text(script + "\n")
        file.chmod(0o700)
        command = ["sh", "-c", f"/var/lib/amazon/ssm/{number}/_script.sh"]
        return Running(self.alive, self._enter_control(command), {**CONTAINER_ENVIRONMENT, **env})

    def shell(self, command: str) -> str:
        """Runs a shell command on the host with this machine's programs, for a host has no shell."""
        return self._on_host(["bash", "-c", command])

    def control(self, command: str) -> subprocess.CompletedProcess:
        """Runs a shell command in the control container."""
        return subprocess.run(
            self._enter_control(["sh", "-c", command]),
            env=CONTAINER_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    @property
    def _programs(self) -> Path:
        """Returns the folder that the document uses, of the first host container that is enabled."""
        enabled = [name for name in HOST_CONTAINERS if self._is_enabled(name)]
        return self.folder / "host-containers" / (enabled or ["admin"])[0] / "prefetch-images"

    def _is_enabled(self, container: str) -> bool:
        file = self._state / f"{container}.enabled"
        return file.exists() and file.read_text() == "true"

    @property
    def _state(self) -> Path:
        return self._files / STATE.lstrip("/")

    def _on_host(self, command: Sequence[str]) -> str:
        return subprocess.run(
            self._enter(["/usr/bin/env", *command]), env=MACHINE_ENVIRONMENT, capture_output=True, text=True, check=True
        ).stdout

    def _begin_on_host(self, command: Sequence[str]) -> subprocess.Popen:
        with (self.folder / "containers.log").open("ab") as log:
            helper = subprocess.Popen(
                self._enter(["/usr/bin/env", *command]),
                env=MACHINE_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._helpers.append(helper)
        return helper

    def _begin_container(self, name: str, unshare: Sequence[str]) -> subprocess.Popen:
        arguments = ["bash", "-c", CONTAINER, name, name, str(self.folder), MACHINE, STATE]
        return self._begin_on_host([*unshare, *arguments])

    def _enter_control(self, command: Sequence[str]) -> list[str]:
        if not self._control:
            raise RuntimeError(f"node {self.name} is not running")
        namespaces = f"/proc/{self._control}/ns"
        return ["nsenter", f"--mount={namespaces}/mnt", f"--pid={namespaces}/pid", "--", *command]

    def _wait_for(self, look, what: str) -> None:
        deadline = time.monotonic() + START_LIMIT_SECONDS
        while not look():
            if time.monotonic() > deadline or any(helper.poll() is not None for helper in self._helpers):
                words = (self.folder / "containers.log").read_text()[-2000:]
                self.kill_running()
                raise RuntimeError(f"node {self.name}: {what} did not start: {words}")
            time.sleep(0.01)

    def _configuration(self) -> str:
        architecture = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        return (FILES / "containerd.toml").read_text().replace("@ARCHITECTURE@", architecture)

    def _write_files(self) -> None:
        (self.folder / "etc/eks").unlink(missing_ok=True)  # of the last boot
        super()._write_files()
        etc = self.folder / "etc"
        (etc / "containerd/base-runtime-spec.json").rename(etc / "containerd/cri-base.json")
        if self.other_snapshotter:
            (etc / "containerd/config.d").mkdir(exist_ok=True)
            shutil.copy(FILES / f"{self.other_snapshotter}.toml", etc / "containerd/config.d/snapshotter.toml")
        shutil.copy(FILES / "os-release", etc / "os-release")
        (self.folder / "orchestration").mkdir(exist_ok=True)
        for place, programs in PROGRAMS.items():
            _write_programs(self.folder / place, programs.split())
        for place in ("control", *HOST_CONTAINERS):
            (self.folder / "host-containers" / place).mkdir(parents=True, exist_ok=True)
            shutil.copy(FILES / "apiclient", self.folder / place / "local/bin/apiclient")
        shutil.copy(FILES / "apiserver", self.folder / "apiserver")
        for container in HOST_CONTAINERS:
            programs = self.folder / container / "bin"
            shutil.copy(FILES / "sheltie", programs / "sheltie")
            if container in self.powerless:
                words = "nsenter: reassociate to namespace 'ns/mnt' failed: Operation not permitted"
                _write_program(programs / "nsenter", f'echo "{words}" >&2; exit 1')
            if self.curl:
                _write_program(programs / "curl", f"echo '{self.curl}'")

    def _write_login(self) -> None:
        """Writes kubelet's own credential provider to where Bottlerocket has it; there is no other login helper."""
        self.set_password(self.registry.password)
        shutil.rmtree(self.folder / "etc/eks", ignore_errors=True)
        os.mknod(self.folder / "etc/eks", stat.S_IFCHR)  # overlayfs's whiteout
        kubelet = self.folder / "etc/kubernetes/kubelet"
        kubelet.mkdir(parents=True, exist_ok=True)
        shutil.copy(FILES / "credential-provider-config.yaml", kubelet)
        plugins = self.folder / "host/libexec/kubernetes/kubelet/plugins"
        plugins.mkdir(parents=True, exist_ok=True)
        plugin = plugins / "ecr-credential-provider"
        plugin.write_text(self._stand_in(plugin.name).replace("/usr/bin/env bash", f"{MACHINE}/bin/bash"))
        plugin.chmod(0o755)


def _write_programs(folder: Path, names: Sequence[str]) -> None:
    """Makes a folder of links to this machine's programs, and the empty ones beside it."""
    shutil.rmtree(folder / "bin", ignore_errors=True)
    for place in ("bin", "empty", "local/bin", "libexec"):
        (folder / place).mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / "bin" / name).symlink_to(_machine_path(name))


def _write_program(file: Path, text: str) -> None:
    file.unlink(missing_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)


def _machine_path(name: str) -> str:
    """Returns where a program of this machine, or of the unpacked containerd, is found under /run/machine."""
    if name in ("sh", "containerd", "ctr"):
        return f"{MACHINE}/bin/{name}"
    found = shutil.which(name, path=ENVIRONMENT["PATH"])
    if not found:
        raise RuntimeError(f"this machine has no {name}, which a Bottlerocket node has")
    file = Path(found).resolve()
    return f"{MACHINE}/{file.parent.name}/{file.name}"


def _sleeping(process: subprocess.Popen) -> int | None:
    """Returns a container's first process, as this machine counts, once its root file system stands."""
    with contextlib.suppress(OSError):
        for pid in descendants(process.pid):
            if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"control\0infinity"):
                return pid
    return None
