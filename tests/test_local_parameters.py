"""The local cloud's launch templates, parameters, clusters and manifests are as AWS's, wherever a bake relies on it."""

import json

import pytest
from probe import credentials, refused
from roles import make_role, policy

from local import images
from local.client import LocalCloud

DATA = {"ImageId": "ami-0123456789abcdef0", "InstanceType": "m6i.large"}
MAPPED = {"BlockDeviceMappings": [{"DeviceName": "/dev/xvdb", "Ebs": {"SnapshotId": "snap-1", "VolumeSize": 40}}]}


def test_a_launch_template_has_versions_and_is_listed_in_pages(ec2):
    templates = [ec2.create_launch_template(LaunchTemplateName=f"paged-{n}", LaunchTemplateData=DATA) for n in range(3)]
    ids = [template["LaunchTemplate"]["LaunchTemplateId"] for template in templates]
    for _ in range(2):
        ec2.create_launch_template_version(LaunchTemplateId=ids[0], SourceVersion="1", LaunchTemplateData=MAPPED)
    pages = ec2.get_paginator("describe_launch_templates").paginate(PaginationConfig={"PageSize": 2})
    found = [row["LaunchTemplateId"] for page in pages for row in page["LaunchTemplates"]]
    assert set(ids) <= set(found)
    paginator = ec2.get_paginator("describe_launch_template_versions")
    pages = list(paginator.paginate(LaunchTemplateId=ids[0], PaginationConfig={"PageSize": 2}))
    versions = [row for page in pages for row in page["LaunchTemplateVersions"]]
    assert [(row["VersionNumber"], row["DefaultVersion"]) for row in versions] == [(3, False), (2, False), (1, True)]
    assert versions[0]["LaunchTemplateData"] == DATA | MAPPED
    latest = ec2.describe_launch_template_versions(Versions=["$Latest"])["LaunchTemplateVersions"]
    assert {row["LaunchTemplateId"]: row["VersionNumber"] for row in latest}[ids[0]] == 3
    for id_ in ids:
        ec2.delete_launch_template(LaunchTemplateId=id_)


def test_a_parameter_takes_what_its_tier_takes(cloud):
    ssm = cloud.client("ssm")
    put = {"Name": "/tiers/x", "Type": "String", "Overwrite": True}
    with refused("ValidationException"):
        ssm.put_parameter(**put, Value="x" * 4097)
    assert ssm.put_parameter(**put, Value="x" * 4096, Tier="Intelligent-Tiering")["Tier"] == "Standard"
    assert ssm.put_parameter(**put, Value="x" * 4097, Tier="Intelligent-Tiering")["Tier"] == "Advanced"
    for value, tier in (("x" * 8193, "Intelligent-Tiering"), ("x", "Standard"), ("{{y}}", "Advanced")):
        with refused("ValidationException"):
            ssm.put_parameter(**put, Value=value, Tier=tier)
    answer = ssm.delete_parameters(Names=["/tiers/x", "/tiers/y"])
    assert (answer["DeletedParameters"], answer["InvalidParameters"]) == (["/tiers/x"], ["/tiers/y"])


def test_each_of_several_parameters_needs_permission(cloud):
    mine = "arn:aws:ssm:*:*:parameter/mine/*"
    role = make_role(cloud, "ssm-deletes", "ec2.amazonaws.com")
    allow = {"Effect": "Allow", "Action": ["ssm:DeleteParameters", "ssm:GetParameters"], "Resource": mine}
    cloud.client("iam").put_role_policy(RoleName="ssm-deletes", PolicyName="may", PolicyDocument=policy(allow))
    ssm = cloud.client("ssm", **credentials(cloud, role))
    for call in (ssm.delete_parameters, ssm.get_parameters):
        call(Names=["/mine/a"])
        with refused("AccessDeniedException"):
            call(Names=["/mine/a", "/theirs/a"])


def test_parameters_are_listed_by_permission_for_the_path_itself(cloud):
    role = make_role(cloud, "ssm-lists", "ec2.amazonaws.com")
    allow = {"Effect": "Allow", "Action": "ssm:GetParametersByPath", "Resource": "arn:aws:ssm:*:*:parameter/mine"}
    cloud.client("iam").put_role_policy(RoleName="ssm-lists", PolicyName="may", PolicyDocument=policy(allow))
    ssm = cloud.client("ssm", **credentials(cloud, role))
    assert ssm.get_parameters_by_path(Path="/mine")["Parameters"] == []
    for path in ("/mine/deeper", "/", "/theirs"):
        with refused("AccessDeniedException"):
            ssm.get_parameters_by_path(Path=path)


def test_a_public_parameter_names_the_newest_ami(cloud):
    ssm = cloud.client("ssm")
    name = "/aws/service/bottlerocket/aws-k8s-1.33/arm64/latest/image_id"
    before = ssm.get_parameter(Name=name)["Parameter"]
    assert (before["Value"], before["ARN"]) == (cloud.ami("arm64"), f"arn:aws:ssm:{cloud.region}::parameter{name}")
    cloud.publish_amis()
    assert ssm.get_parameter(Name=name)["Parameter"]["Value"] == cloud.ami("arm64") != before["Value"]
    with refused("ParameterNotFound"):
        ssm.get_parameter(Name=name.replace("1.33", "1.12"))


def test_a_cluster_tells_its_version_and_network(cloud, ec2):
    made = cloud.cluster("described", "1.32")
    cluster = cloud.client("eks").describe_cluster(name="described")["cluster"]
    network = cluster["resourcesVpcConfig"]
    assert (cluster["version"], network["subnetIds"]) == ("1.32", made["subnets"])
    subnets = ec2.describe_subnets(SubnetIds=made["subnets"])["Subnets"]
    assert sorted(subnet["MapPublicIpOnLaunch"] for subnet in subnets) == [False, False, True]
    assert cloud.cluster("described", "1.33")["version"] == "1.33"


def test_manifests_come_from_the_registry(cloud):
    digest = cloud.push("manifests/app", "v1", images.multi_platform("v1"))
    ecr = cloud.client("ecr")
    answer = ecr.batch_get_image(repositoryName="manifests/app", imageIds=[{"imageTag": "v1"}, {"imageTag": "v2"}])
    [index] = answer["images"]
    assert index["imageId"] == {"imageDigest": digest, "imageTag": "v1"}
    children = [{"imageDigest": row["digest"]} for row in json.loads(index["imageManifest"])["manifests"]]
    manifests = ecr.batch_get_image(repositoryName="manifests/app", imageIds=children)["images"]
    assert all(json.loads(row["imageManifest"])["layers"] for row in manifests)
    assert [row["failureCode"] for row in answer["failures"]] == ["ImageNotFound"]


@pytest.fixture(scope="module")
def ec2(cloud: LocalCloud):
    return cloud.client("ec2")
