"""Draws charts in SVG: numbers, a gauge, bars, lines and areas, each in a box of pixels."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

PALETTE = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
INK, GREY, FAINT = "#16191f", "#687078", "#e3e7e8"
SMALL = 10
LETTER = 5.3
"""Says how many pixels a letter of a small text is wide."""
LEGEND_ROW = 14


class Box(NamedTuple):
    """A part of the picture, in pixels."""

    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Line:
    """One series of a chart, under its label."""

    label: str
    colour: str
    points: dict[int, float]

    def total(self) -> float:
        """Returns the sum of all periods."""
        return sum(self.points.values())


def text(x: float, y: float, content: str, size: float = SMALL, colour: str = INK, more: str = "") -> str:
    """Returns a line of text; `more` are further attributes."""
    place = f'x="{x:g}" y="{y:g}"'
    return f'<text {place} font-size="{size:g}" fill="{colour}"{more and " " + more}>{html.escape(content)}</text>'


def number(value: float | None) -> str:
    """Returns a number with as many digits as a reader takes; a dash for none."""
    if value is None:
        return "-"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


def numbers(box: Box, shown: Sequence[tuple[str, str, float | None]]) -> list[str]:
    """Draws labels, colours and values as large numbers, up to four in a row."""
    columns = len(shown) if len(shown) <= 4 else 3
    wide, high = box.width / columns, min(box.height / math.ceil(len(shown) / columns), 56)
    parts = []
    for place, (label, colour, value) in enumerate(shown):
        x, y = box.x + wide * (place % columns), box.y + high * (place // columns)
        parts.append(text(x, y + 20, number(value), 20, colour, 'font-weight="bold"'))
        parts += [text(x, y + 33 + 11 * row, part, SMALL, GREY) for row, part in enumerate(_wrapped(label, wide - 6))]
    return parts


def _wrapped(label: str, width: float) -> list[str]:
    """Returns a label in as many lines as it needs."""
    lines = [""]
    for word in label.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(longer) * LETTER > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def gauge(box: Box, value: float | None, low: float, high: float) -> list[str]:
    """Draws half a ring that is filled up to a value, and the value in it."""
    radius = min(box.width / 2, box.height) - 18
    middle, ground = box.x + box.width / 2, box.y + box.height - 14

    def arc(part: float, colour: str) -> str:
        x, y = middle - radius * math.cos(math.pi * part), ground - radius * math.sin(math.pi * part)
        path = f"M{middle - radius:.1f} {ground:.1f}A{radius:.1f} {radius:.1f} 0 0 1 {x:.1f} {y:.1f}"
        return f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="14"/>'

    ends = [(middle - radius - 3, low), (middle + radius - 9, high)]
    return [
        arc(1, FAINT),
        *([] if value is None else [arc((value - low) / (high - low), PALETTE[0])]),
        text(middle, ground - 4, number(value), 24, INK, 'font-weight="bold" text-anchor="middle"'),
        *(text(x, ground + 12, number(end), SMALL, GREY) for x, end in ends),
    ]


def bars(box: Box, lines: Sequence[Line]) -> list[str]:
    """Draws a bar for each series, as long as its sum, with label and number."""
    if not lines:
        return nothing(box)
    label = min(max(len(line.label) for line in lines) * LETTER + 8, box.width / 2)
    room, most = box.width - label - 36, max(line.total() for line in lines) or 1
    high = min(box.height / len(lines), 22)
    parts = []
    for place, line in enumerate(lines):
        y, long = box.y + high * place, room * line.total() / most
        parts.append(text(box.x, y + high / 2 + 4, line.label))
        size = f'width="{long:.1f}" height="{high - 6:.1f}"'
        parts.append(f'<rect x="{box.x + label:.1f}" y="{y + 3:.1f}" {size} fill="{line.colour}"/>')
        parts.append(text(round(box.x + label + long + 5, 1), y + high / 2 + 4, number(line.total())))
    return parts


def nothing(box: Box) -> list[str]:
    """Says that there is no data."""
    return [text(box.x, box.y + 20, "nothing in this time", 11, GREY)]


def states(box: Box, alarms: Sequence[tuple[str, bool]]) -> list[str]:
    """Draws the names of alarms in two columns, with a mark for those that are on."""
    parts, half = [], math.ceil(len(alarms) / 2)
    for place, (name, is_on) in enumerate(alarms):
        x, y = box.x + box.width * 0.59 * (place // half), box.y + box.height / half * (place % half)
        colour, weight = (PALETTE[3], 'font-weight="bold"') if is_on else (PALETTE[2], "")
        parts.append(
            f'<rect x="{x:g}" y="{y + 3:.1f}" width="7" height="7" rx="{0 if is_on else 3.5}" fill="{colour}"/>'
        )
        parts.append(text(x + 11, round(y + 10, 1), name, 9, PALETTE[3] if is_on else INK, weight))
    return parts


def over_time(box: Box, lines: Sequence[Line], periods: int, period: int, stacked: bool, label: str) -> list[str]:
    """Draws lines, or areas one upon the other, over the periods; axes and a legend around them."""
    legend, high = _legend(box, lines)
    plot = Box(box.x + 30, box.y + 14, box.width - 34, box.height - high - 30)
    sums = [sum(line.points.get(at, 0) for line in lines) for at in range(periods)]
    top = _nice(max(sums if stacked else [value for line in lines for value in line.points.values()], default=0))
    scale = _Scale(plot, periods, top)
    drawn = _areas(scale, lines) if stacked else [part for line in lines for part in _strokes(scale, line)]
    return [*_axes(scale, period, label), *drawn, *legend]


def _nice(most: float) -> float:
    """Returns the least round number that is not below."""
    if most <= 0:
        return 1
    size = 10 ** math.floor(math.log10(most))
    return next(part * size for part in (1, 2, 4, 5, 6, 8, 10) if part * size >= most * 0.9999)


@dataclass(frozen=True)
class _Scale:
    """Says where in a plot a value of a period lies."""

    plot: Box
    periods: int
    top: float

    def at(self, period: float, value: float) -> str:
        x = self.plot.x + self.plot.width * period / max(self.periods - 1, 1)
        return f"{x:.1f},{self.height(value):.1f}"

    def height(self, value: float) -> float:
        return self.plot.y + self.plot.height * (1 - value / self.top)


def _axes(scale: _Scale, period: int, label: str) -> list[str]:
    plot, end = scale.plot, scale.plot.x + scale.plot.width
    parts = []
    for value in (0, scale.top / 2, scale.top):
        y = round(scale.height(value), 1)
        parts.append(f'<path d="M{plot.x:g} {y:g}H{end:g}" stroke="{FAINT}"/>')
        parts.append(text(plot.x - 4, y + 3, number(value), 9, GREY, 'text-anchor="end"'))
    for minute in range(math.floor((scale.periods - 1) * period / 60) + 1):
        x = float(scale.at(minute * 60 / period, 0).split(",")[0])
        parts.append(text(x, plot.y + plot.height + 11, f"{minute} min", 9, GREY, 'text-anchor="middle"'))
    return [*parts, *([text(plot.x, plot.y - 4, label, 9, GREY)] if label else [])]


def _areas(scale: _Scale, lines: Sequence[Line]) -> list[str]:
    """Draws each series upon those before it; where it has no value it adds none."""
    below, parts = [0.0] * scale.periods, []
    for line in lines:
        above = [height + line.points.get(at, 0) for at, height in enumerate(below)]
        if line.total():
            edge = [scale.at(at, value) for at, value in enumerate(above)]
            edge += [scale.at(at, below[at]) for at in reversed(range(scale.periods))]
            parts.append(f'<polygon points="{" ".join(edge)}" fill="{line.colour}" fill-opacity="0.8"/>')
        below = above
    return parts


def _strokes(scale: _Scale, line: Line) -> list[str]:
    """Draws a series as a line, with a dot for each value."""
    places = [scale.at(at, value) for at, value in sorted(line.points.items())]
    dots = [place.split(",") for place in places]
    return [
        f'<polyline points="{" ".join(places)}" fill="none" stroke="{line.colour}" stroke-width="1.5"/>',
        *(f'<circle cx="{x}" cy="{y}" r="1.8" fill="{line.colour}"/>' for x, y in dots),
    ]


def _legend(box: Box, lines: Sequence[Line]) -> tuple[list[str], float]:
    """Returns the labels with their colours, at the bottom of the box, and how high they are together."""
    places, x, row = [], 0.0, 0
    for line in lines:
        wide = len(line.label) * LETTER + 24
        if x and x + wide > box.width:
            x, row = 0.0, row + 1
        places.append((line, x, row))
        x += wide
    high = LEGEND_ROW * (row + 1)
    top = box.y + box.height - high
    parts = []
    for line, x, row in places:
        y = top + LEGEND_ROW * row
        square = f'x="{box.x + x:.1f}" y="{y + 3:g}" width="8" height="8"'
        parts.append(f'<rect {square} fill="{line.colour}"/>{text(round(box.x + x + 12, 1), y + 11, line.label)}')
    return parts, high
