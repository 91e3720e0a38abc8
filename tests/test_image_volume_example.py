"""The example of data that a pod mounts: the rule brings the very image, to the nodes on which the pod runs."""

import fnmatch
import json
import re

import yaml

from local.client import ROOT

FOLDER = ROOT / "examples" / "image-volume"
PAGE = (FOLDER / "README.md").read_text()
POD = yaml.safe_load((FOLDER / "pod.yaml").read_text())["spec"]
[RULE] = json.loads(re.search(r"^```json\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)[1])
[VOLUME] = POD["volumes"]


def test_the_pod_mounts_the_image_that_is_pushed_and_that_the_rule_keeps():
    reference = VOLUME["image"]["reference"]
    registry, _, name = reference.partition("/")
    assert registry == "REGISTRY" and f'docker push "$REGISTRY/{name}"' in PAGE
    repository, _, tag = name.partition(":")
    assert any(fnmatch.fnmatch(repository, glob) for glob in RULE["repositories"]) and tag
    assert RULE["keep"] >= 1 and RULE["pin"]


def test_the_pod_runs_where_the_rule_brings_it_reads_only_and_asks_no_registry():
    assert {key: [value] for key, value in POD["nodeSelector"].items()} == RULE["nodes"]
    [container] = POD["containers"]
    assert container["volumeMounts"] == [{"name": VOLUME["name"], "mountPath": "/models", "readOnly": True}]
    assert VOLUME["image"]["pullPolicy"] == "IfNotPresent"


def test_the_image_has_the_folder_that_the_pod_lists():
    [copied] = re.findall(r"^COPY (\S+) (\S+)$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE)
    assert (FOLDER / copied[0]).is_dir()
    assert f"/models{copied[1]}" in " ".join(POD["containers"][0]["command"])
