"""Bakes snapshots by a deployed stack, and waits for the end: `python -m local.make.bake STACK [INPUT]`."""

import json
import sys
import time
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

POLL_SECONDS = 2
"""Says how often it is asked whether the bake has ended; it takes half an hour."""
MACHINE = "BakeSnapshot"
"""The state machine's name in the template."""


class BakeError(Exception):
    """Says why nothing was baked, in one sentence."""


def main() -> None:
    """Prints what the bake answers as JSON; exit code 1, and why on stderr, where it fails or cannot begin."""
    stack, *rest = sys.argv[1:]
    try:
        print(json.dumps(bake(stack, *rest), indent=2, ensure_ascii=False))
    except (BakeError, BotoCoreError, ClientError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit("Nobody waits any more; the execution goes on.")


def bake(stack: str, given: str = "{}", every: float = POLL_SECONDS) -> Any:
    """Starts an execution of the stack's state machine and returns its output once it has ended."""
    step_functions = boto3.client("stepfunctions")
    arn = step_functions.start_execution(stateMachineArn=machine(stack), input=checked(given))["executionArn"]
    print(f"execution {arn}", file=sys.stderr)
    while (execution := step_functions.describe_execution(executionArn=arn))["status"] == "RUNNING":
        time.sleep(every)
    if execution["status"] != "SUCCEEDED":
        why = ": ".join(execution[field] for field in ("error", "cause") if execution.get(field))
        raise BakeError(f"The bake ended as {execution['status']}: {why or 'nothing more is known'}")
    return json.loads(execution["output"])


def machine(stack: str) -> str:
    """Returns the ARN of the stack's state machine."""
    cloudformation = boto3.client("cloudformation")
    where = f"in {cloudformation.meta.region_name}"
    try:
        answer = cloudformation.describe_stack_resource(StackName=stack, LogicalResourceId=MACHINE)
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        message = f'There is no stack "{stack}" {where} that bakes: name yours, as make bake STACK=eks-image-prefetch.'
        raise BakeError(message) from error
    return answer["StackResourceDetail"]["PhysicalResourceId"]


def checked(given: str) -> str:
    """Returns an input that is a JSON object as it is."""
    try:
        if isinstance(json.loads(given), dict):
            return given
    except ValueError:
        pass
    raise BakeError(f"The input {given} is not accepted: it takes a JSON object, such as " + '{"rules": ["gpu"]}.')


if __name__ == "__main__":
    main()
