"""The nodes' program as it is deployed: how large it is, what it asks of a node, and nothing of this machine in it."""

import re
import subprocess
from pathlib import Path

import pytest

from local.client import ROOT

BUILT = sorted((ROOT / "target/node-program").glob("*/lambda/prefetch-images/bootstrap"))
MAX_BYTES = {"arm64": 2_500_000, "x86_64": 2_800_000}
"""2.5 MB are wanted of both; for x86_64, of which ring alone has 150 KB of tables, this keeps what was reached."""
MAX_GLIBC = (2, 25)
"""Limits which glibc the program may need: Amazon Linux 2 has 2.26."""
LIBRARIES = {"libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"}


def test_a_program_was_built() -> None:
    assert BUILT, "make build builds it"


@pytest.mark.parametrize("program", BUILT, ids=lambda path: path.parts[-4])
def test_it_is_small_and_runs_where_glibc_is_old(program: Path) -> None:
    assert program.stat().st_size <= MAX_BYTES[program.parts[-4]]
    told = subprocess.run(["objdump", "-T", "-p", program], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, found)) for found in re.findall(r"GLIBC_(\d+)\.(\d+)", told)}
    assert versions and max(versions) <= MAX_GLIBC
    needed = set(re.findall(r"NEEDED\s+(\S+)", told))
    assert {name for name in needed if not name.startswith("ld-linux")} <= LIBRARIES


@pytest.mark.parametrize("program", BUILT, ids=lambda path: path.parts[-4])
def test_nothing_of_this_machine_is_in_it(program: Path) -> None:
    content = program.read_bytes()
    for path in (ROOT, ROOT.resolve(), Path.home() / ".cargo"):
        assert str(path).encode() not in content
