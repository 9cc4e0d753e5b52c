"""Accuracy and similarity of layers (CKA) against the angle of rotation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.projections.polar import PolarAxes

from poolbench.analysis.text import term
from poolbench.plots.depth import percent_of_depth
from poolbench.plots.images import side_bar
from poolbench.plots.legends import Dashes, key, legend, legend_rows
from poolbench.plots.lines import Curve, band_opacity, line
from poolbench.plots.panels import label_first_column, panel_grid
from poolbench.plots.scene import Record, Scene
from poolbench.plots.style import GREY, PALETTE, WIDTH

ANGLE_COLUMNS = ("network", "merged", "angle", "class", "accuracy", "consistency", "worst")
CKA_COLUMNS = ("network", "layer", "depth", "angle", "CKA", "null")
CELL_LINES: tuple[tuple[str, str, str, bool, str, Dashes], ...] = (
    ("accuracy", "accuracy", "trained", False, PALETTE[0], "-"),
    ("consistency with 0°", "consistency", "trained", False, PALETTE[2], "-"),
    ("right at all angles up to this", "worst", "trained", False, PALETTE[1], "-"),
    ("accuracy, quarter turns averaged", "accuracy", "c4", False, PALETTE[0], "--"),
    ("accuracy, 6 and 9 as one", "accuracy", "trained", True, PALETTE[4], "-"),
)
"""(legend, column, network, 6 and 9 merged, colour, dashes)"""
DEPTHS = matplotlib.colormaps["plasma"].resampled(256)
NETWORKS = {"trained": "trained", "random": "random weights"}


def accuracy(scene: Scene, panels: Sequence[str]) -> Figure | None:
    """Draw accuracy against the angle, as lines and on circles below them; dashed: averaged over quarter turns."""
    found = {group.id: scene.tables(group, "angles", ANGLE_COLUMNS) for group in scene.groups}
    groups = [group for group in scene.groups if found[group.id]]
    if not groups:
        return None
    members_of, styles = scene.panels(groups, panels, within=("variant",)), scene.styles("variant")
    keys = [key(f"trained on {term('variant', value)}", colour) for value, (colour, _) in styles.items()]
    keys += [key("the same, quarter turns averaged", "#333333", "--")]
    columns = min(3, len(members_of))
    # A row of lines, then the same as circles.
    blanks = [""] * (-len(members_of) % columns)
    titles = [*members_of, *blanks, *members_of]
    figure, axes = panel_grid(titles, columns, 1.75, legend_rows=legend_rows(keys), share_y=False)
    for unused in axes[len(members_of) : len(members_of) + len(blanks)]:
        unused.remove()
    circles = axes[len(members_of) + len(blanks) :]
    for panel, place, (title, members) in zip(axes, circles, members_of.items(), strict=False):
        polar = figure.add_axes(place.get_position().bounds, projection="polar")
        place.remove()
        polar.set_title(title, fontsize=8, pad=24)  # above the 0°
        for group in members:
            _draw_group(panel, polar, found[group.id], styles[group.fields.get("variant")][0])
        _finish(panel)
        panel.set_title(panel.get_title(), fontsize=8)
        label_first_column([panel], "accuracy")
        _finish_circle(polar)
    legend(figure, keys)
    return figure


def accuracy_of_cell(record: Record) -> Figure:
    """Draw accuracy, consistency and their variants of one network against the angle, as lines and on a circle."""
    table = record.table("angles")
    figure = Figure(figsize=(WIDTH, 4.1))
    axes = figure.add_axes((0.07, 0.13, 0.47, 0.70))
    polar = figure.add_axes((0.60, 0.07, 0.37, 0.74), projection="polar")
    keys = []
    for label, column, network, merged, colour, dashes in CELL_LINES:
        curve = _accuracy_curve([table], network, merged, column)
        if curve:
            line(axes, around(curve), colour, dashes, "o", 0)
            _circle(polar, curve, colour, dashes)
            keys.append(key(label, colour, dashes))
    _finish(axes)
    axes.set_ylabel("share of images")
    _finish_circle(polar)
    figure.legend(handles=keys, loc="upper center", ncols=3, borderaxespad=0.2, handlelength=2.6)
    return figure


def similarity(scene: Scene, panels: Sequence[str]) -> Figure | None:
    """Draw the CKA of each layer's outputs for rotated and upright images against the angle, a panel per group."""
    tables_of: dict[str, list[pd.DataFrame]] = {}
    for title, members in scene.panels(scene.groups, panels).items():
        for group in members:
            tables = scene.tables(group, "cka", CKA_COLUMNS)
            if tables:
                tables_of[title] = [table[table["network"] == "trained"] for table in tables]
    if not tables_of:
        return None
    figure, axes = panel_grid(tables_of, min(3, len(tables_of)), 1.7, legend_rows=0, right=0.95)
    for panel, tables in zip(axes, tables_of.values(), strict=True):
        _draw_layers(panel, tables)
    label_first_column(axes, "linear CKA")
    _depth_bar(figure)
    return figure


def similarity_of_cell(record: Record) -> Figure:
    """Draw the CKA of each layer's outputs against the angle, of the trained network and of its first weights."""
    table = record.table("cka")
    networks = [name for name in NETWORKS if name in set(table["network"])]
    figure, axes = panel_grid([NETWORKS[name] for name in networks], 2, 2.6, legend_rows=0, right=0.95)
    for panel, name in zip(axes, networks, strict=True):
        _draw_layers(panel, [table[table["network"] == name]])
    axes[0].set_ylabel("linear CKA")
    _depth_bar(figure)
    return figure


def around(curve: Mapping[float, list[float]]) -> Curve:
    """Return the curve over -180 .. 180 degrees, with the half turn at both ends."""
    turned = {(angle + 180) % 360 - 180: values for angle, values in curve.items()}
    return turned | ({180.0: turned[-180.0]} if -180.0 in turned else {})


def _draw_group(panel: Axes, polar: Axes, tables: Sequence[pd.DataFrame], colour: str) -> None:
    for network, dashes in (("trained", "-"), ("c4", "--")):
        curve = _accuracy_curve(tables, network, False, "accuracy")
        if curve:
            has_band = network == "trained" and min(len(values) for values in curve.values()) > 2
            line(panel, around(curve), colour, dashes, "o", band_opacity(3) if has_band else 0)
            _circle(polar, curve, colour, dashes)


def _accuracy_curve(tables: Sequence[pd.DataFrame], network: str, merged: bool, column: str) -> Curve:
    """Return {angle: values of the seeds} over all classes."""
    curve: Curve = {}
    for table in tables:
        rows = table[(table["network"] == network) & (table["merged"] == merged) & (table["class"] == "all")]
        for angle, value in zip(rows["angle"], rows[column], strict=True):
            curve.setdefault(float(angle), []).append(float(value))
    return curve


def _circle(polar: Axes, curve: Curve, colour: str, dashes: str) -> None:
    angles = sorted(curve)
    means = [fmean(curve[angle]) for angle in angles]
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


def _draw_layers(panel: Axes, tables: Sequence[pd.DataFrame]) -> None:
    """Draw a line per layer, the mean over tables, from input (dark) to output (bright), and its null in grey."""
    rows = pd.concat(tables)
    rows = rows.assign(percent=percent_of_depth(rows["depth"]), turn=(rows["angle"] + 180) % 360 - 180)
    for column in ("null", "CKA"):
        means = rows.pivot_table(index="turn", columns="percent", values=column, aggfunc="mean")
        if -180.0 in means.index:
            means.loc[180.0] = means.loc[-180.0]
        for percent in means.columns:
            # The brightest end of the scale is invisible on white.
            colour = GREY if column == "null" else DEPTHS(0.9 * float(percent) / 100)
            width = 0.5 if column == "null" else 1
            panel.plot(means.index.to_numpy(float), means[percent].to_numpy(float), color=colour, linewidth=width)
    _finish(panel)
    lowest = float(np.nanmin(rows[["CKA", "null"]].to_numpy(dtype=float), initial=0.0))
    panel.set_ylim(bottom=1.1 * lowest)


def _depth_bar(figure: Figure) -> None:
    shown = DEPTHS(np.linspace(0, 0.9, 256))
    side_bar(figure, ScalarMappable(Normalize(0, 100), ListedColormap(shown)), "depth / %")
