"""User data of a node that boots (examples/boot): whatever fails or hangs, kubelet starts in time, and where nothing is
wrong it starts after the images are there."""

import contextlib
import email
import itertools
import json
import os
import platform
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from local import document, images, program
from local.front import Front
from local.node import Node
from local.registry import Registry
from local.running import Completed

from .command import BUILD, HOST, PROGRAMS, ROOT, Result, begin, parameters, run
from .nodes import a_password, free_address, leftovers, running
from .state import OWN_ARCHITECTURE, by_tag, eventually, node_finds

EXAMPLES = ROOT / "examples/boot"
BOOT_TIMEOUT = 8
LATE = BOOT_TIMEOUT + 4.5
"""Seconds after which kubelet starts at the latest, on a machine that is busy."""
REPOSITORY = "the-stack/node-program"
FOLDER = "/var/lib/prefetch-images"
PLUGIN = "/etc/eks/image-credential-provider/ecr-credential-provider"
SOCKET = "/run/containerd/containerd.sock"
HANGS = "trap '' TERM INT HUP\nwhile :; do sleep 1; done"
"""What hangs, and does not even end when it is told to."""

AWS = """#!/bin/bash
# Stands in for the AWS CLI: a fault of IMDS meets every call.
here=${0%/*} call=${2#get-}
[[ "$1 $*" == "ssm ssm get-"*" --region eu-west-1 "* ]] || exit 252
fault=$(cat "$here/imds" "$here/$call" 2>/dev/null)
case $fault in
    missing) echo 'An error occurred (ParameterNotFound), or no credentials were found' >&2; exit 254 ;;
    denied) echo 'An error occurred (AccessDeniedException)' >&2; exit 254 ;;
    slow) sleep 1 ;;
    garbage) echo '<html>'; exit 0 ;;
    hanging) @HANGS@ ;;
esac
cat "$here/$call.json"
"""
SYSTEMCTL = """#!/bin/bash
# Stands in for systemctl: containerd runs already, or is to come.
here=${0%/*}
echo "$*" >>"$here/units"
case $(cat "$here/containerd" 2>/dev/null) in
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

    def __init__(self, node: Node, front: Front) -> None:
        self.node = node
        self.front = front
        self.registry = front.registry
        self._folder = node.folder / "stand-ins"
        self._numbers = itertools.count()
        self._folder.mkdir()
        self.write("aws", AWS.replace("@HANGS@", HANGS))
        self.write("systemctl", SYSTEMCTL.replace("@SOCKET@", SOCKET))
        self.write("boot.sh", (EXAMPLES / "boot.sh").read_text())
        self.script = document.script(program.attributes(f"{HOST}/{REPOSITORY}", PROGRAMS))
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

    def set_list(self, value: object) -> None:
        """Makes SSM answer this list, whatever it is."""
        text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
        self.write("parameter.json", json.dumps({"Parameter": {"Value": text}}))

    def push(self, layer_bytes: int = 1 << 20) -> str:
        """Pushes another image and names it in the list; returns its reference."""
        name = f"boot{next(self._numbers)}"
        image = images.image(name, architecture=OWN_ARCHITECTURE, layer_bytes=layer_bytes)
        images.push(self.registry.url, self.registry.ca, self.registry.password, f"team/{name}", "v1", image)
        reference = f"{HOST}/team/{name}:v1@{image.digest}"
        given = parameters(reference, imageGCHighThresholdPercent=100)
        given = {name.removeprefix("SSM_"): value for name, value in given.items()}
        self.set_list({"images": given.pop("images"), "parameters": given})
        return reference

    def begin(self, **env: str):
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
        return node_finds(self.node, by_tag(reference)) is not None


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Boot]:
    """A node whose boots leave nothing behind but images, and their reports."""
    if not PROGRAMS:
        raise RuntimeError(f"there is no program; build it: {BUILD}")
    folder = tmp_path_factory.mktemp("boot")
    registry = Registry(folder / "registry", free_address(), [HOST], a_password())
    registry.start()
    images.push(registry.url, registry.ca, registry.password, REPOSITORY, None, program.artifact(PROGRAMS))
    front = Front(registry, free_address())
    front.start()
    with running(Node(folder / "node", "boot", front, "2.1")) as node:
        yield Boot(node, front)
    front.stop()
    registry.stop()


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
    digest = images.digest(PROGRAMS[platform.machine()]).removeprefix("sha256:")
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
    boot.write("containerd", how)
    if how == "hanging":
        boot.node.freeze()
        yield
        boot.node.thaw()
    else:
        boot.node.shell(f"mv {SOCKET} {SOCKET}.away")
        with stranger(boot.node.socket) if how == "garbage" else contextlib.nullcontext():
            yield
        boot.node.shell(f"[ ! -e {SOCKET}.away ] || mv {SOCKET}.away {SOCKET}")
    boot.remove("containerd")


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("what", "how"), [(what, how) for what in FAULTS for how in WAYS])
def test_kubelet_starts_in_time_whatever_is_wrong_and_after_the_images_where_it_is_only_slow(
    boot: Boot, what: str, how: str
) -> None:
    boot.node.install(PROGRAMS[platform.machine()])
    before = leftovers(boot.node)
    reference = boot.push()

    with FAULTS[what](boot, what, how):
        ended = boot.run()

    assert (ended.stdout, ended.seconds < LATE) == ("0\n", True), ended.seconds
    assert boot.finds(reference) == (how == "slow"), boot.kept("default.stderr") + boot.kept("log")
    assert eventually(lambda: leftovers(boot.node) - before, set())


def test_a_boot_pulls_the_list_and_leaves_its_report_for_root_alone(boot: Boot) -> None:
    boot.uninstall()
    boot.units()
    reference = boot.push()

    ended = boot.run()

    assert (ended.stdout, ended.stderr) == ("0\n", "")
    assert boot.finds(reference)
    report = json.loads(boot.kept("default.stdout"))
    assert (report["image"], report["status"]) == (reference, "pulled")
    assert boot.kept("log").splitlines()[-1] == "rule default: ended with 0"
    assert boot.units() == ["start --no-block containerd"]
    modes = boot.node.shell(f"stat -c '%U %a' {FOLDER} {FOLDER}/boot {FOLDER}/boot/*").split("\n")[:-1]
    assert set(modes) == {"root 700", "root 600"} and modes[:2] == ["root 700", "root 700"]


def test_the_next_command_brings_the_report_along_and_only_it(boot: Boot) -> None:
    references = [boot.push(), boot.push()]
    began = int(time.time())
    boot.run()
    assert len(run(boot.node, references[1], reportOnly="true").reports) == 1

    first, second = (run(boot.node, references[1]) for _ in range(2))

    own, brought = first.reports
    assert (own["status"], brought["image"], brought["status"]) == ("cached", references[1], "pulled")
    assert brought["boot"]["rule"] == "default"
    assert began - 1 <= brought["boot"]["began"] <= brought["boot"]["ended"] <= time.time()
    assert second.outcomes() == [("cached", "")]
    assert json.loads(boot.kept("default.reported"))["status"] == "pulled"


def test_a_boot_that_goes_on_keeps_its_report_and_gives_it_to_the_command_that_waits_for_it(boot: Boot) -> None:
    reference = boot.push()
    boot.front.hold()
    going_on = boot.begin()
    assert eventually(lambda: len(boot.front.being_pulled()), 1)
    waiting = begin(boot.node, reference)
    time.sleep(1)
    boot.front.release()
    assert going_on.wait(60).stdout == "0\n"
    own, brought = Result(waiting.wait(60)).reports
    assert (own["status"], brought["status"], brought["boot"]["rule"]) == ("cached", "pulled", "default")


def test_the_reports_stay_when_older_programs_go(boot: Boot) -> None:
    boot.uninstall()
    boot.node.shell(f"mkdir -m 700 {FOLDER} && cd {FOLDER} && touch --date '2 hours ago' old1 old2 old3")
    boot.push()
    boot.run()
    assert boot.node.shell(f"ls {FOLDER} | wc -l") == "4\n"
    assert "rule default: ended with 0" in boot.kept("log")


def test_a_node_of_several_rules_gets_what_it_can_of_each(boot: Boot) -> None:
    boot.node.install(PROGRAMS[platform.machine()])
    reference = boot.push()
    text = (EXAMPLES / "boot.sh").read_text()
    boot.write("boot.sh", text.replace("RULES=default", "RULES='gpu web'"))
    boot.run()
    boot.write("boot.sh", text)
    assert all("boot" not in json.loads(boot.kept(f"{rule}.stdout")) for rule in ("gpu", "web"))
    statuses = [json.loads(boot.kept(f"{rule}.stdout"))["status"] for rule in ("gpu", "web")]
    assert (statuses, boot.finds(reference)) == (["pulled", "cached"], True)


def test_where_containerd_is_set_to_use_soci_that_is_started_before(boot: Boot) -> None:
    boot.units()
    boot.set_list("no list")
    configuration = "/etc/containerd/config.toml"
    boot.node.shell(f"cp {configuration} /run/config && printf '  snapshotter = \"soci\"\\n' >>{configuration}")
    boot.run()
    boot.node.shell(f"mv /run/config {configuration}")
    assert boot.units() == ["start --no-block soci-snapshotter", "start --no-block containerd"]


@pytest.mark.parametrize("tool", ["jq", "systemctl", "the script", "bash"])
def test_whatever_hangs_is_ended_by_force(boot: Boot, tool: str) -> None:
    before = leftovers(boot.node)
    boot.push()
    kept = (boot.node.folder / "stand-ins/systemctl").read_text()
    match tool:
        case "the script":
            boot.set_document(HANGS)
        case "bash":
            boot.set_document(f"setsid bash -c 'sleep {BOOT_TIMEOUT + 2}' & \nkill -STOP $$")
        case _:
            boot.write(tool, f"#!/bin/bash\n{HANGS}\n")
    ended = boot.run()
    boot.remove("jq")
    boot.write("systemctl", kept)
    boot.set_document(boot.script)
    assert (ended.stdout, ended.seconds < LATE + 10 * (tool == "systemctl")) == ("0\n", True), ended.seconds
    assert eventually(lambda: leftovers(boot.node) - before, set(), BOOT_TIMEOUT), leftovers(boot.node) - before


@pytest.mark.parametrize(
    "value",
    [
        "",
        "[]",
        '{"images":""}',
        {"images": "app", "parameters": {"keep": "1\nPATH=/run/harmed"}},
        {"images": "app\nLD_PRELOAD=/run/harmed", "parameters": {}},
        {"images": "app", "parameters": {"keep": "$(touch /run/harmed)"}},
        {"images": "app", "parameters": {"x=y PATH": "1"}},
        {"images": "app", "parameters": {"keep": 1}},
        {"images": ["app"], "parameters": {}},
        {"parameters": {"keep": "1"}},
    ],
)
def test_a_list_that_is_none_of_ours_runs_nothing(boot: Boot, value: object) -> None:
    boot.set_document("touch /run/harmed")
    boot.set_list(value)
    ended = boot.run()
    boot.set_document(boot.script)
    assert (ended.stdout, ended.seconds < 4) == ("0\n", True)
    assert boot.node.shell("ls /run/harmed 2>/dev/null || true") == ""


def test_a_lists_parameters_are_the_scripts_but_for_how_long_it_may_run(boot: Boot) -> None:
    boot.set_document("env | grep ^SSM_ | sort")
    boot.set_list(
        {"images": "app web", "parameters": {"executionTimeout": "3600", "maxConnections": "9", "pin": "true"}}
    )
    boot.run()
    boot.set_document(boot.script)
    *others, seconds, images_, connections, pin = boot.kept("default.stdout").splitlines()
    assert (others, images_, connections, pin) == ([], "SSM_images=app web", "SSM_maxConnections=9", "SSM_pin=true")
    assert 5 <= int(seconds.removeprefix("SSM_executionTimeout=")) <= BOOT_TIMEOUT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("killed", ["user data", "program"])
def test_kubelet_starts_at_once_where_the_script_is_killed(boot: Boot, number: signal.Signals, killed: str) -> None:
    boot.node.install(PROGRAMS[platform.machine()])
    before = leftovers(boot.node)
    boot.push()
    boot.front.hold()
    running_boot = boot.begin()
    assert eventually(lambda: len(boot.front.being_pulled()), 1)
    if killed == "program":
        name = images.digest(PROGRAMS[platform.machine()]).removeprefix("sha256:")[:15]
        [pid] = [pid for pid, known in boot.node.processes().items() if known == name]
        os.kill(pid, number)
    else:
        boot.node.shell(f"kill -{number.value} $(cat /run/boot.pid)")
    began = time.monotonic()
    ended = running_boot.wait(60)
    waited = time.monotonic() - began
    boot.front.release()
    assert ended.stdout == ("0\n" if killed == "program" else f"{128 + number}\n")
    assert waited < 4
    if killed == "program":
        boot.run()  # what it had begun goes with the next
    assert eventually(lambda: leftovers(boot.node) - before, set(), BOOT_TIMEOUT + 5), leftovers(boot.node) - before


def test_kubelet_starts_where_nothing_can_be_written(boot: Boot) -> None:
    boot.uninstall()
    boot.push()
    boot.node.shell(f"mkdir -m 700 {FOLDER} && mount -t tmpfs -o nr_inodes=1,mode=700 full {FOLDER}")
    ended = boot.run()
    boot.node.shell(f"umount {FOLDER}")
    assert (ended.stdout, ended.seconds < 4) == ("0\n", True)


def test_kubelet_starts_where_containerds_disk_is_full(tmp_path: Path, boot: Boot) -> None:
    with running(Node(tmp_path / "node", "full", boot.front, "2.1", disk_mib=24)) as node:
        full = Boot(node, boot.front)
        node.install(PROGRAMS[platform.machine()])
        reference = full.push(layer_bytes=32 << 20)
        ended = full.run()
        assert (ended.stdout, ended.seconds < LATE) == ("0\n", True)
        assert json.loads(full.kept("default.stdout"))["reason"] == "no-space"
        assert not full.finds(reference)


@pytest.mark.parametrize("name", ["managed-node-group.mime", "self-managed.mime", "ec2nodeclass.yaml"])
def test_every_example_has_the_script_as_it_is_as_its_last_part(name: str) -> None:
    text = (EXAMPLES / name).read_text()
    if name.endswith(".yaml"):
        yaml = pytest.importorskip("yaml")
        text = yaml.safe_load(text)["spec"]["userData"]
    parts = email.message_from_string(text).get_payload()
    kinds = [part.get_content_type() for part in parts]
    expected = ["text/x-shellscript", "text/x-shellscript"]
    assert kinds == (["application/node.eks.aws", *expected] if name == "self-managed.mime" else expected)
    assert parts[-1].get_payload().strip() == (EXAMPLES / "boot.sh").read_text().strip()
    assert len(text.encode()) < 16384, "EC2 takes 16 KB of user data"
