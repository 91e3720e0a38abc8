"""The Command document's script on real containerd, against a real registry that asks for a login as ECR does."""

import base64
import contextlib
import dataclasses
import json
import platform
import random
import re
import secrets
import signal
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import document, images
from local.images import Artifact
from local.node import ENVIRONMENT, Completed, Node, Running
from local.registry import Registry

HOST = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
SCRIPT = "\n".join(json.loads(document.DOCUMENT.read_text())["mainSteps"][0]["inputs"]["runCommand"])
PARAMETERS = json.loads(document.DOCUMENT.read_text())["parameters"]
A_DIGEST = "sha256:" + "a" * 64
OWN_ARCHITECTURE, OTHER_ARCHITECTURE = ("arm64", "amd64") if platform.machine() == "aarch64" else ("amd64", "arm64")


# ── What ends well ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_pulled_image_is_found_by_tag_and_by_digest(node: Node, pushed) -> None:
    image = images.multi_platform("cold")
    reference = pushed("team/app", "v1", image)

    report = run(node, reference).only()

    assert report == {
        "image": reference,
        "digest": image.digest,
        "status": "pulled",
        "reason": "",
        "seconds": report["seconds"],
        "bytes": own(image).size - len(own(image).manifest),
        "attempts": 1,
    }
    assert 0 < report["seconds"] < 20
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(image)


def test_a_cached_image_costs_no_request_to_the_registry(node: Node, pushed, own_registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.multi_platform("cached"))
    run(node, reference)
    own_registry.pause()

    result = run(node, reference)

    assert (result.exit_code, result.statuses()) == (0, ["cached"])
    assert result.only()["attempts"] == 0


def test_twenty_cached_images_are_one_quick_command(node: Node, pushed, own_registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}")) for number in range(20)]
    assert run(node, *references).statuses() == ["pulled"] * 20
    own_registry.pause()

    results = [run(node, *references) for _ in range(5)]

    assert all(result.statuses() == ["cached"] * 20 for result in results)
    assert statistics.median(result.seconds for result in results) < 0.6, "150 ms on an idle machine; see make bench"


def test_an_image_without_a_tag_is_found_by_digest(node: Node, pushed) -> None:
    image = images.image("untagged")
    reference = pushed("team/app", None, image)

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, reference) == image_id(image)
    assert run(node, reference).statuses() == ["cached"]


@pytest.mark.parametrize("kind", ["docker manifest", "docker list", "index with attestation"])
def test_every_kind_of_manifest_is_pulled(node: Node, pushed, kind: str) -> None:
    single = images.image(kind, architecture=OWN_ARCHITECTURE, docker="docker" in kind)
    image = {
        "docker manifest": single,
        "docker list": images.index([single], docker=True),
        "index with attestation": images.index([single, images.attestation(single)]),
    }[kind]
    reference = pushed("team/app", "v1", image)

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, by_tag(reference)) == image_id(single)


def test_a_tag_that_moved_stands_for_the_new_image(node: Node, pushed) -> None:
    old, new = images.image("old"), images.image("new")
    old_reference = pushed("team/app", "latest", old)
    run(node, old_reference)
    new_reference = pushed("team/app", "latest", new)

    assert run(node, new_reference).statuses() == ["pulled"]
    assert eventually(lambda: node.image_status(by_tag(new_reference)), image_id(new))
    assert node_finds(node, by_digest(new_reference)) == image_id(new)
    assert node_finds(node, by_digest(old_reference)) == image_id(old)


def test_a_command_that_was_overtaken_leaves_the_tag_where_it_is(node: Node, pushed) -> None:
    old, new = images.image("old"), images.image("new")
    old_reference = pushed("team/app", "latest", old)
    new_reference = pushed("team/app", "latest", new)
    assert run(node, new_reference).outcomes() == [("pulled", "")]

    late = [run(node, old_reference) for _ in range(2)]

    assert [result.exit_code for result in late] == [0, 0]
    assert [result.outcomes() for result in late] == [[("pulled", "tag-moved")], [("cached", "tag-moved")]]
    assert "the tag stands for another image" in late[0].stderr
    assert tags(node, new_reference) == new.digest
    assert node_finds(node, by_digest(old_reference)) == image_id(old)
    assert run(node, new_reference).outcomes() == [("cached", "")]


def test_a_tag_is_not_moved_while_the_registry_cannot_be_asked(node: Node, pushed, own_registry: Registry) -> None:
    old, new = images.image("old"), images.image("new")
    for image in (old, new):
        new_reference = pushed("team/app", "latest", image)
        assert run(node, new_reference).outcomes() == [("pulled", "")]
    old_reference = pushed("team/app", "latest", old)
    own_registry.pause()

    result = run(node, old_reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "registry")])
    assert result.only()["attempts"] == 4
    assert tags(node, new_reference) == new.digest
    assert node_finds(node, by_digest(old_reference)) == image_id(old)
    own_registry.resume()
    assert run(node, old_reference).outcomes() == [("cached", "")]
    assert tags(node, old_reference) == old.digest


@pytest.mark.parametrize("missing", ["tag", "digest"])
def test_a_missing_name_is_added_without_the_registry(node: Node, pushed, own_registry: Registry, missing: str) -> None:
    reference = pushed("team/app", "v1", images.image("named"))
    run(node, reference)
    node.shell(f"ctr -n k8s.io images rm {(by_tag if missing == 'tag' else by_digest)(reference)}")
    own_registry.pause()

    assert run(node, reference).statuses() == ["cached"]
    assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference))


def test_images_are_unpacked_into_the_snapshotter_that_cri_uses(
    tmp_path: Path, containerd: str, pushed, own_registry
) -> None:
    with running(Node(tmp_path / "native", "native", own_registry, containerd, snapshotter="native")) as node:
        for reference, env in [
            (pushed("team/cri", "v1", images.image("through CRI")), {}),
            (pushed("team/ctr", "v1", images.image("with ctr")), without_http2(tmp_path)),
        ]:
            before = snapshots(node, "native")
            assert run(node, reference, env=env).statuses() == ["pulled"]
            assert snapshots(node, "native") > before
            assert run(node, reference).statuses() == ["cached"]
        assert snapshots(node, "overlayfs") == 0


def test_an_agent_that_substitutes_text_runs_the_same(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("old agent"))
    script = SCRIPT.replace("{{ images }}", reference).replace("{{ executionTimeout }}", "60")

    assert Result(node.run(script, {}, 60)).statuses() == ["pulled"]


# ── Other platforms ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("client", ["cri", "ctr"])
@pytest.mark.parametrize("kind", ["index", "manifest"])
def test_an_image_for_other_platforms_is_skipped_and_leaves_no_name(
    node: Node, pushed, tmp_path: Path, kind: str, client: str
) -> None:
    single = images.image("foreign", architecture=OTHER_ARCHITECTURE, layer_bytes=1000)
    reference = pushed("team/foreign", "v1", images.index([single]) if kind == "index" else single)

    result = run(node, reference, env=without_http2(tmp_path) if client == "ctr" else {})

    assert (result.exit_code, result.outcomes()) == (0, [("skipped", "platform")])
    assert node.images() == {}


def test_a_foreign_manifest_that_only_the_pull_reveals_leaves_no_name(node: Node, pushed) -> None:
    image = images.image("foreign", architecture=OTHER_ARCHITECTURE)
    reference = pushed("team/foreign", "v1", image)
    script = SCRIPT.replace("ctr content", "false content")

    assert Result(node.run(script, parameters(reference), 60)).outcomes() == [("skipped", "platform")]
    assert node.images() == {}


@pytest.mark.parametrize("client", ["cri", "ctr"])
def test_an_index_that_names_no_platform_is_pulled_as_kubelet_pulls_it(
    node: Node, pushed, tmp_path: Path, client: str
) -> None:
    single = dataclasses.replace(images.image("plain", architecture=OWN_ARCHITECTURE), platform=None)
    reference = pushed("team/app", "v1", images.index([single]))

    assert run(node, reference, env=without_http2(tmp_path) if client == "ctr" else {}).statuses() == ["pulled"]
    assert node_finds(node, by_tag(reference)) == image_id(single)


def test_other_words_for_an_architecture_are_understood(node: Node, pushed) -> None:
    single = images.image("alias", architecture=OWN_ARCHITECTURE)
    alias = {"os": "linux", "architecture": {"amd64": "x86_64", "arm64": "aarch64"}[OWN_ARCHITECTURE]}
    reference = pushed("team/app", "v1", images.index([dataclasses.replace(single, platform=alias)]))

    assert run(node, reference).statuses() == ["pulled"]
    assert node_finds(node, by_tag(reference)) == image_id(single)


# ── What fails ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("client", ["cri", "ctr"])
def test_an_image_that_does_not_exist_fails_once_and_the_next_is_pulled(
    node: Node, pushed, tmp_path: Path, client: str
) -> None:
    good = pushed("team/app", "v1", images.image("good"))
    references = [f"{HOST}/team/none:v1@{A_DIGEST}", f"{HOST}/team/app:v2@{A_DIGEST}", good]

    result = run(node, *references, env=without_http2(tmp_path) if client == "ctr" else {})

    assert result.exit_code == 1
    assert result.outcomes() == [("failed", "not-found"), ("failed", "not-found"), ("pulled", "")]
    assert [report["attempts"] for report in result.reports] == [1, 1, 1]


@pytest.mark.parametrize("client", ["cri", "ctr"])
def test_a_wrong_password_is_denied_and_not_tried_again(node: Node, pushed, tmp_path: Path, client: str) -> None:
    reference = pushed("team/app", "v1", images.image("secret"))
    node.set_password("wrong")

    result = run(node, reference, env=without_http2(tmp_path) if client == "ctr" else {})

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "denied")])
    assert result.only()["attempts"] == 1


@pytest.mark.parametrize(("repository", "tag"), [("team/app", "v1"), ("team/denied-page", "denied")])
def test_a_registry_that_is_down_is_tried_again_and_then_reported(
    node: Node, pushed, own_registry: Registry, repository: str, tag: str
) -> None:
    reference = pushed(repository, tag, images.image("down"))
    own_registry.pause()

    result = run(node, reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "registry")])
    assert result.only()["attempts"] == 4
    assert result.stderr.count("attempt") == 4


def test_a_registry_that_comes_back_is_pulled_from(node: Node, pushed, own_registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("back"))
    own_registry.pause()
    command = begin(node, reference)
    time.sleep(1.5)
    own_registry.resume()

    result = Result(command.wait(60))

    assert (result.exit_code, result.statuses()) == (0, ["pulled"])
    assert result.only()["attempts"] > 1


@pytest.mark.parametrize("client", ["cri", "ctr"])
def test_a_registry_that_stalls_is_reported_before_ssm_ends_the_command(
    node: Node, pushed, own_registry: Registry, tmp_path: Path, client: str
) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"stalled {number}")) for number in range(2)]
    own_registry.pause(stall=True)

    result = run(node, *references, limit=8, env=without_http2(tmp_path) if client == "ctr" else {})

    own_registry.resume()
    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")] * 2)
    assert result.seconds < 8
    assert node.images() == {}


def test_a_containerd_that_hangs_is_reported_before_ssm_ends_the_command(
    node: Node, pushed, own_registry: Registry
) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"hung {number}")) for number in range(2)]
    own_registry.pause(stall=True)
    command = begin(node, *references, limit=10)
    wait_for_file(node, "/run/prefetch-images/lock")
    time.sleep(1)
    node.freeze()

    result = Result(command.wait(10))

    own_registry.resume()
    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")] * 2)
    assert result.seconds < 10


def test_attempts_may_take_a_third_of_the_time_and_then_twice_that(quick_node: Node, tmp_path: Path) -> None:
    env = without_http2(tmp_path, "case $1 in --version) echo HTTP2 UnixSockets ;; *) exec sleep 60 ;; esac")

    result = run(quick_node, GOOD, limit=15, env=env)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")])
    assert result.only()["attempts"] == 2, "one of ten seconds, one of what is left"
    assert result.seconds < 15


def test_a_node_without_ctr_is_refused_at_once(quick_node: Node, tmp_path: Path) -> None:
    for name, program in {"sh": "bash", "bash": "bash", "nsenter": "nsenter"}.items():
        (tmp_path / name).symlink_to(f"/usr/bin/{program}")

    result = run(quick_node, GOOD, env={"PATH": str(tmp_path)})

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "prefetch-images: there is no ctr on this node; it cannot be prefetched to\n"
    assert result.seconds < 2


# ── One command at a time, and its end by force ─────────────────────────────────────────────────────────────────────


def test_of_two_commands_at_once_one_pulls_and_the_other_finds_it_cached(
    node: Node, pushed, own_registry: Registry
) -> None:
    image = images.image("twice", layer_bytes=20_000_000)
    reference = pushed("team/app", "v1", image)

    first, second = begin(node, reference), begin(node, reference)
    results = [Result(command.wait(60)) for command in (first, second)]

    assert sorted(result.statuses()[0] for result in results) == ["cached", "pulled"]
    layer = json.loads(image.manifest)["layers"][0]["digest"]
    assert own_registry.requests("team/app").count(f"GET /v2/team/app/blobs/{layer} 200") == 1


def test_a_terminated_command_reports_what_it_did_not_finish(node: Node, pushed, own_registry: Registry) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"ended {number}")) for number in range(2)]
    own_registry.pause(stall=True)
    command = begin(node, *references)
    wait_for_file(node, "/run/prefetch-images/lock")
    time.sleep(1)

    command.signal(signal.SIGTERM)
    result = Result(command.wait(10))

    own_registry.resume()
    assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")] * 2)
    assert result.seconds < 8
    assert run(node, *references).statuses() == ["pulled"] * 2


@pytest.mark.parametrize("end", ["failure", "signal"])
def test_what_kubelet_pulled_meanwhile_stays(node: Node, pushed, own_registry: Registry, end: str) -> None:
    reference = pushed("team/app", "v1", images.image("by kubelet"))
    pulling = "/run/pulling"
    script = SCRIPT.replace("\npull() {", f"\npull() {{ >{pulling}; while [[ -e {pulling} ]]; do sleep 0.1; done", 1)
    command = node.begin(script, parameters(reference))
    wait_for_file(node, pulling)
    node.shell(f"ctr -n k8s.io images pull --user AWS:{own_registry.password} {by_tag(reference)}")
    own_registry.pause()
    if end == "signal":
        command.signal(signal.SIGTERM)
    node.shell(f"rm {pulling}")

    result = Result(command.wait(60))

    outcome = {"failure": (0, [("cached", "")]), "signal": (1, [("failed", "interrupted")])}[end]
    assert (result.exit_code, result.outcomes()) == outcome
    assert by_tag(reference) in node.images()
    assert run(node, reference).outcomes() == [("cached", "")]


def test_an_end_by_force_at_the_second_tag_leaves_the_first(node: Node, pushed, tmp_path: Path) -> None:
    image = images.image("two tags")
    first, second = pushed("team/app", "v1", image), pushed("team/app", "v1.0", image)
    script = SCRIPT.replace("\ncopy_name() {", "\ncopy_name() { [[ $2 != *:v1.0 ]] || limited 30 sleep 30", 1)
    command = node.begin(script, parameters(first, second))
    assert eventually(lambda: by_tag(first) in node.images(), True)
    time.sleep(1)

    command.signal(signal.SIGTERM)
    result = Result(command.wait(10))

    assert result.outcomes() == [("pulled", ""), ("failed", "interrupted")]
    assert {by_tag(first), by_digest(first)} <= node.images().keys()
    assert run(node, first).outcomes() == [("cached", "")]


def test_a_killed_command_leaves_no_lock_and_its_files_go_with_the_next(
    node: Node, pushed, own_registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("killed"))
    own_registry.pause(stall=True)
    command = begin(node, reference)
    wait_for_file(node, "/run/prefetch-images/lock")
    time.sleep(1)

    command.signal(signal.SIGKILL)
    command.wait(10)

    own_registry.resume()
    assert run(node, reference).statuses() == ["pulled"]


def test_a_command_that_waits_too_long_for_another_reports_timeout(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("locked"))
    holder = node.begin("mkdir -p /run/prefetch-images; flock /run/prefetch-images/lock sleep 20", {})
    wait_for_file(node, "/run/prefetch-images/lock")

    result = run(node, reference, limit=5)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "timeout")])
    assert result.seconds < 5
    holder.signal(signal.SIGKILL)
    holder.wait(10)


# ── Login ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("client", ["cri", "ctr"])
def test_the_aws_cli_logs_in_where_kubelet_has_no_credential_provider(
    tmp_path: Path, containerd: str, pushed, own_registry: Registry, client: str
) -> None:
    reference = pushed("team/app", "v1", images.image("by the AWS CLI"))
    with running(Node(tmp_path / "cli", "cli", own_registry, containerd, login="aws-cli")) as node:
        assert run(node, reference, env=without_http2(tmp_path) if client == "ctr" else {}).statuses() == ["pulled"]


@pytest.mark.parametrize("client", ["cri", "ctr"])
def test_a_registry_that_asks_for_no_login_gets_none(
    tmp_path: Path, containerd: str, pushed, own_registry: Registry, client: str
) -> None:
    reference = pushed("team/app", "v1", images.image("anonymous"))
    own_registry.stop()
    own_registry.anonymous = True
    own_registry.start()
    with running(Node(tmp_path / "anonymous", "anonymous", own_registry, containerd, login="none")) as node:
        assert run(node, reference, env=without_http2(tmp_path) if client == "ctr" else {}).statuses() == ["pulled"]


@pytest.mark.parametrize("client", ["cri", "ctr"])
def test_no_process_shows_the_password_and_no_file_keeps_it(
    node: Node, pushed, own_registry: Registry, tmp_path: Path, client: str
) -> None:
    references = [
        pushed(f"team/app{number}", "v1", images.image(f"watched {number}", layer_bytes=5_000_000))
        for number in range(3)
    ]
    secrets_sought = [own_registry.password, base64_of(f"AWS:{own_registry.password}")]

    with watching_processes(secrets_sought) as seen:
        result = run(node, *references, env=without_http2(tmp_path) if client == "ctr" else {})

    assert result.statuses() == ["pulled"] * 3
    assert seen.looks > 20
    assert seen.leaks == []
    assert not any(secret in result.stdout + result.stderr for secret in secrets_sought)
    for secret in secrets_sought:
        assert node.shell(f"grep -rlF '{secret[:60]}' /run /var/lib/containerd /var/tmp 2>/dev/null || true") == ""


# ── Hostile parameters ──────────────────────────────────────────────────────────────────────────────────────────────

GOOD = f"{HOST}/team/app:v1@{A_DIGEST}"
HOSTILE = [
    *(f"{GOOD}{character}touch /run/harmed" for character in ";&|<>()$`\\\"'*?[]#~=%!{}^, \t\n\r"),
    *(f"{HOST}/team/a{character}b:v1@{A_DIGEST}" for character in ";&|<>()$`\\\"'*?[]#~=%!{}^, \t\n\r"),
    f"$(touch /run/harmed) {GOOD}",
    f"{HOST}/$(touch$IFS/run/harmed):v1@{A_DIGEST}",
    f"{HOST}/`touch /run/harmed`@{A_DIGEST}",
    f"{GOOD}\ntouch /run/harmed",
    f"'; touch /run/harmed; '{GOOD}",
    f"-{GOOD}",
    f"{GOOD}  {GOOD}",
    f" {GOOD}",
    f"{GOOD} ",
    f"{GOOD}\n",
    "",
    "a" * 10_000,
    f"{HOST}/team/app:v1",
    f"{HOST}/team/app@sha256:{'A' * 64}",
    f"{HOST}/team/app@sha256:{'a' * 63}",
    f"{HOST}/team/app@sha512:{'a' * 64}",
    f"{HOST}/Team/app@{A_DIGEST}",
    f"{HOST}/team/../app@{A_DIGEST}x",
    "{{ images }}",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_images_are_refused_by_the_document(value: str) -> None:
    assert not re.fullmatch(PARAMETERS["images"]["allowedPattern"], value)


def test_hostile_parameters_are_refused_by_the_script_of_a_caller_who_bypasses_the_document(quick_node: Node) -> None:
    too_long = f"{HOST}/{'a' * 256}@{A_DIGEST}", f"{HOST}/app:{'t' * 129}@{A_DIGEST}", " ".join([GOOD] * 51)
    for value in [*HOSTILE, *too_long, f"{HOST}/team/..app@{A_DIGEST}", f"localhost/app@{A_DIGEST}"]:
        result = quick_node.run(SCRIPT, {"SSM_images": value, "SSM_executionTimeout": "60"}, 10)
        assert (result.exit_code, result.stdout) == (2, ""), value
        assert result.stderr.count("\n") == 1, value
    for value in [
        "",
        "0",
        "4",
        "60;touch /run/harmed",
        "$(touch /run/harmed)",
        "a[$(touch /run/harmed)]",
        "1e3",
        "60\n",
    ]:
        assert not re.fullmatch(PARAMETERS["executionTimeout"]["allowedPattern"], value)
        result = quick_node.run(SCRIPT, {"SSM_images": GOOD, "SSM_executionTimeout": value}, 10)
        assert (result.exit_code, result.stdout) == (2, ""), value
    assert quick_node.shell("ls /run/harmed 2>/dev/null || true") == ""


def test_fifty_images_with_the_longest_names_are_accepted(quick_node: Node) -> None:
    repository = "/".join(["a" * 127, "b" * 127])
    value = " ".join(f"{HOST}/{repository}:{number:0128}@{A_DIGEST}" for number in range(50))

    assert re.fullmatch(PARAMETERS["images"]["allowedPattern"], value)
    assert (
        Result(quick_node.run(SCRIPT, {"SSM_images": value, "SSM_executionTimeout": "60"}, 60)).outcomes()
        == [("failed", "not-found")] * 50
    )


@pytest.mark.parametrize("name", ["a", "a.b", "a_b", "a__b", "a-b", "a--b", "a.b_c-d/e__f", "0/1"])
def test_every_legal_name_is_accepted(quick_node: Node, name: str) -> None:
    value = f"{HOST}/{name}:_A.z-9@{A_DIGEST}"

    assert re.fullmatch(PARAMETERS["images"]["allowedPattern"], value)
    assert Result(quick_node.run(SCRIPT, parameters(value), 60)).outcomes() == [("failed", "not-found")]


# ── The document ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_document_holds_the_script_as_it_is() -> None:
    assert document.DOCUMENT.read_text() == document.render(), "run `make document`"


def test_the_document_is_what_ssm_accepts() -> None:
    text = document.DOCUMENT.read_text()
    step = json.loads(text)["mainSteps"][0]

    assert len(text.encode()) < 64 * 1024, "SSM's limit for a document"
    assert step["action"] == "aws:runShellScript"
    assert step["precondition"] == {"StringEquals": ["platformType", "Linux"]}
    assert step["inputs"]["runCommand"][0].startswith("#!"), "the agent runs the file with `sh -c`"
    assert sorted(set(re.findall(r"{{.*?}}", text))) == ["{{ executionTimeout }}", "{{ images }}"]
    assert PARAMETERS["images"]["interpolationType"] == "ENV_VAR"
    assert "interpolationType" not in PARAMETERS["executionTimeout"], "its value stands in timeoutSeconds as text"
    for parameter in PARAMETERS.values():
        assert parameter["allowedPattern"].startswith("^") and parameter["allowedPattern"].endswith("$")


@pytest.mark.parametrize(
    ("value", "accepted"), [("4", False), ("5", True), ("3600", True), ("172800", True), ("172801", False)]
)
def test_the_execution_timeout_is_what_ssm_allows(value: str, accepted: bool) -> None:
    assert bool(re.fullmatch(PARAMETERS["executionTimeout"]["allowedPattern"], value)) is accepted


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────


class Result:
    """A finished command with its reports; every line of its output must be one."""

    def __init__(self, completed: Completed) -> None:
        self.exit_code = completed.exit_code
        self.stdout = completed.stdout
        self.stderr = completed.stderr
        self.seconds = completed.seconds
        self.reports = [json.loads(line) for line in completed.stdout.splitlines()]

    def only(self) -> dict:
        assert len(self.reports) == 1, self.stderr
        return self.reports[0]

    def statuses(self) -> list[str]:
        return [report["status"] for report in self.reports]

    def outcomes(self) -> list[tuple[str, str]]:
        return [(report["status"], report["reason"]) for report in self.reports]


@pytest.fixture(params=["1.7", "2.1"])
def containerd(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def own_registry(tmp_path: Path) -> Iterator[Registry]:
    password = secrets.token_hex(900)  # as long as ECR's
    registry = Registry(tmp_path / "registry", free_address(), [HOST], password)
    registry.start()
    yield registry
    registry.stop()


@pytest.fixture
def pushed(own_registry: Registry):
    """Pushes an image and returns its full reference."""

    def push(repository: str, tag: str | None, image: Artifact) -> str:
        images.push(own_registry.url, own_registry.ca, own_registry.password, repository, tag, image)
        return f"{HOST}/{repository}{f':{tag}' if tag else ''}@{image.digest}"

    return push


@pytest.fixture
def node(tmp_path: Path, containerd: str, own_registry: Registry) -> Iterator[Node]:
    with running(Node(tmp_path / "node", "node", own_registry, containerd)) as node:
        yield node
        assert node.shell("ls -A /run/prefetch-images 2>/dev/null || true").split() in ([], ["lock"])


@pytest.fixture(scope="module")
def quick_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """One node with an empty registry, for tests that leave nothing behind."""
    folder = tmp_path_factory.mktemp("quick")
    registry = Registry(folder / "registry", free_address(), [HOST], secrets.token_hex(900))
    registry.start()
    with running(Node(folder / "node", "quick", registry, "2.1")) as node:
        yield node
    registry.stop()


@contextlib.contextmanager
def running(node: Node) -> Iterator[Node]:
    node.start()
    try:
        yield node
    finally:
        node.stop()


def free_address() -> str:
    while True:
        address = f"127.{random.randint(1, 254)}.{random.randint(0, 254)}.{random.randint(1, 254)}"
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind((address, 443))
            return address


def parameters(*references: str, limit: int = 60) -> dict[str, str]:
    return {"SSM_images": " ".join(references), "SSM_executionTimeout": str(limit)}


def run(node: Node, *references: str, limit: int = 60, env: dict[str, str] | None = None) -> Result:
    return Result(node.run(SCRIPT, {**parameters(*references, limit=limit), **(env or {})}, limit))


def begin(node: Node, *references: str, limit: int = 60) -> Running:
    return node.begin(SCRIPT, parameters(*references, limit=limit))


def tags(node: Node, reference: str) -> str:
    """Returns the digest of the image that the reference's tag stands for on the node."""
    return node.images()[by_tag(reference)]


def by_tag(reference: str) -> str:
    return reference.partition("@")[0]


def by_digest(reference: str) -> str:
    name, _, digest = reference.partition("@")
    registry, _, repository = name.partition("/")
    return f"{registry}/{repository.partition(':')[0]}@{digest}"


def own(image: Artifact) -> Artifact:
    wanted = {"architecture": OWN_ARCHITECTURE, "os": "linux"}
    return next((child for child in image.children if child.platform == wanted), image)


def image_id(image: Artifact) -> str:
    """Returns the id by which CRI knows an image: its configuration's digest."""
    return json.loads(own(image).manifest)["config"]["digest"]


def node_finds(node: Node, reference: str) -> str | None:
    """Returns what CRI answers once it has noticed names that ctr made, which takes it some 0.3 seconds."""
    eventually(lambda: node.image_status(reference) is not None, True)
    return node.image_status(reference)


def eventually(look, wanted) -> bool:
    deadline = time.monotonic() + 5
    while look() != wanted:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def wait_for_file(node: Node, file: str) -> None:
    assert eventually(lambda: node.shell(f"ls {file} 2>/dev/null || true").strip(), file)


def snapshots(node: Node, snapshotter: str) -> int:
    return len(node.shell(f"ctr -n k8s.io snapshots --snapshotter {snapshotter} ls").splitlines()) - 1


def without_http2(folder: Path, instead: str = "echo 'Features: alt-svc IPv6 SSL'") -> dict[str, str]:
    """Returns an environment whose curl cannot speak to CRI, so that ctr must pull, or does something else."""
    curl = folder / "standins/curl"
    curl.parent.mkdir(exist_ok=True)
    curl.write_text(f"#!/bin/sh\n{instead}\n")
    curl.chmod(0o755)
    return {"PATH": f"{curl.parent}:{ENVIRONMENT['PATH']}"}


def base64_of(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


class Watch:
    """What a watcher of /proc saw."""

    def __init__(self) -> None:
        self.looks = 0
        self.leaks: list[str] = []


@contextlib.contextmanager
def watching_processes(sought: list[str]) -> Iterator[Watch]:
    """Looks at every process's arguments and environment, over and over, for any of the secrets."""
    watch, done = Watch(), threading.Event()

    def look() -> None:
        while not done.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                for place in ("cmdline", "environ"):
                    with contextlib.suppress(OSError):
                        shown = (process / place).read_bytes()
                        if any(secret[:60].encode() in shown for secret in sought):
                            watch.leaks.append(f"{place}: {shown[:80]!r}")
            watch.looks += 1

    watcher = threading.Thread(target=look)
    watcher.start()
    try:
        yield watch
    finally:
        done.set()
        watcher.join()
