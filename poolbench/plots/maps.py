"""Canvas maps."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.figure import Figure

from poolbench.analysis.groups import Group
from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import (
    GREY,
    WIDTH,
    axes_at,
    colour_bar,
    heatmap,
    panel_grid,
)
from poolbench.plots.scene import Scene, example
from poolbench.runner.ledger import CellRecord


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    figure = Figure(figsize=(4.6, 3.7))
    draw_map(figure, record.array(drawing.sources[0]), 0.62, 0.26, 2.96, drawing.label)
    return figure


def draw_map(figure: Figure, array: np.ndarray[Any, Any], left: float, top: float, size: float, label: str) -> None:
    """Draw a map (h, w) of probabilities with its colour bar; sizes in inches."""
    axes = axes_at(figure, left, top, size, size)
    image = heatmap(axes, array)
    axes.set(xlabel="x of the centre / px", ylabel="y of the centre / px")
    colour_bar(image, axes_at(figure, left + size + 0.15, top, 0.16, size), label)


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    chosen: dict[str, tuple[Group, Result, np.ndarray[Any, Any]]] = {}
    for group in scene.groups:
        result = example(group)
        try:
            array = scene.ledger.record(result.cell.id).array(drawing.sources[0])
        except (FileNotFoundError, KeyError):
            continue
        chosen[group.id] = group, result, array
    if not chosen:
        return None
    panels = scene.panels(drawing, [group for group, _, _ in chosen.values()])
    names = {group.id: title for title, members in panels.items() for group in members}
    titles = []
    for group, result, _ in chosen.values():
        facts = [f"seed {result.cell.seed}"]
        if "flips" in result.metrics:
            facts.append(f"flips {100 * result.metrics['flips']:.1f} %")
        if not result.facts["learned"]:
            facts.append("not learned")
        titles.append("\n".join(filter(None, [names[group.id], ", ".join(facts)])))
    figure, axes = panel_grid(titles, columns=4, panel_height=1.75, legend_rows=0, right=0.95)
    image = None
    for index, (panel, (_, result, array)) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = heatmap(panel, array)
        panel.title.set(fontsize=8, color="#000000" if result.facts["learned"] else GREY)
        if index % 4 == 0:
            panel.set_ylabel("y / px")
        if index + 4 >= len(chosen):
            panel.set_xlabel("x / px")
    assert image is not None
    height = figure.get_figheight()
    span = min(3.0, height - 1.2)
    colour_bar(image, axes_at(figure, WIDTH - 0.75, 0.5, 0.16, span), drawing.label)
    return figure
