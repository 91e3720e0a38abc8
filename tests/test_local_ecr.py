"""The local cloud's ECR answers as AWS's does, wherever the product relies on it."""

import base64
import ssl
import urllib.error
import urllib.request

import pytest
from probe import credentials, refused

from local import images


def test_a_push_is_known_to_ecr_and_raises_its_events(cloud):
    digest = cloud.push("known/app", "v1", images.multi_platform("v1"))
    ecr = cloud.client("ecr")
    [index] = ecr.describe_images(repositoryName="known/app", imageIds=[{"imageTag": "v1"}])["imageDetails"]
    assert (index["imageDigest"], index["imageTags"], index["registryId"]) == (digest, ["v1"], cloud.account)
    assert index["imageManifestMediaType"] == "application/vnd.oci.image.index.v1+json"
    assert "artifactMediaType" not in index
    untagged = ecr.describe_images(repositoryName="known/app", filter={"tagStatus": "UNTAGGED"})["imageDetails"]
    assert {row["artifactMediaType"] for row in untagged} == {"application/vnd.oci.image.config.v1+json"}
    assert index["imageSizeInBytes"] == max(row["imageSizeInBytes"] for row in untagged)

    events = [e for e in cloud.events("ECR Image Action") if e["detail"]["repository-name"] == "known/app"]
    assert [event["detail"]["image-tag"] for event in events] == ["", "", "v1"]
    assert events[-1]["detail"] == {
        "action-type": "PUSH",
        "image-digest": digest,
        "image-tag": "v1",
        "manifest-media-type": "application/vnd.oci.image.index.v1+json",
        "repository-name": "known/app",
        "result": "SUCCESS",
    }
    assert events[0]["detail"]["artifact-media-type"] == "application/vnd.oci.image.config.v1+json"


def test_an_archived_image_is_told_of_only_where_it_is_asked_for_and_restoring_it_is_no_push(cloud):
    ecr = cloud.client("ecr")
    digest = cloud.push("archive/app", "v1", images.image("archived"))
    image = {"repositoryName": "archive/app", "imageId": {"imageTag": "v1"}}
    moved = ecr.update_image_storage_class(**image, targetStorageClass="ARCHIVE")
    assert (moved["imageId"], moved["imageStatus"]) == ({"imageDigest": digest}, "ARCHIVED")
    assert ecr.describe_images(repositoryName="archive/app")["imageDetails"] == []
    with refused("ImageNotFoundException"):
        ecr.describe_images(repositoryName="archive/app", imageIds=[{"imageTag": "v1"}])
    for ids in ({}, {"imageIds": [{"imageTag": "v1"}]}):
        [told] = ecr.describe_images(repositoryName="archive/app", filter={"imageStatus": "ANY"}, **ids)["imageDetails"]
        assert (told["imageDigest"], told["imageStatus"]) == (digest, "ARCHIVED")
    ecr.update_image_storage_class(**image, targetStorageClass="STANDARD")
    [told] = ecr.describe_images(repositoryName="archive/app")["imageDetails"]
    assert told["imageStatus"] == "ACTIVE"
    event = cloud.events("ECR Image Action")[-1]["detail"]
    assert (event["action-type"], event["target-storage-class"]) == ("UPDATE_STORAGE_CLASS", "STANDARD")
    assert not event.keys() & {"image-tag", "manifest-media-type"}


def test_a_tag_moves_to_the_newest_push(cloud):
    old = cloud.push("moving", "latest", images.image("old"))
    new = cloud.push("moving", "latest", images.image("new"))
    tags = {
        row["imageDigest"]: row.get("imageTags")
        for row in cloud.client("ecr").describe_images(repositoryName="moving")["imageDetails"]
    }
    assert tags == {old: None, new: ["latest"]}


def test_images_and_repositories_are_paged(cloud):
    ecr = cloud.client("ecr")
    for n in range(5):
        cloud.push("paged", f"v{n}", images.image(f"page {n}"))
    pages = list(ecr.get_paginator("describe_images").paginate(
        repositoryName="paged", PaginationConfig={"PageSize": 2},
    ))  # fmt: skip
    tags = [row["imageTags"][0] for page in pages for row in page["imageDetails"]]
    assert len(pages) == 3
    assert sorted(tags) == ["v0", "v1", "v2", "v3", "v4"]
    assert tags != sorted(tags)
    repositories = ecr.get_paginator("describe_repositories").paginate(PaginationConfig={"PageSize": 1})
    assert "paged" in [page["repositories"][0]["repositoryName"] for page in repositories]


def test_the_registry_asks_for_the_login_that_ecr_hands_out(cloud):
    [data] = cloud.client("ecr").get_authorization_token()["authorizationData"]
    assert base64.b64decode(data["authorizationToken"]).decode() == f"AWS:{cloud.registry_password}"
    context = ssl.create_default_context(cafile=cloud.registry_ca)
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{cloud.registry_url}/v2/", context=context)


def test_what_ecr_does_not_have_is_an_error(cloud):
    ecr = cloud.client("ecr")
    cloud.push("known", "v1", images.image())
    with refused("ImageNotFoundException"):
        ecr.describe_images(repositoryName="known", imageIds=[{"imageTag": "v2"}])
    with refused("ImageNotFoundException"):  # of several ids one that is missing fails the call
        ecr.describe_images(repositoryName="known", imageIds=[{"imageTag": "v1"}, {"imageTag": "v2"}])
    with refused("InvalidParameterException"):
        ecr.describe_images(repositoryName="known", imageIds=[{"imageTag": "v1"}], maxResults=10)
    with refused("InvalidParameterException"):
        ecr.describe_images(repositoryName="known", nextToken="garbage")
    with refused("RepositoryNotFoundException"):
        ecr.describe_images(repositoryName="unknown")


def test_a_deleted_image_is_gone_and_raises_its_event(cloud):
    ecr = cloud.client("ecr")
    digest = cloud.push("deleted", "v1", images.image())
    ecr.batch_delete_image(repositoryName="deleted", imageIds=[{"imageTag": "v1"}])
    assert ecr.describe_images(repositoryName="deleted")["imageDetails"] == []
    event = cloud.events("ECR Image Action")[-1]
    assert (event["detail"]["action-type"], event["detail"]["image-digest"]) == ("DELETE", digest)


def test_reads_are_allowed_on_the_named_repository_only(cloud, probe_stack):
    cloud.push("allowed", "v1", images.image())
    cloud.push("forbidden", "v1", images.image())
    ecr = cloud.client("ecr", **credentials(cloud, probe_stack["Sender"]))
    assert ecr.describe_images(repositoryName="allowed")["imageDetails"]
    with refused("AccessDeniedException"):
        ecr.describe_images(repositoryName="forbidden")


def test_another_accounts_images_are_told_as_its_own_to_who_may_ask_and_nothing_else_is(cloud, probe_stack):
    digest = cloud.push("allowed", "shared", images.image("shared"))
    of_image = {"repositoryName": "allowed", "imageIds": [{"imageTag": "shared"}]}
    ecr, other = cloud.client("ecr"), {"registryId": cloud.central_account}
    [told] = ecr.describe_images(**other, **of_image)["imageDetails"]
    assert (told["registryId"], told["imageDigest"]) == (cloud.central_account, digest)
    [manifest] = ecr.batch_get_image(**other, **of_image)["images"]
    assert manifest["registryId"] == cloud.central_account
    with refused("AccessDeniedException"):
        ecr.describe_repositories(**other)
    with refused("AccessDeniedException"):
        ecr.describe_images(registryId="310987654321", **of_image)
    # Who may ask this account's repository of that name may not ask another's.
    sender = cloud.client("ecr", **credentials(cloud, probe_stack["Sender"]))
    assert sender.describe_images(**of_image)["imageDetails"]
    with refused("AccessDeniedException"):
        sender.describe_images(**other, **of_image)


def test_the_registry_can_be_taken_down_and_up(cloud):
    cloud.turn_registry(up=False)
    with pytest.raises(OSError, match="refused"):
        cloud.push("down", "v1", images.image())
    cloud.turn_registry(up=True)
    cloud.push("down", "v1", images.image())
