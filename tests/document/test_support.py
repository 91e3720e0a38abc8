"""Nodes that cannot be prefetched to say so, and are left alone."""

import pytest

from local import images
from local.node import Node

from .command import GOOD, changed, run

DISABLED = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]'
PROGRAMS = ["bash", "jq", "flock", "ctr", "nsenter", "timeout", "containerd"]


@pytest.mark.parametrize("missing", ["ctr", "jq", "flock"])
def test_a_node_without_a_program_that_it_takes_is_refused_at_once(quick_node: Node, missing: str) -> None:
    folder = quick_node.folder / f"without-{missing}"
    folder.mkdir()
    for program in PROGRAMS:
        if program != missing:
            (folder / program).symlink_to(f"/usr/bin/{program}")
    (folder / "sh").symlink_to("/usr/bin/bash")

    result = run(quick_node, GOOD, env={"PATH": f"{folder}"})

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"prefetch-images: there is no {missing} on this node; it cannot be prefetched to\n"
    assert result.seconds < 2


def test_a_bash_that_is_too_old_is_refused(quick_node: Node) -> None:
    result = run(quick_node, GOOD, script=changed(">= 501)", ">= 9901)"))

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Amazon Linux 2 is not supported" in result.stderr


@pytest.mark.parametrize("configuration", ['disabled_plugins = ["cri"]', DISABLED], ids=["Docker's", "version 2"])
@pytest.mark.parametrize("containerd", ["1.7"])
def test_a_containerd_that_serves_docker_is_refused(node: Node, pushed, configuration: str) -> None:
    reference = pushed("team/app", "v1", images.image("docker"))
    node.shell(f"echo '{configuration}' >/etc/containerd/config.toml")

    result = run(node, reference)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Docker" in result.stderr
    assert node.images() == {}
