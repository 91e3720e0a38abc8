"""Boots a node with examples/boot in its user data, whatever may be wrong around it."""

import contextlib
import itertools
import json
import platform
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.make import document
from local.nodes import program
from local.nodes.node import Node
from local.nodes.running import Completed, Running

EXAMPLES = Path(__file__).parents[2] / "examples/boot"
BOOT_TIMEOUT = 8
LATE = BOOT_TIMEOUT + 4.5
"""Seconds after which kubelet starts at the latest, on a machine that is busy."""
REPOSITORY = "the-stack/node-program"
FOLDER = "/var/lib/prefetch-images"
PLUGIN = "/etc/eks/image-credential-provider/ecr-credential-provider"
SOCKET = "/run/containerd/containerd.sock"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
HANGS = "trap '' TERM INT HUP\nwhile :; do sleep 1; done"
"""Hangs, and does not even end when it is told to."""

AWS = """#!/bin/bash
# Stands in for the AWS CLI: a fault of IMDS meets every call.
here=${0%/*} answer=${2#get-} call=${2#get-} call=${call%s}
[[ "$1 $*" == "ssm ssm get-"*" --region eu-west-1 "* ]] || exit 252
fault=$(cat "$here/imds" "$here/$call" 2>/dev/null)
case $fault in
    missing) echo 'An error occurred (ParameterNotFound), or no credentials were found' >&2; exit 254 ;;
    denied) echo 'An error occurred (AccessDeniedException)' >&2; exit 254 ;;
    slow) sleep 1 ;;
    garbage) echo '<html>'; exit 0 ;;
    hanging) @HANGS@ ;;
esac
[[ $answer == parameters ]] || { cat "$here/$answer.json"; exit; }
[[ " $* " == *" --names "* ]] || exit 252
found=()
for name; do
    case $name in
        --region) break ;;
        /*.more) [[ -e $here/more.json ]] && found+=("{\\"Name\\":\\"$name\\",\\"Value\\":$(<"$here/more.json")}") ;;
        /*) found+=("{\\"Name\\":\\"$name\\",\\"Value\\":$(<"$here/list.json")}") ;;
    esac
done
((${#found[@]} <= 10)) || exit 255
(IFS=,; echo "{\\"Parameters\\":[${found[*]}]}")
"""
SYSTEMCTL = """#!/bin/bash
# Stands in for systemctl: containerd runs already, or is to come.
here=${0%/*}
echo "$*" >>"$here/units"
case $(cat "$here/containerd-unit" 2>/dev/null) in
    denied) echo 'Access denied' >&2; exit 4 ;;
    slow) (sleep 1; mv @SOCKET@.away @SOCKET@) & ;;
esac
"""
CLOUD_INIT = """
bash "$1" &
echo $! >/run/boot.pid
wait $!
echo "$?"
rm /run/boot.pid
"""
"""Runs a script of user data and goes on whatever became of it, as cloud-init does; nodeadm starts kubelet then."""


class Boot:
    """A node that boots, and what may be wrong around it."""

    def __init__(self, node: Node, front: Front | Registry, programs: Mapping[str, bytes]) -> None:
        """Describes the boots of a node of this registry, of which some faults need a front; programs by processor."""
        self.node = node
        self.front = front
        self.registry = front.registry if isinstance(front, Front) else front
        self.program = programs[platform.machine()]
        self._host = self.registry.hosts[0]
        self._folder = node.folder / "stand-ins"
        self._numbers = itertools.count()
        self._folder.mkdir()
        self.write("aws", AWS.replace("@HANGS@", HANGS))
        self.write("systemctl", SYSTEMCTL.replace("@SOCKET@", SOCKET))
        self.write("boot.sh", (EXAMPLES / "boot.sh").read_text())
        self.script = document.script(program.attributes(f"{self._host}/{REPOSITORY}", programs))
        self.set_document(self.script)

    def write(self, name: str, text: str) -> Path:
        """Writes a program that stands before the node's own, or a file for one."""
        file = self._folder / name
        file.write_text(text)
        file.chmod(0o755)
        return file

    def remove(self, *names: str) -> None:
        """Removes such files."""
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def units(self) -> list[str]:
        """Returns what systemctl was told, and forgets it."""
        file = self._folder / "units"
        told = file.read_text().splitlines() if file.exists() else []
        file.unlink(missing_ok=True)
        return told

    def set_document(self, script: str) -> None:
        """Makes SSM answer a document with this script."""
        content = {"mainSteps": [{"inputs": {"runCommand": script.split("\n")}}]}
        self.write("document.json", json.dumps({"Name": "x", "Content": json.dumps(content)}))

    def set_list(self, value: object, more: object = None) -> None:
        """Makes SSM answer this list of every rule, whatever it is, and a second one where there is one."""
        self.lists = {"list": value, "more": more}
        text, further = (
            value if isinstance(value, str) else json.dumps(value, separators=(",", ":")) for value in (value, more)
        )
        self.write("parameter.json", json.dumps({"Parameter": {"Value": text}}))
        self.write("list.json", json.dumps(text))
        self.remove("more.json")
        if more is not None:
            self.write("more.json", json.dumps(further))

    def push(self, layer_bytes: int = 1 << 20) -> str:
        """Pushes another image and names it in the list; returns its reference."""
        name = f"boot{next(self._numbers)}"
        image = images.image(name, architecture=ARCHITECTURE, layer_bytes=layer_bytes)
        images.push(self.registry.url, self.registry.ca, self.registry.password, f"team/{name}", "v1", image)
        reference = f"{self._host}/team/{name}:v1@{image.digest}"
        self.set_images(reference)
        return reference

    def set_images(self, *references: str, more: Sequence[str] = ()) -> None:
        """Makes SSM answer lists of images, with the document's parameters; this machine's disk may be quite full."""
        parameters = json.loads(document.DOCUMENT.read_text())["parameters"]
        given = {name: parameter["default"] for name, parameter in parameters.items() if "default" in parameter}
        given["imageGCHighThresholdPercent"] = "100"
        lists = [{"images": " ".join(listed), "parameters": given} if listed else None for listed in (references, more)]
        self.set_list(*lists)

    def begin(self, **env: str) -> Running:
        """Starts the script of user data."""
        file = self.write("cloud-init", CLOUD_INIT)
        path = f"{self._folder}:/usr/sbin:/usr/bin:/sbin:/bin"
        env = {"PATH": path, "BOOT_TIMEOUT": str(BOOT_TIMEOUT), **env}
        return self.node.begin(f"bash {file} {self._folder / 'boot.sh'}", env)

    def run(self, **env: str) -> Completed:
        """Runs it until kubelet would start, which it must."""
        ended = self.begin(**env).wait(60)
        assert ended.stdout, "kubelet does not start"
        return ended

    def kept(self, name: str) -> str:
        """Returns what the boot has left in a file."""
        return self.node.shell(f"cat {FOLDER}/boot/{name} 2>/dev/null || true")

    def uninstall(self) -> None:
        """Removes the program from the node."""
        self.node.shell(f"rm -rf {FOLDER}")

    def finds(self, reference: str) -> bool:
        """Tells whether kubelet would find an image."""
        tag, deadline = reference.partition("@")[0], time.monotonic() + 5
        while not (found := self.node.image_status(tag)) and time.monotonic() < deadline:
            time.sleep(0.05)  # CRI notices names that others made after some 0.3 seconds
        return found is not None


@contextlib.contextmanager
def of_aws(boot: Boot, what: str, how: str) -> Iterator[None]:
    """The AWS CLI does not get what it asks for."""
    boot.write(what, how)
    yield
    boot.remove(what)


@contextlib.contextmanager
def of_registry(boot: Boot, what: str, how: str) -> Iterator[None]:
    """The registry does not serve the node's images, or does not serve the program."""
    front, concerned = boot.front, REPOSITORY if what == "program" else "team/"
    digest = images.digest(boot.program).removeprefix("sha256:")
    [blob] = (boot.registry.folder / "storage").rglob(f"{digest}/data")
    content = blob.read_bytes()
    if what == "program":
        boot.uninstall()
    match what, how:
        case "registry", "missing":
            front.stop()
        case "registry", "garbage":
            front.page = b"<html>"
        case "program", "garbage":
            blob.write_bytes(content[::-1])
        case _, "slow":
            front.bytes_per_second = 16 << 20 if what == "program" else 1 << 20
        case _, "hanging":
            front.keeps_back = lambda path: concerned in path
            front.hold()
        case _:
            front.refusals = lambda path: {"missing": 404, "denied": 403}[how] if concerned in path else None
    yield
    if (what, how) == ("registry", "missing"):
        front.start()
    blob.write_bytes(content)
    front.page, front.bytes_per_second = None, None
    front.refusals, front.keeps_back = (lambda path: None), (lambda path: False)
    front.release()


@contextlib.contextmanager
def of_login(boot: Boot, _: str, how: str) -> Iterator[None]:
    """ECR's credential provider gives no login."""
    bodies = {
        "missing": None,
        "denied": "echo AccessDenied >&2; exit 1",
        "slow": f"sleep 1; exec {PLUGIN}.behind",
        "garbage": "echo '<html>'",
        "hanging": HANGS,
    }
    boot.node.shell(f"mv {PLUGIN} {PLUGIN}.behind")
    if body := bodies[how]:
        boot.node.shell(f"cat >{PLUGIN} <<'END'\n#!/bin/bash\n{body}\nEND\nchmod 755 {PLUGIN}")
    yield
    boot.node.shell(f"mv {PLUGIN}.behind {PLUGIN}")


@contextlib.contextmanager
def of_containerd(boot: Boot, _: str, how: str) -> Iterator[None]:
    """Containerd does not come, or does not do as it should."""
    boot.write("containerd-unit", how)
    if how == "hanging":
        boot.node.freeze()
        yield
        boot.node.thaw()
    else:
        boot.node.shell(f"mv {SOCKET} {SOCKET}.away")
        with stranger(boot.node.socket) if how == "garbage" else contextlib.nullcontext():
            yield
        boot.node.shell(f"[ ! -e {SOCKET}.away ] || mv {SOCKET}.away {SOCKET}")
    boot.remove("containerd-unit")


@contextlib.contextmanager
def stranger(place: Path) -> Iterator[None]:
    """Somebody else listens at a socket, and answers what nobody understands."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(place))
    listener.listen()

    def answer() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(b"garbage\r\n" * 100)

    threading.Thread(target=answer, daemon=True).start()
    yield
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


FAULTS: dict[str, Callable] = {
    "parameter": of_aws,
    "document": of_aws,
    "imds": of_aws,
    "registry": of_registry,
    "program": of_registry,
    "login": of_login,
    "containerd": of_containerd,
}
WAYS = ("missing", "denied", "slow", "garbage", "hanging")
