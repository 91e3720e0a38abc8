"""The walk of examples/quickstart: its scripts beside stand-ins for kubectl and docker, and its files."""

import json
import os
import re
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from local.client import ROOT

FOLDER = ROOT / "examples" / "quickstart"
WALK = (FOLDER / "README.md").read_text()
SHELL_LINES = "\n".join(re.findall(r"^```sh\n(.*?)^```$", WALK, re.MULTILINE | re.DOTALL))
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
MANIFESTS = ["cold.yaml", "warm.yaml", "deployment.yaml"]

KUBECTL = f"""#!{sys.executable}
import json, os, sys

sys.path.insert(0, {str(Path(__file__).parent)!r})
from jsonpath import jsonpath

with open(os.environ["CALLS"], "w") as calls:
    json.dump(sys.argv[1:], calls)
if not os.environ["POD"]:
    sys.exit('Error from server (NotFound): pods "web" not found')
[template] = [word for word in sys.argv if word.startswith("jsonpath=")]
print(jsonpath(template.removeprefix("jsonpath="), json.loads(os.environ["POD"])), end="")
"""
DOCKER = """#!/bin/sh
printf '%s\\n' "$0" "$DOCKER_BUILDKIT" "$@" >"$CALLS"
exit "${ENDS:-0}"
"""


def container(name: str = "app", restarts: int = 0, last: dict | None = None, **state: Any) -> dict:
    """Returns a container's status as Kubernetes tells it."""
    return {"name": name, "restartCount": restarts, "state": state, "lastState": {"terminated": last} if last else {}}


def pod(*containers: dict, scheduled: str | None = "2026-11-30T09:30:00Z") -> dict:
    """Returns a pod that was given its node then, with these containers."""
    conditions = [{"type": "Initialized", "status": "True", "lastTransitionTime": "2026-11-30T09:00:00Z"}]
    if scheduled:
        conditions.append({"type": "PodScheduled", "status": "True", "lastTransitionTime": scheduled})
    else:
        conditions.append({"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-11-30T09:00:00Z"})
    status = {"conditions": conditions, "phase": "Pending"}
    return {"metadata": {"name": "web"}, "status": status | ({"containerStatuses": containers} if containers else {})}


def running(at: str, **more: Any) -> dict:
    return container(running={"startedAt": at}, **more)


@pytest.mark.parametrize(
    ("scheduled", "started", "seconds"),
    [
        ("2026-11-30T09:30:00Z", "2026-11-30T09:30:07Z", "7"),
        ("2026-11-30T09:30:00Z", "2026-11-30T09:30:00Z", "0"),
        ("2026-11-30T08:09:08Z", "2026-11-30T09:10:09Z", "3661"),  # no number is octal
        ("2026-11-30T23:59:58Z", "2026-12-01T00:00:03Z", "5"),
        ("2026-12-31T23:59:59Z", "2027-01-01T00:00:01Z", "2"),
        ("2027-02-28T23:59:59Z", "2027-03-01T00:00:01Z", "2"),
        ("2028-02-28T23:59:59Z", "2028-02-29T00:00:01Z", "2"),
        ("2028-02-29T23:59:59Z", "2028-03-01T00:00:01Z", "2"),
        ("2026-11-30T09:30:00.250000Z", "2026-11-30T09:30:07.750000Z", "7.500"),
        ("2026-11-30T09:30:00Z", "2026-11-30T09:30:07.750000Z", "7.750"),
    ],
)
def test_a_pods_start_is_told_in_seconds_from_its_node_to_its_container(tmp_path, scheduled, started, seconds):
    ran = pod_start_seconds(tmp_path, pod(running(started), scheduled=scheduled))
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{seconds}\n", "")


def test_the_days_are_those_of_the_calendar(tmp_path):
    ran = pod_start_seconds(tmp_path, pod(running("2101-03-01T00:00:00Z"), scheduled="1999-12-31T00:00:00Z"))
    assert ran.stdout == f"{(date(2101, 3, 1) - date(1999, 12, 31)).days * 86400}\n"


def test_of_several_containers_the_last_to_start_counts(tmp_path):
    ran = pod_start_seconds(
        tmp_path, pod(running("2026-11-30T09:30:09Z", name="a"), running("2026-11-30T09:30:04Z", name="b"))
    )
    assert ran.stdout == "9\n"


def test_a_pod_that_has_ended_had_started(tmp_path):
    ended = container(terminated={"startedAt": "2026-11-30T09:30:04Z", "finishedAt": "2026-11-30T09:45:00Z"})
    assert pod_start_seconds(tmp_path, pod(ended)).stdout == "4\n"


@pytest.mark.parametrize(
    "now", [{"running": {"startedAt": "2026-11-30T10:00:00Z"}}, {"waiting": {"reason": "Backoff"}}]
)
def test_a_container_that_was_restarted_once_counts_with_its_first_start(tmp_path, now):
    first = {"startedAt": "2026-11-30T09:30:05Z", "finishedAt": "2026-11-30T09:59:00Z"}
    assert pod_start_seconds(tmp_path, pod(container(restarts=1, last=first, **now))).stdout == "5\n"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pod(scheduled=None), "it has no node yet"),
        ({"metadata": {"name": "web"}, "status": {}}, "it has no node yet"),
        (pod(), "no container has started"),
        (pod(container(waiting={})), "container app has not started"),
        (
            pod(container(waiting={"reason": "ImagePullBackOff"})),
            "container app has not started: ImagePullBackOff",
        ),
        (
            pod(running("2026-11-30T09:30:05Z"), container("late", waiting={"reason": "ContainerCreating"})),
            "container late has not started: ContainerCreating",
        ),
        (
            pod(container(terminated={"startedAt": None, "reason": "ContainerStatusUnknown"})),
            "container app has not started",
        ),
        (
            pod(running("2026-11-30T10:00:00Z", restarts=3, last={"startedAt": "2026-11-30T09:50:00Z"})),
            "container app was restarted 3 times: when it first started is no longer known",
        ),
    ],
)
def test_a_pod_whose_start_is_not_known_is_told_with_the_reason(tmp_path, given, said):
    ran = pod_start_seconds(tmp_path, given)
    assert (ran.returncode, ran.stdout, ran.stderr) == (1, "", f"pod-start-seconds: pod web: {said}.\n")


def test_a_pod_that_is_not_there_is_told_in_kubectls_words(tmp_path):
    ran = pod_start_seconds(tmp_path, None)
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == 'Error from server (NotFound): pods "web" not found\n'


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        (["web"], []),
        (["pod/web"], []),
        (["--namespace", "team", "web"], ["--namespace", "team"]),
        (["web", "--namespace=team"], ["--namespace", "team"]),
        (["-n", "team", "pod/web"], ["--namespace", "team"]),
    ],
)
def test_the_pod_is_looked_for_in_the_namespace_that_is_named(tmp_path, arguments, options):
    ran = pod_start_seconds(tmp_path, pod(running("2026-11-30T09:30:05Z")), *arguments)
    assert ran.stdout == "5\n"
    called = json.loads((tmp_path / "calls").read_text())
    assert [*called[:4], *called[5:]] == ["get", "pod", "web", "--output", *options]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([""], "it takes a pod: [--namespace NAMESPACE] POD"),
        (["web", "other"], "it takes one pod, and other is another"),
        (["--namespace"], "--namespace takes a namespace"),
        (["--namespace", "", "web"], "--namespace takes a namespace"),
        (["--watch", "web"], "--watch is no option: it takes [--namespace NAMESPACE] POD"),
    ],
)
def test_a_call_that_is_wrong_is_told_what_it_takes(tmp_path, arguments, said):
    ran = pod_start_seconds(tmp_path, None, *arguments)
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"pod-start-seconds: {said}.\n")


def test_what_is_missing_on_path_is_told(tmp_path):
    for name in ("pod-start-seconds", "make-image"):
        ran = called(tmp_path, name, "1", *(["quickstart:v1"] if name == "make-image" else []))
        assert (ran.returncode, ran.stdout) == (2, "")
        assert re.fullmatch(rf"{name}: it takes .* on PATH\.\n", ran.stderr)


@pytest.mark.parametrize(("gigabytes", "layer"), [("1", 125_000_000), ("10", 1_250_000_000), ("50", 6_250_000_000)])
def test_an_image_has_eight_layers_that_come_to_its_size(tmp_path, gigabytes, layer):
    [_, buildkit, *command] = make_image(tmp_path, gigabytes, f"{REGISTRY}/quickstart/warm:v1")
    seed = command.pop(6)
    assert (buildkit, command) == (
        "1",
        [
            *("build", "--platform", "linux/amd64", "--build-arg", f"BYTES={layer}", "--build-arg"),
            *("--tag", f"{REGISTRY}/quickstart/warm:v1", str(FOLDER / "image")),
        ],
    )
    assert re.fullmatch(r"SEED=\d+-\d+", seed)
    copied = re.findall(
        r"^COPY --from=random (\S+) (\S+)$", (FOLDER / "image" / "Dockerfile").read_text(), re.MULTILINE
    )
    assert copied == [(f"/random/{number}",) * 2 for number in range(1, 9)]
    assert 8 * layer == int(gigabytes) * 10**9


def test_no_image_has_the_bytes_of_another(tmp_path):
    seeds = [make_image(tmp_path, "1", "quickstart:v1")[8] for _ in range(3)]
    assert len(set(seeds)) == 3
    dockerfile = (FOLDER / "image" / "Dockerfile").read_text()
    assert dockerfile.index("ARG SEED") < dockerfile.index("RUN")


def test_the_first_builder_on_path_is_taken_or_the_one_that_is_named(tmp_path):
    assert Path(make_image(tmp_path, "1", "quickstart:v1", builders=["nerdctl", "finch"])[0]).name == "finch"
    [program, _, *command] = make_image(
        tmp_path, "1", "quickstart:v1", builders=["docker", "nerdctl"], BUILDER="nerdctl", PLATFORM="linux/arm64"
    )
    assert Path(program).name == "nerdctl"
    assert command[1:3] == ["--platform", "linux/arm64"]


def test_a_build_that_fails_ends_as_the_builder_did(tmp_path):
    assert called(tmp_path, "make-image", "1", "quickstart:v1", programs={"docker": DOCKER}, ENDS="17").returncode == 17


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["1"], "it takes a size in GB and the image, such as 1 quickstart/warm:1gb"),
        (["0", "a:b"], "the size is '0' and takes a whole number from 1 to 50"),
        (["51", "a:b"], "the size is '51' and takes a whole number from 1 to 50"),
        (["1.5", "a:b"], "the size is '1.5' and takes a whole number from 1 to 50"),
        (["1GB", "a:b"], "the size is '1GB' and takes a whole number from 1 to 50"),
        (["1", "--push"], "the image is '--push' and takes a reference such as quickstart/warm:1gb"),
        (["1", ""], "the image is '' and takes a reference such as quickstart/warm:1gb"),
    ],
)
def test_an_image_that_cannot_be_made_is_told_with_what_is_accepted(tmp_path, arguments, said):
    ran = called(tmp_path, "make-image", *arguments, programs={"docker": DOCKER})
    assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", f"make-image: {said}.\n")


def test_a_builder_that_is_not_there_is_told_by_its_name(tmp_path):
    ran = called(tmp_path, "make-image", "1", "a:b", programs={"docker": DOCKER}, BUILDER="podman")
    assert (ran.returncode, ran.stderr) == (2, "make-image: BUILDER is 'podman', which is not on PATH.\n")


@pytest.mark.parametrize("name", ["pod-start-seconds", "make-image"])
def test_the_scripts_are_plain_sh_and_take_no_option_that_one_system_lacks(name):
    script = (FOLDER / name).read_text()
    assert script.startswith("#!/bin/sh\n")
    assert os.access(FOLDER / name, os.X_OK)
    code = "\n".join(line for line in script.splitlines() if not line.lstrip().startswith("#"))
    # GNU's date, sed, grep and readlink have options that macOS has not, and its bash is 3.2.
    assert re.findall(r"\b(?:date (?!\+%s)\S+|sed|grep|readlink|seq|mapfile|jq|python3?|\[\[)", code) == []
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n", FOLDER / name], check=True)


def test_the_shell_lines_of_the_walk_can_be_parsed():
    assert SHELL_LINES.count("\n") > 40
    subprocess.run(["bash", "-n"], input=SHELL_LINES, text=True, check=True)
    assert re.findall(r"<[a-z]", SHELL_LINES) == []


def test_the_cluster_has_what_the_nodes_need():
    cluster = yaml.safe_load((FOLDER / "cluster.yaml").read_text())
    [group] = cluster["managedNodeGroups"]
    assert (group["amiFamily"], group["desiredCapacity"]) == ("AmazonLinux2023", 2)
    assert {arn.rpartition("/")[2] for arn in group["iam"]["attachPolicyARNs"]} == {
        "AmazonEKSWorkerNodePolicy",
        "AmazonEKS_CNI_Policy",
        "AmazonEC2ContainerRegistryPullOnly",
        "AmazonSSMManagedInstanceCore",
    }
    assert group["maxSize"] >= 3
    assert group["volumeSize"] > 3 * (10 + 1 + 1)
    assert f"export CLUSTER={cluster['metadata']['name']}\n" in SHELL_LINES
    assert f"--name {group['name']} --nodes 3" in SHELL_LINES
    assert cluster["metadata"]["region"] == "REGION"
    [script] = re.findall(r'^sed "(.*)" examples/quickstart/cluster\.yaml \| eksctl', SHELL_LINES, re.MULTILINE)
    script = script.replace("$AWS_REGION", "us-west-2").replace("$CLUSTER", "other")
    ran = subprocess.run(["sed", script, FOLDER / "cluster.yaml"], capture_output=True, text=True, check=True)
    assert yaml.safe_load(ran.stdout)["metadata"] == {**cluster["metadata"], "name": "other", "region": "us-west-2"}


def test_no_line_to_paste_ends_in_a_comment_which_macs_shell_takes_for_words():
    assert [line for line in SHELL_LINES.splitlines() if " # " in line or line.startswith("#")] == []


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_names_an_image_that_the_walk_makes_and_pushes(name):
    text = (FOLDER / name).read_text()
    manifest = yaml.safe_load(text.replace("REGISTRY/", f"{REGISTRY}/"))
    spec = manifest["spec"] if manifest["kind"] == "Pod" else manifest["spec"]["template"]["spec"]
    [container] = spec["containers"]
    image = container["image"].replace(REGISTRY, "$REGISTRY")
    assert re.search(rf'^make-image \d+ "{re.escape(image)}"$', SHELL_LINES, re.MULTILINE)
    assert f'docker push "{image}"\n' in SHELL_LINES
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert f'sed "s|REGISTRY|$REGISTRY|" examples/quickstart/{name} | kubectl apply' in SHELL_LINES
    repository = image.partition("/")[2].partition(":")[0]
    assert f"create-repository --repository-name {repository}\n" in SHELL_LINES
    assert (f"Repositories={repository} " in SHELL_LINES) is (name != "cold.yaml")


def test_what_the_walk_makes_it_removes():
    made = re.findall(r"create-repository --repository-name (\S+)", SHELL_LINES)
    assert sorted(re.findall(r"delete-repository --force --repository-name (\S+)", SHELL_LINES)) == sorted(made)
    images = re.findall(r'^make-image \d+ ("\S+")$', SHELL_LINES, re.MULTILINE)
    [removed] = re.findall(r"^docker image rm (.*)$", SHELL_LINES, re.MULTILINE)
    assert removed.split() == images
    for line in ("sam delete --stack-name", "eksctl delete cluster --name"):
        assert line in SHELL_LINES
    [deleted] = re.findall(r"^kubectl delete (.*) --ignore-not-found$", SHELL_LINES, re.MULTILINE)
    manifests = [yaml.safe_load((FOLDER / name).read_text()) for name in MANIFESTS]
    assert set(deleted.split()) == {f"{m['kind'].lower()}/{m['metadata']['name']}" for m in manifests}


def test_no_image_of_the_walk_is_named_by_a_tag_that_moves():
    texts = [path.read_text() for path in FOLDER.rglob("*") if path.is_file()]
    assert [text for text in texts if ":latest" in text] == []
    bases = re.findall(r"^FROM (?:--platform=\S+ )?(\S+)", (FOLDER / "image" / "Dockerfile").read_text(), re.MULTILINE)
    assert len(set(bases)) == 1
    assert re.search(r":\d+\.\d+\.\d+$", bases[0])


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)[^)]*\)", WALK))))
def test_a_link_of_the_walk_leads_somewhere(target):
    if not target.startswith("https://"):
        assert (FOLDER / target).exists()


def test_the_makefiles_targets_that_the_walk_names_are_there():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"\bmake ([a-z-]+)\b", WALK)) - {"-image"}:
        assert re.search(rf"^{target}\b.*:", makefile, re.MULTILINE), target


def pod_start_seconds(path: Path, given: dict | None, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the script beside a kubectl that knows one pod, or none."""
    known = json.dumps(given) if given else ""
    return called(path, "pod-start-seconds", *(arguments or ("web",)), programs={"kubectl": KUBECTL}, POD=known)


def make_image(path: Path, *arguments: str, builders: list[str] | None = None, **environment: str) -> list[str]:
    """Returns how the builder was called: its path, whether BuildKit was asked for, and its arguments."""
    programs = dict.fromkeys(builders or ["docker"], DOCKER)
    ran = called(path, "make-image", *arguments, programs=programs, **environment)
    assert (ran.returncode, ran.stderr) == (0, "")
    return (path / "calls").read_text().splitlines()


def called(
    path: Path, script: str, *arguments: str, programs: dict[str, str] | None = None, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a script with nothing on its PATH but what every system has, and programs of its own."""
    shutil.rmtree(path / "bin", ignore_errors=True)
    (path / "bin").mkdir()
    for program in ("sh", "awk", "date", "dirname", "cat"):
        (path / "bin" / program).symlink_to(shutil.which(program))
    for program, text in (programs or {}).items():
        (path / "bin" / program).write_text(text)
        (path / "bin" / program).chmod(0o755)
    environment = {"PATH": str(path / "bin"), "CALLS": str(path / "calls"), **environment}
    return subprocess.run(
        [FOLDER / script, *arguments], env=environment, check=False, capture_output=True, text=True, timeout=30
    )
