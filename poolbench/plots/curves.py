"""Learning curves."""

from __future__ import annotations

import math

from matplotlib.figure import Figure

from poolbench.analysis.groups import Group
from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import (
    GREY,
    PALETTE,
    Curve,
    band_opacity,
    epoch_axis,
    finish_axes,
    key,
    legend,
    legend_rows,
    line,
    marks,
    panel_grid,
)
from poolbench.plots.scene import Scene
from poolbench.runner.ledger import CellRecord


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure | None:
    history = result.history
    quantities = [name for name in ("accuracy", "loss") if any(f"val_{name}" in row for row in history)]
    if not quantities:
        return None
    figure, axes = panel_grid(quantities, columns=2, panel_height=2.4, legend_rows=1, share_y=False)
    for quantity, panel in zip(quantities, axes, strict=True):
        for split, colour, dashes in (("train", GREY, "--"), ("val", PALETTE[0], "-")):
            rows = [row for row in history if f"{split}_{quantity}" in row]
            if rows:
                ys = [row[f"{split}_{quantity}"] for row in rows]
                panel.plot([row["epoch"] for row in rows], ys, color=colour, linestyle=dashes, **marks(len(rows)))
        epoch_axis(panel)
    legend(figure, [key("training", GREY, "--"), key("validation", PALETTE[0])])
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    def curves(group: Group) -> dict[str, Curve]:
        found: dict[str, Curve] = {}
        for source in drawing.sources:
            curve: Curve = {}
            for row in (row for result in group.results for row in result.history):
                if source in row and math.isfinite(row[source]):
                    curve.setdefault(row["epoch"], []).append(row[source])
            found[source] = curve
        return found

    known = {group.id: curves(group) for group in scene.groups}
    groups = [group for group in scene.groups if any(known[group.id].values())]
    if not groups:
        return None
    split = len({source.partition("_")[0] for source in drawing.sources}) > 1
    panels = scene.panels(drawing, groups)
    keys = scene.keys(drawing, groups)
    if split:
        keys += [key("training", "#333333", "--"), key("validation", "#333333")]
    figure, axes = panel_grid(panels, columns=min(3, len(panels)), panel_height=2.1, legend_rows=legend_rows(keys))
    looks = scene.looks(drawing)
    for panel, members in zip(axes, panels.values(), strict=True):
        for group in members:
            colour, marker = looks[group.fields.get(drawing.colour)]
            for source, curve in known[group.id].items():
                training = split and source.startswith("train_")
                band = 0 if training else band_opacity(len(members))
                line(panel, curve, colour, "--" if training else "-", marker, band)
        epoch_axis(panel)
    finish_axes(axes, drawing.label, [c for found in known.values() for c in found.values()])
    legend(figure, keys)
    return figure
