"""A request that is no job, or names what is no image, is refused with its field and what is accepted."""

import json

import contract
import pytest
from jobs import Jobs
from settling import DIGEST
from uploaded import Uploaded

from local import images

from .rules import RULES

HOSTILE = [
    "team/app:v1; rm -rf /",
    "team/app:$(reboot)",
    "team/app:`id`",
    "team/app:v1\nteam/app:v2",
    "team/app:v1'",
    'team/app:v1"',
    "team/app:v1 team/app:v2",
    "../team/app:v1",
    "team/../app:v1",
    "Team/App:v1",
    "team//app:v1",
    "team/app:v1\u0000",
    "team/\u0430pp:v1",
    "-team/app:v1",
    "team/app",
    "team/app:",
    "team/app@sha256:short",
    f"team/app@{DIGEST}0",
    "docker.io/library/nginx:1",  # of a repository that no rule takes
    "999999999999.dkr.ecr.eu-central-1.amazonaws.com/other/app:v1",
    "localhost:5000/team/app:v1",
    "169.254.169.254/team/app:v1",
    "https://team/app:v1",
    "",
    "x" * 513,
]
WRONG = [
    ([], None),
    ("images", None),
    ({}, "images"),
    ({"images": []}, "images"),
    ({"images": "team/app:v1"}, "images"),
    ({"images": ["team/app:v1"] * 101}, "images"),
    ({"images": [1]}, "images[0]"),
    ({"rule": "nobody"}, "rule"),
    ({"rule": "Gpu!"}, "rule"),
    ({"rule": 1}, "rule"),
    ({"rule": "default", "dryRun": "yes"}, "dryRun"),
    ({"rule": "default", "color": "red"}, "color"),
    ({"rule": "default", "nodes": {}}, "nodes"),
    ({"rule": "default", "nodes": []}, "nodes"),
    ({"rule": "default", "nodes": {"tags": {}}}, "nodes.tags"),
    ({"rule": "default", "nodes": {"tags": {f"t{n}": ["x"] for n in range(5)}}}, "nodes.tags"),
    ({"rule": "default", "nodes": {"ids": []}}, "nodes.ids"),
]


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: json.dumps(name)[:40])
def test_a_hostile_or_foreign_image_is_refused(jobs, app, name):
    before = len(jobs.commands("job"))
    assert jobs.refused({"images": ["team/app:v1", name]}, "images[1]")["accepted"]
    assert len(jobs.commands("job")) == before


def test_an_image_that_is_not_there_or_that_no_node_can_run_is_refused(cloud, jobs):
    jobs.push("team/chart", "v1", images.chart())
    for name in ("team/app:nobody", f"team/app@{DIGEST}", f"team/nobody@{DIGEST}0", "team/chart:v1"):
        jobs.refused({"images": [name]}, "images[0]")
    before = len(jobs.commands("job"))
    # Docker Hub may have it, and no node is there to tell; nor of another account's or Region's.
    for name in (
        "team/nobody:v1",
        "999999999999.dkr.ecr.eu-central-1.amazonaws.com/team/app:v1",
        "123456789012.dkr.ecr.us-east-1.amazonaws.com/team/app:v1",
    ):
        problem = jobs.submit(503, images=["team/app:v1", name])
        assert "name the image by its digest" in problem["detail"]
    assert len(jobs.commands("job")) == before


def test_images_outside_the_rules_repositories_are_refused_unless_the_stack_allows_them(cloud, jobs):
    stranger = jobs.push("other/app")
    assert "team/*" in jobs.refused({"images": ["other/app:v1"]}, "images[0]")["accepted"]
    jobs.refused({"images": ["other/app:v1"], "rule": "default"}, "images[0]")
    jobs.refused({"images": ["team/app:v1"], "rule": "gpu"}, "images[0]")
    stack = Uploaded(cloud, name="any")
    stack.deploy(ClusterName="jobs", Rules=json.dumps(RULES), AllowAnyRepository="true")
    open_to_any = Jobs(cloud, stack)
    open_to_any.refused({"images": ["other/app:v1"]}, "images[0]")
    [sent] = open_to_any.submit(images=["other/app:v1"], rule="default")["jobs"]
    assert sent["images"] == [stranger]
    stack.delete()


@pytest.mark.parametrize(("body", "field"), WRONG, ids=lambda value: json.dumps(value)[:40])
def test_what_is_no_job_is_refused_with_the_field_and_what_is_accepted(jobs, body, field):
    problem = jobs.post("/jobs", body, 400)
    told = [error["field"] for error in problem.get("errors", [])]
    assert told[:1] == ([field] if field else []) or (field and told[0].startswith(field))


@pytest.mark.parametrize(
    ("body", "type_", "status"),
    [
        (b"{", "application/json", 400),
        (b'{"rule": "default", "rule": "gpu"}', "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        (b"[" * 30_000, "application/json", 400),
        (b"", "application/json", 400),
        (b'{"rule": "default"}', "text/plain", 415),
        (b"rule=default", "application/x-www-form-urlencoded", 415),
        (b'{"images": ["' + b"x" * (64 << 10) + b'"]}', "application/json", 413),
    ],
    ids=["cut", "a key twice", "no text", "deep", "empty", "text", "form", "65 KiB"],
)
@pytest.mark.parametrize("path", ["/jobs", "/jobs/schedule"])
def test_what_is_no_json_or_too_large_is_refused(jobs, path, body, type_, status):
    assert jobs.send("POST", path, body, status, content_type=type_)["detail"]


def test_a_body_of_ten_megabytes_reaches_no_function(cloud, jobs):
    answer = jobs.api.send("POST", "/jobs", b" " * (10 << 20) + b"{}", {"content-type": "application/json"})
    contract.check("POST", "/jobs", answer)
    assert (answer.status, answer.json()) == (413, {"message": "Request Entity Too Large"})
