"""Logins: where they come from, what happens to wrong ones, and that nobody sees them."""

import json
import subprocess
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.nodes.node import Node
from local.nodes.proxy import Proxy

from .command import HOST, Result, begin, run
from .nodes import a_password, free_address, running
from .state import OWN_ARCHITECTURE, eventually
from .watch import base64_of, watching_processes

LAYER = {"architecture": OWN_ARCHITECTURE, "layer_bytes": 4 << 20}
PRIVATE = "images.example.com"
PROVIDERS = "/etc/eks/image-credential-provider"
REQUIRED = {"requireServiceAccount": True, "requiredServiceAccountAnnotationKeys": ["eks.amazonaws.com/ecr-role-arn"]}


def test_a_wrong_password_is_denied_and_not_tried_again(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("secret"))
    node.set_password("wrong")

    result = run(node, reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "denied")])
    assert result.only()["attempts"] == 1


def test_a_login_that_expires_in_mid_pull_is_renewed(fronted: Node, front: Front, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"long {number}", **LAYER)) for number in range(3)]
    front.hold()
    command = begin(fronted, *references)
    assert eventually(lambda: bool(front.being_pulled()))
    front.password = a_password()
    fronted.set_password(front.password)
    front.breaks_after = 1 << 20
    front.release()
    assert eventually(lambda: any("/blobs/" in line and line.endswith(" 401") for line in front.requests()))
    front.breaks_after = None

    result = Result(command.wait(60))

    assert result.outcomes() == [("pulled", "")] * 3


def test_a_login_that_expires_and_is_not_renewed_is_denied(fronted: Node, front: Front, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("long", **LAYER))
    front.hold()
    command = begin(fronted, reference)
    assert eventually(lambda: len(front.being_pulled()), 1)
    front.password = a_password()
    front.breaks_after = 1 << 20
    front.release()

    assert Result(command.wait(60)).outcomes() == [("failed", "denied")]


def test_the_aws_cli_logs_in_where_kubelet_has_no_credential_provider(
    tmp_path: Path, containerd: str, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("by the AWS CLI"))
    with running(Node(tmp_path / "cli", "cli", registry, containerd, login="aws-cli")) as node:
        assert run(node, reference).statuses() == ["pulled"]


def test_a_registry_that_asks_for_no_login_gets_none(
    tmp_path: Path, containerd: str, pushed, registry: Registry
) -> None:
    reference = pushed("team/app", "v1", images.image("anonymous"))
    registry.stop()
    registry.anonymous = True
    registry.start()
    with running(Node(tmp_path / "anonymous", "anonymous", registry, containerd, login="none")) as node:
        assert run(node, reference).statuses() == ["pulled"]


def test_each_registry_gets_the_login_that_kubelet_would_give_it(
    tmp_path: Path, containerd: str, pushed, registry: Registry
) -> None:
    password = "pa$$ 'w%s`rd` \u00fc {}"
    private = Registry(tmp_path / "private", free_address(), [PRIVATE], password, user="robot")
    private.start()
    image = images.image("private", architecture=OWN_ARCHITECTURE)
    images.push(private.url, private.ca, password, "team/app", "v1", image, user="robot")
    references = [
        f"{PRIVATE}/team/app:v1@{image.digest}",
        pushed("team/app", "v1", images.image("ours", architecture=OWN_ARCHITECTURE)),
        f"{PRIVATE}/team/app@{image.digest}",
    ]
    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[private])) as node:
        result = run(node, *references)
    private.stop()

    assert all(status in ("pulled", "cached") for status in result.statuses()), result.stderr
    assert len(result.reports) == 3


def test_a_login_helper_that_fails_is_asked_again(fronted: Node, front: Front, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("later", architecture=OWN_ARCHITECTURE))
    (fronted.folder / "password").unlink()
    command = begin(fronted, reference)
    assert eventually(lambda: "attempt 1" in command.errors())
    fronted.set_password(front.password)

    result = Result(command.wait(60))

    assert result.outcomes() == [("pulled", "")]
    assert "ecr-credential-provider gave no login" in result.stderr


def test_a_login_helper_that_hangs_with_a_child_does_not_hold_the_command(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("hung", architecture=OWN_ARCHITECTURE))
    write_provider(node, "sleep 300; true")

    result = run(node, reference, limit=8)

    assert (result.exit_code, result.statuses()) == (1, ["failed"])
    assert "ecr-credential-provider gave no login" in result.stderr
    assert result.seconds < 8


def test_a_login_for_another_host_is_not_taken(node: Node, pushed, registry: Registry) -> None:
    reference = pushed("team/app", "v1", images.image("two logins", architecture=OWN_ARCHITECTURE))
    logins = {"zzz.example.com": "theirs", "*.dkr.ecr.*.amazonaws.com": registry.password, "*.example.com": "theirs"}
    auth = {host: {"username": "AWS", "password": password} for host, password in logins.items()}
    write_provider(node, f"echo '{json.dumps({'auth': auth})}'")

    assert run(node, reference).outcomes() == [("pulled", "")]


def test_the_nodes_own_settings_behind_a_link_stay_without_a_login(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("linked", architecture=OWN_ARCHITECTURE))
    settings = f'server = "https://{HOST}"\n'
    node.shell(f"""mkdir -p /etc/containerd/certs.d/{HOST} && printf '{settings}' >/etc/containerd/shared.toml &&
        ln -s /etc/containerd/shared.toml /etc/containerd/certs.d/{HOST}/hosts.toml""")

    assert run(node, reference).outcomes() == [("pulled", "")]
    assert node.shell("cat /etc/containerd/shared.toml") == f'server = "https://{HOST}"\n'


def test_no_process_shows_the_password_and_no_file_keeps_it(fronted: Node, front: Front, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"watched {number}", **LAYER)) for number in range(3)]
    sought = [front.password, base64_of(f"AWS:{front.password}")]
    front.bytes_per_second = 4 << 20

    with watching_processes(sought) as seen:
        result = run(fronted, *references)

    assert result.statuses() == ["pulled"] * 3
    assert seen.looks > 20
    assert seen.leaks == []
    assert not any(secret in result.stdout + result.stderr for secret in sought)
    for secret in sought:
        assert fronted.shell(f"grep -rlF '{secret[:60]}' /run /var/lib /tmp --exclude=password || true") == ""


@pytest.mark.parametrize("place", ["argument", "environment"])
def test_the_watcher_sees_a_password_that_a_process_shows(place: str) -> None:
    secret = a_password()
    words = ["bash", "-c", "sleep 10; exit", *([secret] if place == "argument" else [])]
    environment = {"PATH": "/usr/bin:/bin", **({"TOKEN": secret} if place == "environment" else {})}

    with watching_processes([secret]) as seen, subprocess.Popen(words, env=environment) as process:
        assert eventually(lambda: bool(seen.leaks), True)
        process.kill()


def test_a_provider_that_wants_a_pods_token_is_not_asked(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("for a pod", architecture=OWN_ARCHITECTURE))
    wanted = {"serviceAccountTokenAudience": "sts.amazonaws.com", "cacheType": "ServiceAccount"}
    node.shell(
        f"cd {PROVIDERS} && jq '.providers[].tokenAttributes = {json.dumps(wanted | REQUIRED)}' config.json >new &&"
        " mv new config.json"
    )
    write_provider(node, "touch /run/asked")

    result = run(node, reference)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "denied")])
    assert "service account" in result.stderr or "tokenAttributes" in result.stderr
    assert node.shell("ls /run/asked 2>/dev/null || true") == ""


def test_a_proxy_that_only_units_know_leads_to_the_registry(
    tmp_path: Path, containerd: str, registry: Registry, pushed
) -> None:
    image = images.image("behind a proxy", architecture=OWN_ARCHITECTURE)
    reference = pushed("team/app", "v1", image)
    proxy = Proxy(free_address(), {HOST: registry.address})
    proxy.start()
    with running(Node(tmp_path / "node", "node", registry, containerd, proxy=proxy)) as node:
        plugin = f"{PROVIDERS}/ecr-credential-provider"
        node.shell(f"""sed -i '2i [ "${{HTTPS_PROXY-}}" = {proxy.url} ] || exit 1' {plugin}""")

        result = run(node, reference)

        assert (result.outcomes(), result.only()["attempts"]) == ([("pulled", "")], 1), result.stderr
        assert result.only()["bytes"] > 0, "what it is made of is asked for behind the proxy too"
        assert result.seconds < 10
    proxy.stop()
    assert set(proxy.asked()) == {f"{HOST}:443"}


def write_provider(node: Node, command: str) -> None:
    """Puts a shell script in the place of ECR's credential provider."""
    file = f"{PROVIDERS}/ecr-credential-provider"
    node.shell(f"cat >{file} <<'END'\n#!/bin/sh\n{command}\nEND\nchmod 755 {file}")
