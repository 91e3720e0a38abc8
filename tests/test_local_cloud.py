"""The local cloud answers as AWS does, wherever the product relies on it."""

import base64
import contextlib
import json
import signal
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from botocore.config import Config
from probe import CONTENT, credentials, delete, deploy, invoke, probe, received, refused

from local import images
from local.client import ROOT, LocalCloud, until

# ── Documents ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"schemaVersion": "0.3"}, "InvalidDocumentSchemaVersion"),
        ({"mainSteps": []}, "InvalidDocumentContent"),
        ({"mainSteps": [{"action": "aws:runShellScrip", "name": "x", "inputs": {}}]}, "InvalidDocumentContent"),
        ({"parameters": {"word": {"type": "Text"}}}, "InvalidDocumentContent"),
        ({"parameters": {}}, "InvalidDocumentContent"),
        (
            {"parameters": {**CONTENT["parameters"], "code": {"type": "String", "allowedPattern": "("}}},
            "InvalidDocumentContent",
        ),
        (
            {
                "parameters": {
                    **CONTENT["parameters"],
                    "code": {"type": "String", "default": "2", "allowedValues": ["0"]},
                }
            },
            "InvalidDocumentContent",
        ),
        ({"description": "x" * 65_536}, "MaxDocumentSizeExceeded"),
    ],
)
def test_a_broken_document_is_refused(ssm, change, code):
    with refused(code):
        ssm.create_document(Name="broken", DocumentType="Command", Content=json.dumps({**CONTENT, **change}))


def test_a_document_has_versions_and_a_default_one(ssm):
    ssm.create_document(Name="versioned", DocumentType="Command", Content=json.dumps(CONTENT))
    with refused("DocumentAlreadyExists"):
        ssm.create_document(Name="versioned", DocumentType="Command", Content=json.dumps(CONTENT))
    with refused("DuplicateDocumentContent"):
        ssm.update_document(Name="versioned", Content=json.dumps(CONTENT), DocumentVersion="$LATEST")
    newer = json.dumps({**CONTENT, "description": "newer"})
    ssm.update_document(Name="versioned", Content=newer, DocumentVersion="$LATEST")
    described = ssm.describe_document(Name="versioned")["Document"]
    assert (described["DefaultVersion"], described["LatestVersion"]) == ("1", "2")
    assert ssm.get_document(Name="versioned", DocumentVersion="$LATEST")["Content"] == newer
    ssm.update_document_default_version(Name="versioned", DocumentVersion="2")
    assert ssm.describe_document(Name="versioned")["Document"]["DocumentVersion"] == "2"
    with refused("InvalidDocumentVersion"):
        ssm.get_document(Name="versioned", DocumentVersion="3")
    ssm.delete_document(Name="versioned")
    with refused("InvalidDocument"):
        ssm.describe_document(Name="versioned")


# ── SendCommand ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        ({"DocumentName": "no-such-document"}, "InvalidDocument"),
        ({"DocumentVersion": "7"}, "InvalidDocumentVersion"),
        ({"Parameters": {"word": ["a"], "extra": ["b"]}}, "InvalidParameters"),
        ({"Parameters": {}}, "InvalidParameters"),
        ({"Parameters": {"word": ["$(reboot)"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["fine\nreboot"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a" * 21]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a", "b"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a"], "code": ["2"]}}, "InvalidParameters"),
        ({"Parameters": {"word": ["a" * 65_000]}}, "MaxDocumentSizeExceeded"),
        ({"Comment": "x" * 101}, "ValidationException"),
        ({"MaxConcurrency": "0"}, "ValidationException"),
        ({"MaxErrors": "101%"}, "ValidationException"),
        ({"TimeoutSeconds": 29}, "ValidationException"),
        ({"InstanceIds": ["i-0000000000000000z0"]}, "ValidationException"),
        ({"InstanceIds": [f"i-{n:017x}" for n in range(51)]}, "ValidationException"),
        ({"InstanceIds": []}, "ValidationException"),
        ({"InstanceIds": ["i-0123456789abcdef0"]}, "InvalidInstanceId"),
        ({"Targets": [{"Key": "InstanceIds", "Values": ["i-0123456789abcdef0"]}]}, "InvalidInstanceId"),
        ({"Targets": [{"Key": f"tag:{n}", "Values": ["x"]} for n in range(6)]}, "ValidationException"),
        ({"Targets": [{"Key": "tag:a", "Values": [str(n) for n in range(51)]}]}, "ValidationException"),
    ],
)
def test_a_send_command_that_aws_would_refuse_is_refused(ssm, document, any_node, request_, code):
    request_ = {"DocumentName": document, "InstanceIds": [any_node], "Parameters": {"word": ["a"]}} | request_
    if "Targets" in request_:
        del request_["InstanceIds"]
    with refused(code):
        ssm.send_command(**request_)


def test_one_instance_that_cannot_be_reached_refuses_the_whole_call(cloud, ssm, document, node):
    stranger = cloud.launch({}, online_after=3600, containerd="none")
    with refused("InvalidInstanceId"):
        ssm.send_command(DocumentName=document, InstanceIds=[node, stranger], Parameters={"word": ["a"]})
    with refused("DuplicateInstanceId"):
        ssm.send_command(DocumentName=document, InstanceIds=[node, node], Parameters={"word": ["a"]})


@pytest.mark.parametrize(("agent", "how"), [("new", "environment"), ("old", "text")])
def test_a_command_runs_and_its_output_is_kept(cloud, ssm, document, node, agent, how):
    cloud.turn(node, agent=agent)
    invocation = result(ssm, send(ssm, document, [node], word="good day"), node)
    assert invocation["Status"] == invocation["StatusDetails"] == "Success"
    assert invocation["StandardOutputContent"] == f"good day by {how}\n"
    assert invocation["StandardErrorContent"] == "to the operator\n"
    assert (invocation["ResponseCode"], invocation["PluginName"]) == (0, "say")


@pytest.mark.parametrize("containerd", ["1.7", "2.1"])
def test_a_command_runs_beside_a_real_containerd(cloud, ssm, document, containerd):
    node = cloud.launch({}, online_after=0.0, containerd=containerd)
    cloud.until_online(node)
    assert result(ssm, send(ssm, document, [node], word="a"), node)["Status"] == "Success"
    assert cloud.images(node) == {}
    assert cloud.image_status(node, f"{cloud.registry_host}/team/app:v1") is None


def test_every_change_of_status_is_an_event(cloud, ssm, document, node):
    command = send(ssm, document, [node], word="a", code="3")
    assert result(ssm, command, node)["ResponseCode"] == 3

    def events(detail_type: str) -> list[dict]:
        found = cloud.events(f"EC2 Command {detail_type}Status-change Notification")
        return [event for event in found if event["detail"]["command-id"] == command]

    until(lambda: len(events("")) == 2, 5, "the command's events")
    invocation = events("Invocation ")
    assert [event["detail"]["status"] for event in invocation] == ["InProgress", "Failed"]
    assert invocation[0]["source"] == "aws.ssm"
    assert invocation[0]["resources"] == [f"arn:aws:ec2:{cloud.region}:{cloud.account}:instance/{node}"]
    assert invocation[0]["detail"].keys() == {
        "command-id", "document-name", "instance-id", "requested-date-time", "status",
    }  # fmt: skip
    assert [event["detail"]["status"] for event in events("")] == ["InProgress", "Failed"]


def test_tag_targets_are_anded_and_their_values_ored(cloud, ssm, document):
    tags = [{"pool": "a", "arch": "x"}, {"pool": "b", "arch": "x"}, {"pool": "b", "arch": "y"}, {"pool": "c"}]
    nodes = [cloud.launch(tag, **BARE) for tag in tags]
    cloud.until_online(*nodes)
    targets = [{"Key": "tag:pool", "Values": ["a", "b"]}, {"Key": "tag:arch", "Values": ["x"]}]
    command = ssm.send_command(DocumentName=document, Targets=targets, Parameters={"word": ["a"]})["Command"]
    assert command["InstanceIds"] == []
    done = settled(ssm, command["CommandId"])
    assert (done["TargetCount"], done["CompletedCount"]) == (2, 2)
    listed = ssm.list_command_invocations(CommandId=command["CommandId"])["CommandInvocations"]
    assert {row["InstanceId"] for row in listed} == set(nodes[:2])


def test_a_tag_target_that_matches_nothing_is_a_success_without_instances(ssm, document):
    targets = [{"Key": "tag:pool", "Values": ["nowhere"]}]
    command = ssm.send_command(DocumentName=document, Targets=targets, Parameters={"word": ["a"]})["Command"]
    done = settled(ssm, command["CommandId"])
    assert (done["Status"], done["StatusDetails"], done["TargetCount"]) == ("Success", "NoInstancesInTag", 0)


def test_the_first_failure_stops_a_command_unless_max_errors_says_otherwise(cloud, ssm, document):
    fleet = [cloud.launch({}, **BARE) for _ in range(4)]
    cloud.until_online(*fleet)
    command = send(ssm, document, fleet, "1", word="a", code="1")
    assert settled(ssm, command)["StatusDetails"] == "Failed"
    details = [row["StatusDetails"] for row in ssm.list_command_invocations(CommandId=command)["CommandInvocations"]]
    assert sorted(details) == ["Failed", "Terminated", "Terminated", "Terminated"]

    command = send(ssm, document, fleet, "1", "50%", word="a", code="1")
    details = [settled(ssm, command)["ErrorCount"]]
    assert details == [3]

    command = send(ssm, document, fleet, "25%", "100%", word="a", code="1")
    assert settled(ssm, command)["ErrorCount"] == 4


def test_max_concurrency_limits_how_many_nodes_work_at_a_time(cloud, ssm, document):
    fleet = [cloud.launch({}, **BARE) for _ in range(4)]
    cloud.until_online(*fleet)
    command = send(ssm, document, fleet, "2", word="a", seconds="0.3")
    at_a_time = set()
    while ssm.list_commands(CommandId=command)["Commands"][0]["Status"] in ("Pending", "InProgress"):
        rows = ssm.list_command_invocations(CommandId=command)["CommandInvocations"]
        at_a_time.add(sum(row["Status"] == "InProgress" for row in rows))
    assert max(at_a_time) == 2


def test_a_node_runs_five_commands_at_a_time(ssm, document, node):
    commands = [send(ssm, document, [node], word="a", seconds="0.5") for _ in range(7)]
    running = set()
    while any(invocation_of(ssm, command, node)["Status"] in ("Pending", "InProgress") for command in commands):
        rows = ssm.list_command_invocations(InstanceId=node)["CommandInvocations"]
        running.add(sum(row["Status"] == "InProgress" for row in rows))
    assert max(running) == 5


def test_a_node_that_is_offline_gets_its_command_when_it_is_back(cloud, ssm, document, node):
    cloud.turn(node, online=False)
    command = send(ssm, document, [node], word="a")
    time.sleep(0.3)
    assert invocation_of(ssm, command, node)["Status"] == "Pending"
    cloud.turn(node, online=True)
    assert result(ssm, command, node)["Status"] == "Success"


def test_a_node_that_stays_offline_is_a_delivery_timeout_and_no_error(cloud, ssm, document):
    gone = cloud.launch({}, **BARE)
    cloud.until_online(gone)
    cloud.turn(gone, online=False)
    command = send(ssm, document, [gone], word="a", TimeoutSeconds=30)
    invocation = result(ssm, command, gone)
    assert (invocation["Status"], invocation["StatusDetails"]) == ("TimedOut", "DeliveryTimedOut")
    done = settled(ssm, command)
    assert (done["ErrorCount"], done["DeliveryTimedOutCount"]) == (0, 1)


def test_a_script_is_killed_at_its_execution_timeout(ssm, document, node):
    command = send(ssm, document, [node], word="a", seconds="30", executionTimeout="1")
    invocation = result(ssm, command, node)
    assert (invocation["Status"], invocation["StatusDetails"]) == ("TimedOut", "ExecutionTimedOut")


def test_a_node_that_dies_in_mid_command_is_noticed_by_its_silence(cloud, ssm, document):
    dying = cloud.launch({}, die_on_command=True, **BARE)
    cloud.until_online(dying)
    command = send(ssm, document, [dying], word="a", seconds="30", TimeoutSeconds=30)
    until(lambda: not cloud.state()["nodes"][dying]["online"], 5, "the node to die")
    assert invocation_of(ssm, command, dying)["Status"] == "InProgress"
    assert result(ssm, command, dying)["StatusDetails"] == "ExecutionTimedOut"


def test_a_terminated_node_is_undeliverable(cloud, ssm, document):
    gone = cloud.launch({}, **BARE)
    cloud.until_online(gone)
    cloud.turn(gone, online=False)
    command = send(ssm, document, [gone], word="a", TimeoutSeconds=30)
    cloud.terminate(gone)
    assert result(ssm, command, gone)["StatusDetails"] == "Undeliverable"


def test_a_cancelled_command_does_not_start(cloud, ssm, document, node):
    cloud.turn(node, online=False)
    command = send(ssm, document, [node], word="a")
    ssm.cancel_command(CommandId=command)
    assert result(ssm, command, node)["Status"] == "Cancelled"
    assert settled(ssm, command)["Status"] == "Cancelled"


def test_listed_invocations_are_paged_and_their_output_is_cut(cloud, ssm, document, node):
    for _ in range(3):
        result(ssm, send(ssm, document, [node], word="a"), node)
    first = ssm.list_command_invocations(InstanceId=node, MaxResults=2, Details=True)
    assert len(first["CommandInvocations"]) == 2
    assert first["CommandInvocations"][0]["CommandPlugins"][0]["Output"].startswith("a by environment\n")
    rest = ssm.list_command_invocations(InstanceId=node, MaxResults=2, NextToken=first["NextToken"])
    assert rest["CommandInvocations"][0]["CommandPlugins"] == []


def test_an_unknown_invocation_does_not_exist(ssm, any_node):
    with refused("InvocationDoesNotExist"):
        invocation_of(ssm, "00000000-0000-0000-0000-000000000000", any_node)


# ── Instances and managed nodes ─────────────────────────────────────────────────────────────────────────────────────


def test_a_node_comes_online_some_time_after_its_instance_runs(cloud, ssm):
    late = cloud.launch({}, online_after=1.0, containerd="none")
    ours = [{"Key": "InstanceIds", "Values": [late]}]
    until(lambda: cloud.state()["nodes"][late]["state"] == "running", 5, "the instance to run")
    assert ssm.describe_instance_information(Filters=ours)["InstanceInformationList"] == []
    cloud.until_online(late)
    [row] = ssm.describe_instance_information(Filters=ours)["InstanceInformationList"]
    assert (row["PingStatus"], row["PlatformType"]) == ("Online", "Linux")
    cloud.turn(late, online=False)
    online = [*ours, {"Key": "PingStatus", "Values": ["Online"]}]
    assert ssm.describe_instance_information(Filters=online)["InstanceInformationList"] == []
    [row] = ssm.describe_instance_information(Filters=ours)["InstanceInformationList"]
    assert row["PingStatus"] == "ConnectionLost"


def test_a_node_without_an_instance_profile_never_comes_online(cloud):
    bare = cloud.launch({}, profile=None, **BARE)
    time.sleep(0.6)
    assert not cloud.state()["nodes"][bare]["online"]


def test_managed_nodes_are_filtered_and_paged(cloud, ssm):
    fleet = {cloud.launch({"fleet": "paged"}, **BARE) for _ in range(12)}
    cloud.until_online(*fleet)
    ours = [{"Key": "tag:fleet", "Values": ["paged"]}]
    pages = list(ssm.get_paginator("describe_instance_information").paginate(Filters=ours))
    assert [len(page["InstanceInformationList"]) for page in pages] == [10, 2]
    assert {row["InstanceId"] for page in pages for row in page["InstanceInformationList"]} == fleet
    with refused("ValidationException"):
        ssm.describe_instance_information(MaxResults=51)
    with refused("ValidationException"):
        ssm.describe_instance_information(Filters=[{"Key": "InstanceIds", "Values": [f"i-{n}" for n in range(101)]}])


def test_every_state_of_an_instance_is_an_event(cloud):
    instance = cloud.launch({}, **BARE)

    def states() -> list[str]:
        details = [event["detail"] for event in cloud.events("EC2 Instance State-change Notification")]
        return [detail["state"] for detail in details if detail["instance-id"] == instance]

    until(lambda: states() == ["pending", "running"], 5, "the launch's events")
    cloud.client("ec2").stop_instances(InstanceIds=[instance])
    until(lambda: states()[2:] == ["stopping", "stopped"], 5, "the stop's events")
    cloud.client("ec2").start_instances(InstanceIds=[instance])
    until(lambda: states()[4:] == ["pending", "running"], 5, "the start's events")
    cloud.terminate(instance)
    until(lambda: states()[6:] == ["shutting-down", "terminated"], 5, "the termination's events")
    [event, *_] = cloud.events("EC2 Instance State-change Notification")
    assert event.keys() == {
        "version", "id", "detail-type", "source", "account", "time", "region", "resources", "detail",
    }  # fmt: skip


def test_run_instances_starts_pending_and_refuses_reserved_tags(cloud):
    ec2 = cloud.client("ec2")
    request = {"ImageId": "ami-0123456789abcdef0", "MinCount": 1, "MaxCount": 1}
    [instance] = ec2.run_instances(**request)["Instances"]
    assert instance["State"]["Name"] == "pending"
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "aws:eks:cluster-name", "Value": "blue"}]}]
    with refused("InvalidParameterValue"):
        ec2.run_instances(**request, TagSpecifications=tags)


def test_instances_are_described_by_filter_and_page(cloud):
    ec2 = cloud.client("ec2")
    fleet = [cloud.launch({"aws:eks:cluster-name": "paged"}, **BARE) for _ in range(6)]
    filters = [{"Name": "tag:aws:eks:cluster-name", "Values": ["paged"]}]
    pages = list(ec2.get_paginator("describe_instances").paginate(Filters=filters, PaginationConfig={"PageSize": 5}))
    found = [[row["Instances"][0]["InstanceId"] for row in page["Reservations"]] for page in pages]
    assert [len(ids) for ids in found] == [5, 1]
    assert sorted(found[0] + found[1]) == sorted(fleet)
    by_id = ec2.describe_instances(Filters=[{"Name": "instance-id", "Values": fleet[:2]}])
    assert len(by_id["Reservations"]) == 2
    with refused("InvalidInstanceID.NotFound"):
        ec2.describe_instances(InstanceIds=[fleet[0], "i-0123456789abcdef0"])
    with refused("InvalidParameterValue"):
        ec2.describe_instances(Filters=[{"Name": "cluster", "Values": ["x"]}])


# ── ECR ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


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


# ── CloudFormation, Lambda, EventBridge, SQS ────────────────────────────────────────────────────────────────────────


def test_a_document_of_a_stack_is_made_from_an_included_file(ssm, stack):
    assert json.loads(ssm.get_document(Name=stack["Document"])["Content"]) == CONTENT
    tags = ssm.list_tags_for_resource(ResourceType="Document", ResourceId=stack["Document"])["TagList"]
    assert {"Key": "project", "Value": "prefetch"} in tags


def test_an_event_is_delivered_to_the_function_once(cloud, stack, record):
    digest = cloud.push("async", "v1", images.image())
    until(lambda: digest in record.read_text(), 10, "the function to run")
    assert record.read_text().count(digest) == 1


def test_a_failing_event_is_tried_three_times_and_then_kept(cloud, stack, record):
    digest = cloud.push("poison", "v1", images.image("poison"))
    kept = received(cloud, stack["FailureQueue"])
    assert record.read_text().count(digest) == 3
    assert kept["version"] == "1.0"
    assert kept["requestContext"]["condition"] == "RetriesExhausted"
    assert kept["requestContext"]["approximateInvokeCount"] == 3
    assert kept["requestContext"]["functionArn"] == f"{stack['FunctionArn']}:$LATEST"
    assert kept["requestPayload"]["detail"]["image-digest"] == digest
    assert kept["responseContext"]["functionError"] == "Unhandled"
    assert kept["responsePayload"]["errorType"] == "Poison"


def test_an_asynchronous_invoke_takes_the_same_path(cloud, stack):
    cloud.client("lambda").invoke(FunctionName=stack["Function"], InvocationType="Event", Payload=b'{"a": "poison"}')
    assert received(cloud, stack["FailureQueue"])["requestPayload"] == {"a": "poison"}


def test_a_queue_gets_events_only_where_its_policy_lets_it(cloud, stack):
    instance = cloud.launch({}, **BARE)
    event = received(cloud, stack["EventQueue"], lambda event: event["detail"]["instance-id"] == instance)
    assert event["source"] == "aws.ec2"
    sqs = cloud.client("sqs")
    assert "Messages" not in sqs.receive_message(QueueUrl=stack["ClosedQueue"])
    [undelivered] = sqs.receive_message(QueueUrl=stack["UndeliveredQueue"], MessageAttributeNames=["All"])["Messages"]
    assert undelivered["MessageAttributes"]["ERROR_CODE"]["StringValue"] == "NO_PERMISSIONS"
    assert json.loads(undelivered["Body"])["source"] == "aws.ec2"


def test_a_function_has_the_environment_lambda_gives_it_and_no_other(cloud, stack):
    environment = invoke(cloud, stack, {})["environment"]
    assert environment["AWS_LAMBDA_LOG_FORMAT"] == "JSON"
    assert environment["AWS_LAMBDA_LOG_LEVEL"] == "DEBUG"
    assert environment["AWS_LAMBDA_LOG_GROUP_NAME"] == stack["LogGroup"]
    assert environment["AWS_ENDPOINT_URL"] == cloud.endpoint
    assert {"AUTH", "GATEWAY_PORT", "HOME", "MINISTACK_HOST", "PYTHONPATH", "TMPDIR"}.isdisjoint(environment)


def test_a_batch_is_larger_than_ten_and_hands_back_single_messages(cloud, stack, record):
    sqs = cloud.client("sqs")
    bodies = [f"batch {n}" for n in range(12)]
    for body in [*bodies, "batch later"]:
        sqs.send_message(QueueUrl=stack["WorkQueue"], MessageBody=body)

    def tries() -> list[list[str]]:
        events = [json.loads(line) for line in record.read_text().splitlines()]
        batches = [[r["body"] for r in event["Records"]] for event in events if "Records" in event]
        return [[body for body in batch if body.startswith("batch")] for batch in batches]

    dead = received(cloud, stack["DeadLetterQueue"], parse=str)
    assert dead == "batch later"
    assert max(map(len, tries())) > 10
    assert sum(batch.count("batch later") for batch in tries()) == 3
    assert all(sum(batch.count(body) for batch in tries()) == 1 for body in bodies)


def test_a_delay_of_more_than_fifteen_minutes_is_refused(cloud, stack):
    with refused("InvalidParameterValue"):
        cloud.client("sqs").send_message(QueueUrl=stack["WorkQueue"], MessageBody="x", DelaySeconds=901)


def test_put_events_refuses_the_sources_of_aws(cloud):
    entry = {"Source": "aws.ecr", "DetailType": "ECR Image Action", "Detail": "{}"}
    [answer] = cloud.client("events").put_events(Entries=[entry])["Entries"]
    assert answer["ErrorCode"] == "NotAuthorizedForSourceException"


# ── IAM ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_send_command_needs_both_the_document_and_the_instance(cloud, ssm, stack, document):
    ours = cloud.launch({"cluster": "blue"}, **BARE)
    foreign = cloud.launch({"cluster": "green"}, **BARE)
    cloud.until_online(ours, foreign)
    sender = cloud.client("ssm", **credentials(cloud, stack["Sender"]))
    parameters = {"word": ["a"]}

    sender.send_command(DocumentName=stack["Document"], InstanceIds=[ours], Parameters=parameters)
    targets = [{"Key": "tag:cluster", "Values": ["blue"]}]
    sender.send_command(DocumentName=stack["Document"], Targets=targets, Parameters=parameters)
    with refused("AccessDeniedException"):
        sender.send_command(DocumentName=document, InstanceIds=[ours], Parameters=parameters)
    with refused("AccessDeniedException") as error:
        sender.send_command(DocumentName=stack["Document"], InstanceIds=[ours, foreign], Parameters=parameters)
    resource = f"arn:aws:ec2:{cloud.region}:{cloud.account}:instance/{foreign}"
    assert f"is not authorized to perform: ssm:SendCommand on resource: {resource} " in str(error.value)
    everywhere = [{"Key": "tag:cluster", "Values": ["blue", "green"]}]
    sent = sender.send_command(DocumentName=stack["Document"], Targets=everywhere, Parameters=parameters)
    details = {id_: result(ssm, sent["Command"]["CommandId"], id_)["StatusDetails"] for id_ in (ours, foreign)}
    assert details == {ours: "Success", foreign: "AccessDenied"}
    with refused("AccessDeniedException"):
        sender.describe_instance_information()


def test_reads_are_allowed_on_the_named_repository_only(cloud, stack):
    cloud.push("allowed", "v1", images.image())
    cloud.push("forbidden", "v1", images.image())
    ecr = cloud.client("ecr", **credentials(cloud, stack["Sender"]))
    assert ecr.describe_images(repositoryName="allowed")["imageDetails"]
    with refused("AccessDeniedException"):
        ecr.describe_images(repositoryName="forbidden")


# ── Knobs ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_calls_are_counted_and_can_be_made_to_fail(cloud, ssm):
    cloud.forget_calls()
    cloud.throttle("ssm", "ListCommands", 2)
    ssm.list_commands()
    assert cloud.calls("ssm") == {"ssm:ListCommands": 3}


def test_the_registry_can_be_taken_down_and_up(cloud):
    cloud.turn_registry(up=False)
    with pytest.raises(OSError, match="refused"):
        cloud.push("down", "v1", images.image())
    cloud.turn_registry(up=True)
    cloud.push("down", "v1", images.image())


def test_a_whole_event_can_be_replayed(cloud):
    event = {
        "version": "0",
        "id": "1",
        "detail-type": "ECR Replication Action",
        "source": "aws.ecr",
        "account": "210987654321",
        "time": "2026-01-01T00:00:00Z",
        "region": "cn-north-1",
        "resources": [],
        "detail": {"action-type": "REPLICATE"},
    }
    cloud.send_event(event)
    assert cloud.events("ECR Replication Action") == [event]


# ── The life of a cloud ─────────────────────────────────────────────────────────────────────────────────────────────


def test_a_stack_updates_in_place_and_leaves_nothing_behind():
    with LocalCloud() as cloud, probe(cloud) as (stack, upload):
        ssm = cloud.client("ssm")
        upload("document.json", json.dumps({**CONTENT, "description": "newer"}))
        deploy(cloud, "update")
        described = ssm.describe_document(Name=stack["Document"])["Document"]
        assert (described["DefaultVersion"], described["Description"]) == ("2", "newer")

        delete(cloud)
        assert ssm.list_documents()["DocumentIdentifiers"] == []
        assert cloud.client("lambda").list_functions()["Functions"] == []
        assert cloud.client("lambda").list_event_source_mappings()["EventSourceMappings"] == []
        assert cloud.client("sqs").list_queues().get("QueueUrls", []) == []
        assert cloud.client("events").list_rules()["Rules"] == []
        assert cloud.client("iam").list_roles()["Roles"] == []
        assert cloud.client("logs").describe_log_groups()["logGroups"] == []


def test_two_clouds_do_not_disturb_each_other(cloud):
    with LocalCloud() as other:
        assert (other.endpoint, other.registry_url) != (cloud.endpoint, cloud.registry_url)
        other.push("elsewhere", "v1", images.image())
        with refused("RepositoryNotFoundException"):
            cloud.client("ecr").describe_images(repositoryName="elsewhere")


def test_nothing_ambient_of_aws_reaches_the_tools(cloud, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert cloud.state()["account"] == cloud.client("sts").get_caller_identity()["Account"]
    assert {name for name in cloud.env() if name.startswith("AWS_")} == {
        "AWS_ACCESS_KEY_ID", "AWS_CONFIG_FILE", "AWS_DEFAULT_REGION", "AWS_EC2_METADATA_DISABLED", "AWS_ENDPOINT_URL",
        "AWS_REGION", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE",
    }  # fmt: skip


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_everything_ends_with_the_cloud(end):
    process = subprocess.Popen([sys.executable, "-m", "local", "up"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = folder_of(json.loads(process.stdout.readline()))
    assert processes_of(folder)
    process.send_signal(end)
    assert process.wait(10) == 0
    assert not processes_of(folder)
    assert not folder.exists()


def test_everything_ends_when_the_parent_is_killed():
    script = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'local', 'up'])"
    parent = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = folder_of(json.loads(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    until(lambda: not processes_of(folder) and not folder.exists(), 10, "the cloud to end")


def test_no_process_outlives_a_cloud_that_is_killed_and_the_next_one_sweeps_its_folder():
    process = subprocess.Popen([sys.executable, "-m", "local", "up"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    folder = folder_of(json.loads(process.stdout.readline()))
    process.kill()
    process.wait()
    until(lambda: not processes_of(folder), 10, "the processes to end")
    with LocalCloud():
        assert not folder.exists()


# ── Helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────

BARE = {"online_after": 0.0, "containerd": "none"}


@pytest.fixture(scope="module")
def ssm(cloud):
    """A client that leaves it to the cloud to refuse a request."""
    return cloud.client("ssm", config=Config(parameter_validation=False))


@pytest.fixture(scope="module")
def document(ssm):
    """The name of a document that is not the stack's."""
    ssm.create_document(Name="say-something", DocumentType="Command", Content=json.dumps(CONTENT))
    return "say-something"


@pytest.fixture
def node(cloud):
    """A node of its own for one test."""
    return launched(cloud)


@pytest.fixture(scope="module")
def any_node(cloud):
    """A node for tests that leave it as it is."""
    return launched(cloud)


def launched(cloud) -> str:
    instance_id = cloud.launch({}, **BARE)
    cloud.until_online(instance_id)
    return instance_id


@pytest.fixture(scope="module")
def stack(probe_stack):
    return probe_stack


@pytest.fixture(scope="module")
def record(stack):
    """The file in which the stack's function writes every event."""
    return Path(stack["Record"])


def send(ssm, document, nodes, max_concurrency="50", max_errors="0", TimeoutSeconds=600, **parameters) -> str:
    """Sends a command and returns its id."""
    return ssm.send_command(
        DocumentName=document,
        InstanceIds=nodes,
        MaxConcurrency=max_concurrency,
        MaxErrors=max_errors,
        TimeoutSeconds=TimeoutSeconds,
        Parameters={name: [value] for name, value in parameters.items()},
    )["Command"]["CommandId"]


def invocation_of(ssm, command: str, node: str) -> dict:
    return ssm.get_command_invocation(CommandId=command, InstanceId=node)


def result(ssm, command: str, node: str) -> dict:
    """Waits for the end of an invocation and returns it."""

    def ended() -> dict | None:
        row = invocation_of(ssm, command, node)
        return None if row["Status"] in ("Pending", "InProgress") else row

    return until(ended, 10, "the invocation to end")


def settled(ssm, command: str) -> dict:
    """Waits for the end of a command and returns it."""

    def ended() -> dict | None:
        [row] = ssm.list_commands(CommandId=command)["Commands"]
        return None if row["Status"] in ("Pending", "InProgress") else row

    return until(ended, 10, "the command to end")


def folder_of(state: dict) -> Path:
    """Returns the folder of a cloud from the line it printed."""
    return Path(state["folder"])


def processes_of(folder: Path) -> list[str]:
    """Returns the processes whose command line or environment names the folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in (process / "cmdline").read_bytes() + (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
    return found
