"""Adds EKS clusters, as far as DescribeCluster tells of them, and the network of their nodes."""

import time

from local.ministack import ec2, eks
from local.settings import ACCOUNT, REGION

NETWORK = "vpc-0123456789abcdef0"
SUBNETS = {
    "subnet-0aaaaaaaaaaaaaaaa": ("a", False, 200),
    "subnet-0bbbbbbbbbbbbbbbb": ("b", False, 240),
    "subnet-0cccccccccccccccc": ("a", True, 250),
}
"""Zone, whether its instances get a public address, and how many addresses are left."""
SECURITY_GROUP = "sg-0ddddddddddddddd0"


def make(name: str, version: str) -> dict:
    """Makes a cluster of a version of Kubernetes, or updates it; returns what its nodes are launched with."""
    _make_network()
    arn = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{name}"
    eks._clusters[name] = {
        "name": name,
        "arn": arn,
        "createdAt": time.time(),
        "version": version,
        "endpoint": f"https://0123456789ABCDEF.gr7.{REGION}.eks.amazonaws.com",
        "roleArn": f"arn:aws:iam::{ACCOUNT}:role/eks",
        "resourcesVpcConfig": {
            "subnetIds": list(SUBNETS),
            "securityGroupIds": [],
            "clusterSecurityGroupId": SECURITY_GROUP,
            "vpcId": NETWORK,
            "endpointPublicAccess": True,
            "endpointPrivateAccess": True,
            "publicAccessCidrs": ["0.0.0.0/0"],
        },
        "kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.100.0.0/16", "ipFamily": "ipv4"},
        "status": "ACTIVE",
        "certificateAuthority": {"data": "bm9uZQ=="},
        "platformVersion": "eks.1",
        "tags": {},
    }
    return {"version": version, "subnets": list(SUBNETS), "security_group": SECURITY_GROUP}


def _make_network() -> None:
    default = ec2._vpcs[ec2._DEFAULT_VPC_ID]
    ec2._vpcs[NETWORK] = {**default, "VpcId": NETWORK, "CidrBlock": "10.0.0.0/16", "IsDefault": False}
    group = ec2._security_groups[ec2._DEFAULT_SG_ID]
    names = {"GroupId": SECURITY_GROUP, "GroupName": "eks-cluster-sg", "Description": "EKS", "VpcId": NETWORK}
    ec2._security_groups[SECURITY_GROUP] = {**group, **names}
    for number, (id_, (letter, public, free)) in enumerate(SUBNETS.items()):
        zone = f"{REGION}{letter}"
        ec2._subnets[id_] = {
            **ec2._subnets[ec2._DEFAULT_SUBNET_ID],
            "SubnetId": id_,
            "VpcId": NETWORK,
            "CidrBlock": f"10.0.{number}.0/24",
            "AvailabilityZone": zone,
            "AvailabilityZoneId": ec2._az_id_for_zone_name(zone),
            "AvailableIpAddressCount": free,
            "DefaultForAz": False,
            "MapPublicIpOnLaunch": public,
        }
