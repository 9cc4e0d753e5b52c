"""Quantities by layer from the input (0 %) to the output (100 %), beside those of random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from poolbench.analysis.text import term
from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import (
    GREY,
    PALETTE,
    Curve,
    Dashes,
    band_opacity,
    key,
    legend,
    legend_rows,
    line,
    panel_grid,
)
from poolbench.plots.scene import Scene
from poolbench.plots.tables import percent_of_depth, tables_of
from poolbench.runner.ledger import CellRecord

LABELS = {
    "TV": "TV", "SV": "SV", "V": "V", "V_stratified": "V, stratified", "LEE_relative": "relative LEE / rad⁻¹",
}  # fmt: skip
BY_RATIO = {"TV", "SV"}  # over layers they differ by factors
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    name, aggregation, columns = _sources(drawing)
    table = record.table(name)
    colours = {"trained": PALETTE[0], "random": GREY}
    figure, axes = panel_grid(
        [LABELS[column] for column in columns], min(2, len(columns)), 2.0, legend_rows=1, share_y=False
    )
    for panel, column in zip(axes, columns, strict=True):
        for network, colour in colours.items():
            curve = curve_of([table], aggregation, network, column)
            if curve:
                line(panel, curve, colour, "-", "o", 0)
        _finish(panel, column)
    legend(figure, [key("trained", PALETTE[0]), key("random weights", GREY)])
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    name, aggregation, columns = _sources(drawing)
    found = {group.id: tables_of(scene, group, name, ["network", "depth", *columns]) for group in scene.groups}
    groups = [group for group in scene.groups if found[group.id]]
    if not groups:
        return None
    panels, looks = scene.panels(drawing, groups), scene.looks(drawing)
    # A row's title stands above its first panel and may run on above the others.
    titles = [title if column == columns[0] else "" for title in panels for column in columns]
    across = len(columns) if len(columns) > 1 else min(3, len(panels))
    keys: list[Line2D] = []
    for value, (colour, marker) in looks.items():
        keys.append(key(f"trained on {term(drawing.colour, value)}", colour, _dashes(value), marker))
    keys.append(key("random weights", GREY))
    figure, axes = panel_grid(titles, across, 1.7, legend_rows=legend_rows(keys), share_y=False)
    places = iter(axes)
    for members in panels.values():
        for column in columns:
            panel = next(places)
            tables = [table for group in members for table in found[group.id]]
            # The same seeds have the same first weights, however they were trained.
            untrained = curve_of(tables, aggregation, "random", column)
            if untrained:
                line(panel, untrained, GREY, "-", "o", _band(untrained))
            for group in members:
                value = group.fields.get(drawing.colour)
                curve = curve_of(found[group.id], aggregation, "trained", column)
                if curve:
                    line(panel, curve, looks[value][0], _dashes(value), looks[value][1], _band(curve))
            _finish(panel, column)
            _scale(panel, column)
            title = panel.get_title()
            panel.set_title("")
            panel.set_title(title, fontsize=8, loc="left")
            label = panel.text(0.03, 0.96, LABELS[column], transform=panel.transAxes, va="top", fontsize=8)
            label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
    legend(figure, keys)
    return figure


def _sources(drawing: Drawing) -> tuple[str, str, Sequence[str]]:
    """Return (table, aggregation or "", columns) of sources such as ("layers:mean", "TV", "SV")."""
    name, _, aggregation = drawing.sources[0].partition(":")
    return name, aggregation, drawing.sources[1:]


def _band(curve: Curve) -> float:
    """Opacity of a curve's band; that of two seeds would fill the panel."""
    return band_opacity(3) if max(len(values) for values in curve.values()) > 2 else 0


def _dashes(value: object) -> Dashes:
    return "--" if str(value).startswith("plain") else "-"


def curve_of(tables: Sequence[pd.DataFrame], aggregation: str, network: str, column: str) -> Curve:
    """Return {percent of depth: values of the seeds} of one network and aggregation."""
    curve: Curve = {}
    for table in tables:
        rows = table[table["network"] == network]
        rows = rows[rows["aggregation"] == aggregation] if aggregation else rows
        for x, y in zip(percent_of_depth(rows), rows[column], strict=True):
            if math.isfinite(y) and not (column in BY_RATIO and y <= 0):
                curve.setdefault(float(x), []).append(float(y))
    return curve


def _finish(panel: Axes, column: str) -> None:
    panel.set_xlim(-2, 102)
    panel.set_xlabel("depth / %")
    if column in BY_RATIO:
        panel.set_yscale("log")
        # Without formulas, which these figures do not read.
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, place: _power_of_ten(value)))
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        panel.set_ylim(bottom=0)
        panel.axhline(1, color="#999999", linewidth=0.8, zorder=1)


def _power_of_ten(value: float) -> str:
    """Write a tick of a logarithmic axis, short enough for the gap between two panels."""
    if value >= 0.01:
        return f"{value:g}"
    return "10" + str(round(math.log10(value))).translate(SUPERSCRIPTS)


def _scale(panel: Axes, column: str) -> None:
    """Scale to the lines: bands of few seeds reach far beyond them."""
    lines = [own for own in panel.get_lines() if len(np.asarray(own.get_xdata())) > 2]
    found = [np.asarray(own.get_ydata(), dtype=float) for own in lines]
    values = np.concatenate(found) if found else np.ones(1)
    low, high = float(values.min()), float(values.max())
    if column in BY_RATIO:
        panel.set_ylim(low / 1.5, high * 1.5)
    else:
        panel.set_ylim(0, max(1.1, 1.08 * high))
