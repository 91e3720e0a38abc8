"""Hostile and unusable parameters."""

import re

import pytest

from local.nodes.node import Node
from local.nodes.running import Completed

from .command import A_DIGEST, GOOD, HOST, PARAMETERS, begin, install, run

METACHARACTERS = ";&|<>()$`\\\"'*?[]#~=%!{}^, \t\n\r"
HOSTILE_IMAGES = [
    *(f"{GOOD}{character}touch /run/harmed" for character in METACHARACTERS),
    *(f"{HOST}/team/a{character}b:v1@{A_DIGEST}" for character in METACHARACTERS),
    f"$(touch /run/harmed) {GOOD}",
    f"{HOST}/$(touch$IFS/run/harmed):v1@{A_DIGEST}",
    f"{HOST}/`touch /run/harmed`@{A_DIGEST}",
    f"{GOOD}\ntouch /run/harmed",
    f"'; touch /run/harmed; '{GOOD}",
    f"-{GOOD}",
    f"{GOOD}  {GOOD}",
    f" {GOOD}",
    f"{GOOD} ",
    f"{GOOD}\n",
    " ",
    "a" * 10_000,
    f"{HOST}/team/app:v1",
    f"{HOST}/team/app@sha256:{'A' * 64}",
    f"{HOST}/team/app@sha256:{'a' * 63}",
    f"{HOST}/team/app@sha512:{'a' * 64}",
    f"{HOST}/Team/app@{A_DIGEST}",
    f"{HOST}/team/../app@{A_DIGEST}x",
    "{{ images }}",
]
# What the document's pattern cannot see, but the program does.
UNUSABLE_IMAGES = [
    f"{HOST}/{'a' * 256}@{A_DIGEST}",
    f"{HOST}/app:{'t' * 129}@{A_DIGEST}",
    " ".join([GOOD] * 51),
    f"{HOST}/team/..app@{A_DIGEST}",
    f"localhost/app@{A_DIGEST}",
]
USUAL = {
    "executionTimeout": "60",
    "imageGCHighThresholdPercent": "85",
    "maxParallelImagePulls": "2",
    "maxConnections": "20",
    "maxBandwidthMiB": "100",
    "maxImageGiB": "1",
    "keep": "1",
    "pin": "true",
    "reportOnly": "true",
}
OUT_OF_RANGE = {
    "executionTimeout": ["0", "4", "172801", "999999", "9999999"],
    "imageGCHighThresholdPercent": ["0", "101", "999", "85%", "8.5"],
    "maxParallelImagePulls": ["0", "17", "100"],
    "maxConnections": ["21", "99", "-1"],
    "maxBandwidthMiB": ["10000", "0.5", "01"],
    "maxImageGiB": ["10000", "1.5", "99999999999999999999"],
    "keep": ["51", "99", "100"],
    "pin": ["True", "yes", "1", "truefalse", "true|false"],
    "reportOnly": ["FALSE", "no", "0", "falsetrue"],
}


def test_every_parameter_is_covered_here() -> None:
    assert PARAMETERS.keys() == {"images", *USUAL}


@pytest.mark.parametrize("value", HOSTILE_IMAGES)
def test_hostile_images_are_refused_by_the_document(value: str) -> None:
    assert not accepted("images", value)


@pytest.mark.parametrize("name", USUAL)
def test_hostile_values_are_refused_by_the_document(name: str) -> None:
    assert [value for value in hostile(name) if accepted(name, value)] == []
    assert accepted(name, USUAL[name]) and accepted(name, PARAMETERS[name]["default"])


def test_hostile_images_are_refused_by_the_program_of_a_caller_who_bypasses_the_document(quick_node: Node) -> None:
    for value in [*HOSTILE_IMAGES, *UNUSABLE_IMAGES]:
        assert_refused(quick_node, "images", value)
    assert quick_node.shell("ls /run/harmed 2>/dev/null || true") == ""


@pytest.mark.parametrize("name", USUAL)
def test_hostile_values_are_refused_by_the_program_of_a_caller_who_bypasses_the_document(
    quick_node: Node, name: str
) -> None:
    for value in hostile(name):
        assert_refused(quick_node, name, value)
    assert quick_node.shell("ls /run/harmed 2>/dev/null || true") == ""


def test_the_bootstrap_lets_no_value_become_a_command(quick_node: Node) -> None:
    for name, usual in USUAL.items():
        for value in (f"{usual}$(touch /run/harmed)", f"{usual}\ntouch /run/harmed", f"'; touch /run/harmed; '{usual}"):
            result = run(quick_node, GOOD, env={f"SSM_{name}": value})
            assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    for value in HOSTILE_IMAGES[::4]:
        assert run(quick_node, GOOD, env={"SSM_images": value}).exit_code == 2
    assert quick_node.shell("ls /run/harmed 2>/dev/null || true") == ""


def test_a_pin_without_an_end_is_refused(quick_node: Node) -> None:
    result = run(quick_node, GOOD, pin=True, keep=0)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "pin needs keep" in result.stderr


@pytest.mark.parametrize(
    ("value", "is_accepted"), [("4", False), ("5", True), ("3600", True), ("172800", True), ("172801", False)]
)
def test_the_execution_timeout_is_what_ssm_allows(value: str, is_accepted: bool) -> None:
    assert accepted("executionTimeout", value) is is_accepted


@pytest.mark.parametrize("name", ["a", "a.b", "a_b", "a__b", "a-b", "a--b", "a.b_c-d/e__f", "0/1"])
def test_every_legal_name_is_accepted(quick_node: Node, name: str) -> None:
    value = f"{HOST}/{name}:_A.z-9@{A_DIGEST}"

    assert accepted("images", value)
    assert run(quick_node, value).outcomes() == [("failed", "not-found")]


def test_fifty_images_with_the_longest_names_are_accepted(quick_node: Node) -> None:
    repository = "/".join(["a" * 127, "b" * 127])
    references = [f"{HOST}/{repository}:{number:0128}@{A_DIGEST}" for number in range(50)]

    assert accepted("images", " ".join(references))
    assert run(quick_node, *references, maxParallelImagePulls=4).outcomes() == [("failed", "not-found")] * 50


def test_no_images_are_accepted() -> None:
    assert accepted("images", "")


def hostile(name: str) -> list[str]:
    """Returns values that the parameter must not take."""
    usual = USUAL[name]
    return [
        *(f"{usual}{character}touch /run/harmed" for character in METACHARACTERS),
        *(f"{character}{usual}" for character in METACHARACTERS),
        *(f"{usual}{character}" for character in METACHARACTERS),
        "$(touch /run/harmed)",
        "`touch /run/harmed`",
        "a[$(touch /run/harmed)]",
        f"{usual}\ntouch /run/harmed",
        f"'; touch /run/harmed; '{usual}",
        "x" * 10_000,
        "1" * 10_000,
        "",
        "-1",
        "+1",
        "007",
        "0x10",
        "1e1",
        "\u0663",
        f"{{{{ {name} }}}}",
        *OUT_OF_RANGE[name],
    ]


def accepted(name: str, value: str) -> bool:
    """Tells whether the document takes a value, as the SSM service decides it."""
    return bool(re.fullmatch(PARAMETERS[name]["allowedPattern"], value))


def run_program(node: Node, values: dict[str, str]) -> Completed:
    """Runs the program as the bootstrap does, which hands over what it was given."""
    install(node)
    return node.run("#!/bin/sh\nexec /var/lib/prefetch-images/*", values, 10)


def assert_refused(node: Node, name: str, value: str) -> None:
    """Fails where the program does anything but say that a value cannot be used."""
    values = {**{f"SSM_{other}": usual for other, usual in USUAL.items()}, f"SSM_{name}": value}
    completed = run_program(node, values) if name != "executionTimeout" else begin(node, GOOD, env=values).wait(10)
    assert (completed.exit_code, completed.stdout) == (2, ""), value[:100]
    assert completed.stderr.count("\n") == 1 and len(completed.stderr) < 500, value[:100]
