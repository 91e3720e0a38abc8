"""The bootstrap: the program comes from the stack's repository, once, and nothing else is ever run."""

import os
import platform
import signal
import time
from collections.abc import Callable

import pytest

from local import images
from local.ecr.registry import Registry
from local.make import document
from local.nodes import program
from local.nodes.node import Node
from local.nodes.proxy import Proxy
from local.nodes.running import Completed

from .command import GOOD, HOST, parameters
from .nodes import free_address, leftovers, running
from .state import eventually
from .watch import base64_of, watching_processes

REPOSITORY = "the-stack/node-program"
FOLDER = "/var/lib/prefetch-images"
MACHINE = platform.machine()
ECHO = b'#!/bin/bash\n# %s\nset | grep ^SSM_\necho "$@"\nreadlink /proc/self/fd/0\nexit 7\n'

Publish = Callable[..., str]


@pytest.fixture
def containerd() -> str:
    """The bootstrap has nothing to do with containerd."""
    return "2.1"


@pytest.fixture
def publish(registry: Registry) -> Publish:
    """Publishes a program for this machine's processor and returns the script of the document that names it."""

    def push(content: bytes = ECHO, host: str = HOST) -> str:
        programs = {MACHINE: content}
        images.push(registry.url, registry.ca, registry.password, REPOSITORY, None, program.artifact(programs))
        return document.script(program.attributes(f"{host}/{REPOSITORY}", programs))

    return push


def run(node: Node, script: str, limit: int = 60, **env: str) -> Completed:
    """Runs a script with one image's parameters."""
    return node.run(script, {**parameters(GOOD, limit=limit), **env}, limit)


def stored(node: Node) -> list[str]:
    """Returns what the program's folder holds."""
    return node.shell(f"ls -A {FOLDER} 2>/dev/null || true").split()


def file_of(content: bytes) -> str:
    """Returns the name under which a node keeps a program."""
    return images.digest(content).removeprefix("sha256:")


def test_a_program_is_fetched_once_and_gets_the_parameters_and_nothing_else(node, publish, registry) -> None:
    script = publish()

    first = run(node, script)

    assert (first.exit_code, first.stderr) == (7, "")
    lines = first.stdout.splitlines()
    assert f"SSM_images={GOOD}" in lines and "SSM_maxParallelImagePulls=1" in lines
    assert lines[-2:] == ["", "/dev/null"], "no arguments, no input"
    assert node.shell(f"stat -c '%U %a %F' {FOLDER} {FOLDER}/*").splitlines() == [
        "root 700 directory",
        "root 500 regular file",
    ]
    assert stored(node) == [file_of(ECHO)]
    registry.pause()
    second = run(node, script)
    assert (second.exit_code, f"SSM_images={GOOD}" in second.stdout) == (7, True)


def test_what_an_agent_without_env_var_writes_into_the_text_is_the_programs(node, publish) -> None:
    script = publish()
    for name, value in parameters(GOOD).items():
        script = script.replace(f"{{{{ {name.removeprefix('SSM_')} }}}}", value)
    assert f"SSM_images={GOOD}" in node.run(script, {}, 60).stdout


@pytest.mark.parametrize("login", ["aws-cli", "none"])
def test_a_login_comes_from_the_aws_cli_where_there_is_no_plugin(tmp_path, registry, publish, login) -> None:
    node = Node(tmp_path / "node", "node", registry, "2.1", login=login)
    node.start()
    try:
        ran = run(node, publish())
    finally:
        node.stop()
    if login == "none":
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert "neither kubelet's credential provider nor the AWS CLI gave a login" in ran.stderr
    else:
        assert ran.exit_code == 7, ran.stderr


def test_a_proxy_that_only_units_know_leads_to_the_registry(tmp_path, registry, publish) -> None:
    proxy = Proxy(free_address(), {HOST: registry.address})
    proxy.start()
    with running(Node(tmp_path / "node", "node", registry, "2.1", proxy=proxy)) as node:
        ran = run(node, publish())
    proxy.stop()
    assert ran.exit_code == 7, ran.stderr
    assert proxy.asked() == [f"{HOST}:443"]


def test_the_login_goes_to_the_registry_and_not_to_where_it_redirects(fronted, front, publish) -> None:
    front.redirects = True
    ran = run(fronted, publish())
    assert ran.exit_code == 7, ran.stderr
    assert [request.rpartition(" ")[2] for request in front.requests(REPOSITORY)] == ["307", "200"]


def test_no_process_shows_the_login_and_no_file_keeps_it(node, publish, registry) -> None:
    sought = [registry.password, base64_of(f"AWS:{registry.password}")]
    script = publish(ECHO + os.urandom(4_000_000))
    with watching_processes(sought) as seen:
        assert run(node, script).exit_code == 7
    assert seen.looks > 3
    assert seen.leaks == []
    for secret in sought:
        assert node.shell(f"grep -rlsF '{secret[:60]}' /run/[!c]* /tmp {FOLDER} || true") in (
            "",
            f"{node.folder}/password\n",
        )


def test_what_cannot_be_fetched_is_an_error_without_lines_and_is_fetched_the_next_time(node, publish, registry) -> None:
    missing = document.script(program.attributes(f"{HOST}/{REPOSITORY}", {MACHINE: b"never pushed"}))
    script = publish()

    for spoiled in (missing, script.replace(REPOSITORY, "another/repository")):
        ran = run(node, spoiled)
        assert (ran.exit_code, ran.stdout) == (1, "")
        assert "404" in ran.stderr and "the program could not be fetched" in ran.stderr
    registry.pause()
    assert run(node, script).exit_code == 1
    registry.resume()
    node.set_password("wrong")
    refused = run(node, script)
    assert (refused.exit_code, "401" in refused.stderr) == (1, True)
    assert stored(node) == []
    node.set_password(registry.password)
    assert run(node, script).exit_code == 7


def test_other_bytes_than_the_documents_are_never_run(node, publish, registry) -> None:
    script = publish()
    [blob] = (registry.folder / "storage").rglob(f"{file_of(ECHO)}/data")
    blob.write_bytes(ECHO.replace(b"exit 7", b"exit 8"))

    ran = run(node, script)

    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "something else" in ran.stderr
    assert stored(node) == []


@pytest.mark.parametrize(
    "harm",
    [
        "echo 'echo harmed' >{file}",
        "truncate -s 0 {file}",
        "chmod 0777 {file}",
        "chown 1000 {file}",
        "cp {file} /var/lib/other && ln -sf /var/lib/other {file}",
        "rm {file} && mkdir {file}",
    ],
)
def test_a_program_that_was_changed_or_belongs_to_another_is_fetched_anew(node, publish, harm) -> None:
    script = publish()
    run(node, script)
    node.shell(harm.format(file=f"{FOLDER}/{file_of(ECHO)}"))

    ran = run(node, script)

    if "mkdir" in harm:
        assert (ran.exit_code, ran.stdout) == (1, "")
    else:
        assert ran.exit_code == 7, ran.stderr
        assert node.shell(f"stat -c '%U %a %F' {FOLDER}/*").splitlines() == ["root 500 regular file"]


@pytest.mark.parametrize(
    "harm",
    [
        "mkdir -m 0777 {folder}",
        "mkdir -m 0700 {folder} && chown 1000 {folder}",
        "mkdir -m 0700 /var/lib/other && ln -s /var/lib/other {folder}",
        "ln -s /run/nothing {folder}",
        "touch {folder}",
    ],
)
def test_a_folder_that_others_may_write_is_refused(node, publish, harm) -> None:
    node.shell(harm.format(folder=FOLDER))
    ran = run(node, publish())
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert FOLDER in ran.stderr


def test_a_folder_that_cannot_be_made_now_may_be_made_another_time(node, publish) -> None:
    folder = stand_in(node, "mkdir", "echo 'No space left on device' >&2; exit 1")
    ran = run(node, publish(), PATH=f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin")
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert "No space left on device" in ran.stderr and f"there is no folder {FOLDER}" in ran.stderr


def test_a_bash_as_old_as_amazon_linux_2_has_is_refused(node, publish) -> None:
    ran = run(node, publish().replace("set -u", 'BASH_VERSION="4.2.46(2)-release"\nset -u', 1))
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "Amazon Linux 2 is not supported" in ran.stderr
    assert stored(node) == []


def test_roots_own_settings_of_curl_do_not_count(node, publish) -> None:
    node.shell("echo verbose >/run/.curlrc")
    ran = run(node, publish(), CURL_HOME="/run")
    node.shell("rm /run/.curlrc")
    assert (ran.exit_code, ran.stderr) == (7, "")


def test_a_plugin_that_hangs_leaves_time_for_the_aws_cli(tmp_path, registry, publish) -> None:
    node = Node(tmp_path / "node", "node", registry, "2.1", login="aws-cli")
    node.start()
    try:
        plugin = "/etc/eks/image-credential-provider/ecr-credential-provider"
        node.shell(
            f"mkdir -p $(dirname {plugin}) && printf '#!/bin/sh\nexec sleep 60\n' >{plugin} && chmod 755 {plugin}"
        )
        ran = run(node, publish(), limit=24)
    finally:
        node.stop()
    assert ran.exit_code == 7, ran.stderr
    assert ran.seconds < 12


def test_what_cannot_be_executed_is_refused_with_the_cause(node, publish) -> None:
    node.shell(f"mkdir -m 0700 {FOLDER} && mount -t tmpfs -o noexec,mode=700 noexec {FOLDER}")
    ran = run(node, publish())
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "Permission denied" in ran.stderr and "cannot be executed" in ran.stderr
    node.shell(f"umount {FOLDER}")
    other = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x16\x00" + bytes(100)  # of an IBM S/390
    ran = run(node, publish(other))
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "cannot be executed" in ran.stderr


def test_a_processor_without_a_program_is_refused(node) -> None:
    ran = run(node, document.script(program.attributes(f"{HOST}/{REPOSITORY}", {})))
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert f"no program for this processor, {platform.machine()}" in ran.stderr


def test_no_variable_of_the_environment_changes_the_processor(node, publish) -> None:
    assert run(node, publish(), HOSTTYPE="riscv64", MACHTYPE="riscv64", BASH_VERSINFO="riscv64").exit_code == 7


@pytest.mark.parametrize("value", ["", "0", "x", "1 2", "a[$(touch /run/harmed)]", "60\ntouch /run/harmed", "{{ x }}"])
def test_a_time_limit_that_is_no_number_is_refused(node, publish, value) -> None:
    ran = run(node, publish(), SSM_executionTimeout=value)
    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "executionTimeout" in ran.stderr
    assert node.shell("ls /run/harmed 2>/dev/null || true") == ""


def test_a_registry_that_does_not_answer_takes_half_of_the_time_at_most(node, publish, registry) -> None:
    script = publish()
    registry.pause(stall=True)
    ran = run(node, script, limit=6)
    registry.resume()
    assert (ran.exit_code, ran.stdout) == (1, "")
    assert ran.seconds < 6


def test_what_a_killed_command_left_goes_with_the_next_that_fetches(node, publish, registry) -> None:
    script = publish()
    registry.pause(stall=True)
    running = node.begin(script, parameters(GOOD))
    assert eventually(lambda: len(running.pids()) > 1)
    time.sleep(0.5)
    node.shell(f"touch {FOLDER}/{file_of(ECHO)}.999999")
    running.kill()
    registry.resume()
    assert run(node, script).exit_code == 7
    assert stored(node) == [file_of(ECHO)]


def test_a_command_that_is_terminated_while_it_fetches_leaves_nothing(node, publish, registry) -> None:
    script, before = publish(), leftovers(node)
    registry.pause(stall=True)
    running = node.begin(script, parameters(GOOD))
    assert eventually(lambda: len(running.pids()) > 1)
    time.sleep(0.5)
    running.signal(signal.SIGTERM)
    ended = running.wait(10)
    registry.resume()
    assert (ended.exit_code, ended.stdout) == (1, "")
    assert stored(node) == []
    assert eventually(lambda: leftovers(node) - before, set())


def test_many_commands_at_once_all_run_the_program(node, publish) -> None:
    script = publish(ECHO + os.urandom(3_000_000))
    running = [node.begin(script, parameters(GOOD)) for _ in range(5)]
    assert [command.wait(60).exit_code for command in running] == [7] * 5
    assert len(stored(node)) == 1


def test_programs_of_earlier_deployments_go_but_for_the_newest(node, publish) -> None:
    programs = [ECHO + b"#%d" % number for number in range(6)]
    for content in programs:
        assert run(node, publish(content)).exit_code == 7
        time.sleep(0.01)
    assert set(stored(node)) == set(map(file_of, programs[-3:]))
    assert run(node, publish(programs[0])).exit_code == 7, "a deployment that was rolled back"


def stand_in(node: Node, program: str, body: str) -> str:
    """Returns a folder with a program that does something else."""
    file = node.folder / "standins" / program
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)
    return str(file.parent)
