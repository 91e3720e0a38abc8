"""What the functions are built of: the crates' licences, where they come from, and those that are banned."""

import functools
import json
import subprocess

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


@functools.cache
def metadata() -> dict:
    """What cargo has locked, for all platforms."""
    command = ["cargo", "metadata", "--locked", "--format-version=1"]
    return json.loads(subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)


def crates() -> list[dict]:
    """All crates, those that only tests use and our own included."""
    return metadata()["packages"]


def name(crate: dict) -> str:
    """A crate's name and version."""
    return f"{crate['name']} {crate['version']}"


def accepted(licence: str | None) -> bool:
    """Whether a crate of this SPDX expression, or of none, can be used under accepted licences alone."""
    return bool(licence) and holds(SPDX.parse(licence.replace("/", " OR ")))  # a slash is how cargo wrote OR once


def holds(expression: LicenseExpression) -> bool:
    """Whether a part of an SPDX expression is true of the accepted licences."""
    if isinstance(expression, SPDX.AND):
        return all(map(holds, expression.args))
    if isinstance(expression, SPDX.OR):
        return any(map(holds, expression.args))
    return str(expression) in LICENCES
