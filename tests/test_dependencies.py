"""Checks what the functions are built of: the crates' licences, where they come from, and those that are banned."""

import functools
import json
import subprocess
from pathlib import Path

from license_expression import LicenseExpression, get_spdx_licensing

from local.client import ROOT

LICENCES = {"Apache-2.0", "BSD-3-Clause", "ISC", "MIT", "MIT-0", "Unicode-3.0", "Unlicense", "Zlib"}
BANNED = {"aws-lc-rs", "aws-lc-sys", "native-tls", "openssl-sys"}
"""One TLS stack: rustls with ring."""
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"

SPDX = get_spdx_licensing()


def test_every_crate_has_a_licence_that_is_accepted():
    assert {name(crate): crate["license"] for crate in crates() if not accepted(crate["license"])} == {}


def test_no_banned_crate_is_used():
    assert {crate["name"] for crate in crates()} & BANNED == set()


def test_every_crate_comes_from_crates_io_or_is_our_own():
    own = metadata()["workspace_members"]
    strangers = [crate for crate in crates() if crate["source"] != CRATES_IO and crate["id"] not in own]
    assert [name(crate) for crate in strangers] == []


def test_no_crate_takes_any_version_of_another():
    wanted = [(name(crate), dependency) for crate in crates() for dependency in crate["dependencies"]]
    assert [(crate, dependency["name"]) for crate, dependency in wanted if dependency["req"] == "*"] == []


def test_a_function_that_is_built_by_itself_has_each_crate_as_the_workspace_has_it():
    """SAM builds functions one by one: what they have in another kind is compiled again, with all above it.

    The nodes' program is none of them (default-members), and has other features of the same crates.
    """
    whole = built(ROOT)
    other = {folder.name: built(folder) - whole for folder in (ROOT / "functions").iterdir()}
    assert {folder: crates for folder, crates in other.items() if crates} == {}


@functools.cache
def metadata() -> dict:
    """Returns what cargo has locked, for all platforms."""
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def crates() -> list[dict]:
    """All crates, those that only tests use and our own included."""
    return metadata()["packages"]


def built(folder: Path, *options: str) -> set[str]:
    """The crates, each with its features, of which what stands in a folder is built."""
    command = ["cargo", "tree", "--locked", "--edges", "normal,build", "--format", "{p} [{f}]", "--prefix", "none"]
    command += ["--no-dedupe", *options]
    return set(subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines())


def name(crate: dict) -> str:
    """A crate's name and version."""
    return f"{crate['name']} {crate['version']}"


def accepted(licence: str | None) -> bool:
    """Tells whether a crate of this SPDX expression, or of none, can be used under accepted licences alone."""
    return bool(licence) and holds(SPDX.parse(licence.replace("/", " OR ")))  # a slash is how cargo wrote OR once


def holds(expression: LicenseExpression) -> bool:
    """Tells whether a part of an SPDX expression is true of the accepted licences."""
    if isinstance(expression, SPDX.AND):
        return all(map(holds, expression.args))
    if isinstance(expression, SPDX.OR):
        return any(map(holds, expression.args))
    return str(expression) in LICENCES
