"""The program for arm64, run by an emulator on a node of another processor: it starts, reads, asks and reports."""

import os
import platform

import pytest

from local import images
from local.client import ROOT
from local.ecr.registry import TOOLS

from .command import A_DIGEST, GOOD, HOST, run

EMULATOR = TOOLS / "qemu-arm64/emulator/usr/bin/qemu-aarch64-static"
PROGRAM = ROOT / "target/node-program/arm64/lambda/prefetch-images/bootstrap"
SCRIPT = f"#!/bin/bash\nexec {EMULATOR} -L {TOOLS / 'qemu-arm64/libc'} {PROGRAM}"

# CI is Debian's, which has an emulator: there its lack is a failure.
pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or not (EMULATOR.exists() or "CI" in os.environ),
    reason="local/install-node-tools unpacks an emulator on Debian for x86_64, where rustup has no arm64",
)


@pytest.fixture
def containerd() -> str:
    """One is enough to see that it runs."""
    return "2.1"


def test_it_is_for_arm64() -> None:
    assert PROGRAM.read_bytes()[18:20] == b"\xb7\x00", "make build makes it (elf.h, EM_AARCH64)"


def test_it_refuses_what_cannot_be_used(node) -> None:
    result = run(node, GOOD, script=SCRIPT, env={"SSM_keep": "many"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert "keep" in result.stderr


def test_it_reports_an_image_that_its_processor_cannot_run_and_one_that_there_is_not(node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("amd64 only"))
    missing = f"{HOST}/team/none:v1@{A_DIGEST}"
    result = run(node, reference, missing, script=SCRIPT)
    assert result.exit_code == 1, result.stderr
    assert (result.of(reference)["status"], result.of(reference)["reason"]) == ("skipped", "platform")
    assert (result.of(missing)["status"], result.of(missing)["reason"]) == ("failed", "not-found")
    assert node.images() == {}
