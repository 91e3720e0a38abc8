"""The text of the document."""

import json
import re

from local.make import document

from .command import PARAMETERS


def test_the_document_holds_the_bootstrap_as_it_is() -> None:
    assert document.DOCUMENT.read_text() == document.render(), "run `make document`"


def test_the_document_is_what_ssm_accepts() -> None:
    text = document.DOCUMENT.read_text()
    step = json.loads(text)["mainSteps"][0]

    written_anew = json.dumps(json.loads(text), indent=2, ensure_ascii=False)  # by CloudFormation
    assert len(written_anew.encode()) + 300 < document.MAX_BYTES, "with a repository and two digests in it"
    assert step["action"] == "aws:runShellScript"
    assert step["precondition"] == {"StringEquals": ["platformType", "Linux"]}
    assert step["inputs"]["runCommand"][0].startswith("#!"), "the agent runs the file with `sh -c`"
    assert sorted(set(re.findall(r"{{.*?}}", text))) == sorted(f"{{{{ {name} }}}}" for name in PARAMETERS)
    assert "interpolationType" not in PARAMETERS["executionTimeout"], "its value stands in timeoutSeconds as text"
    for name, parameter in PARAMETERS.items():
        assert parameter["type"] == "String"
        assert name == "executionTimeout" or parameter["interpolationType"] == "ENV_VAR"
        assert name == "images" or re.fullmatch(parameter["allowedPattern"], parameter["default"])
        assert parameter["allowedPattern"].startswith("^") and parameter["allowedPattern"].endswith("$")
