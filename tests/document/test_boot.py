"""User data of a node that boots (examples/boot): whatever fails or hangs, kubelet starts in time, and where nothing is
wrong it starts after the images are there."""

import email
import json
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes import program
from local.nodes.boots import BOOT_TIMEOUT, EXAMPLES, FAULTS, FOLDER, HANGS, LATE, REPOSITORY, WAYS, Boot
from local.nodes.node import Node

from .command import BUILD, HOST, PROGRAMS, Result, begin, run
from .nodes import a_password, free_address, leftovers, running
from .state import eventually


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
        yield Boot(node, front, PROGRAMS)
    front.stop()
    registry.stop()


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
    assert boot.kept("log").splitlines()[-1] == "list default: ended with 0"
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


def test_a_line_that_was_cut_off_is_told(boot: Boot) -> None:
    reference = boot.push()
    boot.run()
    boot.node.shell(f"""printf '{{"image":"registry' >>{FOLDER}/boot/default.stdout""")

    result = run(boot.node, reference)

    assert [report["status"] for report in result.reports] == ["cached", "pulled"]
    assert "list default 1 lines are left out" in result.stderr


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
    assert "list default: ended with 0" in boot.kept("log")


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


def test_what_the_first_list_has_no_room_for_is_pulled_from_a_second_whose_report_is_of_the_rule_too(
    boot: Boot,
) -> None:
    boot.node.install(PROGRAMS[platform.machine()])
    more, reference = boot.push(), boot.push()
    boot.set_images(reference, more=[more])

    ended = boot.run()

    assert (ended.stdout, boot.finds(reference), boot.finds(more)) == ("0\n", True, True)
    log = boot.kept("log").splitlines()
    assert [line for line in log if "ended" in line] == [
        "list default: ended with 0",
        "list default.more: ended with 0",
    ]
    _, *brought = run(boot.node, reference).reports
    told = {(line["image"], line["status"], line["boot"]["rule"]) for line in brought}
    assert told == {(reference, "pulled", "default"), (more, "pulled", "default")}


def test_a_second_list_is_pulled_where_the_first_is_none(boot: Boot) -> None:
    more = boot.push()
    boot.set_images(more, more=[more])
    boot.set_list("no list", boot.lists["more"])
    boot.run()
    assert json.loads(boot.kept("default.more.stdout"))["image"] == more


def test_the_lists_of_six_rules_are_read_though_ssm_gives_ten_by_one_call(boot: Boot) -> None:
    boot.set_document("echo runs")
    boot.set_images("app", more=["web"])
    rules = [f"rule-{number}" for number in range(6)]
    text = (EXAMPLES / "boot.sh").read_text()
    boot.write("boot.sh", text.replace("RULES=default", f"RULES='{' '.join(rules)}'"))
    boot.run()
    boot.write("boot.sh", text)
    boot.set_document(boot.script)
    lists = [f"{rule}{part}" for rule in rules for part in ("", ".more")]
    assert [boot.kept(f"{name}.stdout") for name in lists] == ["runs\n"] * len(lists), boot.kept("log")
    assert boot.kept("lists").count('"Name"') == 2 * len(rules)


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
        full = Boot(node, boot.front, PROGRAMS)
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
