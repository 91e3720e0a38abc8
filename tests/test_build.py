"""The wrapper around rustc: the SDKs compile faster where rustc knows how, and rustdoc reads what clippy has linted."""

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


CRATE = ["--crate-name", "jobs", "--edition=2024", "a folder/main.rs"]
OUT = ["--out-dir", "/a folder/target/debug/deps"]
FOR_CARGO = ["--error-format=json", "--json=artifacts", "--emit=dep-info,link"]


def test_rustdoc_reads_a_crate_after_clippy_and_takes_warnings_for_errors(tmp_path):
    lines = linted(
        tmp_path, [*CRATE, *FOR_CARGO, *OUT, "--extern", "serde=/a folder/libserde.rmeta"]
    ).stdout.splitlines()
    clippy, rustdoc = lines[: lines.index("rustdoc")], lines[lines.index("rustdoc") + 1 :]
    assert clippy == ["clippy", "rustc", *CRATE, *FOR_CARGO, *OUT, "--extern", "serde=/a folder/libserde.rmeta"]
    assert rustdoc == [
        *CRATE,
        *("--out-dir", "/a folder/target/doc", "--extern", "serde=/a folder/libserde.rmeta"),
        *("--document-private-items", "-Dwarnings"),
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["-vV"],
        ["--crate-name", "___", "--print=cfg"],
        [*CRATE, "--test"],
        ["--crate-name", "build_script_build", "b.rs"],
    ],
)
def test_what_is_no_crate_of_its_own_is_not_read_by_rustdoc(tmp_path, arguments):
    assert linted(tmp_path, arguments).stdout.splitlines() == ["clippy", "rustc", *arguments]


@pytest.mark.parametrize(("clippy", "rustdoc", "ended"), [(1, 0, 1), (0, 1, 1), (0, 0, 0)])
def test_a_crate_fails_that_clippy_or_rustdoc_refuses(tmp_path, clippy, rustdoc, ended):
    ran = linted(tmp_path, CRATE, clippy, rustdoc)
    assert ran.returncode == ended
    assert ("rustdoc" in ran.stdout) is (clippy == 0)


def test_rustdoc_reads_nothing_unless_it_is_asked_to(tmp_path):
    assert linted(tmp_path, CRATE, asked="").stdout.splitlines() == ["clippy", "rustc", *CRATE]


def test_flags_that_rustdoc_does_not_take_are_left_out(tmp_path):
    flags = ["-g", "-O", "-l", "dylib=c", "-lstatic=d", "--remap-path-prefix=/a=/b"]
    rustdoc = linted(tmp_path, [*CRATE, *flags, "-L", "/a"]).stdout.split("rustdoc\n")[1].splitlines()
    assert rustdoc == [*CRATE, "-L", "/a", "--document-private-items", "-Dwarnings"]


def linted(
    folder: Path, arguments: list[str], clippy: int = 0, rustdoc: int = 0, asked: str = "yes"
) -> subprocess.CompletedProcess[str]:
    """Runs the wrapper as cargo does where clippy's driver stands in for rustc."""
    for name, word, ends in (("clippy-driver", "clippy", clippy), ("rustdoc", "rustdoc", rustdoc)):
        (folder / name).write_text(f"#!/bin/sh\nprintf '%s\\n' {word} \"$@\"\nexit {ends}\n")
        (folder / name).chmod(0o755)
    command = [WRAPPER, "clippy-driver", "rustc", *arguments]
    environment = {"PATH": f"{folder}:/usr/bin:/bin", "DOCUMENT": asked}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def wrapped(program: Path, arguments: list[str]) -> list[str]:
    """Returns with which RUSTC_BOOTSTRAP and with which arguments rustc is run."""
    ran = subprocess.run([WRAPPER, program, *arguments], check=True, capture_output=True, text=True, env={})
    return ran.stdout.splitlines()
