"""Reads the widgets of the dashboard, and finds the recorded data of their rows."""

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from template import RESOURCES, ROOT

sys.path.append(str(ROOT))
from local.cloudwatch import dashboards

RECORDING = ROOT / "docs" / "generator" / "dashboard.json"
SEARCH = re.compile(
    r"""SEARCH\('\{(?P<schema>[\w/,]+)\} MetricName="(?P<name>\w+)" """
    r"""(?P<key>\w+)="(?P<value>[^"]+)"', '(?P<stat>\w+)'\)"""
)
"""Reads the one form of SEARCH that is understood: a schema, the metric's name and the value of one dimension."""

Widget = Mapping[str, Any]
Points = Mapping[int, float]
"""The values by the number of their period."""


class Unknown(ValueError):
    """Says what of a widget is not understood, in one sentence."""


@dataclass(frozen=True)
class Row:
    """A row of a widget: a metric, or all that a search finds."""

    namespace: str
    name: str
    dimensions: Mapping[str, str | None]
    """Their values by their names; None where any is searched for."""
    stat: str
    label: str
    colour: str
    id: str

    def shows(self, series: "Series") -> bool:
        """Tells whether a series is one of the row."""
        wanted = {name: value or series.dimensions.get(name) for name, value in self.dimensions.items()}
        of_series = (series.namespace, series.name, series.stat, series.dimensions)
        return (self.namespace, self.name, self.stat, wanted) == of_series

    def label_of(self, series: "Series") -> str:
        """Returns the label of a series of the row, with the values of dimensions that it names."""
        return re.sub(r"PROP\('Dim\.(\w+)'\)", lambda match: series.dimensions[match[1]], self.label)


@dataclass(frozen=True)
class Series:
    """One statistic of a metric, as it was recorded; the template's references stand for the stack's names."""

    namespace: str
    name: str
    dimensions: Mapping[str, str]
    stat: str
    unit: str
    points: Points


@dataclass(frozen=True)
class Recording:
    """Holds the data of a stack on a local cloud."""

    told: str
    periods: int
    seconds: int
    """Says how long a period is."""
    alarms: Mapping[str, str]
    series: list[Series]

    def of(self, row: Row) -> list[Series]:
        """Returns the series that a row shows."""
        return [series for series in self.series if row.shows(series)]


def recording() -> Recording:
    """Reads what was recorded."""
    content = json.loads(RECORDING.read_text())
    series = [Series(**row | {"points": dict(row["points"])}) for row in content.pop("series")]
    return Recording(**content, series=series)


def widgets() -> list[Widget]:
    """Returns the dashboard's widgets, with the names of the template's references in their place."""
    text = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return json.loads(re.sub(r"\$\{!?([^}]+)\}", r"\1", text))["widgets"]


def rows(widget: Widget) -> Iterator[Row]:
    """Yields the rows of a widget that show metrics; what is reckoned from them is left out."""
    properties = widget["properties"]
    for row in properties.get("metrics", []):
        *names, options = row if isinstance(row[-1], dict) else [*row, {}]
        known = {"label": options.get("label", ""), "colour": options.get("color", ""), "id": options.get("id", "")}
        if names:
            if len(names) < 4 or {".", "..."} & set(names):
                raise Unknown(f"The widget {properties['title']!r} has a row of a form that is not known: {row}")
            dimensions = dict(zip(names[2::2], names[3::2], strict=True))
            stat = options.get("stat", properties.get("stat", "Average"))
            yield Row(names[0], names[1], dimensions, stat, **known)
        elif "SEARCH" in options["expression"]:
            yield Row(*_searched(options["expression"]), **known)
        elif properties["view"] != "gauge":
            raise Unknown(f"The widget {properties['title']!r} has an expression that is not known: {row}")


def _searched(expression: str) -> tuple[str, str, Mapping[str, str | None], str]:
    """Returns the namespace, name, dimensions and statistic that an expression searches for."""
    match = SEARCH.fullmatch(expression)
    if not match:
        raise Unknown(f"The expression {expression} is of a form that is not known.")
    namespace, *names = match["schema"].split(",")
    return namespace, match["name"], {**dict.fromkeys(names), match["key"]: match["value"]}, match["stat"]


def share(widget: Widget, values: Mapping[str, float]) -> float | None:
    """Returns what a gauge shows where its rows have these values by their ids, None for nothing."""
    return dashboards.shown(widget["properties"]["metrics"], values)


def latest(points: Points) -> float | None:
    """Returns the last value, which a number and a gauge show."""
    return points[max(points)] if points else None
