"""Parameters and secrets reach the host container and no shell."""

import pytest

from local import images
from local.ecr.registry import Registry
from local.nodes.bottlerocket import BottlerocketNode

from ..command import A_DIGEST, GOOD, HOST, Result, install, run, substituted
from ..watch import base64_of, watching_processes
from .places import everywhere


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
        " ",
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
