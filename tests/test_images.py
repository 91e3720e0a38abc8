"""Tests what is an image and which are newest, on the deployed stack: versions, caches, signatures, archive, hosts."""

import json

import pytest

from local import images
from local.client import ROOT, until
from local.stack import EVERYTHING, Stack

RULES = [
    {"name": "db", "repositories": ["data/*"], "order": "version", **EVERYTHING},
    {"name": "all", "repositories": ["*", "!data/*"], "tags": ["*", "prod"], **EVERYTHING},
]


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Stack(cloud, name="images")
    stack.deploy(ClusterName="images", Rules=json.dumps(RULES))
    yield stack
    stack.delete()


def test_the_highest_version_is_newest_where_the_rule_says_so_and_a_promoted_one_is_beside_it(cloud, stack):
    for tag in ("5.1.0", "4.9.17"):
        cloud.push("data/db", tag, images.image(f"db {tag}"))
    assert newest(stack, "db") == ["data/db:5.1.0"]
    for tag in ("v1", "v2", "v3"):
        cloud.push("web/shop", tag, images.image(f"shop {tag}"))
    cloud.push("web/shop", "prod", images.image("shop v1"))
    shop = [name for name in newest(stack, "all") if name.startswith("web/shop")]
    assert shop == ["web/shop:v3", "web/shop:prod", "web/shop:v1"]


def test_a_digest_of_many_tags_is_one_image_with_few_names(cloud, stack):
    for k in range(12):
        cloud.push("tools/migrate", f"main-{k:02}", images.image("migrate"))
    assert len([name for name in newest(stack, "all") if name.startswith("tools/migrate")]) == 5


def test_a_build_cache_and_a_signature_are_sent_to_nobody_and_never_newest(cloud, stack):
    digest = cloud.push("ci/app", "v1", images.image("ci app"))
    until(lambda: sent(stack, digest), 60, "the push's command")
    cache = cloud.push("ci/app", "7" * 64, images.image("a cached layer"))
    signature = cloud.push("ci/app", f"signature-{digest.replace(':', '-')}.sig", images.image("a signature"))
    last = cloud.push("ci/other", "v1", images.image("pushed after them"))
    until(lambda: sent(stack, last), 60, "a later push's command")
    assert not sent(stack, cache) and not sent(stack, signature)
    assert [name for name in newest(stack, "all") if name.startswith("ci/app")] == ["ci/app:v1"]


def test_an_image_whose_tag_is_64_hexadecimal_digits_is_sent_and_newest(cloud, stack):
    assets = f"cdk-hnb659fds-container-assets-{cloud.account}-{cloud.region}"
    for repository, layers in (("ci/skaffold", 2), (assets, 1)):
        digest = cloud.push(repository, "8" * 64, images.image(f"an image of {repository}", layers=layers))
        until(lambda digest=digest: sent(stack, digest), 60, "the push's command")
        named = [name for name in newest(stack, "all") if name.startswith(repository)]
        assert named == [f"{repository}:{'8' * 64}"]


def test_a_replicated_chart_is_recognised_although_its_event_has_no_media_types(cloud, stack):
    event = json.loads((ROOT / "events/image-push.chart-replicated.json").read_text())
    chart = images.manifest(
        "application/vnd.oci.image.manifest.v1+json", ("application/vnd.cncf.helm.config.v1+json", b"{}"), []
    )
    detail = {"repository-name": "charts/checkout", "image-tag": "3.1.4"}
    for artifact, decision in ((chart, "ignored"), (images.image("no chart"), "sent")):
        digest = cloud.push("charts/checkout", "3.1.4", artifact)
        event = {**event, "region": cloud.region, "account": cloud.account}
        event["detail"] |= {**detail, "image-digest": digest}
        answer = stack.invoke("ImagePush", event)
        assert answer["decision"] == decision, answer
        assert decision == "sent" or answer["reason"] == "not-an-image"


def test_an_archived_image_is_refused_to_a_job_and_arrives_once_it_is_restored(cloud, stack):
    ecr = cloud.client("ecr")
    digest = cloud.push("rel/suite", "2025.11", images.image("suite"))
    cloud.push("rel/suite", "stable", images.image("suite"))
    commands = len(until(lambda: len(found := sent(stack, digest)) == 2 and found, 60, "both pushes' commands"))
    image = {"repositoryName": "rel/suite", "imageId": {"imageDigest": digest}}
    ecr.update_image_storage_class(**image, targetStorageClass="ARCHIVE")
    answer = stack.invoke("Jobs", {"images": ["rel/suite:2025.11"]})
    [error] = answer["errors"]
    assert error["accepted"] == "an image that can be pulled: it is archived, restore it first"
    assert not [name for name in newest(stack, "all") if name.startswith("rel/suite")]
    ecr.update_image_storage_class(**image, targetStorageClass="STANDARD")
    found = until(lambda: len(found := sent(stack, digest)) > commands and found, 60, "the restored image's command")
    named = [names for names in found if len(names) == 2]
    assert [name.rpartition("/")[2].partition("@")[0] for name in named[0]] == ["suite:2025.11", "suite:stable"]


def test_images_are_named_under_the_endpoint_that_the_stack_is_told(cloud):
    stack = Stack(cloud, name="endpoints")
    stack.deploy(ClusterName="endpoints", Mode="observe", RegistryEndpoint="dualstack-fips", Repositories="hosts/*")
    cloud.push("hosts/app", "v1", images.image("hosts"))
    host = f"{cloud.account}.dkr-ecr-fips.{cloud.region}.on.aws"
    answer = stack.invoke("Jobs", {"rule": "default", "dryRun": True})
    assert answer["jobs"][0]["images"][0].startswith(f"{host}/hosts/app:v1@")
    standard = f"{cloud.account}.dkr.ecr.{cloud.region}.amazonaws.com/hosts/app:v1"
    answer = stack.invoke("Jobs", {"images": [standard], "dryRun": True})
    assert answer["images"][0]["image"].startswith(f"{host}/hosts/app:v1@")
    stack.delete()


def newest(stack: Stack, rule: str) -> list[str]:
    """Returns the rule's newest images as repository and tag."""
    answer = stack.invoke("Jobs", {"rule": rule, "dryRun": True})
    names = [image for job in answer["jobs"] for image in job["images"]]
    return [name.partition("/")[2].partition("@")[0] for name in names]


def sent(stack: Stack, digest: str) -> list[list[str]]:
    """Returns the images of each push's command of the stack that names a digest."""
    own = [command for command in stack.commands("push") if command["DocumentName"] == f"{stack.name}-prefetch-images"]
    commands = [command["Parameters"]["images"][0].split(" ") for command in own]
    return [names for names in commands if any(name.endswith(f"@{digest}") for name in names)]
