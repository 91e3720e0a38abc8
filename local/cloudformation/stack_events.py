"""Adds CloudFormation's events: every status that a stack takes, on the default bus."""

from local import background
from local.eventbridge import events
from local.ministack import changesets, handlers, stacks

STACK = "AWS::CloudFormation::Stack"

_add_event = stacks._add_event


def install() -> None:
    """Listens to what CloudFormation writes down of its stacks."""
    for module in (stacks, handlers, changesets):
        module._add_event = _announce


def _announce(
    stack_id: str,
    stack_name: str,
    logical_id: str,
    resource_type: str,
    status: str,
    reason: str = "",
    physical_id: str = "",
    detailed_status: str = "",
) -> None:
    _add_event(stack_id, stack_name, logical_id, resource_type, status, reason, physical_id, detailed_status)
    if resource_type == STACK and logical_id == stack_name:
        detail = {
            "stack-id": stack_id,
            "status-details": {"status": status, "status-reason": reason},
            "client-request-token": stacks.CLIENT_REQUEST_TOKEN.get(),
        }
        background.start(events.emit, "aws.cloudformation", "CloudFormation Stack Status Change", detail, [stack_id])
