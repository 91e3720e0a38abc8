"""The functions and the builders may ask the registries that are named, and no others."""

import pytest
from ministack.services.cloudformation import engine
from template import RESOURCES, TEMPLATE

POLICIES = {
    "AskCentralRegistries": {"ecr:DescribeImages", "ecr:BatchGetImage"},
    "PullFromCentralRegistries": {"ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"},
}
REGION = engine._resolve_refs({"Ref": "AWS::Region"}, {}, {}, {}, {}, "stack", "stack")
"""The Region in which the emulated CloudFormation resolves."""
FIVE = [f"{k}10987654321/eu-west-{k}" for k in range(1, 6)]


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("210987654321", {f"{REGION}:210987654321"}),
        (
            "210987654321,310987654321/us-west-2,123456789012/eu-west-1",
            {f"{REGION}:210987654321", "us-west-2:310987654321", "eu-west-1:123456789012"},
        ),
        (",".join(FIVE), {":".join(reversed(name.split("/"))) for name in FIVE}),
    ],
)
@pytest.mark.parametrize("policy", POLICIES)
def test_exactly_the_registries_that_are_named_may_be_asked(policy, named, expected):
    [statement] = RESOURCES[policy]["Properties"]["PolicyDocument"]["Statement"]
    resolved = engine._resolve_refs(statement["Resource"], {}, parameters(named), {}, {}, "stack", "stack")
    assert set(resolved) == {f"arn:aws:ecr:{registry}:repository/*" for registry in expected}
    assert set(statement["Action"]) == POLICIES[policy]


def test_where_none_is_named_nothing_of_other_registries_is_allowed():
    for named, is_there in (("", False), ("210987654321", True)):
        conditions = engine._evaluate_conditions(TEMPLATE, parameters(named))
        assert {conditions[RESOURCES[policy]["Condition"]] for policy in POLICIES} == {is_there}


def parameters(named: str) -> dict[str, dict]:
    """The parameters as CloudFormation has them, with these registries."""
    own = {name: str(parameter.get("Default", "")) for name, parameter in TEMPLATE["Parameters"].items()}
    values = own | {"AWS::Partition": "aws", "CentralRegistries": named}
    return {name: {"Value": value, "Type": "String"} for name, value in values.items()}
