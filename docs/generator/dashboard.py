"""Draws the dashboard of the template with the data that were recorded on the local cloud."""

import html
import textwrap
from collections.abc import Callable, Mapping, Sequence

import charts
from charts import Box, Line
from widgets import Recording, Row, Series, Unknown, Widget, latest, recording, rows, share, widgets

COLUMN, ROW = 40, 28
"""Sets how many pixels a column of the dashboard's grid of 24 is wide, and a row high."""
GAP, EDGE, TITLE = 4, 10, 28
HEAD_LINE = 15
LETTERS = 150
"""Says how many letters a line of the picture's title has."""


def dashboard() -> str:
    """Returns a drawing of the dashboard's widgets with their data, as SVG."""
    shown, recorded = widgets(), recording()
    _check(shown, recorded)
    title = textwrap.wrap(recorded.told, LETTERS)
    top = HEAD_LINE * len(title) + 2 * GAP
    width = COLUMN * max(widget["x"] + widget["width"] for widget in shown)
    height = ROW * max(widget["y"] + widget["height"] for widget in shown) + top
    lines = [charts.text(GAP, HEAD_LINE * (row + 1), line, 12, charts.INK) for row, line in enumerate(title)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
            f"<title>{html.escape(recorded.told)}</title>",
            f'<rect width="{width}" height="{height}" fill="#f2f3f3"/>',
            *lines,
            *(part for widget in shown for part in _widget(widget, recorded, top)),
            "</svg>\n",
        ]
    )


def _check(shown: Sequence[Widget], recorded: Recording) -> None:
    """Refuses a recording of another dashboard."""
    known = [row for widget in shown for row in rows(widget)]
    for series in recorded.series:
        if not any(row.shows(series) for row in known):
            raise Unknown(f"No widget shows {series.stat} of {series.name} {series.dimensions}: make record")


def _widget(widget: Widget, recorded: Recording, top: int) -> list[str]:
    x, y = widget["x"] * COLUMN + GAP, widget["y"] * ROW + GAP + top
    width, height = widget["width"] * COLUMN - 2 * GAP, widget["height"] * ROW - 2 * GAP
    view = widget["properties"]["view"] if widget["type"] == "metric" else widget["type"]
    if view not in VIEWS:
        raise Unknown(f"The widget {widget['properties']['title']!r} has the view {view}, which is not known.")
    box = Box(x + EDGE, y + TITLE, width - 2 * EDGE, height - TITLE - GAP)
    return [
        f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" fill="#fff" stroke="#d5dbdb"/>',
        _title(widget["properties"]["title"], box),
        *VIEWS[view](widget, recorded, box),
    ]


def _title(title: str, box: Box) -> str:
    """Returns a title, in smaller letters where it is long."""
    size = min(12.5, round(box.width / len(title) / 0.66, 1))
    return charts.text(box.x, box.y + 18 - TITLE, title, size, charts.INK, 'font-weight="bold"')


def _alarms(widget: Widget, recorded: Recording, box: Box) -> list[str]:
    names = [name.removesuffix(".Arn") for name in widget["properties"]["alarms"]]
    if set(names) != set(recorded.alarms):
        raise Unknown("Other alarms were recorded than the dashboard shows: make record")
    return charts.states(box, [(name, recorded.alarms[name] == "ALARM") for name in names])


def _gauge(widget: Widget, recorded: Recording, box: Box) -> list[str]:
    found = {row.id: _value(widget, row, recorded) for row in rows(widget)}
    values = {id_: value for id_, value in found.items() if value is not None}
    axis = widget["properties"]["yAxis"]["left"]
    return charts.gauge(box, share(widget, values), axis["min"], axis["max"])


def _numbers(widget: Widget, recorded: Recording, box: Box) -> list[str]:
    shown = [(row.label, row.colour or charts.INK, _value(widget, row, recorded)) for row in rows(widget)]
    return charts.numbers(box, shown)


def _value(widget: Widget, row: Row, recorded: Recording) -> float | None:
    """Returns the one value of a row: that of the whole time where the widget is of it, else the last."""
    points = {at: value for series in recorded.of(row) for at, value in series.points.items()}
    return _total(row, points) if widget["properties"].get("setPeriodToTimeRange") else latest(points)


def _total(row: Row, points: Mapping[int, float]) -> float | None:
    """Returns the value of the whole time."""
    if row.stat != "Sum":
        raise Unknown(f"{row.name}: only sums are known of the whole time, not {row.stat}.")
    return sum(points.values()) if points else None


def _bars(widget: Widget, recorded: Recording, box: Box) -> list[str]:
    if not widget["properties"].get("setPeriodToTimeRange") or any(row.stat != "Sum" for row in rows(widget)):
        raise Unknown(f"The widget {widget['properties']['title']!r} has bars that are no sums of the whole time.")
    return charts.bars(box, _lines(widget, recorded))


def _over_time(widget: Widget, recorded: Recording, box: Box) -> list[str]:
    properties, lines = widget["properties"], _lines(widget, recorded)
    axis = properties["yAxis"]["left"]
    unit = next((series.unit for row in rows(widget) for series in recorded.of(row)), "")
    label = axis.get("label", unit if axis.get("showUnits", True) else "")
    stacked = properties.get("stacked", False)
    return charts.over_time(box, lines, recorded.periods, recorded.seconds, stacked, label)


def _lines(widget: Widget, recorded: Recording) -> list[Line]:
    """Returns what a widget's rows show, a metric without data included, each in its own colour."""
    shown: list[tuple[Row, str, Series | None]] = []
    for row in rows(widget):
        found = [(row, row.label_of(series), series) for series in recorded.of(row)]
        shown += found or ([] if None in row.dimensions.values() else [(row, row.label, None)])
    return [
        Line(label, row.colour or charts.PALETTE[place % len(charts.PALETTE)], dict(series.points) if series else {})
        for place, (row, label, series) in enumerate(shown)
    ]


VIEWS: Mapping[str, Callable[[Widget, Recording, Box], list[str]]] = {
    "alarm": _alarms,
    "gauge": _gauge,
    "singleValue": _numbers,
    "bar": _bars,
    "timeSeries": _over_time,
}
