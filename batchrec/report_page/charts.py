"""Charts as static SVG, by Vega-Lite. Colours are variables of the page's style: dark mode and print have their own.

A chart is as wide as a phone. Wide screens show several in a row, so that text keeps its size.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from batchrec.report_page.blocks import Chart

_WIDTH, _HEIGHT = 330, 170
# The width includes the axis and the legend.
_FIT = {"type": "fit-x", "contains": "padding"}
_SERIES = ("var(--series-1)", "var(--series-2)")
_CONFIG = {
    "font": "inherit",
    "view": {"stroke": None},
    "axis": {
        "labelColor": "currentColor",
        "titleColor": "currentColor",
        "labelFontSize": 11,
        "titleFontSize": 11,
        "titleFontWeight": "normal",
        "gridColor": "var(--grid)",
        "domainColor": "var(--axis)",
        "tickColor": "var(--axis)",
        "labelLimit": 190,
    },
    "legend": {
        "labelColor": "currentColor",
        "labelFontSize": 11,
        "orient": "top",
        "title": None,
        "labelLimit": 250,
    },
    "text": {"color": "currentColor", "fontSize": 11},
    "bar": {"color": _SERIES[0]},
    "line": {"color": _SERIES[0], "strokeWidth": 2},
    "point": {"color": _SERIES[0], "filled": True, "size": 40},
    "rule": {"color": _SERIES[1], "strokeWidth": 2, "strokeDash": [5, 4]},
}


@dataclass(frozen=True)
class Point:
    """A value of a chart at a place of its axis; series: what it belongs to if the chart shows several."""

    at: str | int | float
    value: float
    series: str = ""


@dataclass(frozen=True)
class Interval:
    """A value with its bounds."""

    name: str
    value: float
    low: float
    high: float


def bars(title: str, points: Sequence[Point], number_format: str, axis: str = "") -> Chart:
    """Return a chart with a horizontal bar per point, its value next to it."""
    most = max((point.value for point in points), default=0)
    y = {"field": "at", "type": "nominal", "sort": None, "title": None, "axis": {"domain": False, "ticks": False}}
    # Room for the text of the longest bar.
    scale = {"domain": [0, (most or 1) * 1.22], "nice": False}
    x = {"field": "value", "type": "quantitative", "title": axis or None, "scale": scale, "axis": None}
    text = {"field": "value", "type": "quantitative", "format": number_format}
    layers = [
        {"mark": {"type": "bar", "height": 14}},
        {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": {"text": text}},
    ]
    spec = {"layer": layers, "encoding": {"y": y, "x": x}, "height": {"step": 24}}
    return _chart(title, spec, points)


def columns(title: str, points: Sequence[Point], axes: tuple[str, str], number_format: str = "~s") -> Chart:
    """Return a chart with a column per point, one next to the other for each series; axes: their titles, x and y."""
    names = list(dict.fromkeys(point.series for point in points))
    x = {"field": "at", "type": "nominal", "sort": None, "title": axes[0], "axis": {"labelAngle": -35}}
    y = {"field": "value", "type": "quantitative", "title": axes[1], "axis": {"format": number_format, "tickCount": 4}}
    encoding: dict[str, Any] = {"x": x, "y": y}
    if len(names) > 1:
        encoding |= {"xOffset": {"field": "series", "sort": None}, "color": _colours(names)}
    return _chart(title, {"mark": "bar", "encoding": encoding, "height": _HEIGHT}, points)


def lines(
    title: str,
    points: Sequence[Point],
    axes: tuple[str, str],
    number_format: str = ".4~f",
    *,
    is_from_zero: bool = False,
) -> Chart:
    """Return a chart with a line per series, from left to right in the order of the points; axes: as for columns.

    A place on the axis is a number, such as an epoch, or a text, such as a date.
    """
    names = list(dict.fromkeys(point.series for point in points))
    is_number = all(isinstance(point.at, int) for point in points)
    n_places = len({point.at for point in points})
    x: dict[str, Any] = {"field": "at", "type": "ordinal", "sort": None, "title": axes[0]}
    # Every date or epoch if there are few, otherwise so many that they do not overlap.
    step = -(-n_places // 8)
    shown = [place for number, place in enumerate(dict.fromkeys(point.at for point in points)) if number % step == 0]
    x["axis"] = {"values": shown, "labelAngle": 0 if is_number else -35}
    scale = {"zero": is_from_zero, "nice": True}
    axis = {"format": number_format, "tickCount": 4}
    y = {"field": "value", "type": "quantitative", "title": axes[1], "scale": scale, "axis": axis}
    encoding: dict[str, Any] = {"x": x, "y": y}
    if len(names) > 1:
        # The same legend for both, so that there is one.
        legend = {"symbolType": "stroke", "symbolSize": 300}
        dashes = {"domain": names, "range": [[1, 0], [5, 4]]}
        encoding["color"] = _colours(names) | {"legend": legend}
        encoding["strokeDash"] = {"field": "series", "scale": dashes, "sort": None, "legend": legend}
    mark = {"type": "line", "point": n_places <= 40}
    return _chart(title, {"mark": mark, "encoding": encoding, "height": _HEIGHT}, points)


def intervals(title: str, values: Sequence[Interval], axis: str) -> Chart:
    """Return a chart with a point per value and a line from its lower to its upper bound."""
    rows = [vars(value) for value in values]
    # Long names take a line per part.
    axis_of_names = {"labelExpr": "split(datum.label, ', ')"}
    y = {"field": "name", "type": "nominal", "sort": None, "title": None, "axis": axis_of_names}
    layers = [
        {
            "mark": {"type": "rule", "strokeDash": [1, 0], "color": _SERIES[0]},
            "encoding": {
                "x": {"field": "low", "type": "quantitative", "title": axis, "axis": {"tickCount": 4}},
                "x2": {"field": "high"},
            },
        },
        {"mark": "point", "encoding": {"x": {"field": "value", "type": "quantitative"}}},
    ]
    spec = {"layer": layers, "encoding": {"y": y}, "height": {"step": 30}}
    texts = [f"{value.name} {value.value:.4f}, from {value.low:.4f} to {value.high:.4f}" for value in values]
    return _drawn(title, "; ".join(texts), spec, rows)


def _colours(names: Sequence[str]) -> dict[str, Any]:
    return {"field": "series", "scale": {"domain": names, "range": _SERIES[: len(names)]}, "sort": None}


def _chart(title: str, spec: dict[str, Any], points: Sequence[Point]) -> Chart:
    texts = [f"{point.series} {point.at}: {point.value:.4g}".strip() for point in points]
    return _drawn(title, "; ".join(texts), spec, [vars(point) for point in points])


def _drawn(title: str, description: str, spec: dict[str, Any], rows: Sequence[dict[str, Any]]) -> Chart:
    import vl_convert

    whole = {"data": {"values": rows}, "width": _WIDTH, "autosize": _FIT, "background": None, "config": _CONFIG, **spec}
    svg: str = vl_convert.vegalite_to_svg(whole)
    parts = re.fullmatch(r'<svg[^>]* viewBox="0 0 ([\d.]+) ([\d.]+)"[^>]*>(.*)</svg>\s*', svg, re.DOTALL)
    assert parts is not None, svg[:200]  # noqa: S101 - the form of every drawing of the library
    width, height, drawing = parts.groups()
    # The page names and describes the whole chart: its lines need no names.
    plain = re.sub(r' (?:role|aria-[a-z]+|class)="[^"]*"', "", drawing)
    return Chart(title, description, float(width), float(height), plain)
