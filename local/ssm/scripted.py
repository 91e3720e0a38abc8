"""Ends commands by script instead of running them: every way an invocation can end, on one node or a thousand."""

from dataclasses import dataclass
from datetime import UTC, datetime

from local.ssm.commands import Invocation

STATUSES = {
    "Success": "Success",
    "Failed": "Failed",
    "DeliveryTimedOut": "TimedOut",
    "ExecutionTimedOut": "TimedOut",
    "Undeliverable": "Failed",
    "Terminated": "Cancelled",
    "Cancelled": "Cancelled",
    "InvalidPlatform": "Failed",
    "AccessDenied": "Failed",
    "RateExceeded": "Failed",
}
"""The status of each StatusDetails with which an invocation ends (Run Command, command statuses)."""

RAN = ("Success", "Failed", "ExecutionTimedOut")
"""Those whose document ran on the node."""


@dataclass
class Ending:
    """Says how an invocation ends."""

    details: str = "Success"
    stdout: str = ""
    stderr: str = ""
    exit_code: int | None = None
    """None: 0 or 1, as the details have it."""
    seconds: float = 0.0
    """Says how long a node that exists takes until then."""

    def apply(self, invocation: Invocation) -> None:
        """Ends the invocation so, and has SSM say so."""
        if self.details in RAN:
            plugin = invocation.plugins[0]
            plugin.started = plugin.started or datetime.now(UTC)
            plugin.ended = datetime.now(UTC)
            plugin.status, plugin.details = STATUSES[self.details], self.details
            plugin.stdout, plugin.stderr = self.stdout, self.stderr
            if self.details != "ExecutionTimedOut":
                plugin.exit_code = int(self.details == "Failed") if self.exit_code is None else self.exit_code
        invocation.move(STATUSES[self.details], self.details)
