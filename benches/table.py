"""Prints a table of measurements, in Markdown."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

NOTHING = "-"


@dataclass(frozen=True)
class Below:
    """Ours is below a limit."""

    limit: float

    def text(self, unit: str) -> str:
        """Returns the target in words."""
        return f"< {quantity(self.limit, unit)}"

    def met(self, ours: float, rivals: Mapping[str, float]) -> bool:
        """Tells whether it is reached."""
        return ours < self.limit


@dataclass(frozen=True)
class PartOfRival:
    """Ours is at most one part of the rival's, of the best rival's: with `parts=1`, no more than it."""

    parts: int

    def text(self, unit: str) -> str:
        """Returns the target in words."""
        return "≤ rival" if self.parts == 1 else f"≤ 1/{self.parts} of rival"

    def met(self, ours: float, rivals: Mapping[str, float]) -> bool:
        """Tells whether it is reached."""
        return bool(rivals) and ours * self.parts <= min(rivals.values())


@dataclass(frozen=True)
class Above:
    """Ours is at most a part of one rival's by name, and so many seconds more."""

    rival: str
    part: float = 1
    seconds: float = 0

    def text(self, unit: str) -> str:
        """Returns the target in words."""
        more = f" + {quantity(self.seconds, unit)}" if self.seconds else ""
        return f"≤ {'' if self.part == 1 else f'{self.part} of '}{self.rival}{more}"

    def met(self, ours: float, rivals: Mapping[str, float]) -> bool:
        """Tells whether it is reached."""
        return ours <= rivals[self.rival] * self.part + self.seconds


@dataclass(frozen=True)
class Exactly:
    """Ours is this number."""

    number: int

    def text(self, unit: str) -> str:
        """Returns the target in words."""
        return quantity(self.number, unit)

    def met(self, ours: float, rivals: Mapping[str, float]) -> bool:
        """Tells whether it is reached."""
        return ours == self.number


Target = Below | PartOfRival | Above | Exactly


@dataclass(frozen=True)
class Row:
    """One measurement; without a `why_not` it has been measured. Several rivals have names, one needs none."""

    what: str
    unit: str
    ours: float | None
    rival: float | Mapping[str, float] | None = None
    target: Target | None = None
    why_not: str = ""

    @property
    def rivals(self) -> Mapping[str, float]:
        """Returns the rivals' measurements by their names."""
        if self.rival is None:
            return {}
        return self.rival if isinstance(self.rival, Mapping) else {"rival": self.rival}

    def cells(self, rivals: Sequence[str]) -> tuple[str, ...]:
        """Returns the row's texts, in the order of `head`."""
        target = self.target.text(self.unit) if self.target else ""
        if self.ours is None:
            return (
                self.what,
                NOTHING,
                *(NOTHING for _ in rivals),
                NOTHING,
                target,
                f"**not measured**: {self.why_not}",
            )
        theirs = [quantity(self.rivals[name], self.unit) if name in self.rivals else NOTHING for name in rivals]
        ratio = part(self.ours / self._best) if self._best else NOTHING
        return (self.what, quantity(self.ours, self.unit), *theirs, ratio, target, self._met())

    @property
    def _best(self) -> float | None:
        return min(self.rivals.values(), default=None)

    def _met(self) -> str:
        if self.target is None or self.ours is None:
            return ""
        return "yes" if self.target.met(self.ours, self.rivals) else "**no**"


def head(rivals: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the columns; ratio and target are those of the best rival."""
    return ("what", "ours", *rivals, "ours ÷ rival" if len(rivals) == 1 else "ours ÷ best", "target", "met")


def markdown(rows: Iterable[Row]) -> str:
    """Returns the rows as a table whose columns are aligned."""
    rows = list(rows)
    rivals = list(dict.fromkeys(name for row in rows for name in row.rivals)) or ["rival"]
    lines = [head(rivals), *(row.cells(rivals) for row in rows)]
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
    return f"1/{1 / ratio:.0f}" if 0 < ratio < 0.1 else f"{ratio:.2f}"
