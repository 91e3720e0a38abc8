"""Bottlerocket: the bootstrap starts in the control container, and the program works from another host container."""

import contextlib
import re
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import images
from local.ecr.registry import Registry
from local.nodes.bottlerocket import HOST_CONTAINERS, STATE, BottlerocketNode

from . import nodes
from .command import A_DIGEST, GOOD, HOST, Result, begin, install, run, substituted
from .nodes import a_password, free_address
from .state import by_digest, by_tag, eventually, image_id, node_finds, wait_for_file
from .test_snapshotter import OLD
from .watch import base64_of, watching_processes

RUN = "/run/prefetch-images"
either = pytest.mark.parametrize("container", HOST_CONTAINERS)


@pytest.fixture
def node(tmp_path: Path, registry: Registry) -> Iterator[BottlerocketNode]:
    """A node of its own for one test."""
    with running(BottlerocketNode(tmp_path / "node", "node", registry)) as node:
        yield node


@pytest.fixture(scope="module")
def quick_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BottlerocketNode]:
    """One node with an empty registry, for tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("quick")
    registry = Registry(folder / "registry", free_address(), [HOST], a_password())
    registry.start()
    with running(BottlerocketNode(folder / "node", "quick", registry)) as node:
        yield node
    registry.stop()


# ── What ends well ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_is_pulled_and_then_cached(node: BottlerocketNode, pushed, registry: Registry) -> None:
    image = images.multi_platform("cold")
    reference = pushed("team/app", "v1", image)

    first = run(node, reference)

    assert (first.exit_code, first.outcomes(), first.stderr) == (0, [("pulled", "")], "")
    assert first.only()["bytes"] > 0
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(image)
    registry.pause()
    second = run(node, reference)
    assert (second.exit_code, second.outcomes(), second.only()["attempts"]) == (0, [("cached", "")], 0)
    assert second.seconds < 5


def test_images_are_pulled_from_a_host_container_of_its_own_name(tmp_path: Path, pushed, registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"own {number}")) for number in range(2)]
    with running(BottlerocketNode(tmp_path / "own", "own", registry, containers=["prefetch"])) as node:
        result = run(node, *references)

        assert (result.exit_code, result.statuses(), result.stderr) == (0, ["pulled"] * 2, "")
        assert run(node, *references).statuses() == ["cached"] * 2


def test_the_host_container_of_its_own_name_is_used_where_admin_runs_too(
    tmp_path: Path, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("both"))
    options = {"containers": HOST_CONTAINERS, "powerless": ["admin"]}
    with running(BottlerocketNode(tmp_path / "both", "both", registry, **options)) as node:
        assert run(node, reference).outcomes() == [("pulled", "")]


def test_admin_is_used_where_the_host_container_of_its_own_name_is_off(node: BottlerocketNode, pushed) -> None:
    node.set("prefetch", "superpowered", True)
    node.set("prefetch", "enabled", False)

    assert run(node, pushed("team/app", "v1", images.image("off"))).outcomes() == [("pulled", "")]


def test_several_images_come_with_one_login_of_kubelets_plugin(node: BottlerocketNode, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}")) for number in range(5)]

    result = run(node, *references, maxParallelImagePulls=3)

    assert (result.exit_code, result.statuses()) == (0, ["pulled"] * 5), result.stderr
    assert sorted(report["image"] for report in result.reports) == sorted(references)


def test_of_two_commands_at_once_one_pulls_and_the_other_finds_it_cached(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("twice", layer_bytes=20_000_000))

    first, second = begin(node, reference), begin(node, reference)
    results = [Result(command.wait(60)) for command in (first, second)]

    assert sorted(result.statuses()[0] for result in results) == ["cached", "pulled"]


def test_an_older_image_of_ours_is_let_go_and_the_newer_one_is_pinned(node: BottlerocketNode, pushed) -> None:
    old, new = pushed("team/app", "v1", images.image("old")), pushed("team/app", "v2", images.image("new"))

    assert run(node, old, keep=1, pin=True).outcomes() == [("pulled", "")]
    assert node_finds(node, by_tag(old)) and eventually(lambda: node.pinned(by_tag(old)), True)
    node.shell("rm -rf /run/prefetch-images/named")
    result = run(node, new, keep=1, pin=True)

    assert (result.exit_code, result.outcomes()) == (0, [("pulled", "")]), result.stderr
    assert old.partition("@")[2] in result.stderr, "a removal is told"
    assert not {by_tag(old), by_digest(old)} & node.images().keys()
    assert eventually(lambda: node.pinned(by_tag(new)) and node.pinned(by_digest(new)), True)


def test_a_mirror_of_containerds_is_asked_first(tmp_path: Path, registry: Registry) -> None:
    mirror = Registry(tmp_path / "mirror", free_address(), ["mirror.example.com"], "", anonymous=True)
    mirror.start()
    image = images.image("mirrored")
    images.push(mirror.url, mirror.ca, "", "team/app", "v1", image)
    reference = f"{HOST}/team/app:v1@{image.digest}"
    options = {"mirrors": {HOST: mirror}, "neighbours": [mirror]}
    with running(BottlerocketNode(tmp_path / "node", "mirrored", registry, **options)) as node:
        assert run(node, reference).outcomes() == [("pulled", "")]
        assert node_finds(node, by_tag(reference)) == image_id(image)
    assert registry.requests("team/app") == []
    mirror.stop()


def test_a_command_that_only_reports_changes_nothing(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("reported"))

    result = run(node, reference, reportOnly=True)

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "report-only")]), result.stderr
    assert node.images() == {}


# ── What fails ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_image_that_does_not_exist_fails_once_and_the_next_is_pulled(node: BottlerocketNode, pushed) -> None:
    good, bad = pushed("team/app", "v1", images.image("good")), f"{HOST}/team/none:v1@{A_DIGEST}"

    result = run(node, bad, good)

    assert result.exit_code == 1
    assert (result.of(bad)["reason"], result.of(bad)["attempts"]) == ("not-found", 1)
    assert result.of(good)["status"] == "pulled"
    assert by_tag(bad) in result.stderr, "what people should know comes on standard error"


def test_a_wrong_password_is_denied_and_not_tried_again(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("secret"))
    node.set_password("wrong")

    result = run(node, reference)

    assert (result.exit_code, result.outcomes(), result.only()["attempts"]) == (1, [("failed", "denied")], 1)


def test_a_node_without_a_host_container_to_work_from_is_left_alone(tmp_path: Path, registry: Registry) -> None:
    with running(BottlerocketNode(tmp_path / "off", "off", registry, containers=[])) as node:
        result = run(node, GOOD)

        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        for container in HOST_CONTAINERS:
            assert f"settings.host-containers.{container}" in result.stderr
        assert result.seconds < 5


@either
def test_a_host_container_that_only_starts_is_waited_for(
    tmp_path: Path, pushed, registry: Registry, container: str
) -> None:
    reference = pushed("team/app", "v1", images.image("early"))
    with running(BottlerocketNode(tmp_path / "early", "early", registry, containers=[])) as node:
        node.announce(container)
        command = begin(node, reference)
        time.sleep(2)
        assert command.pids(), "the command waits"

        node.switch_on(container)

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]
        node.switch_off(container)


def test_an_api_that_does_not_answer_yet_is_waited_for(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("before the API"))
    with running(BottlerocketNode(tmp_path / "api", "api", registry)) as node:
        install(node)
        node.silence(True)
        command = begin(node, reference)
        time.sleep(2)
        assert command.pids(), "the command waits"

        node.silence(False)

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]


def test_admin_does_not_stand_in_for_a_host_container_that_only_starts(
    tmp_path: Path, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("slow start"))
    with running(BottlerocketNode(tmp_path / "slow", "slow", registry)) as node:
        node.announce("prefetch")
        command = begin(node, reference)
        time.sleep(2)
        assert command.pids(), "the command waits"

        node.switch_on("prefetch")

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]
        node.switch_off("prefetch")


def test_admin_is_used_once_the_host_container_that_only_started_is_disabled(
    tmp_path: Path, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("given up"))
    with running(BottlerocketNode(tmp_path / "given", "given", registry)) as node:
        install(node)
        node.announce("prefetch")
        command = begin(node, reference)
        time.sleep(2)

        node.set("prefetch", "enabled", False)

        assert Result(command.wait(60)).outcomes() == [("pulled", "")]


def test_a_host_container_that_does_not_start_is_named(tmp_path: Path, registry: Registry) -> None:
    with running(BottlerocketNode(tmp_path / "absent", "absent", registry)) as node:
        node.announce("prefetch")
        result = run(node, GOOD, limit=8)

        assert (result.exit_code, result.stdout) == (2, "")
        assert "host container prefetch" in result.stderr and "does not start" in result.stderr
        assert 4 < result.seconds < 8


@either
def test_a_host_container_without_its_powers_is_refused(tmp_path: Path, registry: Registry, container: str) -> None:
    options = {"containers": {"admin", container}, "powerless": [container]}
    with running(BottlerocketNode(tmp_path / "weak", "weak", registry, **options)) as node:
        result = run(node, GOOD, limit=10)

        assert (result.exit_code, result.stdout) == (2, "")
        assert f"settings.host-containers.{container}.superpowered" in result.stderr
        assert result.seconds < 5, "nobody waits for what does not come"


def test_images_are_not_pulled_past_a_snapshotter_that_does_not_run(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("lazy"))
    with running(BottlerocketNode(tmp_path / "soci", "soci", registry, snapshotter="soci")) as node:
        node.shell(OLD)
        result = run(node, reference)

        assert (result.exit_code, result.outcomes()) == (0, [("skipped", "snapshotter")]), result.stderr
        assert node.images() == {}


def test_an_image_that_would_fill_containerds_disk_is_skipped(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/large", "v1", images.image("large", layer_bytes=17 << 20))
    with running(BottlerocketNode(tmp_path / "small", "small", registry, disk_mib=64)) as node:
        result = run(node, reference)

        assert (result.exit_code, result.outcomes()) == (0, [("skipped", "no-space")]), result.stderr
        assert node.images() == {}
        assert run(node, reference, imageGCHighThresholdPercent=100).outcomes() == [("pulled", "")]


# ── What ends before its time ───────────────────────────────────────────────────────────────────────────────────────


def test_a_killed_command_leaves_nothing_at_work(node: BottlerocketNode, pushed, registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"killed {number}")) for number in range(2)]
    before = node.processes().keys()
    registry.pause(stall=True)
    command = begin(node, *references)
    wait_until_at_work(node)

    command.signal(signal.SIGKILL)
    command.wait(10)

    assert eventually(lambda: node.processes().keys() - before, set(), 10), node.processes()
    registry.resume()
    assert run(node, *references).statuses() == ["pulled"] * 2


def test_a_command_killed_by_its_time_limit_leaves_nothing_at_work(
    node: BottlerocketNode, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("too late"))
    before = node.processes().keys()
    registry.pause(stall=True)

    result = begin(node, reference).wait(4)

    assert result.exit_code is None, "the group was killed, as the agent does"
    assert eventually(lambda: node.processes().keys() - before, set(), 10), node.processes()
    registry.resume()
    assert run(node, reference).statuses() == ["pulled"]


def test_a_terminated_command_reports_what_it_did_not_finish(
    node: BottlerocketNode, pushed, registry: Registry
) -> None:
    done = pushed("team/done", "v1", images.image("done"))
    assert run(node, done).statuses() == ["pulled"]
    references = [pushed(f"team/app{number}", "v1", images.image(f"ended {number}")) for number in range(2)]
    before = node.processes().keys()
    registry.pause(stall=True)
    command = begin(node, done, *references)
    assert eventually(lambda: done in command.output())
    wait_until_at_work(node)

    command.signal(signal.SIGTERM)
    result = Result(command.wait(15))

    assert result.exit_code == 1
    assert result.of(done)["status"] == "cached"
    assert [(result.of(image)["status"], result.of(image)["reason"]) for image in references] == [
        ("failed", "interrupted")
    ] * 2
    assert len(result.reports) == 3
    assert eventually(lambda: node.processes().keys() - before, set(), 10), node.processes()
    registry.resume()
    assert run(node, *references).statuses() == ["pulled"] * 2


@either
def test_images_are_interrupted_where_the_host_container_ends(
    tmp_path: Path, pushed, registry: Registry, container: str
) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"lost {number}")) for number in range(2)]
    with running(BottlerocketNode(tmp_path / "lost", "lost", registry, containers=[container])) as node:
        registry.pause(stall=True)
        command = begin(node, *references)
        wait_until_at_work(node)

        node.switch_off(container)
        result = Result(command.wait(15))

        registry.resume()
        assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")] * 2)
        node.switch_on(container)
        assert run(node, *references).statuses() == ["pulled"] * 2


def test_its_own_deadline_ends_it_in_the_host_container(node: BottlerocketNode, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("slow"))
    registry.pause(stall=True)

    result = run(node, reference, limit=10)

    registry.resume()
    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")])
    assert result.seconds < 10


def test_time_spent_waiting_for_the_host_container_counts(tmp_path: Path, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("late"))
    registry.pause(stall=True)
    with running(BottlerocketNode(tmp_path / "late", "late", registry, containers=[])) as node:
        node.announce("admin")
        command = begin(node, reference, limit=15)
        time.sleep(6)
        node.switch_on("admin")

        result = Result(command.wait(15 - 7))

        assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")])
        registry.resume()
        node.switch_off("admin")


def test_a_command_terminated_while_it_waits_for_the_host_container_reports_every_image(
    tmp_path: Path, registry: Registry
) -> None:
    with running(BottlerocketNode(tmp_path / "waiting", "waiting", registry, containers=[])) as node:
        node.announce("admin")
        command = begin(node, GOOD, GOOD.replace("app", "other"))
        time.sleep(2)

        command.signal(signal.SIGTERM)
        result = Result(command.wait(10))

        assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")] * 2)


def test_a_containerd_that_hangs_is_reported(tmp_path: Path, registry: Registry) -> None:
    node = BottlerocketNode(tmp_path / "hung", "hung", registry)
    node.start()
    try:
        node.freeze()

        result = Result(begin(node, GOOD, limit=15).wait(15))

        assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")])
    finally:
        node.stop()


# ── Parameters and secrets ──────────────────────────────────────────────────────────────────────────────────────────


def test_fifty_images_with_the_longest_names_reach_the_host_container(quick_node: BottlerocketNode) -> None:
    repository = "/".join(["a" * 127, "b" * 127])
    references = [f"{HOST}/{repository}:{number:0128}@{A_DIGEST}" for number in range(50)]

    result = run(quick_node, *references, maxParallelImagePulls=8)

    assert result.outcomes() == [("failed", "not-found")] * 50
    assert len(result.stdout) < 36_000 and len(result.stderr) < 8000


def test_hostile_parameters_reach_no_shell(quick_node: BottlerocketNode) -> None:
    for value in [
        f"{GOOD}'; touch /run/harmed; '",
        f"'; touch /run/harmed; '{GOOD}",
        f"$(touch /run/harmed) {GOOD}",
        f"{HOST}/`touch /run/harmed`@{A_DIGEST}",
        f"{GOOD}\ntouch /run/harmed",
        f"{GOOD}\nexit",
        "",
        "{{ images }}",
    ]:
        result = run(quick_node, GOOD, env={"SSM_images": value})
        assert (result.exit_code, result.stdout) == (2, ""), value
    for name in ("executionTimeout", "imageGCHighThresholdPercent", "maxParallelImagePulls", "maxConnections",
                 "maxBandwidthMiB", "maxImageGiB", "keep", "pin", "reportOnly"):  # fmt: skip
        for value in ["'; touch /run/harmed; '", "a[$(touch /run/harmed)]", "1\ntouch /run/harmed", ""]:
            result = run(quick_node, GOOD, env={f"SSM_{name}": value})
            assert (result.exit_code, result.stdout) == (2, ""), (name, value)

    assert everywhere(quick_node, "ls /run/harmed 2>/dev/null || true") == ["", "", ""]


def test_what_an_agent_without_env_var_writes_into_the_text_arrives(node: BottlerocketNode, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("old agent"))

    install(node)
    assert Result(node.run(substituted(reference, imageGCHighThresholdPercent=100), {}, 60)).statuses() == ["pulled"]


def test_no_process_shows_the_password_and_no_file_keeps_it(node: BottlerocketNode, pushed, registry: Registry) -> None:
    references = [
        pushed(f"team/app{number}", "v1", images.image(f"watched {number}", layer_bytes=5_000_000))
        for number in range(3)
    ]
    sought = [registry.password, base64_of(f"AWS:{registry.password}")]

    with watching_processes(sought) as seen:
        result = run(node, *references)

    assert result.statuses() == ["pulled"] * 3, result.stderr
    assert seen.looks > 10
    assert seen.leaks == []
    for secret in sought:
        assert secret not in result.stdout + result.stderr
        look = f"grep -rlsF '{secret[:60]}' /run/[!m]* /var/tmp /var/lib/containerd || true"
        assert everywhere(node, look) == ["", "", ""]


# ── The stand-in itself ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("command", "exit_code", "says"),
    [
        ("apiclient exec -T admin sh -c 'exit 7'", 7, ""),
        ("apiclient exec -T admin sh -c 'echo out; echo error >&2' 2>/dev/null", 0, "out\nerror\n"),
        ("echo words | apiclient exec -T admin cat", 0, "words\n"),
        ("A=b apiclient exec -T admin sh -c 'echo ${A-none}'", 0, "none\n"),
        ("apiclient exec -T admin bash -s </dev/null", 2, ""),
        ("apiclient exec -T admin echo $(printf '%020000d' 0)", 1, ""),
        ("apiclient get settings.host-containers.admin.enabled | jq -c .settings", 0,
         '{"host-containers":{"admin":{"enabled":true}}}\n'),
        ("apiclient get settings.host-containers.prefetch.enabled", 0, "{}\n"),
        ("apiclient exec -T other true", 1, 'ctr: container "other" in namespace "default": not found\n'),
        ("apiclient exec -T admin sheltie ls /etc/containerd/config.toml", 0, "/etc/containerd/config.toml\n"),
        ("apiclient exec -T admin nsenter -t 1 -m -- sh -c true 2>&1 | grep -c 'failed to execute sh'", 0, "1\n"),
        ("type ctr containerd flock nsenter setsid aws python3 2>/dev/null", 1, ""),
        ("apiclient exec -T admin sh -c 'type ctr containerd aws python3 2>/dev/null'", 1, ""),
        ("ls /etc/containerd /etc/kubernetes /run/containerd /.bottlerocket/rootfs 2>/dev/null", 2, ""),
    ],
)  # fmt: skip
def test_the_containers_are_as_bottlerocket_has_them(
    quick_node: BottlerocketNode, command: str, exit_code: int, says: str
) -> None:
    result = quick_node.control(command)

    assert (result.returncode, result.stdout) == (exit_code, says)


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@contextlib.contextmanager
def running(node: BottlerocketNode) -> Iterator[BottlerocketNode]:
    """Boots a node and, once its test has passed, looks that nothing is left in any of its places."""
    node.start()
    try:
        before = remains(node)
        yield node
        assert eventually(lambda: remains(node) - before, Counter()), f"left: {remains(node) - before}"
    finally:
        node.stop()


def remains(node: BottlerocketNode) -> Counter[str]:
    """Returns what commands may have left behind, and of processes how many of a name."""
    files = everywhere(node, "find /tmp /var/tmp /run/prefetch-images -mindepth 1 2>/dev/null || true")[1:]
    left = [re.sub(r"^process \d+", "process", line) for line in nodes.leftovers(node) if STATE not in line]
    return Counter(left) + Counter(line for file in files for line in file.splitlines() if line != f"{RUN}/lock")


def everywhere(node: BottlerocketNode, command: str) -> list[str]:
    """Returns what a shell command says on the host, in the control container and in the host containers that run."""
    quoted = command.replace("'", "'\\''")
    return [
        node.shell(command),
        node.control(command).stdout,
        node.shell(
            f"for pid in $(cat {STATE}/*.pid 2>/dev/null); do"
            f" nsenter --mount=/proc/$pid/ns/mnt -- /run/machine/bin/sh -c '{quoted}'; done"
        ),
    ]


def wait_until_at_work(node: BottlerocketNode) -> None:
    """Returns once a command has taken the lock and had time to ask a registry that does not answer."""
    wait_for_file(node, f"{RUN}/lock")
    time.sleep(1)
