"""A stand-in for the AWS CLI, as far as the commands of docs/deploy.md go: `aws SERVICE OPERATION --option value…`."""

import json
import sys

import boto3
import jmespath
from botocore import xform_name
from botocore.model import ListShape, OperationModel, Shape, StructureShape


def main(service: str, command: str, *arguments: str) -> None:
    """Calls an operation, all its pages, and prints what --query takes of the answer, as JSON or as --output text."""
    client = boto3.client(service)
    method = command.replace("-", "_")
    operation = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[method])
    options = dict(parsed(arguments))
    query, output = options.pop("--query", ["@"]), options.pop("--output", ["json"])
    request = dict(member(operation, name, values) for name, values in options.items())
    if client.can_paginate(method):
        answer = client.get_paginator(method).paginate(**request).build_full_result()
    else:
        answer = getattr(client, method)(**request)
    found = jmespath.search(query[0], answer)
    print(*rows(found) if output == ["text"] else [json.dumps(found, default=str)], sep="\n", end="")
    if found:
        print()


def parsed(arguments: tuple[str, ...]) -> list[tuple[str, list[str]]]:
    """Returns each option with its values."""
    options: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--"):
            options.append((argument, []))
        else:
            options[-1][1].append(argument)
    return options


def member(operation: OperationModel, option: str, values: list[str]) -> tuple[str, object]:
    """Returns an option as the member of the operation's request that it is, with its value."""
    members = operation.input_shape.members
    [name] = [name for name in members if f"--{xform_name(name, '-')}" == option]
    shape = members[name]
    return name, [value_of(shape.member, text) for text in values] if isinstance(shape, ListShape) else values[0]


def value_of(shape: Shape, text: str) -> object:
    """Returns a value, of a structure in the shorthand Name=a,Values=b."""
    if not isinstance(shape, StructureShape):
        return text
    fields = dict(pair.split("=", 1) for pair in text.split(","))
    return {name: [value] if isinstance(shape.members[name], ListShape) else value for name, value in fields.items()}


def rows(found: list[list[str]]) -> list[str]:
    """Returns the lines of a text's rows."""
    return ["\t".join(row) for row in found]


if __name__ == "__main__":
    main(*sys.argv[1:])
