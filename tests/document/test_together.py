"""What is asked, and named, for several images at once: that it is, and what becomes of an image where it fails."""

import json

import pytest

from local import images
from local.front import Front
from local.node import Node
from local.registry import Registry

from .command import HOST, Result, begin, changed, run, with_stand_in
from .nodes import CTR
from .state import (
    OTHER_ARCHITECTURE,
    OWN_ARCHITECTURE,
    by_digest,
    by_tag,
    eventually,
    image_id,
    labels,
    names,
    node_finds,
    tags,
    wait_for_file,
)
from .test_keep import OURS

OWN = {"architecture": OWN_ARCHITECTURE}
WITHOUT_SINGLE_QUESTIONS = changed("\nask_registry() {", "\nask_registry() { return 1;")
ON_ONE_CONTAINERD = pytest.mark.parametrize("containerd", ["2.1"])
# What asks containerd for everything but to name and to label.
ONLY_LOOKS = """case " $* " in *" tag "* | *" label "*) exit 1 ;; esac; exec /usr/bin/ctr "$@" """


@pytest.mark.parametrize("kind", ["manifest", "docker manifest", "index", "docker list"])
def test_images_are_named_and_labelled_without_a_ctr_for_each(node: Node, pushed, kind: str) -> None:
    singles = [images.image(f"{kind} {number}", docker="docker" in kind, **OWN) for number in range(10)]
    pushes = singles if "manifest" in kind else [images.index([one], docker="docker" in kind) for one in singles]
    references = [pushed(f"team/app{number}", "v1", image) for number, image in enumerate(pushes)]

    result = run(node, *references, env={"PATH": with_stand_in(node, "ctr", ONLY_LOOKS)})

    assert (result.outcomes(), result.stderr) == ([("pulled", "")] * 10, "")
    for reference, single in zip(references, singles, strict=True):
        assert node_finds(node, by_tag(reference)) == node_finds(node, by_digest(reference)) == image_id(single)
        ours = [labels(node, name) for name in (by_tag(reference), by_digest(reference))]
        assert ours[0] == ours[1] and ours[0].keys() == {OURS, "io.cri-containerd.image"}
    listed = node.shell(f"{CTR} images ls").splitlines()[1:]
    kinds = {tuple(line.split()[1:5]) for line in listed if line.startswith(by_tag(references[0]))}
    assert kinds == {tuple(line.split()[1:5]) for line in listed if line.startswith(by_digest(references[0]))}
    assert run(node, *references).outcomes() == [("cached", "")] * 10


def test_what_containerd_refuses_together_is_asked_by_ctr(node: Node, pushed) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}", **OWN)) for number in range(3)]
    script = changed("services.images.v1.Images/$2", "services.images.v1.Nothing/$2")

    assert run(node, *references, script=script).outcomes() == [("pulled", "")] * 3
    for reference in references:
        assert OURS in labels(node, by_tag(reference)) and OURS in labels(node, by_digest(reference))


def test_a_label_of_somebody_elses_stays(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("labelled", **OWN))
    script = changed(
        "\nbegin_claim() {", f"\nbegin_claim() {{ ctr -n k8s.io images label {by_digest(reference)} x=y >&2;"
    )

    assert run(node, reference, script=script).outcomes() == [("pulled", "")]
    assert labels(node, by_digest(reference)).keys() == {OURS, "io.cri-containerd.image", "x"}


@pytest.mark.parametrize("of_kubelet", ["the same image", "another image"])
def test_a_tag_that_kubelet_gives_before_ours_is_left_alone(node: Node, pushed, of_kubelet: str) -> None:
    image, other = images.image("ours", **OWN), images.image("theirs", **OWN)
    reference = pushed("team/app", "v1", image)
    wait = ">/run/claiming; until [[ -e /run/pulled ]]; do sleep 0.1; done;"
    command = begin(node, reference, script=changed("\nbegin_claim() {", f"\nbegin_claim() {{ {wait}"))
    wait_for_file(node, "/run/claiming")
    if of_kubelet == "another image":
        pushed("team/app", "v1", other)
    node.kubelet_pulls(by_tag(reference))
    node.shell("touch /run/pulled")

    result = Result(command.wait(60))

    node.shell("rm /run/pulled /run/claiming")
    assert result.outcomes() == [("pulled", "" if of_kubelet == "the same image" else "tag-moved")]
    assert OURS not in labels(node, by_tag(reference))
    theirs = image if of_kubelet == "the same image" else other
    assert by_tag(reference) in names(node, theirs)


@ON_ONE_CONTAINERD
def test_manifests_are_read_from_one_answer_for_all(node: Node, pushed, registry: Registry) -> None:
    references = [
        pushed("team/foreign", "v1", images.image("foreign", architecture=OTHER_ARCHITECTURE)),
        pushed("team/foreign-index", "v1", images.index([images.image("foreign 2", architecture=OTHER_ARCHITECTURE)])),
        pushed("team/chart", "v1", images.chart("hello")),
        pushed("team/app", "v1", images.image("app", **OWN)),
        pushed("team/app-index", "v1", images.multi_platform("app 2")),
    ]

    result = run(node, *references, script=WITHOUT_SINGLE_QUESTIONS)

    outcomes = [(result.of(reference)["status"], result.of(reference)["reason"]) for reference in references]
    assert outcomes == [("skipped", "platform")] * 3 + [("pulled", "")] * 2
    assert not [
        request
        for request in registry.requests("team/foreign-index")
        if request.startswith("GET /v2/team/foreign-index/blobs")
    ]
    assert all(result.of(reference)["bytes"] > 0 for reference in references[3:])


@ON_ONE_CONTAINERD
def test_what_cannot_be_asked_together_is_asked_for_each(node: Node, pushed) -> None:
    references = [
        pushed("team/foreign", "v1", images.image("foreign", architecture=OTHER_ARCHITECTURE)),
        pushed("team/app", "v1", images.image("app", **OWN)),
    ]
    script = changed("\nask_together() {", "\nask_together() { return 0;")

    result = run(node, *references, script=script)

    assert (result.of(references[0])["status"], result.of(references[1])["status"]) == ("skipped", "pulled")
    assert result.of(references[1])["bytes"] > 0


def test_a_tag_that_two_images_claim_stands_for_the_registrys(node: Node, pushed) -> None:
    old, new = images.image("old", **OWN), images.image("new", **OWN)
    references = [pushed("team/app", "latest", image) for image in (old, new)]

    for order in (references, references[::-1]):
        assert run(node, *order).statuses() in (["pulled", "pulled"], ["cached", "pulled"])
        assert tags(node, references[1]) == new.digest
        for name in node.images():
            node.shell(f"{CTR} images rm --sync {name}")


@ON_ONE_CONTAINERD
def test_a_tag_that_cannot_be_settled_is_told_with_its_cause(fronted: Node, front: Front, pushed) -> None:
    old, new = images.image("old", **OWN), images.image("new", **OWN)
    reference = pushed("team/app", "latest", old)
    wait = ">/run/claiming; until [[ -e /run/pulled ]]; do sleep 0.1; done;"
    command = begin(fronted, reference, script=changed("\nbegin_claim() {", f"\nbegin_claim() {{ {wait}"))
    wait_for_file(fronted, "/run/claiming")
    pushed("team/app", "latest", new)
    fronted.kubelet_pulls(by_tag(reference))
    front.refusals = lambda path: 503 if path.endswith("/manifests/latest") else None
    fronted.shell("touch /run/pulled")

    result = Result(command.wait(60))

    fronted.shell("rm /run/pulled /run/claiming")
    assert result.outcomes() == [("failed", "interrupted")]
    assert "attempt 1: registry" in result.stderr and "503" in result.stderr
    assert tags(fronted, reference) == new.digest


def test_a_tag_that_kubelet_moves_while_we_pull_is_told(node: Node, pushed) -> None:
    old, new = images.image("old", **OWN), images.image("new", **OWN)
    reference = pushed("team/app", "latest", old)
    script = changed("\npull() {", "\npull() { >/run/pulling; while [[ -e /run/pulling ]]; do sleep 0.1; done;")
    command = begin(node, reference, script=script)
    wait_for_file(node, "/run/pulling")
    pushed("team/app", "latest", new)
    node.kubelet_pulls(by_tag(reference))
    node.shell("rm /run/pulling")

    assert Result(command.wait(60)).outcomes() == [("pulled", "tag-moved")]
    assert tags(node, reference) == new.digest
    assert run(node, reference).outcomes() == [("cached", "tag-moved")]


@ON_ONE_CONTAINERD
@pytest.mark.parametrize("how", ["a round sum", "more than bash counts"])
def test_a_size_beyond_all_disks_is_skipped_and_harms_no_other_image(
    fronted: Node, front: Front, pushed, how: str
) -> None:
    single = images.image("huge", **OWN)
    body = json.loads(single.manifest)
    body["layers"] = [{**body["layers"][0], "size": 5 * 10**14 if how == "a round sum" else 7 * 10**12}] * 5_000
    if how == "a round sum":
        body["layers"] = body["layers"][:100]
    digest = front.offer("team/huge", "v1", single.media_type, images.as_json(body))
    good = [pushed(f"team/app{number}", "v1", images.image(f"{number}", **OWN)) for number in range(2)]

    result = run(fronted, good[0], f"{HOST}/team/huge:v1@{digest}", good[1])

    assert [result.of(reference)["status"] for reference in good] == ["pulled"] * 2
    assert len(result.reports) == 3
    if how != "a round sum":
        assert ("skipped", "no-space") in result.outcomes()


@ON_ONE_CONTAINERD
@pytest.mark.parametrize(
    "text", ["\n" * (3 << 20), "[" * 100_000, " " * (1 << 20) + "{}"], ids=["lines", "depth", "blanks"]
)
def test_a_document_that_is_hard_to_read_holds_nothing_up(fronted: Node, front: Front, pushed, text: str) -> None:
    digest = front.offer("team/odd", "v1", f"{images.OCI}.manifest.v1+json", text.encode())
    good = pushed("team/app", "v1", images.image("app", **OWN))
    odd = f"{HOST}/team/odd:v1@{digest}"

    result = run(fronted, odd, good)

    assert result.of(good)["status"] == "pulled"
    assert result.of(odd)["status"] in ("skipped", "failed")
    assert result.of(good)["seconds"] < 10


@ON_ONE_CONTAINERD
@pytest.mark.parametrize("pretty", ["single", "index"])
def test_a_manifest_with_lines_and_indentation_is_read(fronted: Node, front: Front, pushed, pretty: str) -> None:
    single = images.image("pretty", **OWN)
    pushed("team/app", "v1", images.index([single]))
    document = single if pretty == "single" else images.index([single])
    digest = front.offer(
        "team/app", "v2", document.media_type, json.dumps(json.loads(document.manifest), indent=3).encode()
    )

    result = run(fronted, f"{HOST}/team/app:v2@{digest}", script=WITHOUT_SINGLE_QUESTIONS)

    assert result.outcomes() == [("pulled", "")]
    assert result.only()["bytes"] > 0


@ON_ONE_CONTAINERD
def test_a_jq_that_hangs_is_reported_before_ssm_ends_the_command(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", **OWN))

    result = run(node, reference, limit=10, env={"PATH": with_stand_in(node, "jq", "exec sleep 60")})

    assert (result.exit_code, result.statuses()) == (1, ["failed"])
    assert result.seconds < 10


@ON_ONE_CONTAINERD
def test_a_worker_that_is_killed_leaves_no_pull_behind(fronted: Node, front: Front, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", layer_bytes=1 << 20, **OWN))
    front.hold()
    command = begin(fronted, reference, limit=10)
    assert eventually(lambda: len(front.being_pulled()), 1)
    fronted.shell("kill -9 $(ps -o ppid= -C curl)")

    result = Result(command.wait(10))

    assert result.outcomes() == [("failed", "interrupted")]
    assert eventually(lambda: "curl" in fronted.processes().values(), False, seconds=12)
    front.release()


@ON_ONE_CONTAINERD
def test_an_answer_that_is_not_what_was_asked_for_tells_nothing(fronted: Node, front: Front, pushed) -> None:
    image = images.image("app", **OWN)
    reference = pushed("team/app", "v1", image)
    foreign = images.image("foreign", architecture=OTHER_ARCHITECTURE)
    front.offer("team/app", image.digest, foreign.media_type, foreign.manifest)

    result = run(fronted, reference)

    assert result.only()["status"] == "failed", "containerd takes no other content for the digest"
    assert fronted.images() == {}


@ON_ONE_CONTAINERD
@pytest.mark.parametrize("answers", [2, 3])
def test_a_jq_that_dies_at_a_document_silences_nothing(node: Node, pushed, answers: int) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}", **OWN)) for number in range(3)]
    jq = f'case "$*" in *--unbuffered*) sed -u {answers}q | /usr/bin/jq "$@" ;; *) exec /usr/bin/jq "$@" ;; esac'

    result = run(node, *references, env={"PATH": with_stand_in(node, "jq", jq)})

    assert (result.exit_code, result.outcomes()) == (0, [("pulled", "")] * 3)


@ON_ONE_CONTAINERD
def test_a_node_without_a_jq_that_works_is_told(node: Node, pushed) -> None:
    reference = pushed("team/app", "v1", images.image("app", **OWN))

    result = run(node, reference, env={"PATH": with_stand_in(node, "jq", "exit 1")})

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "denied")]), "it gets no login"


@ON_ONE_CONTAINERD
@pytest.mark.parametrize("function", ["ask_together", "begin_claim", "pull"])
def test_no_image_is_untold_where_the_script_is_at_fault(node: Node, pushed, function: str) -> None:
    references = [pushed(f"team/app{number}", "v1", images.image(f"{number}", **OWN)) for number in range(3)]
    script = changed(f"\n{function}() {{", f'\n{function}() {{ : "$no_such_variable";')

    result = run(node, *references, script=script)

    assert (result.exit_code, result.outcomes()) == (1, [("failed", "interrupted")] * 3)
    assert "no_such_variable" in result.stderr


@ON_ONE_CONTAINERD
def test_images_of_several_registries_are_pulled_with_one_at_a_time(node: Node, pushed, registry: Registry) -> None:
    first = pushed("team/app", "v1", images.image("first", **OWN))
    second = first.replace(HOST, "123456789012.dkr.ecr.us-east-1.amazonaws.com")

    result = run(node, second, first, second, maxParallelImagePulls=1)

    assert result.of(first)["status"] == "pulled"
    assert len(result.reports) == 3
