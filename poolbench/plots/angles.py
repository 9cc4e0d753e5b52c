"""Accuracy against the angle, as lines and on a circle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from poolbench.analysis.statistics import t_interval
from poolbench.analysis.text import term
from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import (
    GREY,
    PALETTE,
    WIDTH,
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
from poolbench.plots.tables import tables_of
from poolbench.runner.ledger import CellRecord

NEEDED = ("network", "merged", "angle", "class", "accuracy", "consistency", "worst")

CELL_LINES: tuple[tuple[str, str, str, bool, str, Dashes], ...] = (
    ("accuracy", "accuracy", "trained", False, PALETTE[0], "-"),
    ("consistency with 0°", "consistency", "trained", False, PALETTE[2], "-"),
    ("right at all angles up to this", "worst", "trained", False, PALETTE[1], "-"),
    ("accuracy, quarter turns averaged", "accuracy", "c4", False, PALETTE[0], "--"),
    ("accuracy, 6 and 9 as one", "accuracy", "trained", True, PALETTE[4], "-"),
)


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    table = record.table(drawing.sources[0])
    width, height = WIDTH, 4.1
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.07, 0.13, 0.47, 0.70))
    polar = figure.add_axes((0.60, 0.07, 0.37, 0.74), projection="polar")
    keys = []
    for label, column, network, merged, colour, dashes in CELL_LINES:
        curve = curve_of([table], network, merged, column)
        if curve:
            line(axes, around(curve), colour, dashes, "o", 0)
            _circle(polar, curve, colour, dashes)
            keys.append(key(label, colour, dashes))
    _finish(axes)
    axes.set_ylabel("share of images")
    _finish_circle(polar)
    figure.legend(handles=keys, loc="upper center", ncols=3, borderaxespad=0.2, handlelength=2.6)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    found = {group.id: tables_of(scene, group, drawing.sources[0], NEEDED) for group in scene.groups}
    groups = [group for group in scene.groups if found[group.id]]
    if not groups:
        return None
    panels, looks = scene.panels(drawing, groups), scene.looks(drawing)
    keys = [key(f"trained on {term(drawing.colour, value)}", colour) for value, (colour, _) in looks.items()]
    keys += [key("the same, quarter turns averaged", "#333333", "--")]
    columns = min(3, len(panels))
    # A row of lines, then the same as circles.
    blanks = [""] * (-len(panels) % columns)
    titles = [*panels, *blanks, *panels]
    figure, axes = panel_grid(titles, columns, 1.75, legend_rows=legend_rows(keys), share_y=False)
    for unused in axes[len(panels) : len(panels) + len(blanks)]:
        unused.remove()
    circles = axes[len(panels) + len(blanks) :]
    for panel, place, (title, members) in zip(axes, circles, panels.items(), strict=False):
        polar = figure.add_axes(place.get_position().bounds, projection="polar")
        place.remove()
        polar.set_title(title, fontsize=8, pad=24)  # above the 0°
        for group in members:
            colour = looks[group.fields.get(drawing.colour)][0]
            for network, dashes in (("trained", "-"), ("c4", "--")):
                curve = curve_of(found[group.id], network, False, "accuracy")
                if curve:
                    several = network == "trained" and min(len(values) for values in curve.values()) > 2
                    line(panel, around(curve), colour, dashes, "o", band_opacity(3) if several else 0)
                    _circle(polar, curve, colour, dashes)
        _finish(panel)
        panel.set_title(panel.get_title(), fontsize=8)
        spec = panel.get_subplotspec()
        if spec is not None and spec.is_first_col():
            panel.set_ylabel(drawing.label)
        _finish_circle(polar)
    legend(figure, keys)
    return figure


def curve_of(tables: Sequence[pd.DataFrame], network: str, merged: bool, column: str) -> Curve:
    """Return {angle: values of the seeds} over all classes."""
    curve: Curve = {}
    for table in tables:
        rows = table[(table["network"] == network) & (table["merged"] == merged) & (table["class"] == "all")]
        for angle, value in zip(rows["angle"], rows[column], strict=True):
            curve.setdefault(float(angle), []).append(float(value))
    return curve


def around(curve: Mapping[float, list[float]]) -> Curve:
    """Return the curve over -180 .. 180 degrees, the half turn at both ends."""
    turned = {(angle + 180) % 360 - 180: values for angle, values in curve.items()}
    return turned | ({180.0: turned[-180.0]} if -180.0 in turned else {})


def _circle(polar: Axes, curve: Curve, colour: str, dashes: str) -> None:
    angles = sorted(curve)
    means = [t_interval(curve[angle]).mean for angle in angles]
    polar.plot(np.radians([*angles, angles[0]]), [*means, means[0]], color=colour, linestyle=dashes, linewidth=1.4)


def _finish(axes: Axes) -> None:
    axes.set_xlim(-185, 185)
    axes.set_xticks(range(-180, 181, 90), [f"{angle}°" for angle in range(-180, 181, 90)])
    axes.set_ylim(0, 1.02)


def _finish_circle(polar: Axes) -> None:
    assert isinstance(polar, PolarAxes)
    polar.set_theta_zero_location("N")
    polar.set_rlim(0, 1)
    polar.set_rticks([0.25, 0.5, 0.75, 1.0], ["", ".5", "", "1"], fontsize=7, color=GREY)
    polar.set_xticks([math.radians(angle) for angle in range(0, 360, 45)])
    polar.set_xticklabels(["0°", "", "90°", "", "180°", "", "-90°", ""], fontsize=7)
