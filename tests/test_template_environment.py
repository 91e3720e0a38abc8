"""The environment of functions: what parameters and names may become at their longest fits what Lambda takes."""

import json
import re

import pytest
from ministack.services.cloudformation import engine
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator
from samtranslator.yaml_helper import yaml_parse

from local.client import ROOT
from local.settings import MAX_ENVIRONMENT

TEMPLATE = yaml_parse((ROOT / "template.yaml").read_text())
PARAMETERS = TEMPLATE["Parameters"]
LIMITS = (ROOT / "functions" / "settings-check" / "src" / "environment.rs").read_text()
MAX_RULES, MAX_RULES_AND_BAKE_DEFAULTS = (
    int(re.search(rf"{name}: usize = ([0-9_]+);", LIMITS)[1]) for name in ("MAX_RULES", "MAX_RULES_AND_BAKE_DEFAULTS")
)
"""Limits what settings-check accepts, in bytes as they stand in the environment."""
ROOM = 20
"""Bytes that are left for a setting that comes later."""

STACK = "s" * 128
PARTITION, REGION, ACCOUNT = "aws-us-gov", "ap-southeast-99", "123456789012"
NAMES = {
    "AWS::DynamoDB::Table": 128 + len("-Outcomes-") + 13,
    "AWS::IAM::InstanceProfile": 128,
    "AWS::IAM::Role": 64,
    "AWS::S3::Bucket": 63,
    "AWS::SQS::Queue": 80,
    "AWS::Scheduler::ScheduleGroup": 64,
    "AWS::SSM::Document": 128 + len("-prefetch-images"),
}
"""The longest names that CloudFormation makes of a stack's, or the template does (AWS's limits of each)."""

LONGEST = {
    "ClusterName": "c" * 100,
    "ClusterTagKey": "k" * 128,
    "MaxConcurrency": "9999999",
    "MaxErrors": "9999999",
    "SweepInterval": "rate(999 minutes)",
}
"""Texts that a pattern keeps short."""
SEPARATED = {"NodeTags": "a=b,a=b,a=b,a=b", "Repositories": "a", "Tags": "a"}
"""Texts of which the template makes JSON, every separator of theirs becoming more of it; and how they begin."""
SEPARATORS = {"NodeTags": "|a", "Repositories": ",a", "Tags": ",a"}


@pytest.fixture(scope="module")
def functions() -> dict[str, dict]:
    """The environments of all functions as CloudFormation gets them from SAM."""
    template = yaml_parse((ROOT / "template.yaml").read_text())
    for resource in template["Resources"].values():
        for name in {"CodeUri", "DefinitionUri"} & resource.get("Properties", {}).keys():
            resource["Properties"][name] = "s3://bucket/key"
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_DEFAULT_REGION", "eu-west-1")
        resources = Translator({}, Parser()).translate(template, {})["Resources"]
    of_type = {name: r["Properties"] for name, r in resources.items() if r["Type"] == "AWS::Lambda::Function"}
    return {name: properties["Environment"]["Variables"] for name, properties in of_type.items()}


@pytest.mark.parametrize("rules", ["default", "a list"])
def test_every_functions_environment_fits_at_its_longest(functions, rules):
    for name, variables in functions.items():
        environment = resolved(variables, longest(rules))
        if rules == "a list":
            environment["RULES"] = "r" * MAX_RULES
            most = {"BAKE_DEFAULTS": "b" * (MAX_RULES_AND_BAKE_DEFAULTS - MAX_RULES)}
            environment |= {key: most[key] for key in environment.keys() & most.keys()}
        cut_registries(environment)
        assert size(environment) + ROOM <= MAX_ENVIRONMENT, name


def test_the_rule_that_is_made_of_the_simple_parameters_is_never_refused_for_its_size(functions):
    [rules] = {resolved(variables, longest("default"))["RULES"] for variables in functions.values()}
    assert json.loads(rules)
    made = len(json.dumps(rules)) - 2
    assert made <= MAX_RULES
    assert made + PARAMETERS["BakeDefaults"]["MaxLength"] <= MAX_RULES_AND_BAKE_DEFAULTS
    assert made + PARAMETERS["CentralRegistries"]["MaxLength"] <= MAX_RULES


def test_typical_rules_of_two_thousand_characters_fit():
    rule = {"name": "team-00", "repositories": ["team-00/*", "!team-00/*-debug"], "tags": ["v*", "release-*"]}
    rule |= {"nodes": {"karpenter.sh/nodepool": ["team-00", "team-00-large"]}, "newest": 2, "keep": 3, "pin": True}
    rules = [json.loads(json.dumps(rule).replace("00", f"{k:02}")) for k in range(11)]
    text = json.dumps(rules, separators=(",", ":"))
    assert 2000 <= len(text) <= PARAMETERS["Rules"]["MaxLength"]
    assert len(json.dumps(text)) - 2 <= MAX_RULES


def test_every_text_that_reaches_an_environment_has_a_longest(functions):
    texts = {
        name: PARAMETERS[name]
        for variables in functions.values()
        for name in re.findall(r'"Ref": "(\w+)"|\$\{(\w+)\}', json.dumps(variables))
        for name in name
        if name in PARAMETERS and PARAMETERS[name]["Type"] == "String" and "AllowedValues" not in PARAMETERS[name]
    }
    assert set(SEPARATED) | {"Rules", "BakeDefaults"} <= texts.keys()
    for name, parameter in texts.items():
        assert name in LONGEST or "MaxLength" in parameter, name
        if value := LONGEST.get(name):
            assert re.fullmatch(parameter["AllowedPattern"], value), name
            assert not re.fullmatch(parameter["AllowedPattern"], value + value[-1]), name


def cut_registries(environment: dict[str, str]) -> None:
    """Leaves of the central registries what settings-check takes beside the rules and the defaults of bakes."""
    if "CENTRAL_REGISTRIES" not in environment:
        return
    made = len(json.dumps(environment["RULES"])) - 2
    defaults = environment.get("BAKE_DEFAULTS")
    room = MAX_RULES - made if defaults is None else MAX_RULES_AND_BAKE_DEFAULTS - made - len(defaults)
    environment["CENTRAL_REGISTRIES"] = environment["CENTRAL_REGISTRIES"][:room]


def longest(rules: str) -> dict[str, str]:
    """The parameters at their longest."""
    values = {}
    for name, parameter in PARAMETERS.items():
        most = parameter.get("MaxLength", 0)
        if name in SEPARATED:
            begin, more = SEPARATED[name], SEPARATORS[name]
            values[name] = (begin + more * most)[: most - (most - len(begin)) % 2]
            assert re.fullmatch(parameter["AllowedPattern"], values[name]), name
        elif "AllowedValues" in parameter:
            values[name] = max(map(str, parameter["AllowedValues"]), key=len)
        elif parameter["Type"] == "Number":
            values[name] = str(parameter["MaxValue"])
        else:
            values[name] = LONGEST.get(name, "x" * most)
    return {**values, "Rules": "default" if rules == "default" else "[]"}


def resolved(variables: dict, values: dict[str, str]) -> dict[str, str]:
    """An environment as Lambda gets it."""
    pseudo = {
        "AWS::AccountId": ACCOUNT,
        "AWS::Partition": PARTITION,
        "AWS::Region": REGION,
        "AWS::StackName": STACK,
    }
    parameters = {name: {"Value": value, "Type": "String"} for name, value in (values | pseudo).items()}
    conditions = engine._evaluate_conditions(TEMPLATE, parameters)
    return engine._resolve_refs(variables, physical(values), parameters, conditions, {}, STACK, STACK)


def physical(values: dict[str, str]) -> dict[str, dict]:
    """The resources with names and ARNs at their longest."""
    resources = {}
    for name, resource in TEMPLATE["Resources"].items():
        if length := NAMES.get(resource["Type"]):
            id_ = "n" * length
            path = values["RolePath"] if resource["Type"] == "AWS::IAM::Role" else ""
            arn = f"arn:{PARTITION}:scheduler:{REGION}:{ACCOUNT}:role{path}{id_}"
            url = f"https://sqs.{REGION}.amazonaws.com.cn/{ACCOUNT}/{id_}"
            ref = url if resource["Type"] == "AWS::SQS::Queue" else id_
            resources[name] = {"PhysicalResourceId": ref, "Attributes": {"Arn": arn}}
    return resources


def size(environment: dict[str, str]) -> int:
    """The bytes of an environment as Lambda counts them, or some more."""
    return len(json.dumps({name: str(value) for name, value in environment.items()}))
