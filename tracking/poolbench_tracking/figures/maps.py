"""Canvas maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.runner.ledger import CellRecord
from poolbench_tracking.figures.parts import (
    GREY,
    WIDTH,
    colour_bar,
    heatmap,
    panel_grid,
)
from poolbench_tracking.figures.scene import Scene
from poolbench_tracking.results import Group


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    figure = Figure(figsize=(4.6, 3.7))
    axes = figure.add_axes((0.13, 0.13, 0.66, 0.80))
    image = heatmap(axes, record.array(drawing.sources[0]))
    axes.set(xlabel="x of the centre / px", ylabel="y of the centre / px")
    colour_bar(figure, image, (0.83, 0.13, 0.035, 0.80), drawing.label)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    chosen: dict[str, tuple[Group, Result, np.ndarray[Any, Any]]] = {}
    titles = {group.id: title for title, members in scene.panels(drawing, scene.groups).items() for group in members}
    for group in scene.groups:
        # One network, not a mean of several: the pattern belongs to a network, and a mean would wash it out.
        result = next((result for result in group.results if result.facts["learned"]), group.results[0])
        try:
            array = scene.ledger.record(result.cell.id).array(drawing.sources[0])
        except (FileNotFoundError, KeyError):
            continue
        chosen[group.id] = group, result, array
    if not chosen:
        return None
    figure, axes = panel_grid([""] * len(chosen), columns=4, panel_height=1.75, legend_rows=0, right=0.95, gap_y=0.85)
    image = None
    for index, (panel, (group, result, array)) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = heatmap(panel, array)
        facts = [f"seed {result.cell.seed}"]
        if "flips" in result.metrics:
            facts.append(f"flips {100 * result.metrics['flips']:.1f} %")
        if not result.facts["learned"]:
            facts.append("not learned")
        title = "\n".join(filter(None, [titles[group.id], ", ".join(facts)]))
        panel.set_title(title, fontsize=8, color="#000000" if result.facts["learned"] else GREY)
        if index % 4 == 0:
            panel.set_ylabel("y / px")
        if index + 4 >= len(chosen):
            panel.set_xlabel("x / px")
    assert image is not None
    height = figure.get_figheight()
    span = min(3.0, height - 1.2)
    colour_bar(figure, image, (1 - 0.75 / WIDTH, 1 - (0.5 + span) / height, 0.16 / WIDTH, span / height), drawing.label)
    return figure
