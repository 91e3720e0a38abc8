"""One node tells which digests tags stand for, as its registries, mirrors and logins have it, and changes nothing."""

import json
import re
import signal
import time
from pathlib import Path

import pytest

from local import images
from local.ecr.front import Front
from local.ecr.registry import Registry
from local.images import OCI, Artifact
from local.nodes.node import Node

from .command import A_DIGEST, HOST, run
from .nodes import CTR, a_password, free_address, running
from .state import OTHER_ARCHITECTURE, OWN_ARCHITECTURE, eventually, wait_for_file
from .tags import PARAMETERS, Resolved, begin, resolve, substituted

TAG = f"{HOST}/team/app:v1"
PRIVATE = "images.example.com"
HUB = "registry-1.docker.io"
SETTINGS = f"/etc/containerd/certs.d/{HOST}"
EMPTY = ("application/vnd.oci.empty.v1+json", b"{}")
MODEL = images.manifest(
    f"{OCI}.manifest.v1+json",
    ("application/vnd.cncf.model.config.v1+json", b"{}"),
    [("application/vnd.cncf.model.weight.v1.tar", images.archive({"weights": b"1"}))],
)
ARTIFACTS = {
    "a chart": images.chart(),
    "a signature": images.signature(images.image("subject")),
    "an attestation": images.attestation(images.image("subject")),
    "a model in a format of its own": MODEL,
    "files without a configuration": images.manifest(f"{OCI}.manifest.v1+json", EMPTY, [("text/plain", b"data")]),
    "an index of charts": images.index([images.chart("one"), images.chart("two")]),
    "an empty index": images.index([]),
}
HOSTILE = [
    "",
    " ",
    f"{TAG} ",
    f" {TAG}",
    f"{TAG}  {TAG}",
    f"{TAG}\n",
    f"{TAG}\ntouch /run/harmed",
    f"{TAG};touch /run/harmed",
    f"'; touch /run/harmed; '{TAG}",
    f"$(touch /run/harmed) {TAG}",
    f"{HOST}/`touch /run/harmed`:v1",
    f"{HOST}/a$(touch$IFS/run/harmed):v1",
    f"-{TAG}",
    f"{HOST}/team/app",
    f"{HOST}/team/app:",
    f"{HOST}/team/app:-v1",
    f"{HOST}/Team/app:v1",
    f"{TAG}@{A_DIGEST}",
    f"{HOST}/team/app@{A_DIGEST}",
    f"{HOST}/app:{'t' * 129}",
    f"{HOST}:123456/app:v1",
    "library/nginx:v1",
    "nginx:v1",
    "localhost/app:v1",
    " ".join([TAG] * 11),
    "a" * 10_000,
    "{{ tags }}",
]
# What the document's pattern cannot see, but the program does.
UNUSABLE = [f"{HOST}/{'a' * 256}:v1", f"{HOST}/team/..app:v1", f"{'a' * 260}.example/app:v1"]


def test_tags_of_indexes_and_manifests_of_whatever_platform_are_told_in_their_order(node: Node, pushed) -> None:
    single = images.image("single", architecture=OWN_ARCHITECTURE)
    artifacts = {
        "index": images.multi_platform("index"),
        "list": images.index([images.image("list", architecture=OWN_ARCHITECTURE)], docker=True),
        "single": single,
        "foreign": images.image("foreign", architecture=OTHER_ARCHITECTURE),
        "attested": images.index([images.attestation(single), single]),
        "nested": images.index([images.index([single])]),
    }
    tags = [pushed(f"team/{name}", "v1", artifact).partition("@")[0] for name, artifact in artifacts.items()]

    result = resolve(node, *tags, tags[0])

    assert (result.exit_code, result.tags) == (0, [*tags, tags[0]]), result.stderr
    assert result.answers() == [artifact.digest for artifact in [*artifacts.values(), artifacts["index"]]]
    assert result.stderr == ""


def test_what_is_resolved_is_what_the_other_document_pulls(node: Node, pushed) -> None:
    pushed("team/app", "v1", images.multi_platform("moved"))
    image = images.multi_platform("now")
    pushed("team/app", "v1", image)

    [digest] = resolve(node, TAG).answers()

    assert digest == image.digest
    assert run(node, f"{TAG}@{digest}").outcomes() == [("pulled", "")]


def test_nothing_on_the_node_is_new_afterwards(node: Node, pushed) -> None:
    pushed("team/app", "v1", images.multi_platform("looked at"))
    pushed("team/chart", "v1", images.chart())
    resolve(node)  # the program is there now
    before = state(node)

    result = resolve(node, TAG, f"{HOST}/team/chart:v1", f"{HOST}/team/none:v1")

    assert (result.exit_code, len(result.lines)) == (1, 3)
    assert state(node) == before
    assert "/run/prefetch-images" not in str(before)


def test_it_waits_for_no_pull(node: Node, pushed) -> None:
    pushed("team/app", "v1", images.image("app"))
    holder = node.begin("mkdir -p /run/prefetch-images; flock /run/prefetch-images/lock sleep 30", {})
    wait_for_file(node, "/run/prefetch-images/lock")

    assert resolve(node, TAG, limit=8).exit_code == 0
    holder.kill()


@pytest.mark.parametrize("registry_of", [HOST, "docker.io"])
def test_a_mirror_is_asked_and_the_registry_is_not(
    tmp_path: Path, containerd: str, registry: Registry, registry_of: str
) -> None:
    mirror = Registry(tmp_path / "mirror", free_address(), ["mirror.example"], "", anonymous=True)
    mirror.start()
    image = images.multi_platform("mirrored")
    images.push(mirror.url, mirror.ca, "", "library/app", "v1", image)
    node = Node(tmp_path / "node", "node", registry, containerd, neighbours=[mirror], mirrors={registry_of: mirror})
    with running(node):
        result = resolve(node, f"{registry_of}/library/app:v1")

    assert (result.exit_code, result.answers()) == (0, [image.digest]), result.messages
    assert len(mirror.requests("library/app")) > 0
    assert registry.requests("library/app") == []
    mirror.stop()


def test_what_a_mirror_lacks_is_asked_of_the_registry_and_its_settings_are_read_at_each_command(
    tmp_path: Path, containerd: str, registry: Registry, pushed
) -> None:
    mirror = Registry(tmp_path / "mirror", free_address(), ["mirror.example"], "", anonymous=True)
    mirror.start()
    image = images.image("original")
    pushed("team/app", "v1", image)
    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[mirror])) as node:
        assert resolve(node, TAG).answers() == [image.digest]
        assert mirror.requests("team/app") == []
        node.shell(f"mkdir -p {SETTINGS} && echo '[host.\"https://mirror.example\"]' >{SETTINGS}/hosts.toml")

        assert resolve(node, TAG).answers() == [image.digest]

    assert len(mirror.requests("team/app")) > 0
    mirror.stop()


def test_docker_hub_is_asked_where_it_is(tmp_path: Path, containerd: str, registry: Registry) -> None:
    hub = Registry(tmp_path / "hub", free_address(), [HUB], "", anonymous=True)
    hub.start()
    image = images.multi_platform("hub")
    images.push(hub.url, hub.ca, "", "library/nginx", "1.27", image)
    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[hub])) as node:
        result = resolve(node, "docker.io/library/nginx:1.27")
    hub.stop()

    assert result.answers() == [image.digest], result.messages


def test_each_registry_gets_the_login_that_kubelet_would_give_it(
    tmp_path: Path, containerd: str, registry: Registry, pushed
) -> None:
    password = "pa$$ 'w%s`rd` \u00fc {}"
    private = Registry(tmp_path / "private", free_address(), [PRIVATE], password, user="robot")
    private.start()
    ours, theirs = images.image("ours"), images.image("theirs")
    images.push(private.url, private.ca, password, "team/app", "v1", theirs, user="robot")
    pushed("team/app", "v1", ours)
    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[private])) as node:
        result = resolve(node, f"{PRIVATE}/team/app:v1", TAG)
        private.stop()
        apart = resolve(node, f"{PRIVATE}/team/app:v1", TAG)

    assert (result.exit_code, result.answers()) == (0, [theirs.digest, ours.digest]), result.messages
    assert (apart.exit_code, apart.answers()) == (1, ["registry", ours.digest]), "one that is down, and the other"
    assert PRIVATE in apart.messages
    assert password not in result.stdout + result.stderr + apart.stdout + apart.stderr


def test_a_tag_that_is_not_there_is_not_found_and_a_wrong_login_is_denied(node: Node, pushed) -> None:
    pushed("team/app", "v1", images.image("app"))

    missing = resolve(node, f"{HOST}/team/app:v2", f"{HOST}/team/none:v1")
    node.set_password("wrong")
    refused = resolve(node, TAG)

    assert (missing.exit_code, missing.answers()) == (1, ["not-found", "not-found"])
    assert f"{HOST} has no tag v2 in team/app" in missing.messages
    assert (refused.exit_code, refused.answers()) == (1, ["denied"])
    assert refused.seconds < 5, "it is not tried again"


def test_a_login_helper_that_fails_is_asked_again_and_named_where_it_goes_on(
    fronted: Node, front: Front, pushed
) -> None:
    image = images.image("later")
    pushed("team/app", "v1", image)
    (fronted.folder / "password").unlink()
    command = begin(fronted, TAG)
    assert eventually(lambda: any(line.endswith(" 401") for line in front.requests("team/app")))
    fronted.set_password(front.password)

    result = command.wait(60)
    (fronted.folder / "password").unlink()
    in_vain = resolve(fronted, TAG)

    assert json.loads(result.stdout) == {"tag": TAG, "digest": image.digest}
    assert in_vain.answers() == ["denied"]
    assert "ecr-credential-provider gave no login" in in_vain.messages


@pytest.mark.parametrize("kind", ARTIFACTS)
def test_what_no_node_can_run_or_mount_is_refused_and_so_it_is_by_the_pull(node: Node, pushed, kind: str) -> None:
    reference = pushed("team/app", "v1", ARTIFACTS[kind])

    result = resolve(node, TAG)

    assert (result.exit_code, result.answers()) == (1, ["not-an-image"])
    assert "it is no image that a node can run" in result.messages
    pull = run(node, reference)
    assert pull.outcomes() == [("skipped", "platform")]
    assert node.images() == {}


@pytest.mark.parametrize("layer", ["tar", "tar+gzip"])
def test_data_in_the_form_of_an_image_is_resolved_pulled_and_found_by_kubelet(node: Node, pushed, layer: str) -> None:
    data = data_set(layer == "tar+gzip")
    reference = pushed("team/app", "v1", data)

    assert resolve(node, TAG).answers() == [data.digest]
    assert run(node, reference).outcomes() == [("pulled", "")]
    assert eventually(lambda: node.image_status(TAG) is not None)


def test_what_is_no_manifest_is_refused_and_a_page_is_none_of_a_registry(fronted: Node, front: Front) -> None:
    front.offer("team/app", "v1", f"{OCI}.manifest.v1+json", b'"no manifest"')
    odd = resolve(fronted, TAG)
    front.page = b"<html><body>Sign in to go on</body></html>"
    page = resolve(fronted, TAG)

    assert (odd.exit_code, odd.answers()) == (1, ["not-an-image"])
    assert (page.exit_code, page.answers()) == (1, ["registry"])


def test_a_digest_that_is_not_that_of_what_the_registry_has_is_not_told(fronted: Node, front: Front) -> None:
    image = images.image("other", architecture=OWN_ARCHITECTURE)
    front.names_digest = A_DIGEST
    front.offer("team/app", "v1", image.media_type, image.manifest)
    absent = resolve(fronted, TAG)
    front.names_digest = front.offer("team/app", "v2", image.media_type, image.manifest + b" ")
    front.offer("team/app", front.names_digest, image.media_type, image.manifest)
    other = resolve(fronted, f"{HOST}/team/app:v2")

    assert (absent.exit_code, absent.answers()) == (1, ["not-found"])
    assert (other.exit_code, other.answers()) == (1, ["registry"])
    assert "something else than the digest stands for" in other.messages


def test_a_registry_that_is_silent_takes_no_time_from_the_others(
    tmp_path: Path, containerd: str, registry: Registry, pushed
) -> None:
    silent = Registry(tmp_path / "silent", free_address(), [PRIVATE], a_password())
    silent.start()
    image = images.image("quick")
    pushed("team/app", "v1", image)
    with running(Node(tmp_path / "node", "node", registry, containerd, neighbours=[silent])) as node:
        silent.pause(stall=True)
        result = resolve(node, f"{PRIVATE}/team/app:v1", TAG, limit=8)
        silent.resume()
    silent.stop()

    assert (result.exit_code, result.answers()) == (1, ["timeout", image.digest])
    assert result.seconds < 8


def test_a_command_that_is_ended_says_so_of_what_it_had_not_resolved(fronted: Node, front: Front, pushed) -> None:
    app, web = images.image("app"), images.image("web")
    pushed("team/app", "v1", app)
    pushed("team/web", "v1", web)
    front.keeps_back = lambda path: "team/app" in path
    front.hold()
    command = begin(fronted, TAG, f"{HOST}/team/web:v1")
    assert eventually(lambda: front.is_asked_in_vain() and any(web.digest in line for line in front.requests()))
    time.sleep(1)  # for what the other one was answered to arrive

    command.signal(signal.SIGTERM)
    result = Resolved(command.wait(10))
    front.release()

    assert (result.exit_code, result.answers()) == (1, ["interrupted", web.digest])


def test_what_an_agent_without_env_var_writes_into_the_text_arrives(node: Node, pushed) -> None:
    image = images.image("old agent")
    pushed("team/app", "v1", image)
    resolve(node)

    assert json.loads(node.run(substituted(TAG), {}, 60).stdout) == {"tag": TAG, "digest": image.digest}


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_tags_are_refused_by_the_document(value: str) -> None:
    assert not re.fullmatch(PARAMETERS["tags"]["allowedPattern"], value)


@pytest.mark.parametrize("name", ["a", "a.b", "a_b", "a__b", "a-b", "a--b", "a.b_c-d/e__f", "0/1"])
def test_every_legal_name_is_accepted(quick_node: Node, name: str) -> None:
    value = f"{HOST}/{name}:_A.z-9"

    assert re.fullmatch(PARAMETERS["tags"]["allowedPattern"], value)
    assert resolve(quick_node, value).answers() == ["not-found"]


def test_ten_tags_with_the_longest_names_are_accepted_and_their_lines_are_within_what_ssm_returns(
    quick_node: Node,
) -> None:
    tags = [f"{HOST}/{'/'.join(['a' * 127, 'b' * 127])}:{number:0128}" for number in range(10)]

    assert re.fullmatch(PARAMETERS["tags"]["allowedPattern"], " ".join(tags))
    result = resolve(quick_node, *tags)
    assert result.answers() == ["not-found"] * 10
    assert len(result.stdout) < 24_000


def test_hostile_tags_are_refused_by_the_program_of_a_caller_who_bypasses_the_document(quick_node: Node) -> None:
    resolve(quick_node)
    before = state(quick_node)
    for value in [*HOSTILE, *UNUSABLE]:
        result = resolve(quick_node, env={"SSM_tags": value})
        assert (result.exit_code, result.stdout) == (2, ""), value[:100]
        assert result.stderr.count("\n") == 1 and len(result.stderr) < 500, value[:100]
    for value in ["", "4", "172801", "1e1", "5$(touch /run/harmed)", "60\ntouch /run/harmed"]:
        result = resolve(quick_node, TAG, env={"SSM_executionTimeout": value})
        assert (result.exit_code, result.stdout) == (2, ""), value
    both = resolve(quick_node, TAG, env={"SSM_images": f"{TAG}@{A_DIGEST}"})
    assert (both.exit_code, both.stdout) == (2, "")

    assert state(quick_node) == before


def data_set(compressed: bool) -> Artifact:
    """Builds data as they are pushed for image volumes: an image of one layer, with the type of an artifact beside."""
    image = images.image("data", architecture=OWN_ARCHITECTURE, compressed=compressed)
    body = {**json.loads(image.manifest), "artifactType": "application/vnd.example.data"}
    return Artifact(image.media_type, images.as_json(body), image.blobs)


def state(node: Node) -> dict[str, list[str]]:
    """Returns all that a command could have changed."""
    files = node.shell("find /run /tmp /etc /var/lib -xdev -not -path '/run/containerd/*' 2>/dev/null || true")
    return {
        "files": sorted(file for file in files.splitlines() if not file.startswith(str(node.folder))),
        **{
            what: sorted(node.shell(f"{CTR} {what}").splitlines())
            for what in ("images ls", "content ls -q", "content active", "snapshots ls", "leases ls")
        },
    }
