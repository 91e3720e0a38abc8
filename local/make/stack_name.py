"""Says why AWS would refuse a stack's name, or those in samconfig.toml: `python -m local.make.stack_name [NAME]`."""

import re
import sys
import tomllib
from pathlib import Path

from local.client import ROOT

MAX_LENGTH = 66
"""The longest name: the state machine's, `<stack>-bake-snapshot`, has at most 80 characters (CreateStateMachine)."""
RESERVED = ("aws", "amazon", "amzn", "ssm")
"""Lists what SSM keeps for AWS, in any case: names of documents begin with none of the first three (CreateDocument),
names of parameters with neither the first nor the last (PutParameter)."""
CONFIGURATION = ROOT / "samconfig.toml"


def refusal(name: str) -> str | None:
    """Returns why a stack may not have this name, as shared/src/stack_name.rs does; None where it may."""
    reserved = next((prefix for prefix in RESERVED if name.lower().startswith(prefix)), None)
    if not re.fullmatch("[A-Za-z][A-Za-z0-9-]*", name):
        accepted = "letters, digits and '-', a letter first"
    elif reserved:
        accepted = (
            f"a name that does not begin with {reserved}: SSM keeps that for AWS, in documents' and parameters' names"
        )
    elif len(name) > MAX_LENGTH:
        accepted = f"at most {MAX_LENGTH} characters, for {name}-bake-snapshot, a state machine's name, has at most 80"
    else:
        return None
    return f'the stack\'s name "{name}" is not accepted: it takes {accepted}'


def configured(path: Path = CONFIGURATION) -> list[str]:
    """Returns the stacks' names that SAM's configuration holds, each once."""
    environments = tomllib.loads(path.read_text()) if path.exists() else {}
    sections = [
        environment.get(command, {}).get("parameters", {})
        for environment in environments.values()
        if isinstance(environment, dict)
        for command in ("global", "deploy")
    ]
    return list(dict.fromkeys(section["stack_name"] for section in sections if "stack_name" in section))


def main() -> None:
    """Prints a sentence for each name that is refused; exit code 1 where there is one."""
    refused = [sentence for name in sys.argv[1:] or configured() if (sentence := refusal(name))]
    for sentence in refused:
        print(sentence, file=sys.stderr)
    sys.exit(bool(refused))


if __name__ == "__main__":
    main()
