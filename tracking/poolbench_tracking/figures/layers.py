"""A quantity by layer."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure

from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.runner.ledger import CellRecord
from poolbench_tracking.figures.parts import (
    MARKERS,
    PALETTE,
    WIDTH,
    Curve,
    band_opacity,
    finish_axes,
    key,
    legend,
    legend_rows,
    line,
    panel_grid,
)
from poolbench_tracking.figures.scene import Scene
from poolbench_tracking.figures.tables import short_layers
from poolbench_tracking.results import Group


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    table, column = record.table(drawing.sources[0]), drawing.sources[1]
    names = short_layers(table.drop_duplicates("depth").sort_values("depth")["layer"].astype(str).tolist())
    bottom = 0.2 + 0.062 * max(len(name) for name in names)
    width, height = max(5.0, min(WIDTH, 1.5 + 0.25 * len(names))), 2.6 + bottom
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.6 / width, bottom / height, 1 - 0.75 / width, 2.25 / height))
    keys = []
    for index, (name, rows) in enumerate(table.groupby("aggregation")):
        rows = rows.sort_values("depth")
        values = rows[column].where(np.isfinite(rows[column]))
        axes.plot(rows["depth"], values, color=PALETTE[index], marker=MARKERS[index % len(MARKERS)], markersize=3.5)
        keys.append(key(f"{name} of each map", PALETTE[index], marker=MARKERS[index % len(MARKERS)]))
    # Beyond this many layers their names no longer fit side by side.
    step = math.ceil(len(names) / 40)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
    axes.set_ylabel(column)
    axes.set_ylim(bottom=0)
    legend(figure, keys)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    name, column = drawing.sources

    def curve(group: Group) -> Curve:
        found: Curve = {}
        for result in group.results:
            try:
                table = scene.ledger.record(result.cell.id).table(name)
            except FileNotFoundError:
                continue
            rows = table[table["aggregation"] == "mean"]
            depth = 100 * rows["depth"] / max(1, rows["depth"].max())
            for x, y in zip(depth, rows[column], strict=True):
                if math.isfinite(y):
                    found.setdefault(float(x), []).append(float(y))
        return found

    known = {group.id: curve(group) for group in scene.groups}
    groups = [group for group in scene.groups if known[group.id]]
    if not groups:
        return None
    # The untreated networks are the reference, and the eye takes a dashed line for one.
    dashed = ("plain",) if drawing.colour == "variant" else ()
    panels, looks, keys = scene.panels(drawing, groups), scene.looks(drawing), scene.keys(drawing, groups, dashed)
    figure, axes = panel_grid(panels, columns=min(3, len(panels)), panel_height=2.1, legend_rows=legend_rows(keys))
    for panel, members in zip(axes, panels.values(), strict=True):
        for group in members:
            value = group.fields.get(drawing.colour)
            colour, marker = looks[value]
            line(panel, known[group.id], colour, "--" if value in dashed else "-", marker, band_opacity(len(members)))
        panel.set_xlim(-2, 102)
        panel.set_xlabel("depth / %")
    finish_axes(axes, drawing.label or column, known.values(), bottom=0)
    legend(figure, keys)
    return figure
