"""Checks what GitHub runs, what it asks of who files an issue, and the scripts that make a release."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
import yaml

from local.client import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")
WORKSPACE = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
VERSION = WORKSPACE["version"]
ELF = {"x86_64": b"\x3e\x00", "arm64": b"\xb7\x00"}
"""Tells how an ELF header names a processor."""
BUILT = """
Parameters:
  Architecture:
    Default: x86_64
    AllowedValues:
    - x86_64
    - arm64
    Description: Of functions.
  LogLevel:
    Default: INFO
    AllowedValues:
    - INFO
    - WARN
"""
"""The parameters as sam build writes them."""


def workflow(path: Path) -> dict:
    """Reads a workflow; YAML takes its key `on` for a truth value."""
    read = yaml.safe_load(path.read_text())
    return {"on" if key is True else key: value for key, value in read.items()}


def steps(path: Path) -> list[dict]:
    return [step for job in workflow(path)["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_read_and_no_more_unless_a_job_says_why(path):
    read = workflow(path)
    assert read["permissions"] == {"contents": "read"}
    allowed = {name: job["permissions"] for name, job in read["jobs"].items() if "permissions" in job}
    assert allowed == ({"publish": {"contents": "write"}} if path.name == "release.yml" else {})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_ends_in_time_and_its_actions_are_named_by_commit(path):
    for name, job in workflow(path)["jobs"].items():
        assert "uses" in job or job["timeout-minutes"] <= 90, name
    used = re.findall(r"\buses: (.*)$", path.read_text(), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/workflows/test\.yml", action)
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_what_a_workflow_runs_is_there_and_can_be_parsed(path):
    makefile = (ROOT / "Makefile").read_text()
    for script in (step["run"] for step in steps(path) if "run" in step):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        # What an expression brings is a value and no shell: it comes by the environment.
        assert "${{" not in script
        for target in re.findall(r"\bmake ([a-z-]+)", script):
            assert re.search(rf"^(?:[a-z]+ )*{target}\b[a-z ]*:", makefile, re.MULTILINE), target
        for program in re.findall(r"(?<![\w/])\.ci/[a-z]+", script):
            assert os.access(ROOT / program, os.X_OK), program
    called = {word for step in steps(path) for word in re.findall(r"\bmake [a-z]+|\.ci/[a-z]+", step.get("run", ""))}
    assert (
        called
        == {"test.yml": {"make test"}, "release.yml": {"make build"} | {".ci/notes", ".ci/package", ".ci/sbom"}}[
            path.name
        ]
    )


def test_each_push_and_each_pull_request_is_tested():
    on = workflow(ROOT / ".github" / "workflows" / "test.yml")["on"]
    assert on["push"] == {"branches": ["main"]}
    assert {"pull_request", "workflow_call"} <= on.keys()
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_a_release_is_of_both_processors_and_of_what_was_tested():
    release = workflow(ROOT / ".github" / "workflows" / "release.yml")
    assert release["on"] == {"push": {"tags": ["v*"]}}
    template = (ROOT / "template.yaml").read_text()
    accepted = re.search(r"^  Architecture:\n(?:    .*\n)*?    AllowedValues: \[(.*)\]$", template, re.MULTILINE)
    assert release["jobs"]["build"]["strategy"]["matrix"]["architecture"] == accepted.group(1).split(", ")
    assert set(release["jobs"]["publish"]["needs"]) == {"test", "build", "sbom"}


def test_one_toolchain_tests_and_builds_and_is_new_enough():
    release = workflow(ROOT / ".github" / "workflows" / "release.yml")["env"]["RUST_VERSION"]
    image = workflow(ROOT / ".github" / "workflows" / "test.yml")["jobs"]["test"]["container"]["image"]
    assert image == f"rust:{release}-bookworm"
    assert numbers(release) >= numbers(WORKSPACE["rust-version"])


def test_no_toolchain_is_named_that_a_machine_without_network_may_lack():
    toolchain = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]
    assert toolchain == {"components": ["clippy", "rustfmt"]}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_asks_as_github_takes_it(path):
    form = yaml.safe_load(path.read_text())
    assert {"name", "description", "labels", "body"} == form.keys()
    ids = [question["id"] for question in form["body"] if question["type"] != "markdown"]
    assert len(ids) == len(set(ids))
    for question in form["body"]:
        assert question["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert "value" in question["attributes"] if question["type"] == "markdown" else question["attributes"]["label"]
    assert any(question.get("validations", {}).get("required") for question in form["body"])


def test_there_are_forms_for_bugs_and_features():
    assert [path.name for path in FORMS] == ["bug.yml", "feature.yml"]


def test_a_releases_notes_are_those_of_its_version(tmp_path):
    repository(tmp_path)
    changelog = (
        f"# Changelog\n\n## [Unreleased]\n\n- later\n\n## [{VERSION}] - 2026-12-01\n\n- now\n\n## [0.0.1]\n\n- before\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    ran = run(tmp_path, ".ci/notes", f"v{VERSION}")
    assert (ran.returncode, ran.stdout.strip(), ran.stderr) == (0, "- now", "")


@pytest.mark.parametrize("tag", ["v9.9.9", VERSION, f"v{VERSION}-rc1", None])
def test_a_tag_that_is_not_the_workspaces_version_makes_no_release(tmp_path, tag):
    repository(tmp_path)
    ran = run(tmp_path, ".ci/notes", *([tag] if tag else []))
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.endswith(f"takes v{VERSION}, the version in Cargo.toml\n")


def test_a_version_of_which_the_changelog_says_nothing_makes_no_release(tmp_path):
    repository(tmp_path)
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n## [{VERSION}]\n\n## [0.0.1]\n\n- before\n")
    ran = run(tmp_path, ".ci/notes", f"v{VERSION}")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == f".ci/notes: CHANGELOG.md says nothing of {VERSION}\n"


def test_the_changelog_knows_the_version_and_what_comes_next():
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[:2] == ["Unreleased", VERSION]


@pytest.mark.parametrize("architecture", ELF)
def test_a_package_deploys_without_a_build(tmp_path, architecture):
    package = packed(tmp_path, architecture)
    name = package.name.removesuffix(".tar.gz")
    assert name == f"eks-image-prefetch-{VERSION}-{architecture}"
    shutil.unpack_archive(package, tmp_path / "unpacked")
    folder = tmp_path / "unpacked" / name
    # What the built template names is where it says, and so is what sam looks for.
    for path in ("template.yaml", "Jobs/bootstrap", "../../ssm/prefetch-images.json", "../../ssm/resolve-tags.json"):
        assert (folder / ".aws-sam" / "build" / path).is_file()
    assert (folder / "statemachine" / "bake-snapshot.asl.json").is_file()
    assert os.access(folder / ".aws-sam" / "build" / "Jobs" / "bootstrap", os.X_OK)
    assert (folder / "samconfig.toml").read_text() == (ROOT / "samconfig.toml").read_text()
    parameters = yaml.safe_load((folder / ".aws-sam" / "build" / "template.yaml").read_text())["Parameters"]
    accepted = {"Default": architecture, "AllowedValues": [architecture], "Description": "Of functions."}
    assert parameters == {"Architecture": accepted, "LogLevel": {"Default": "INFO", "AllowedValues": ["INFO", "WARN"]}}


def test_a_template_that_does_not_say_for_which_processor_it_is_makes_no_package(tmp_path):
    repository(tmp_path)
    built(tmp_path, "x86_64")
    (tmp_path / ".aws-sam" / "build" / "template.yaml").write_text("Resources: {}\n")
    assert run(tmp_path, ".ci/package", "x86_64").returncode == 1
    assert not list((tmp_path / "dist").glob("*.gz"))


def test_the_same_files_make_the_same_package(tmp_path):
    digests = set()
    for folder in ("a", "b"):
        package = packed(tmp_path / folder, "x86_64")
        digests.add(hashlib.sha256(package.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_functions_for_another_processor_make_no_package(tmp_path):
    repository(tmp_path)
    built(tmp_path, "x86_64")
    ran = run(tmp_path, ".ci/package", "arm64")
    assert ran.returncode == 1
    assert ran.stderr == ".ci/package: .aws-sam/build/Jobs/bootstrap is built for x86-64, not for arm64\n"
    assert run(tmp_path, ".ci/package", "riscv64").returncode == 2


def test_each_function_and_the_nodes_program_have_an_sbom_of_what_they_are_built_of(tmp_path):
    repository(tmp_path)
    for name, folder in {"jobs": "functions/jobs", "prefetch-images": "node", "prefetch": "shared"}.items():
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "written").write_text(json.dumps(sbom(tmp_path, name)))
        (tmp_path / folder / "name").write_text(name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cargo").write_text(CARGO)
    (tmp_path / "bin" / "cargo").chmod(0o755)
    ran = run(tmp_path, ".ci/sbom")
    assert (ran.returncode, ran.stderr) == (0, "")
    with tarfile.open(tmp_path / "dist" / f"eks-image-prefetch-{VERSION}-sbom.tar.gz") as archive:
        files = {Path(m.name).name: json.load(archive.extractfile(m)) for m in archive.getmembers() if m.isfile()}
    assert files.keys() == {"jobs.cdx.json", "prefetch-images.cdx.json"}
    jobs = files["jobs.cdx.json"]
    assert jobs["metadata"]["component"]["bom-ref"] == "path+file://./jobs"
    assert [component["name"] for component in jobs["components"]] == ["serde"]
    assert jobs["dependencies"] == [{"ref": "path+file://./jobs", "dependsOn": ["serde"]}, {"ref": "serde"}]
    assert not list(tmp_path.glob("*/**/*.cdx.json"))


CARGO = """#!/bin/sh
if [ "$1" = tree ]; then
    printf 'jobs v0.1.0 (/somewhere)\\nserde v1.0.0 (proc-macro)\\n'
else
    for f in functions/jobs node shared; do cp "$f/written" "$f/$(cat "$f/name").cdx.json"; done
fi
"""
"""A cargo whose CycloneDX knows a crate that only tests use, and whose tree does not."""


def sbom(root: Path, name: str) -> dict:
    """Returns what cargo-cyclonedx writes of a crate that stands below this folder."""
    own = f"path+file://{root}/{name}"
    components = [{"bom-ref": crate, "name": crate, "version": "1.0.0"} for crate in ("serde", "proptest")]
    dependencies = [{"ref": own, "dependsOn": ["serde", "proptest"]}, {"ref": "serde"}, {"ref": "proptest"}]
    component = {"bom-ref": own, "name": name, "version": "0.1.0"}
    return {"metadata": {"component": component}, "components": components, "dependencies": dependencies}


def numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def packed(path: Path, architecture: str) -> Path:
    """Packs functions of a processor, in a folder of its own."""
    repository(path)
    built(path, architecture)
    ran = run(path, ".ci/package", architecture)
    assert (ran.returncode, ran.stderr) == (0, "")
    [package] = (path / "dist").iterdir()
    return package


def built(path: Path, architecture: str) -> None:
    """Puts there what a build leaves: a template and a function."""
    function = path / ".aws-sam" / "build" / "Jobs" / "bootstrap"
    function.parent.mkdir(parents=True)
    function.write_bytes(b"\x7fELF\x02\x01\x01".ljust(18, b"\x00") + ELF[architecture])
    function.chmod(0o755)
    (path / ".aws-sam" / "build" / "template.yaml").write_text(BUILT)


def repository(path: Path) -> None:
    """Makes a repository of one commit, of what a release takes but for what is built."""
    path.mkdir(exist_ok=True)
    shutil.copytree(ROOT / ".ci", path / ".ci")
    for name in (
        *("Cargo.toml", "CHANGELOG.md", "LICENSE", "README.md", "samconfig.toml"),
        *("ssm/prefetch-images.json", "ssm/resolve-tags.json", "statemachine/bake-snapshot.asl.json"),
    ):
        (path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, path / name)
    author = ["-c", "user.name=a", "-c", "user.email=a@b"]
    date = {"GIT_COMMITTER_DATE": "2026-11-30T12:00:00Z", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for command in (["init", "--quiet"], ["add", "."], [*author, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=path, env=os.environ | date, check=True)


def run(path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PATH": f"{path / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run(
        [path / command[0], *command[1:]], env=environment, check=False, capture_output=True, text=True, timeout=30
    )
