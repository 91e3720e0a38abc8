"""Roles that tests make."""

import json

from local.client import LocalCloud


def make_role(cloud: LocalCloud, name: str, service: str, *statements: dict) -> str:
    """Makes a role that a service may assume, and that is allowed some statements; returns its ARN."""
    iam = cloud.client("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))["Role"]["Arn"]
    if statements:
        iam.put_role_policy(RoleName=name, PolicyName="may", PolicyDocument=policy(*statements))
    return role


def policy(*statements: dict) -> str:
    """Returns a policy of statements."""
    return json.dumps({"Version": "2012-10-17", "Statement": statements})
