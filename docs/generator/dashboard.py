"""The dashboard's layout, as the template has it."""

import html
import json
import re
import textwrap
from collections.abc import Mapping
from typing import Any

from template import RESOURCES

COLUMN, ROW = 36, 21
"""Sets how many pixels a column of the dashboard's grid of 24 is wide, and a row high."""
GAP = 4
LINE = 17
VIEWS = {"gauge": "gauge", "singleValue": "numbers", "timeSeries": "lines over time", "bar": "bars"}


def dashboard() -> str:
    """Returns a drawing of the dashboard's widgets, each with its title and what it shows, as SVG."""
    widgets = _body()["widgets"]
    width = COLUMN * max(widget["x"] + widget["width"] for widget in widgets)
    height = ROW * max(widget["y"] + widget["height"] for widget in widgets)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
            "<title>The dashboard's layout, without data</title>",
            f'<rect width="{width}" height="{height}" fill="#f2f3f3"/>',
            *(_widget(widget) for widget in widgets),
            "</svg>\n",
        ]
    )


def _body() -> Mapping[str, Any]:
    text = RESOURCES["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"]
    return json.loads(re.sub(r"\$\{!?([^}]+)\}", r"\1", text))


def _widget(widget: Mapping[str, Any]) -> str:
    properties = widget["properties"]
    x, y = widget["x"] * COLUMN + GAP, widget["y"] * ROW + GAP
    width, height = widget["width"] * COLUMN - 2 * GAP, widget["height"] * ROW - 2 * GAP
    view = VIEWS[properties["view"]] if widget["type"] == "metric" else f"state of {len(properties['alarms'])} alarms"
    lines = [(line, 13, "bold", "#16191f") for line in textwrap.wrap(properties["title"], (width - 20) // 7)]
    lines += [(view, 11, "normal", "#687078")]
    lines += [(line, 11, "normal", "#0972d3") for line in textwrap.wrap(_labels(properties), (width - 20) // 6)]
    text = "".join(
        f'<text x="{x + 10}" y="{y + 22 + LINE * row}" font-size="{size}" font-weight="{weight}" fill="{colour}">'
        f"{html.escape(line)}</text>"
        for row, (line, size, weight, colour) in enumerate(lines[: (height - 10) // LINE])
    )
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="#fff" stroke="#d5dbdb"/>{text}'


def _labels(properties: Mapping[str, Any]) -> str:
    """Returns the labels of what is shown, without those that only others are reckoned from."""
    labels = []
    for metric in properties.get("metrics", []):
        options = metric[-1] if isinstance(metric[-1], dict) else {}
        label = options.get("label", "")
        if options.get("visible", True) and label and "PROP(" not in label:
            labels.append(label)
    return "; ".join(labels)
