"""Figures of the shift task: maps and their parts, sensitivity of layers, consistency beside accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.figure import Figure

from poolbench.analysis.groups import Group, has_learned
from poolbench.core import Result
from poolbench.plots import curves, heatmaps, intervals, maps, scatter
from poolbench.plots.depth import layer_ticks, percent_of_depth, short_names
from poolbench.plots.legends import key, legend, legend_rows
from poolbench.plots.lines import Curve, band_opacity, line
from poolbench.plots.panels import axes_at, heading
from poolbench.plots.scene import Record, Scene, example
from poolbench.plots.style import GREY, MARKERS, PALETTE, WIDTH

LAYERS_AND_POOL = ("num_pooling", "pool")
NETWORK = ("dataset", "architecture")
PROBABILITY = "P(circle)"
PARTS_UNIT = "logit deviations"
INTERVALS = ("exact_consistency", "grid_consistency", "worst_accuracy", "subset_accuracy")
PARTS = ("map_phase", "map_boundary", "map_phases")
QUANTITIES = {"l2": "relative L2 change", "cosine": "1 - cosine", "aligned": "L2 change, motion undone"}


def shift_map(scene: Scene) -> Figure | None:
    return maps.map_panels(scene, "map", LAYERS_AND_POOL, PROBABILITY, _flips)


def shift_map_of_cell(result: Result, record: Record) -> Figure:
    return maps.single_map(record.array("map"), PROBABILITY)


def consistency_accuracy(scene: Scene) -> Figure | None:
    return scatter.metric_scatter(scene, "subset_accuracy", "grid_consistency", NETWORK)


def pool_padding(scene: Scene) -> Figure | None:
    # Crops and the grid are the same shifts for either padding.
    metrics = ("crop_sampled", "grid_consistency", "grid_worst_accuracy", "subset_accuracy")
    return heatmaps.metric_tables(scene, metrics, columns="padding_mode", panels=(*NETWORK, "variant"))


def learning_curves(scene: Scene) -> Figure | None:
    return curves.learning_curves(scene, ("val_accuracy",), ("num_pooling",), label="accuracy")


def consistency(scene: Scene) -> Figure | None:
    return intervals.metric_intervals(scene, INTERVALS, ("num_pooling",))


def map_parts(scene: Scene) -> Figure | None:
    """Draw the map's parts of one network per group, one group per row; None if no group has them."""
    chosen: list[tuple[Group, Result, maps.Parts]] = []
    for group in scene.groups:
        result = example(group)
        found = scene.arrays(result, *PARTS)
        if found is not None:
            phase, boundary, phases = found
            chosen.append((group, result, (phase, boundary, phases)))
    if not chosen:
        return None
    panels = scene.panels([group for group, _, _ in chosen], LAYERS_AND_POOL)
    names = {group.id: title for title, members in panels.items() for group in members}
    size, gap, first = 1.3, 0.4, 0.55
    figure = Figure(figsize=(WIDTH, first + len(chosen) * (size + gap)))
    for index, (group, result, parts) in enumerate(chosen):
        top = first + index * (size + gap)
        learned = has_learned(result)
        lines = [*names[group.id].split(" · "), f"seed {result.cell.seed}", *([] if learned else ["not learned"])]
        place = (0.12 / WIDTH, 1 - (top + size / 2) / figure.get_figheight())
        figure.text(*place, "\n".join(filter(None, lines)), va="center", color="#000000" if learned else GREY)
        maps.draw_parts(figure, parts, 2.1, top, size, PARTS_UNIT, with_titles=index == 0)
    return figure


def map_parts_of_cell(result: Result, record: Record) -> Figure:
    phase, boundary, phases = (record.array(name) for name in PARTS)
    figure = Figure(figsize=(WIDTH, 2.85))
    maps.draw_parts(figure, (phase, boundary, phases), 0.5, 0.55, 1.95, PARTS_UNIT, with_titles=True)
    return figure


def sensitivity(scene: Scene) -> Figure | None:
    """Draw how far features move with a shift against the depth of their stage, one row of quantities per panel."""
    known = {group.id: _sensitivity_curves(scene, group) for group in scene.groups}
    groups = [group for group in scene.groups if any(known[group.id].values())]
    if not groups:
        return None
    panels, keys = scene.panels(groups, NETWORK, within=("pool",)), scene.keys("pool", groups)
    # Panels of one data set and architecture share the scale of a quantity.
    blocks = scene.split(groups, NETWORK)
    highest = {group.id: _highest([known[g.id] for g in members]) for members in blocks.values() for group in members}
    styles = scene.styles("pool")
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
                colour, marker = styles[group.fields.get("pool")]
                line(axes, known[group.id][column], colour, "-", marker, band_opacity(len(members)))
            axes.set(xlim=(-2, 102), ylim=(0, 1.08 * highest[members[0].id][column] or 1))
            if index == 0:
                axes.set_title(quantity)
            if index == len(panels) - 1:
                axes.set_xlabel("depth / %")
        top += size
    legend(figure, keys)
    return figure


def sensitivity_of_cell(result: Result, record: Record) -> Figure:
    """Draw how far features move stage by stage, one line per shift."""
    table = record.table("sensitivity")
    stages = short_names(table.drop_duplicates("depth").sort_values("depth")["stage"].astype(str).tolist())
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
        layer_ticks(axes, stages, 20)
        axes.set_ylim(bottom=0)
    legend(figure, keys)
    return figure


def _flips(result: Result) -> list[str]:
    return [f"flips {100 * result.metrics['square_flips']:.1f} %"] if "square_flips" in result.metrics else []


def _highest(curves: Sequence[Mapping[str, Curve]]) -> dict[str, float]:
    """Return the highest mean of each quantity: bands of few seeds reach far beyond it."""
    return {
        column: max((fmean(values) for curve in curves for values in curve[column].values()), default=0)
        for column in QUANTITIES
    }


def _sensitivity_curves(scene: Scene, group: Group) -> dict[str, Curve]:
    """Return {quantity: {depth in %: mean over shifts of each network}}."""
    found: dict[str, Curve] = {column: {} for column in QUANTITIES}
    for table in scene.tables(group, "sensitivity", ("depth", *QUANTITIES)):
        means = table.groupby("depth", as_index=False)[list(QUANTITIES)].mean()
        depths = percent_of_depth(means["depth"])
        for column in QUANTITIES:
            for depth, value in zip(depths, means[column], strict=True):
                if math.isfinite(value):
                    found[column].setdefault(float(depth), []).append(float(value))
    return found
