"""The example of a central registry: it forwards what the stack takes, and allows what the stack and its nodes need."""

import json

import pytest
from samtranslator.yaml_helper import yaml_parse
from template import RESOURCES

from local.client import ROOT

FOLDER = ROOT / "examples" / "central-registry"
REGISTRY, CLUSTER = (yaml_parse((FOLDER / f"{name}.yaml").read_text())["Resources"] for name in ("registry", "cluster"))
PUSH = RESOURCES["ImagePush"]["Properties"]["Events"]["ImageArrived"]["Properties"]["Pattern"]
ACCOUNTS = ["123456789012"]
"""The accounts of clusters that the policy names as an example."""


def test_exactly_the_events_are_forwarded_that_the_stack_takes():
    assert REGISTRY["ImageArrived"]["Properties"]["EventPattern"] == PUSH


def test_an_event_is_put_by_a_role_that_may_do_nothing_else_and_is_kept_where_the_bus_refuses_it():
    [target] = REGISTRY["ImageArrived"]["Properties"]["Targets"]
    assert target["RoleArn"] == {"Fn::GetAtt": ["ForwardingRole", "Arn"]}
    [policy] = REGISTRY["ForwardingRole"]["Properties"]["Policies"]
    [statement] = policy["PolicyDocument"]["Statement"]
    assert (statement["Action"], statement["Resource"]) == ("events:PutEvents", target["Arn"])
    assert target["DeadLetterConfig"] == {"Arn": {"Fn::GetAtt": ["NotForwarded", "Arn"]}}
    [keeping] = REGISTRY["NotForwardedPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert keeping["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["ImageArrived", "Arn"]}}}


@pytest.mark.parametrize("resource", ["RegistriesTell", "OrganizationTells"])
def test_the_bus_takes_events_of_ecr_and_of_nobody_but_those_that_are_named(resource):
    properties = CLUSTER[resource]["Properties"]
    statement = properties["Statement"]
    assert (properties["EventBusName"], statement["Action"]) == ("default", "events:PutEvents")
    assert statement["Condition"]["ForAllValues:StringEquals"] == {"events:source": PUSH["source"]}
    names_accounts = statement["Principal"] == {"AWS": {"Ref": "RegistryAccounts"}}
    names_organization = "aws:PrincipalOrgID" in statement["Condition"].get("StringEquals", {})
    assert names_accounts != names_organization


def test_repositories_let_nodes_pull_and_functions_ask_and_nothing_more():
    by_hand = json.loads((FOLDER / "repository-policy.json").read_text())
    allowed = {action for s in by_hand["Statement"] for action in listed(s["Action"])}
    [asking] = RESOURCES["AskCentralRegistries"]["Properties"]["PolicyDocument"]["Statement"]
    assert allowed == {"ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer", *asking["Action"]}
    text, variables = REGISTRY["NewRepositories"]["Properties"]["RepositoryPolicy"]["Fn::Sub"]
    assert variables == {"Accounts": {"Fn::Join": ['","', {"Ref": "ClusterAccounts"}]}}
    assert json.loads(text.replace("${Accounts}", '","'.join(ACCOUNTS))) == by_hand


def listed(value: str | list[str]) -> list[str]:
    """An action, or several."""
    return [value] if isinstance(value, str) else value
