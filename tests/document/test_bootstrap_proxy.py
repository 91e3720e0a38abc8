"""The bootstrap's proxy: what the units of containerd and kubelet say, as systemd reads them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.ecr.registry import Registry
from local.nodes.node import Node
from local.nodes.proxy import Proxy

from .command import HOST
from .nodes import free_address, running
from .test_bootstrap import Publish, publish, run

__all__ = ["publish"]

UNITS = "/etc/systemd/system"
DEAD = "http://127.0.0.1:9"


@pytest.fixture
def proxy(registry: Registry) -> Iterator[Proxy]:
    """The only way to the registry."""
    proxy = Proxy(free_address(), {HOST: registry.address})
    proxy.start()
    yield proxy
    proxy.stop()


@pytest.mark.parametrize(
    "files",
    [
        {f"{UNITS}/containerd.service.d/p.conf": 'Environment="HTTPS_PROXY={url}" "NO_PROXY=localhost"'},
        {
            f"{UNITS}/kubelet.service.d/p.conf": f"#Environment=HTTPS_PROXY={DEAD}\nEnvironmentFile=/etc/environment",
            "/etc/environment": f"# HTTPS_PROXY={DEAD}\nHTTPS_PROXY='{{url}}'",
        },
        {f"{UNITS}/kubelet.service": "EnvironmentFile=-/etc/p.env", "/etc/p.env": "https_proxy={url}"},
        {f"{UNITS}/kubelet.service": "EnvironmentFile=-/etc/none\nEnvironment=HTTPS_PROXY={url}"},
    ],
    ids=["drop-in", "aws-recipe", "unit-and-file", "unit"],
)
def test_a_proxy_that_only_units_know_leads_to_the_registry(
    tmp_path: Path, registry: Registry, publish: Publish, proxy: Proxy, files: dict[str, str]
) -> None:
    with running(Node(tmp_path / "node", "node", registry, "2.1", proxy=proxy)) as node:
        put(node, {file: text.format(url=proxy.url) for file, text in files.items()})
        ran = run(node, publish())
    assert ran.exit_code == 7, ran.stderr
    assert proxy.asked() == [f"{HOST}:443"]


def test_a_proxy_in_a_comment_is_none(tmp_path: Path, registry: Registry, publish: Publish) -> None:
    with running(Node(tmp_path / "node", "node", registry, "2.1")) as node:
        put(
            node,
            {
                f"{UNITS}/containerd.service.d/p.conf": f'#Environment="HTTPS_PROXY={DEAD}"\n ; HTTPS_PROXY={DEAD}',
                f"{UNITS}/kubelet.service.d/p.conf": "EnvironmentFile=/etc/environment",
                "/etc/environment": f"#HTTPS_PROXY={DEAD}",
            },
        )
        ran = run(node, publish())
    assert ran.exit_code == 7, ran.stderr


def put(node: Node, files: dict[str, str]) -> None:
    """Gives a node units and files, in the place of those that it has."""
    node.shell(f"rm -rf {UNITS}/*.service.d")
    for file, text in files.items():
        lines = f"[Service]\n{text}" if file.startswith(UNITS) else text
        node.shell(f"mkdir -p $(dirname {file}) && cat >{file} <<'END'\n{lines}\nEND")
