"""Contracts of the template that no linter sees: the functions' files, their settings, their queues, parameters."""

import json
import re
import subprocess

import pytest
from template import FUNCTIONS, PARAMETERS, RESOURCES, TEMPLATE, references, variables

from local.client import ROOT
from local.stack import TEMPLATE as BUILT

DOCUMENT = json.loads((ROOT / "ssm" / "document.json").read_text())
CHECKED = RESOURCES["CheckedSettings"]["Properties"]


def test_who_serves_launches_knows_how_often_a_message_comes():
    redrive = RESOURCES["NodeQueue"]["Properties"]["RedrivePolicy"]
    assert variables("NodeLaunch")["MAX_RECEIVE_COUNT"] == str(redrive["maxReceiveCount"])


def test_every_function_is_a_folder_a_package_and_a_resource_of_one_name():
    folders = {folder.name for folder in (ROOT / "functions").iterdir()}
    assert set(FUNCTIONS) == {"".join(part.title() for part in folder.split("-")) for folder in folders}
    assert {path.name.partition(".")[0] for path in (ROOT / "events").iterdir()} == folders
    for name in FUNCTIONS:
        assert RESOURCES[name]["Properties"]["CodeUri"].removeprefix("functions/") in folders


def test_every_other_function_is_deployed_after_the_check_of_the_settings():
    assert CHECKED["ServiceToken"] == {"Fn::GetAtt": ["SettingsCheck", "Arn"]}
    unchecked = {name for name in FUNCTIONS if "CheckedSettings" not in RESOURCES[name].get("DependsOn", [])}
    assert unchecked == {"SettingsCheck"}


def test_in_an_update_what_reads_a_commands_comment_is_there_before_what_sends_one_of_a_new_kind():
    assert {"NodeResult", "Jobs"} <= set(RESOURCES["NodeLaunch"]["DependsOn"])


def test_in_an_update_the_document_is_there_before_whatever_sends_it():
    later = {name for name in FUNCTIONS if "PrefetchImages" in references(variables(name))}
    assert later == set(FUNCTIONS) - {"SettingsCheck", "NodeProgram"}


def test_every_parameter_of_which_a_functions_environment_is_made_is_checked_anew_where_it_changes():
    checked = {setting["Ref"] for setting in CHECKED["Settings"]}
    assert checked == {name for function in FUNCTIONS for name in references(variables(function))} & PARAMETERS


def test_every_parameter_that_a_function_is_given_is_one_that_the_check_is_given():
    given = variables("SettingsCheck")
    for function in FUNCTIONS:
        for name, value in variables(function).items():
            if set(references(value)) & PARAMETERS and "Fn::Sub" not in value:
                assert given.get(name) == value, f"{function}: {name}"


@pytest.mark.parametrize("function", ["NodeLaunch", "NodeResult"])
def test_a_message_stays_away_for_a_whole_batch_and_comes_again_for_longer_than_an_outage(function):
    properties = RESOURCES[function]["Properties"]
    [source] = [event["Properties"] for event in properties["Events"].values() if event["Type"] == "SQS"]
    queue = RESOURCES[source["Queue"]["Fn::GetAtt"][0]]["Properties"]
    timeout = properties.get("Timeout", TEMPLATE["Globals"]["Function"]["Timeout"])
    window = TEMPLATE["Parameters"][source["MaximumBatchingWindowInSeconds"]["Ref"]]
    assert queue["VisibilityTimeout"] >= timeout + window["MaxValue"]
    assert queue["VisibilityTimeout"] * queue["RedrivePolicy"]["maxReceiveCount"] >= 15 * 60
    assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]


def test_a_report_that_is_handed_back_stays_away_for_twice_the_functions_timeout():
    timeout = RESOURCES["NodeResult"]["Properties"]["Timeout"]
    assert RESOURCES["ResultQueue"]["Properties"]["VisibilityTimeout"] >= 2 * timeout


def test_records_and_their_protection_outlive_the_stack():
    for name in ("Records", "RecordsPolicy"):
        assert RESOURCES[name]["DeletionPolicy"] == "RetainExceptOnCreate"
        assert RESOURCES[name]["UpdateReplacePolicy"] == "Retain"


@pytest.mark.parametrize("function", ["ImagePush", "NodeResult", "Jobs"])
def test_an_event_that_failed_every_try_is_kept(function):
    kept = RESOURCES[function]["Properties"]["EventInvokeConfig"]
    assert kept["MaximumRetryAttempts"] == 2
    queue = kept["DestinationConfig"]["OnFailure"]["Destination"]
    assert queue["Fn::GetAtt"][0].endswith("DeadLetters")
    [policy] = RESOURCES[f"{function}Role"]["Properties"]["Policies"]
    sends = [row for row in policy["PolicyDocument"]["Statement"] if row["Action"] == "sqs:SendMessage"]
    assert queue in [row["Resource"] for row in sends]


def test_a_patient_call_ends_before_its_function_does():
    source = (ROOT / "shared/src/aws.rs").read_text()
    [seconds] = re.findall(r"PATIENT_CALL: Duration = Duration::from_secs\((\d+)\)", source)
    assert int(seconds) < RESOURCES["ImagePush"]["Properties"]["Timeout"]


@pytest.mark.parametrize(
    ("name", "accepted", "refused"),
    [
        (
            "SweepInterval",
            ["rate(1 minute)", "rate(15 minutes)", "rate(999 minutes)", "rate(1 hour)", "rate(12 hours)"],
            [
                "rate(1 minutes)",
                "rate(0 minutes)",
                "rate(1000 minutes)",
                "rate(13 hours)",
                "rate(1 day)",
                "15 minutes",
                "",
            ],
        ),
        (
            "ReconcileInterval",
            ["", "rate(1 minute)", "rate(30 minutes)", "rate(1 hour)", "rate(24 hours)", "rate(1 day)", "rate(7 days)"],
            ["rate(1 hours)", "rate(0 hours)", "rate(25 hours)", "rate(8 days)", "cron(0 7 * * ? *)", "1 hour"],
        ),
        (
            "Rules",
            ["default", "[]", '[{"name": "gpu"}]', '[\n{"name": "gpu"},\n]'],
            ["", " ", "none", "Default", "default ", '{"name": "gpu"}', '[{"name": "gpu"}', " []"],
        ),
        ("BakeDefaults", ["{}", '{"keep": 1}', "{\n}"], ["", " ", "[]", "null", "{", " {}"]),
        (
            "AlarmTopicArn",
            ["", "arn:aws:sns:eu-west-1:123456789012:on-call", "arn:aws-cn:sns:cn-north-1:123456789012:on_call"],
            [
                "on-call",
                "arn:aws:sqs:eu-west-1:123456789012:on-call",
                "arn:aws:sns:eu-west-1:123456789012:on-call.fifo",
            ],
        ),
    ],
)
def test_a_parameter_takes_what_aws_takes(name, accepted, refused):
    pattern = TEMPLATE["Parameters"][name]["AllowedPattern"]
    assert all(re.fullmatch(pattern, value) for value in accepted)
    assert not any(re.fullmatch(pattern, value) for value in refused)


@pytest.mark.parametrize(
    "name",
    [
        "ImageGCHighThresholdPercent",
        "MaxParallelImagePulls",
        "MaxConnections",
        "MaxBandwidthMiB",
        "MaxImageGiB",
        "Keep",
    ],
)
def test_a_number_that_reaches_the_document_has_its_default_and_its_range(name):
    parameter, documented = TEMPLATE["Parameters"][name], DOCUMENT["parameters"][name[0].lower() + name[1:]]
    assert str(parameter["Default"]) == documented["default"]
    accepted = [n for n in range(10_002) if re.fullmatch(documented["allowedPattern"], str(n))]
    assert accepted == list(range(parameter["MinValue"], parameter["MaxValue"] + 1))


def test_pin_has_the_values_and_the_default_of_the_documents():
    parameter, documented = TEMPLATE["Parameters"]["Pin"], DOCUMENT["parameters"]["pin"]
    assert parameter["Default"] == documented["default"]
    assert all(re.fullmatch(documented["allowedPattern"], value) for value in parameter["AllowedValues"])


def test_every_parameter_stands_in_one_group_of_the_console_and_is_documented_with_its_default():
    groups = TEMPLATE["Metadata"]["AWS::CloudFormation::Interface"]["ParameterGroups"]
    assert sorted(name for group in groups for name in group["Parameters"]) == sorted(TEMPLATE["Parameters"])
    tables = (ROOT / "docs" / "parameters.md").read_text().partition("## More about")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", tables, re.MULTILINE))
    for name, parameter in TEMPLATE["Parameters"].items():
        assert rows[name].strip(" `") == str(parameter.get("Default", "\N{EN DASH}"))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_binary_runs_on_amazon_linux_2023(function):
    bootstrap = BUILT.parent / function / "bootstrap"
    symbols = subprocess.run(["objdump", "-T", bootstrap], capture_output=True, text=True, check=True).stdout
    versions = {tuple(map(int, version.split("."))) for version in re.findall(r"GLIBC_([0-9.]+)", symbols)}
    assert versions and max(versions) <= (2, 34)
