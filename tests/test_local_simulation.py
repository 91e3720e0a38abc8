"""The local cloud's IAM simulates as AWS's does, wherever the product relies on it."""

import pytest
from probe import refused
from roles import make_role, policy

ANY = "arn:aws:ec2:eu-central-1:123456789012:instance/i-0123456789abcdef0"
DOCUMENT = "arn:aws:ssm:eu-central-1:123456789012:document/ours"
KEY = "ssm:resourceTag/aws:eks:cluster-name"
ALLOWED = [
    {"Effect": "Allow", "Action": "ssm:SendCommand", "Resource": DOCUMENT},
    {
        "Effect": "Allow",
        "Action": "ssm:SendCommand",
        "Resource": "arn:aws:ec2:eu-central-1:123456789012:instance/*",
        "Condition": {"StringEquals": {KEY: "prod"}},
    },
]


@pytest.fixture(scope="module")
def role(cloud):
    return make_role(cloud, "simulated", "lambda.amazonaws.com", *ALLOWED)


@pytest.mark.parametrize(
    ("resource", "cluster", "decision"),
    [
        (DOCUMENT, None, "allowed"),
        (DOCUMENT.replace("ours", "others"), None, "implicitDeny"),
        (ANY, "prod", "allowed"),
        (ANY, "test", "implicitDeny"),
        (ANY, None, "implicitDeny"),
    ],
)
def test_a_decision_is_by_resource_and_context(cloud, role, resource, cluster, decision):
    result = simulated(cloud, role, resource, cluster)
    assert (result["EvalDecision"], result["EvalResourceName"]) == (decision, resource)


def test_what_a_policy_asks_and_the_request_does_not_say_is_told(cloud, role):
    assert simulated(cloud, role, ANY, None)["MissingContextValues"] == [KEY]
    assert simulated(cloud, role, ANY, "prod")["MissingContextValues"] == []


def test_an_explicit_denial_is_told_from_none(cloud):
    denied = {"Effect": "Deny", "Action": "ssm:*", "Resource": "*"}
    role = make_role(cloud, "denied", "lambda.amazonaws.com", *ALLOWED, denied)
    assert simulated(cloud, role, DOCUMENT, None)["EvalDecision"] == "explicitDeny"


def test_a_permissions_boundary_is_told(cloud, role):
    iam = cloud.client("iam")
    only_s3 = policy({"Effect": "Allow", "Action": "s3:*", "Resource": "*"})
    boundary = iam.create_policy(PolicyName="only-s3", PolicyDocument=only_s3)["Policy"]["Arn"]
    iam.put_role_permissions_boundary(RoleName="simulated", PermissionsBoundary=boundary)
    result = simulated(cloud, role, DOCUMENT, None)
    iam.delete_role_permissions_boundary(RoleName="simulated")
    assert result["EvalDecision"] == "implicitDeny"
    assert result["PermissionsBoundaryDecisionDetail"] == {"AllowedByPermissionsBoundary": False}


def test_nobodys_permissions_are_not_simulated(cloud):
    with refused("NoSuchEntity"):
        simulated(cloud, "arn:aws:iam::123456789012:role/nobody", DOCUMENT, None)


def simulated(cloud, role: str, resource: str, cluster: str | None) -> dict:
    """Returns what IAM decides of a command to a resource, of a cluster's where one is named."""
    context = [{"ContextKeyName": KEY, "ContextKeyValues": [cluster], "ContextKeyType": "string"}] if cluster else []
    [result] = cloud.client("iam").simulate_principal_policy(
        PolicySourceArn=role, ActionNames=["ssm:SendCommand"], ResourceArns=[resource], ContextEntries=context
    )["EvaluationResults"]
    return result
