"""The texts of the documents."""

import json
import re
from pathlib import Path

import pytest

from local.make import document

PARAMETERS = {path: json.loads(path.read_text())["parameters"] for path in document.HEADS}
UNSAID = {"images", "tags"}
"""Names the parameters that have no default: what a command is for."""

each_document = pytest.mark.parametrize("path", document.HEADS, ids=lambda path: path.stem)


@each_document
def test_a_document_holds_the_bootstrap_as_it_is(path: Path) -> None:
    assert path.read_text() == document.render(path), "run `make document`"


@each_document
def test_a_document_is_what_ssm_accepts(path: Path) -> None:
    text = path.read_text()
    step = json.loads(text)["mainSteps"][0]

    written_anew = json.dumps(json.loads(text), indent=2, ensure_ascii=False)  # by CloudFormation
    assert len(written_anew.encode()) + 300 < document.MAX_BYTES, "with a repository and two digests in it"
    assert step["action"] == "aws:runShellScript"
    assert step["precondition"] == {"StringEquals": ["platformType", "Linux"]}
    assert step["inputs"]["runCommand"][0].startswith("#!"), "the agent runs the file with `sh -c`"
    parameters = PARAMETERS[path]
    assert sorted(set(re.findall(r"{{.*?}}", text))) == sorted(f"{{{{ {name} }}}}" for name in parameters)
    assert "interpolationType" not in parameters["executionTimeout"], "its value stands in timeoutSeconds as text"
    for name, parameter in parameters.items():
        assert parameter["type"] == "String"
        assert name == "executionTimeout" or parameter["interpolationType"] == "ENV_VAR"
        assert name in UNSAID or re.fullmatch(parameter["allowedPattern"], parameter["default"])
        assert parameter["allowedPattern"].startswith("^") and parameter["allowedPattern"].endswith("$")


def test_a_document_is_for_images_or_for_tags() -> None:
    named = [set(parameters) & UNSAID for parameters in PARAMETERS.values()]

    assert named == [{"images"}, {"tags"}]
    assert PARAMETERS[document.TAGS_DOCUMENT].keys() == {"tags", "executionTimeout"}
