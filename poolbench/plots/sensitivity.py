"""How far features move with a shift of the input, stage by stage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from matplotlib.figure import Figure

from poolbench.analysis.groups import Group
from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import (
    MARKERS,
    PALETTE,
    WIDTH,
    Curve,
    axes_at,
    band_opacity,
    heading,
    key,
    legend,
    legend_rows,
    line,
)
from poolbench.plots.scene import Scene
from poolbench.plots.tables import short_layers
from poolbench.runner.ledger import CellRecord

QUANTITIES = {"l2": "relative L2 change", "cosine": "1 - cosine", "aligned": "L2 change, motion undone"}


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    table = record.table(drawing.sources[0])
    stages = short_layers(table.drop_duplicates("depth").sort_values("depth")["stage"].astype(str).tolist())
    looks = [(PALETTE[index % len(PALETTE)], MARKERS[index // len(PALETTE) % len(MARKERS)]) for index in range(28)]
    shifts = list(zip(table.sort_values("depth").groupby(["dy", "dx"]), looks, strict=False))
    keys = [key(f"{shift} px", colour, marker=marker) for (shift, _), (colour, marker) in shifts]
    top, span, bottom = 0.3 + 0.22 * legend_rows(keys), 2.2, 0.2 + 0.062 * max(len(name) for name in stages)
    figure = Figure(figsize=(WIDTH, top + span + bottom))
    width, gap = (WIDTH - 0.62 - 0.15 - 2 * 0.45) / 3, 0.45
    for index, (column, title) in enumerate(QUANTITIES.items()):
        axes = axes_at(figure, 0.62 + index * (width + gap), top, width, span)
        for (_, rows), (colour, marker) in shifts:
            axes.plot(rows["depth"], rows[column], color=colour, marker=marker, markersize=3.5, linewidth=1.2)
        axes.set_title(title)
        step = math.ceil(len(stages) / 20)
        axes.set_xticks(range(0, len(stages), step), stages[::step], rotation=90, fontsize=7)
        axes.set_ylim(bottom=0)
    legend(figure, keys)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    known = {group.id: _curves(drawing, scene, group) for group in scene.groups}
    groups = [group for group in scene.groups if any(known[group.id].values())]
    if not groups:
        return None
    panels, looks, keys = scene.panels(drawing, groups), scene.looks(drawing), scene.keys(drawing, groups)
    blocks = scene.split(drawing.panels, groups)
    highest = {group.id: _highest([known[g.id] for g in members]) for members in blocks.values() for group in members}
    left, gap, size, between = 0.5, 0.45, 1.45, 0.65 if any(panels) else 0.3
    width = (WIDTH - left - 0.15 - 2 * gap) / 3
    top = 0.22 * legend_rows(keys)
    figure = Figure(figsize=(WIDTH, top + len(panels) * (size + between) + 0.45))
    for index, (title, members) in enumerate(panels.items()):
        heading(figure, top + between - (0.27 if index == 0 else 0.12), title)
        top += between
        for place, (column, quantity) in enumerate(QUANTITIES.items()):
            axes = axes_at(figure, left + place * (width + gap), top, width, size)
            for group in members:
                colour, marker = looks[group.fields.get(drawing.colour)]
                line(axes, known[group.id][column], colour, "-", marker, band_opacity(len(members)))
            axes.set(xlim=(-2, 102), ylim=(0, 1.08 * highest[members[0].id][column] or 1))
            if index == 0:
                axes.set_title(quantity)
            if index == len(panels) - 1:
                axes.set_xlabel("depth / %")
        top += size
    legend(figure, keys)
    return figure


def _highest(curves: Sequence[dict[str, Curve]]) -> dict[str, float]:
    """Return the highest mean of each quantity: bands of few seeds reach far beyond it."""
    return {
        column: max((fmean(values) for curve in curves for values in curve[column].values()), default=0)
        for column in QUANTITIES
    }


def _curves(drawing: Drawing, scene: Scene, group: Group) -> dict[str, Curve]:
    """Return {quantity: {depth in %: mean over shifts of each network}}."""
    found: dict[str, Curve] = {column: {} for column in QUANTITIES}
    for result in group.results:
        try:
            table = scene.ledger.record(result.cell.id).table(drawing.sources[0])
        except FileNotFoundError:
            continue
        means = table.groupby("depth", as_index=False)[list(QUANTITIES)].mean()
        depths = 100 * means["depth"] / max(1, means["depth"].max())
        for column in QUANTITIES:
            for depth, value in zip(depths, means[column], strict=True):
                if math.isfinite(value):
                    found[column].setdefault(float(depth), []).append(float(value))
    return found
