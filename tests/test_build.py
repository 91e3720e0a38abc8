"""The wrapper around rustc: the AWS SDKs compile faster where rustc knows how, and nothing else is different."""

import subprocess
from pathlib import Path

import pytest

from local.client import ROOT

WRAPPER = ROOT / ".cargo" / "rustc-wrapper"
HINT = ["-Z", "hint-mostly-unused"]
SDK = ["--crate-name", "aws_sdk_ec2", "--edition=2021", "a folder/lib.rs"]
KNOWS_THE_HINT = '#!/bin/sh\nprintf \'%s\\n\' "${RUSTC_BOOTSTRAP:-stable}" "$@"\n'
KNOWS_NO_HINT = "#!/bin/sh\ncase $* in *hint-mostly-unused*) exit 1 ;; esac\n" + KNOWS_THE_HINT.partition("\n")[2]


@pytest.mark.parametrize(
    ("rustc", "arguments", "expected"),
    [
        (KNOWS_THE_HINT, SDK, ["1", *SDK, *HINT]),
        (KNOWS_NO_HINT, SDK, ["stable", *SDK]),
        (KNOWS_THE_HINT, ["--crate-name", "prefetch"], ["stable", "--crate-name", "prefetch"]),
        (KNOWS_THE_HINT, ["--crate-name", "jobs", "--extern", "aws_sdk_ec2=x"], None),
        (KNOWS_THE_HINT, ["-vV"], ["stable", "-vV"]),
    ],
)
def test_only_the_sdks_are_compiled_with_the_hint_and_only_where_rustc_knows_it(tmp_path, rustc, arguments, expected):
    program = tmp_path / "rustc"
    program.write_text(rustc)
    program.chmod(0o755)
    assert wrapped(program, arguments) == (expected or ["stable", *arguments])


def test_an_end_of_rustcs_is_the_wrappers(tmp_path):
    program = tmp_path / "rustc"
    program.write_text("#!/bin/sh\nexit 101\n")
    program.chmod(0o755)
    assert subprocess.run([WRAPPER, program, *SDK], check=False).returncode == 101


def wrapped(program: Path, arguments: list[str]) -> list[str]:
    """Returns with which RUSTC_BOOTSTRAP and with which arguments rustc is run."""
    ran = subprocess.run([WRAPPER, program, *arguments], check=True, capture_output=True, text=True, env={})
    return ran.stdout.splitlines()
