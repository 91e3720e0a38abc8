"""Keeps what was checked and what of it held, and prints it as a table."""

import contextlib
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field

from botocore.exceptions import BotoCoreError, ClientError

HELD, BROKEN, UNCHECKED = "held", "did not hold", "not checked"
DENIALS = ("AccessDenied", "AccessDeniedException", "AuthorizationError", "UnauthorizedOperation")
"""The codes with which AWS's services refuse a caller."""


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    what: str
    state: str
    cause: str = ""
    """Says why, and what to do."""


@dataclass
class Results:
    """The rows so far, in the order in which they were found."""

    rows: list[Result] = field(default_factory=list)

    def held(self, what: str, note: str = "") -> None:
        """Adds what held."""
        self.rows.append(Result(what, HELD, note))

    def broken(self, what: str, cause: str) -> None:
        """Adds what did not hold, with its cause and what to do."""
        self.rows.append(Result(what, BROKEN, cause))

    def unchecked(self, what: str, cause: str) -> None:
        """Adds what could not be checked, with the cause."""
        self.rows.append(Result(what, UNCHECKED, cause))

    @contextlib.contextmanager
    def checking(self, what: str) -> Iterator[None]:
        """Has what AWS does not answer be a row that is not checked."""
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            self.unchecked(what, said(error))

    def count(self, state: str) -> int:
        """Returns how many rows are in a state."""
        return sum(row.state == state for row in self.rows)


def said(error: ClientError | BotoCoreError) -> str:
    """Returns what AWS said against a call, in one line."""
    if isinstance(error, ClientError):
        code = error.response.get("Error", {}).get("Code", "")
        if code in DENIALS:
            return f"the caller may not {error.operation_name}: {one_line(error)}"
    return one_line(error)


def counted(number: int, noun: str) -> str:
    """Returns how many there are of something."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def one_line(error: object) -> str:
    """Returns a text without its line breaks."""
    return " ".join(str(error).split())


def table(rows: list[Result], width: int) -> str:
    """Returns the rows under their names, the last column broken to the width."""
    header = Result("checked", "result", "cause and what to do")
    columns = [max(len(getattr(row, name)) for row in (header, *rows)) for name in ("what", "state")]
    columns[0] = min(columns[0], max(24, width // 3))
    rest = max(24, width - sum(columns) - 4)
    lines = []
    for row in (header, *rows):
        whats = textwrap.wrap(row.what, columns[0], break_on_hyphens=False) or [""]
        causes = textwrap.wrap(row.cause, rest, break_on_hyphens=False, break_long_words=False) or [""]
        for number in range(max(len(whats), len(causes))):
            what = whats[number] if number < len(whats) else ""
            state = row.state if number == 0 else ""
            cause = causes[number] if number < len(causes) else ""
            lines.append(f"{what:<{columns[0]}}  {state:<{columns[1]}}  {cause}".rstrip())
    return "\n".join(lines)


def progress(text: str) -> None:
    """Says what is being done, beside the table."""
    print(text, file=sys.stderr, flush=True)
