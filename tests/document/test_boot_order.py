"""The order in which AL2023 boots: what user data starts may run between nodeadm's two units, and waits for neither.

The order is that of amazon-eks-ami (templates/al2023, July 2026) and of cloud-init on distributions that are
not Debian's (systemd/cloud-final.service.tmpl); the units here say no more than that.
"""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ORDER = {
    "nodeadm-config.service": "Before=cloud-init.service",
    "cloud-init.service": "Before=cloud-config.service",
    "cloud-config.service": "After=cloud-init.service",
    "cloud-final.service": "After=cloud-config.service\nWants=cloud-config.service",
    "nodeadm-run.service": "After=nodeadm-config.service cloud-final.service\nRequires=nodeadm-config.service",
    "soci-snapshotter.service": "",
    "containerd.service": "Requires=soci-snapshotter.service\nAfter=soci-snapshotter.service",
    "kubelet.service": "After=containerd.service\nWants=containerd.service",
}
BOOT = "multi-user.target"
WANTED = ("nodeadm-config", "cloud-init", "cloud-config", "cloud-final", "nodeadm-run", "containerd", "kubelet")


def verify(folder: Path, **changes: str) -> str:
    """Returns what systemd finds wrong with a boot of these units, `changes` being further lines of some of them."""
    if not shutil.which("systemd-analyze"):
        pytest.fail("systemd-analyze is missing: install systemd")
    for name, lines in ORDER.items():
        more = changes.get(name.removesuffix(".service").replace("-", "_"), "")
        service = "[Service]\nType=oneshot\nExecStart=/bin/true\n"
        (folder / name).write_text(f"[Unit]\nDefaultDependencies=no\n{lines}\n{more}\n\n{service}")
    wants = " ".join(f"{name}.service" for name in WANTED)
    after = f"{wants} {changes.get('boot', '')}"
    (folder / BOOT).write_text(f"[Unit]\nDefaultDependencies=no\nWants={wants}\nAfter={after}\n")
    ran = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", "--recursive-errors=yes", str(folder / BOOT)],
        env={**os.environ, "SYSTEMD_UNIT_PATH": str(folder)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return ran.stderr


def test_the_order_has_no_circle_with_containerd_and_soci_started_in_between(tmp_path: Path) -> None:
    """Kubelet comes after nodeadm-run, and containerd may come before cloud-init's end."""
    told = verify(tmp_path, kubelet="After=nodeadm-run.service", containerd="Before=cloud-final.service")
    assert told == ""


@pytest.mark.parametrize(
    "change",
    [
        {"containerd": "Before=nodeadm-run.service\nAfter=kubelet.service"},
        {"kubelet": "After=nodeadm-run.service\nBefore=cloud-final.service"},
        {"nodeadm_config": "After=cloud-final.service"},
        {"cloud_final": "After=multi-user.target"},  # Debian's cloud-init
    ],
)
def test_systemd_tells_an_order_that_cannot_be(tmp_path: Path, change: dict[str, str]) -> None:
    assert "ordering cycle" in verify(tmp_path, **change)
