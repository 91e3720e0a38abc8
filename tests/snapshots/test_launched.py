"""Builders are launched as the cluster's nodes are, or as the bake says."""

from .builders import KEY, NAME, allow_key, builder_of, vpc


def test_a_builder_takes_no_calls_of_the_older_metadata_service_and_has_no_public_address(bakes, app):
    builder, volumes = builder_of(bakes, force=True)
    assert builder["MetadataOptions"]["HttpTokens"] == "required"
    assert "PublicIpAddress" not in builder
    assert builder["SubnetId"] in bakes.cluster["subnets"][:2]
    assert [group["GroupId"] for group in builder["SecurityGroups"]] == [bakes.cluster["security_group"]]
    assert builder["InstanceType"] == "m6i.large"
    assert volumes["/dev/xvdb"]["Encrypted"] is True
    assert volumes["/dev/xvdb"]["VolumeType"] == "gp3"
    tags = [{tag["Key"]: tag["Value"] for tag in tagged["Tags"]} for tagged in (builder, *volumes.values())]
    assert all(one.items() >= {"Name": f"{NAME}-builder", "bake-snapshot/stack": NAME}.items() for one in tags)


def test_a_builder_stands_where_the_clusters_nodes_run(bakes, app):
    ec2 = bakes.cloud.client("ec2")
    place = {"VpcId": vpc(bakes), "CidrBlock": "10.0.99.0/24", "AvailabilityZone": f"{bakes.cloud.region}b"}
    subnet = ec2.create_subnet(**place)["Subnet"]["SubnetId"]
    tags = {"aws:eks:cluster-name": NAME}
    nodes = bakes.cloud.launch_many(2, tags, containerd="none", subnet=subnet)
    nodes += bakes.cloud.launch_many(1, tags, containerd="none", subnet=bakes.cluster["subnets"][0])
    builder, _ = builder_of(bakes, force=True)
    assert builder["SubnetId"] == subnet
    bakes.cloud.remove(nodes)
    ec2.delete_subnet(SubnetId=subnet)


def test_what_is_asked_of_a_builder_is_what_is_launched(bakes, app):
    bakes.make_profile("other-builder")
    allow_key(bakes)
    group = bakes.cloud.client("ec2").create_security_group(GroupName="builders", Description="-", VpcId=vpc(bakes))
    builder, volumes = builder_of(
        bakes,
        instanceType="c7i.xlarge",
        volumeSizeGiB=77,
        kmsKeyId=KEY,
        subnetId=bakes.cluster["subnets"][2],
        securityGroupIds=[group["GroupId"]],
        publicAddress=True,
        instanceProfile="other-builder",
    )
    assert builder["InstanceType"] == "c7i.xlarge"
    assert builder["SubnetId"] == bakes.cluster["subnets"][2]
    assert builder["PublicIpAddress"]
    assert [group["GroupId"] for group in builder["SecurityGroups"]] == [group["GroupId"]]
    assert builder["IamInstanceProfile"]["Arn"].endswith("/other-builder")
    assert (volumes["/dev/xvdb"]["Size"], volumes["/dev/xvdb"]["KmsKeyId"]) == (77, KEY)


def test_a_volume_need_not_be_encrypted(bakes, app):
    _, volumes = builder_of(bakes, encrypted=False)
    assert volumes["/dev/xvdb"]["Encrypted"] is False


def test_a_role_that_nobody_has_named_is_given_to_no_builder(bakes, app):
    bakes.make_profile("administrator")
    step, cause = bakes.fail(force=True, instanceProfile="administrator")
    assert step == "LaunchBuilder"
    assert "iam:PassRole" in cause
