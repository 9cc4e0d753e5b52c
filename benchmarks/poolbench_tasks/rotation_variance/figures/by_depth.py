"""Quantities by layer from the input (0 %) to the output (100 %), beside those of random weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullLocator

from poolbench.analysis.text import term
from poolbench.plots.depth import percent_of_depth
from poolbench.plots.legends import Dashes, key, legend, legend_rows
from poolbench.plots.lines import Curve, band_opacity, line
from poolbench.plots.panels import panel_grid
from poolbench.plots.scene import Record, Scene
from poolbench.plots.style import GREY, PALETTE

LABELS = {
    "TV": "TV", "SV": "SV", "V": "V", "V_stratified": "V, stratified", "LEE_relative": "relative LEE / rad⁻¹",
}  # fmt: skip
LOGARITHMIC = {"TV", "SV"}  # they differ by factors between layers
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def curves(scene: Scene, panels: Sequence[str], table: str, aggregation: str, columns: Sequence[str]) -> Figure | None:
    """Draw columns of a stored table by depth, one line per way of training; grey: the same networks untrained.

    ``aggregation`` selects the rows of the table, "" takes all of them.
    """
    found = {group.id: scene.tables(group, table, ("network", "depth", *columns)) for group in scene.groups}
    groups = [group for group in scene.groups if found[group.id]]
    if not groups:
        return None
    members_of, styles = scene.panels(groups, panels, within=("variant",)), scene.styles("variant")
    # A row's title stands above its first panel and may extend over the others.
    titles = [title if column == columns[0] else "" for title in members_of for column in columns]
    across = len(columns) if len(columns) > 1 else min(3, len(members_of))
    keys = [
        key(f"trained on {term('variant', value)}", colour, _dashes(value), marker)
        for value, (colour, marker) in styles.items()
    ]
    keys.append(key("random weights", GREY))
    figure, axes = panel_grid(titles, across, 1.7, legend_rows=legend_rows(keys), share_y=False)
    places = iter(axes)
    for members in members_of.values():
        for column in columns:
            panel = next(places)
            tables = [rows for group in members for rows in found[group.id]]
            # Equal seeds have equal initial weights, however they are trained.
            _draw(panel, _curve(tables, aggregation, "random", column), GREY, "-", "o")
            for group in members:
                value = group.fields.get("variant")
                curve = _curve(found[group.id], aggregation, "trained", column)
                _draw(panel, curve, styles[value][0], _dashes(value), styles[value][1])
            _finish(panel, column)
            _scale(panel, column)
            _name(panel, column)
    legend(figure, keys)
    return figure


def curves_of_cell(record: Record, table: str, aggregation: str, columns: Sequence[str]) -> Figure:
    """Draw columns of a stored table by depth, for the trained network and for its initial weights.

    V has 95 % intervals over the images where the table has its standard error.
    """
    rows = record.table(table)
    colours = {"trained": PALETTE[0], "random": GREY}
    titles = [LABELS[column] for column in columns]
    figure, axes = panel_grid(titles, min(2, len(columns)), 2.0, legend_rows=1, share_y=False)
    for panel, column in zip(axes, columns, strict=True):
        for network, colour in colours.items():
            curve = _curve([rows], aggregation, network, column)
            if curve:
                line(panel, curve, colour, "-", "o", 0)
            if column == "V":
                _error_bars(panel, rows, aggregation, network, colour)
        _finish(panel, column)
    legend(figure, [key("trained", PALETTE[0]), key("random weights", GREY)])
    return figure


def _draw(panel: Axes, curve: Curve, colour: str, dashes: Dashes, marker: str) -> None:
    """Draw a curve, with a band if it has more than two seeds: that of two would fill the panel."""
    if curve:
        has_band = max(len(values) for values in curve.values()) > 2
        line(panel, curve, colour, dashes, marker, band_opacity(3) if has_band else 0)


def _dashes(variant: object) -> Dashes:
    return "--" if str(variant).startswith("plain") else "-"


def _curve(tables: Sequence[pd.DataFrame], aggregation: str, network: str, column: str) -> Curve:
    """Return {percent of depth: values of the seeds} of one network and aggregation."""
    curve: Curve = {}
    for table in tables:
        rows = table[table["network"] == network]
        rows = rows[rows["aggregation"] == aggregation] if aggregation else rows
        for x, y in zip(percent_of_depth(rows["depth"]), rows[column], strict=True):
            if math.isfinite(y) and not (column in LOGARITHMIC and y <= 0):
                curve.setdefault(float(x), []).append(float(y))
    return curve


def _error_bars(panel: Axes, rows: pd.DataFrame, aggregation: str, network: str, colour: str) -> None:
    """Draw 95 % intervals of a layer's mean V over the images."""
    if "V_se" not in rows:
        return
    means, errors = (_curve([rows], aggregation, network, column) for column in ("V", "V_se"))
    for depth in means.keys() & errors.keys():
        low, high = (means[depth][0] + sign * 1.96 * errors[depth][0] for sign in (-1, 1))
        panel.plot([depth, depth], [low, high], color=colour, linewidth=1, solid_capstyle="butt")


def _finish(panel: Axes, column: str) -> None:
    panel.set_xlim(-2, 102)
    panel.set_xlabel("depth / %")
    if column in LOGARITHMIC:
        panel.set_yscale("log")
        # matplotlib's own labels are formulas, which the style does not parse.
        panel.yaxis.set_major_formatter(FuncFormatter(lambda value, place: _power_of_ten(value)))
        panel.yaxis.set_minor_locator(NullLocator())
    else:
        panel.set_ylim(bottom=0)
        panel.axhline(1, color="#999999", linewidth=0.8, zorder=1)


def _power_of_ten(value: float) -> str:
    """Return the text of a tick on a logarithmic axis, short enough for the gap between two panels."""
    if value >= 0.01:
        return f"{value:g}"
    return "10" + str(round(math.log10(value))).translate(SUPERSCRIPTS)


def _scale(panel: Axes, column: str) -> None:
    """Scale the y axis to the lines: bands of few seeds reach far beyond them."""
    lines = [curve for curve in panel.get_lines() if len(np.asarray(curve.get_xdata())) > 2]
    found = [np.asarray(curve.get_ydata(), dtype=float) for curve in lines]
    values = np.concatenate(found) if found else np.ones(1)
    low, high = float(values.min()), float(values.max())
    if column in LOGARITHMIC:
        panel.set_ylim(low / 1.5, high * 1.5)
    else:
        panel.set_ylim(0, max(1.1, 1.08 * high))


def _name(panel: Axes, column: str) -> None:
    """Move the title of a row to the left and write the column's label into the panel."""
    title = panel.get_title()
    panel.set_title("")
    panel.set_title(title, fontsize=8, loc="left")
    label = panel.text(0.03, 0.96, LABELS[column], transform=panel.transAxes, va="top", fontsize=8)
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1})
