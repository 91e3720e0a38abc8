"""The local cloud's instances and managed nodes are as AWS's, wherever the product relies on it."""

import time

import pytest
from botocore.config import Config
from probe import BARE, refused

from local.client import until
from local.nodes.pods import pausing
from local.workload import push_foreign, run_pod, stop_container, turn_foreign_registry


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


@pytest.fixture(scope="module")
def ssm(cloud):
    """A client that leaves it to the cloud to refuse a request."""
    return cloud.client("ssm", config=Config(parameter_validation=False))


def test_a_nodes_pods_have_their_images_pulled_once_from_any_registry_that_is_up(cloud):
    [node] = cloud.launch_many(1, {}, online_after=0)
    reference = push_foreign(cloud, "acme/pods", "v1", pausing("pods"))
    named = reference.partition("@")[0]
    turn_foreign_registry(cloud, up=False)
    with pytest.raises(RuntimeError, match="connection refused"):
        run_pod(cloud, node, named)
    turn_foreign_registry(cloud, up=True)

    (first, was_there), (second, is_there) = (run_pod(cloud, node, named) for _ in range(2))

    assert (was_there, is_there) == (False, True)
    assert cloud.images(node)[named] == reference.partition("@")[2]
    for container in (first, second):
        stop_container(cloud, node, container)
    cloud.remove([node])
