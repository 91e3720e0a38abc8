"""A table of measurements, in Markdown."""

from collections.abc import Iterable
from dataclasses import dataclass

NOTHING = "-"
HEAD = ("what", "ours", "rival", "ours ÷ rival", "target", "met")


@dataclass(frozen=True)
class Below:
    """Ours is below a limit."""

    limit: float

    def text(self, unit: str) -> str:
        """Returns the target in words."""
        return f"< {quantity(self.limit, unit)}"

    def met(self, ours: float, rival: float | None) -> bool:
        """Tells whether it is reached."""
        return ours < self.limit


@dataclass(frozen=True)
class PartOfRival:
    """Ours is at most one part of the rival's: with `parts=1`, no more than the rival's."""

    parts: int

    def text(self, unit: str) -> str:
        """Returns the target in words."""
        return "≤ rival" if self.parts == 1 else f"≤ 1/{self.parts} of rival"

    def met(self, ours: float, rival: float | None) -> bool:
        """Tells whether it is reached."""
        return rival is not None and ours * self.parts <= rival


@dataclass(frozen=True)
class Exactly:
    """Ours is this number."""

    number: int

    def text(self, unit: str) -> str:
        """Returns the target in words."""
        return quantity(self.number, unit)

    def met(self, ours: float, rival: float | None) -> bool:
        """Tells whether it is reached."""
        return ours == self.number


Target = Below | PartOfRival | Exactly


@dataclass(frozen=True)
class Row:
    """One measurement; without a `why_not` it has been measured."""

    what: str
    unit: str
    ours: float | None
    rival: float | None = None
    target: Target | None = None
    why_not: str = ""

    def cells(self) -> tuple[str, ...]:
        """Returns the row's texts, in the order of HEAD."""
        target = self.target.text(self.unit) if self.target else ""
        if self.ours is None:
            return (self.what, NOTHING, NOTHING, NOTHING, target, f"**not measured**: {self.why_not}")
        rival = NOTHING if self.rival is None else quantity(self.rival, self.unit)
        ratio = NOTHING if not self.rival else part(self.ours / self.rival)
        return (self.what, quantity(self.ours, self.unit), rival, ratio, target, self._met())

    def _met(self) -> str:
        if self.target is None or self.ours is None:
            return ""
        return "yes" if self.target.met(self.ours, self.rival) else "**no**"


def markdown(rows: Iterable[Row]) -> str:
    """Returns the rows as a table whose columns are aligned."""
    lines = [HEAD, *(row.cells() for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    texts = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    ]
    texts.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(texts)


def quantity(value: float, unit: str) -> str:
    """Returns a number with as many digits as say something."""
    number = (
        f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
    )
    return f"{number} {unit}".rstrip()


def part(ratio: float) -> str:
    """Returns a ratio, a small one as a fraction."""
    return f"1/{1 / ratio:.0f}" if ratio < 0.1 else f"{ratio:.2f}"
