"""Nodes that cannot be prefetched to say so, and are left alone."""

import pytest

from local import images
from local.nodes.node import Node

from .command import run

DISABLED = 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]'


@pytest.mark.parametrize("configuration", ['disabled_plugins = ["cri"]', DISABLED], ids=["Docker's", "version 2"])
@pytest.mark.parametrize("containerd", ["1.7"])
def test_a_containerd_that_serves_docker_is_refused(node: Node, pushed, configuration: str) -> None:
    reference = pushed("team/app", "v1", images.image("docker"))
    node.shell(f"echo '{configuration}' >/etc/containerd/config.toml")

    result = run(node, reference)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "Docker" in result.stderr
    assert node.images() == {}
