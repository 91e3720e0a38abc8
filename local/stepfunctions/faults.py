"""Describes what is to become of a state of an execution, where a test says so."""

from dataclasses import dataclass
from typing import Literal


@dataclass
class Fault:
    """Says what becomes of a state when it is entered, or tried again, next."""

    state: str
    does: Literal["fail", "hang", "pause"]
    """A hanging task is answered nothing until its time is over; a paused state goes on when it is released."""
    when: Literal["before", "after"] = "before"
    """Says when a task meets it: before its call is made, or after, when the answer is lost."""
    error: str = ""
    """Says what a task fails with; by default its service throttles it."""
    cause: str = "Injected by the local cloud."
    times: int = 1
    skip: int = 0
    """Says how many times the state passes before."""
    execution: str | None = None
    """The name of the execution that is meant; None: any."""
