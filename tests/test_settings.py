"""Settings that a function would refuse fail the deployment with its own sentence, and `make check` before it."""

import json
import os
import platform
import subprocess
import sys

import pytest
from account import inventory
from botocore.exceptions import ClientError, WaiterError
from uploaded import Uploaded

from local.client import ROOT
from local.make import check
from local.stack import Stack

PUSH = json.loads((ROOT / "events" / "image-push.tagged.json").read_text())

BY_A_FUNCTION = {
    "a trailing comma in Rules": (
        {"Rules": '[{"name": "gpu"},]'},
        "environment variable RULES cannot be used: the rules are no JSON list: trailing comma at line 1 column 18",
    ),
    "more new images than are kept": (
        {"Newest": "3", "Keep": "2"},
        "environment variable RULES cannot be used: rule default: field keep: 2 is not accepted: it takes 0, or from "
        "newest, which is 3, to 50",
    ),
    "a default that no bake takes": (
        {"BakeDefaults": '{"keep": 0}'},
        "the stack's parameter BakeDefaults: keep: 0 is not accepted: it takes a whole number from 1 to 100",
    ),
    "a rule that there is not": (
        {"Rules": '[{"name": "gpu"}]', "BakeDefaults": '{"rules": ["web"]}'},
        'BakeDefaults: rules: ["web"] is not accepted: it takes a list of rules of the stack: gpu',
    ),
    "a list of nothing but spaces": (
        {"Rules": "[  ]"},
        "environment variable RULES cannot be used: the rules are an empty list",
    ),
    "more quotes than there is room for": (
        {"Rules": json.dumps([{"name": "gpu", "repositories": ["team/a" for _ in range(220)]}])},
        "environment variable RULES takes 2681 bytes of a function's environment, in which every quote, backslash and "
        "line break counts twice, and there is room for 2394",
    ),
    "half a second": (
        {"DeliveryTimeout": "600.5"},
        'environment variable DELIVERY_TIMEOUT_SECONDS: "600.5" is not accepted: it takes a whole number from 30 to',
    ),
}
"""Parameters that CloudFormation takes and a function would not, with the function's sentence."""

BY_CLOUDFORMATION = {
    "Rules that were to be a list": ({"Rules": ""}, "Empty is neither."),
    "Rules of spaces": ({"Rules": "  "}, "or the word default for one rule"),
    "defaults that were to be an object": ({"BakeDefaults": ""}, "A JSON object of up to 700 characters"),
    "a longer list of repositories than a function is given": (
        {"Repositories": ",".join(["team/app"] * 40)},
        "separated by commas, without spaces, in up to 310 characters; Rules takes more.",
    ),
    "a pin without a keep": ({"Pin": "true"}, "Pin takes a Keep of at least 1"),
}
"""Parameters that CloudFormation refuses, with what the template says."""


@pytest.fixture(scope="module")
def stack(cloud):
    stack = Uploaded(cloud, name="checked")
    stack.deploy(ClusterName="checked", Rules='[{"name": "before"}]')
    yield stack
    stack.delete()


@pytest.fixture
def first(cloud):
    """A stack that is not there yet."""
    stack = Stack(cloud, name="first")
    yield stack
    stack.delete()


@pytest.mark.parametrize("case", list(BY_A_FUNCTION)[:3])
def test_a_first_deployment_fails_with_the_functions_sentence_and_leaves_nothing(cloud, first, case):
    parameters, sentence = BY_A_FUNCTION[case]
    before = inventory(cloud)
    with pytest.raises(RuntimeError) as failed:
        first.deploy(ClusterName="first", **parameters)
    assert sentence in str(failed.value)
    assert status(cloud, "first") == "ROLLBACK_COMPLETE"
    assert inventory(cloud) == before


@pytest.mark.parametrize("case", BY_A_FUNCTION)
def test_an_update_fails_with_the_functions_sentence_and_the_settings_before_stay_in_force(cloud, stack, case):
    parameters, sentence = BY_A_FUNCTION[case]
    with pytest.raises(WaiterError):
        stack.deploy(ClusterName="checked", **parameters)
    assert sentence in reason(cloud, "checked")
    assert status(cloud, "checked") == "UPDATE_ROLLBACK_COMPLETE"
    assert rules(stack) == ["before"]


def test_after_an_update_that_failed_a_good_one_is_deployed(cloud, stack):
    with pytest.raises(RuntimeError, match="trailing comma at line 1 column 18"):
        Stack(cloud, name="checked").deploy(ClusterName="checked", Rules='[{"name": "gpu"},]')
    assert rules(stack) == ["before"]
    stack.deploy(ClusterName="checked", Rules='[{"name": "after"}]')
    assert rules(stack) == ["after"]
    stack.deploy(ClusterName="checked", Rules='[{"name": "before"}]')


def test_what_lambda_refuses_is_refused_before_anything_is_touched(cloud, stack):
    quoted = json.dumps([{"name": "gpu", "repositories": [""] * 780}], separators=(",", ":"))
    assert len(quoted) <= 2400
    with pytest.raises(WaiterError):
        stack.deploy(ClusterName="checked", Rules=quoted)
    events = cloud.client("cloudformation").describe_stack_events(StackName="checked")["StackEvents"]
    [failed] = [event for event in events if "4KB limit" in event.get("ResourceStatusReason", "")][:1]
    assert (failed["LogicalResourceId"], failed["ResourceStatus"]) == ("SettingsCheck", "UPDATE_FAILED")
    assert status(cloud, "checked") == "UPDATE_ROLLBACK_COMPLETE"
    assert rules(stack) == ["before"]


@pytest.mark.parametrize("case", BY_CLOUDFORMATION)
def test_what_the_template_refuses_is_not_deployed_at_all(cloud, case):
    parameters, sentence = BY_CLOUDFORMATION[case]
    with pytest.raises(ClientError) as failed:
        Uploaded(cloud, name="refused").deploy(ClusterName="refused", **parameters)
    assert sentence in str(failed.value)


def test_what_the_shell_makes_of_a_rules_file_that_is_no_json_is_not_deployed(cloud):
    with pytest.raises(RuntimeError, match="Empty is neither"):
        Stack(cloud, name="refused").deploy(ClusterName="refused", Rules="")


def test_a_setting_that_is_changed_without_a_deployment_stops_the_function_at_its_start_with_the_reason(cloud, stack):
    client, name = cloud.client("lambda"), stack.resources()["ImagePush"]
    variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
    wrong = {**variables, "RULES": '[{"name": "gpu", "newest": 0}]'}
    client.update_function_configuration(FunctionName=name, Environment={"Variables": wrong})
    answer = stack.invoke("ImagePush", PUSH)
    complaint = "rule gpu: field newest: 0 is not accepted: it takes a whole number from 1 to 50"
    assert complaint in answer["error"]["errorMessage"]
    client.update_function_configuration(FunctionName=name, Environment={"Variables": variables})


def test_the_check_answers_a_deletion_whatever_the_settings_are(cloud):
    doomed = Uploaded(cloud, name="doomed")
    doomed.deploy(ClusterName="doomed")
    client, name = cloud.client("lambda"), doomed.resources()["SettingsCheck"]
    client.update_function_configuration(FunctionName=name, Environment={"Variables": {"RULES": "nonsense"}})
    doomed.delete()


def test_what_is_no_request_of_cloudformations_is_an_error_and_no_timeout(stack):
    for event in ({}, [], {"RequestType": "Create"}, "nonsense"):
        assert "no request of CloudFormation's" in stack.invoke("SettingsCheck", event)["error"]["errorMessage"]


def test_an_address_that_takes_no_answer_is_an_error_and_no_timeout(stack):
    event = json.loads((ROOT / "events" / "settings-check.create.json").read_text())
    event["ResponseURL"] = "http://127.0.0.1:9/nobody?X-Amz-Signature=secret"
    message = stack.invoke("SettingsCheck", event)["error"]["errorMessage"]
    assert message.startswith("CloudFormation could not be answered") and "secret" not in message


@pytest.mark.parametrize("case", [*BY_A_FUNCTION, *BY_CLOUDFORMATION])
def test_make_check_says_the_same(case):
    parameters, sentence = {**BY_A_FUNCTION, **BY_CLOUDFORMATION}[case]
    code, _, said = checked(ClusterName="prod", **parameters)
    assert (code, sentence in said) == (1, True), said


def test_make_check_says_in_one_line_what_would_be_deployed():
    code, said, _ = checked(ClusterName="prod", Repositories="team/*,!team/x", NodeTags="team=ml|web", Newest="2")
    images = "every push and the 2 newest images of repositories team/* !team/x that its nodes use"
    nodes = "nodes with team=ml|web; to a new node what its neighbours run"
    assert (code, said) == (0, f"cluster prod: rule default: {images}, to {nodes}\n")


def test_make_check_tells_of_everything_at_once_also_what_sam_would_leave_out():
    code, _, said = checked(Repository="team/*", Keep="51", MaxErrors="many")
    assert code == 1
    for part in (
        "Repository is no parameter of the template, and sam deploy leaves it out; Repositories may be meant",
        "ClusterName is missing: 1 to 100 letters",
        "Parameter 'Keep' must be a number not greater than 50",
        'MaxErrors: "many" is not accepted: A number from 0',
    ):
        assert part in said


def test_make_check_refuses_more_than_lambda_takes():
    rules = json.dumps([{"name": "gpu", "repositories": ["a" for _ in range(580)]}], separators=(",", ":"))
    assert len(rules) <= 2400
    code, _, said = checked(ClusterName="prod", Rules=rules, BakeDefaults="{" + " " * 600 + "}")
    assert (code, "bytes, and Lambda takes 4096: shorten Rules or BakeDefaults" in said) == (1, True), said


def test_parameters_are_read_from_samconfig_as_sam_reads_them(tmp_path):
    (tmp_path / "samconfig.toml").write_text(
        """
        version = 0.1
        [default.deploy.parameters]
        parameter_overrides = "ClusterName=\\"prod\\" Rules=\\"[{\\\\\\"name\\\\\\": \\\\\\"gpu\\\\\\"}]\\""
        [test.global.parameters]
        region = "eu-west-1"
        [test.deploy.parameters]
        parameter_overrides = ["ClusterName=test", "Newest=2"]
        """
    )
    settings = check.saved(tmp_path, "default")
    assert check.parsed(settings["parameter_overrides"]) == {"ClusterName": "prod", "Rules": '[{"name": "gpu"}]'}
    settings = check.saved(tmp_path, "test")
    assert settings["region"] == "eu-west-1"
    assert check.parsed(settings["parameter_overrides"]) == {"ClusterName": "test", "Newest": "2"}
    with pytest.raises(ValueError, match="has no section other: it has default, test"):
        check.saved(tmp_path, "other")


def test_what_was_built_for_another_processor_is_not_run(tmp_path, monkeypatch):
    monkeypatch.setattr(check, "TEMPLATE", tmp_path / "template.yaml")
    bootstrap = tmp_path / "SettingsCheck" / "bootstrap"
    assert check.command()[0] == "cargo"
    bootstrap.parent.mkdir()
    for machine, number in check.MACHINES.items():
        bootstrap.write_bytes(bytes(18) + number.to_bytes(2, "little"))
        assert (check.command() == [bootstrap]) is (machine == platform.machine())


def checked(**parameters: str) -> tuple[int, str, str]:
    """Runs what `make check` runs; returns its exit code and what it says on stdout and stderr."""
    overrides = " ".join(f"{name}={json.dumps(value)}" for name, value in parameters.items())
    ambient = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    ran = subprocess.run(
        [sys.executable, "-m", "local.make.check"],
        cwd=ROOT,
        env={**ambient, "PARAMETERS": overrides},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


def rules(stack: Uploaded) -> list[str]:
    """Returns the rules by which a push is sent."""
    return [command["rule"] for command in stack.invoke("ImagePush", PUSH)["commands"]]


def status(cloud, name: str) -> str:
    """Returns a stack's status."""
    [stack] = cloud.client("cloudformation").describe_stacks(StackName=name)["Stacks"]
    return stack["StackStatus"]


def reason(cloud, name: str) -> str:
    """Returns why the settings were last refused."""
    events = cloud.client("cloudformation").describe_stack_events(StackName=name)["StackEvents"]
    ours = [event for event in events if event["LogicalResourceId"] == "CheckedSettings"]
    return next(event["ResourceStatusReason"] for event in ours if event["ResourceStatus"].endswith("_FAILED"))
