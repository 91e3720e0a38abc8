"""Checks a VPC function as Lambda does: its subnets, security groups and role."""

from collections.abc import Callable

from local.iam import permissions
from local.ministack import ec2, lambda_svc, provisioners
from local.settings import ACCOUNT, REGION

ROLE_ACTIONS = ("CreateNetworkInterface", "DescribeNetworkInterfaces", "DeleteNetworkInterface")
"""Says what a function's role has to allow (Lambda's developer guide, VPC, required IAM permissions)."""


def install() -> None:
    """Has CloudFormation put functions into a VPC, or refuse what Lambda would."""
    handlers = provisioners._RESOURCE_HANDLERS["AWS::Lambda::Function"]
    handlers |= {"create": _creating(handlers["create"]), "update": _updating(handlers["update"])}


def _creating(create: Callable) -> Callable:
    def creating(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
        _check(properties)
        return _placed(create(logical_id, properties, stack), properties)

    return creating


def _updating(update: Callable) -> Callable:
    def updating(name: str, old: dict, new: dict, *rest) -> tuple[str, dict]:
        _check(new)
        return _placed(update(name, old, new, *rest), new)

    return updating


def _placed(function: tuple[str, dict], properties: dict) -> tuple[str, dict]:
    config = lambda_svc._functions[function[0]]["config"]
    config["VpcConfig"] = lambda_svc._vpc_config_with_id(properties.get("VpcConfig"))
    return function


def _check(properties: dict) -> None:
    vpc = properties.get("VpcConfig") or {}
    for fault in _faults(vpc.get("SubnetIds") or [], vpc.get("SecurityGroupIds") or [], properties["Role"]):
        raise ValueError(f"{fault} (Service: Lambda, Status Code: 400)")


def _faults(subnets: list[str], groups: list[str], role: str) -> list[str]:
    """Returns what Lambda refuses, none for a function that is in no VPC."""
    if not subnets and not groups:
        return []
    if not subnets or not groups:
        return ["Subnet IDs and SecurityGroup IDs must coexist or be both empty list."]
    ec2._ensure_defaults_initialized()
    faults = [
        f"Error occurred while DescribeSubnets. EC2 Error Code: InvalidSubnetID.NotFound. EC2 Error Message: The subnet"
        f" ID '{id_}' does not exist"
        for id_ in subnets
        if id_ not in ec2._subnets
    ]
    faults += [
        f"Error occurred while DescribeSecurityGroups. EC2 Error Code: InvalidGroup.NotFound. EC2 Error Message: The"
        f" security group '{id_}' does not exist"
        for id_ in groups
        if id_ not in ec2._security_groups
    ]
    if faults:
        return faults
    networks = {ec2._subnets[id_]["VpcId"] for id_ in subnets} | {ec2._security_groups[id_]["VpcId"] for id_ in groups}
    if len(networks) > 1:
        faults.append("Subnets and security groups must be of one VPC.")
    everything = f"arn:aws:ec2:{REGION}:{ACCOUNT}:network-interface/*"
    return faults + [
        f"The provided execution role does not have permissions to call {action} on EC2"
        for action in ROLE_ACTIONS
        if not permissions.role_may(role, f"ec2:{action}", everything)
    ]
