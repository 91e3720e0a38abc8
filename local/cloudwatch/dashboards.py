"""Checks a dashboard's body as PutDashboard does, and says which metrics it shows."""

import ast
import json
import operator
import re
from collections.abc import Iterable, Mapping
from typing import Any

VIEWS = ("timeSeries", "singleValue", "gauge", "bar", "pie", "table")
GRID_WIDTH = 24
MAX_WIDGETS = 500
SHOWN = {"metric": ("metrics", "annotations"), "log": ("query",), "text": ("markdown",), "alarm": ("alarms",)}
"""Widget types and of which properties each needs one (CloudWatch, dashboard body structure and syntax)."""
IN_A_REGION = ("metric", "log")

PROPERTIES = {
    "metric": """
        accountId annotations labels legend liveData metrics period region setPeriodToTimeRange
        singleValueFullPrecision sparkline stacked stat start end table timezone title trend view yAxis
    """,
    "log": "accountId query queryLanguage region stacked title view",
    "text": "background markdown",
    "alarm": "alarms sortBy states title",
}
PLACES = {"x": range(GRID_WIDTH), "y": range(10_000), "width": range(1, GRID_WIDTH + 1), "height": range(1, 1001)}
SEARCHED = re.compile(r"SEARCH\(\s*(?P<quote>['\"])\{(?P<schema>[^}]+)\}(?P<term>.*?)(?P=quote)")
METRIC_NAME = re.compile(r"""MetricName\s*=\s*\\?["'](\w+)""")

OPERATORS = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
"""The arithmetic of an expression (CloudWatch, metric math)."""

Metric = tuple[str, str, frozenset[str]]
"""Namespace, name and the names of the dimensions."""


def faults(body: str) -> list[str]:
    """Returns what is wrong with a body, nothing for one that CloudWatch takes."""
    try:
        content = json.loads(body)
    except json.JSONDecodeError as error:
        return [f"/: {error}"]
    if not isinstance(content, dict) or not isinstance(content.get("widgets"), list):
        return ["/widgets: is required and must be an array"]
    found = [f"/: unknown field {name}" for name in content.keys() - {"widgets", "start", "end", "periodOverride"}]
    if len(content["widgets"]) > MAX_WIDGETS:
        found.append(f"/widgets: {len(content['widgets'])} are more than {MAX_WIDGETS}")
    for index, widget in enumerate(content["widgets"]):
        found += [f"/widgets/{index}{fault}" for fault in _widget_faults(widget)]
    return found


def metrics(body: str) -> set[Metric]:
    """Returns the metrics that a body shows, those it searches for included."""
    shown = set()
    for widget in json.loads(body)["widgets"]:
        for row in _rows(widget.get("properties", {}).get("metrics", [])):
            *names, options = row if isinstance(row[-1], dict) else [*row, {}]
            if names:
                shown.add((names[0], names[1], frozenset(names[2::2])))
            shown.update(searched(options.get("expression", "")))
    return shown


def searched(expression: str) -> set[Metric]:
    """Returns the metrics that an expression's SEARCH looks for by a schema and a name."""
    found = set()
    for match in SEARCHED.finditer(expression):
        namespace, *dimensions = [part.strip().strip('\\"') for part in match["schema"].split(",")]
        found.update((namespace, name, frozenset(dimensions)) for name in METRIC_NAME.findall(match["term"]))
    return found


def shown(metrics: list[list], values: Mapping[str, float]) -> float | None:
    """Returns what a widget's first row shows at a moment at which metrics have these values, None for nothing.

    Metrics stand by their ids; one that is left out has no data, as one that has never been. A sum over an array passes
    over what has none, arithmetic comes to nothing by it (CloudWatch, metric math).
    """
    options = [row[-1] for row in metrics if isinstance(row[-1], dict)]
    expressions = {row.get("id", ""): row["expression"] for row in options if "expression" in row}

    def value(node: ast.expr) -> Any:
        match node:
            case ast.Constant(number):
                return number
            case ast.Name(id_):
                return value(_parsed(expressions[id_])) if id_ in expressions else values.get(id_)
            case ast.BinOp(left, how, right):
                both = value(left), value(right)
                if None in both or (isinstance(how, ast.Div) and both[1] == 0):
                    return None
                return OPERATORS[type(how)](*both)
            case ast.Call(ast.Name("TIME_SERIES"), [number]):
                return value(number)
            case ast.Call(ast.Name("SUM"), [ast.List(items)]):
                known = [number for number in map(value, items) if number is not None]
                return sum(known) if known else None
        raise ValueError(f"The local cloud does not know {ast.unparse(node)}.")

    return value(_parsed(options[0]["expression"]))


def _parsed(expression: str) -> ast.expr:
    return ast.parse(expression, mode="eval").body


def _rows(metrics: list[list]) -> Iterable[list]:
    """Yields the rows of a widget, "." and "..." replaced by what the row above has there."""
    above: list = []
    for row in metrics:
        names = [part for part in row if not isinstance(part, dict)]
        if "..." in names:
            at = names.index("...")
            names = [*above[: len(above) - len(names) + 1 + at], *names[at + 1 :]]
        names = [above[place] if part == "." and place < len(above) else part for place, part in enumerate(names)]
        above = names or above
        yield [*names, *(part for part in row if isinstance(part, dict))]


def _widget_faults(widget: dict) -> Iterable[str]:
    type_, properties = widget.get("type"), widget.get("properties")
    if type_ not in SHOWN:
        yield f"/type: {type_} is not one of {', '.join(SHOWN)}"
        return
    unknown = widget.keys() - PLACES.keys() - {"type", "properties"}
    yield from (f": unknown field {name}" for name in unknown)
    for name, places in PLACES.items():
        if name in widget and widget[name] not in places:
            yield f"/{name}: {widget[name]!r} is not from {places.start} to {places.stop - 1}"
    if widget.get("x", 0) + widget.get("width", 6) > GRID_WIDTH:
        yield f"/width: the widget reaches beyond column {GRID_WIDTH}"
    if not isinstance(properties, dict):
        yield "/properties: is required and must be an object"
        return
    yield from (f"/properties: unknown field {name}" for name in properties.keys() - set(PROPERTIES[type_].split()))
    if not any(properties.get(name) for name in SHOWN[type_]):
        yield f"/properties: one of {', '.join(SHOWN[type_])} is required"
    if type_ in IN_A_REGION and not properties.get("region"):
        yield "/properties/region: is required"
    if properties.get("view", "timeSeries") not in VIEWS:
        yield f"/properties/view: {properties['view']} is not one of {', '.join(VIEWS)}"
    if type_ == "metric":
        yield from _metric_faults(properties)


def _metric_faults(properties: dict) -> Iterable[str]:
    period = properties.get("period", 60)
    if not isinstance(period, int) or not (period in (1, 5, 10, 30) or (period >= 60 and period % 60 == 0)):
        yield f"/properties/period: {period!r} is no period"
    for index, row in enumerate(_rows(properties.get("metrics", []))):
        *names, options = row if isinstance(row[-1], dict) else [*row, {}]
        if not all(isinstance(name, str) for name in names):
            yield f"/properties/metrics/{index}: must be texts, and options at the end"
        elif names and (len(names) < 2 or len(names) % 2):
            yield f"/properties/metrics/{index}: needs a namespace, a name and pairs of a dimension's name and value"
        elif not names and "expression" not in options:
            yield f"/properties/metrics/{index}: is neither a metric nor an expression"
        if not re.fullmatch("[a-z][a-zA-Z0-9_]*", options.get("id", "id")):
            yield f"/properties/metrics/{index}/id: {options['id']} does not begin with a small letter"
