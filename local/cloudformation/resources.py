"""Completes resource types of ministack's CloudFormation with the properties that it leaves out."""

from collections.abc import Callable

from local.api import Response
from local.ministack import provisioners


def complete(type_: str, configure: Callable[[str, dict], None], delete: Callable[[str], None]) -> None:
    """Has `configure` bring a resource to what its properties say, and `delete` end it."""
    handlers = provisioners._RESOURCE_HANDLERS[type_]
    create, update = handlers["create"], handlers["update"]

    def creating(logical_id: str, properties: dict, stack: str) -> tuple[str, dict]:
        name, attributes = create(logical_id, properties, stack)
        try:
            configure(name, properties)
        except ValueError:
            delete(name)
            raise
        return name, attributes

    def updating(name: str, old: dict, new: dict, *rest) -> tuple[str, dict]:
        name, attributes = update(name, old, new, *rest)
        configure(name, new)
        return name, attributes

    provisioners._RESOURCE_HANDLERS[type_] = handlers | {
        "create": creating,
        "update": updating,
        "delete": lambda name, properties: delete(name),
    }


def succeed(response: Response) -> None:
    """Raises what an API has refused, as the reason of the stack's failure."""
    status, _, body = response
    if status >= 400:
        raise ValueError(body if isinstance(body, str) else body.decode())


def boolean(value: object) -> bool:
    """Returns a template's boolean, which may be a text."""
    return str(value).lower() == "true"
