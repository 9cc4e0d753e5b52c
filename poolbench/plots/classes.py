"""V within each class, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import WIDTH, colour_bar, panel_grid, side_bar
from poolbench.plots.scene import Scene
from poolbench.plots.tables import short_layers, tables_of
from poolbench.plots.units import COLOURS, LARGEST, Array
from poolbench.runner.ledger import CellRecord


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    grid, classes, layers = class_grid([record.table("classes")], drawing.sources[0].partition(":")[2])
    bottom = 0.3 + 0.065 * max(len(layer) for layer in layers)
    left = 0.35 + 0.075 * max(len(name) for name in classes)
    width = max(4.6, min(WIDTH, left + 1.3 + 0.25 * len(layers)))
    body = 0.22 * len(classes)
    height = body + bottom + 0.2
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + 1.1) / width, body / height))
    image = draw_classes(axes, grid)
    step = math.ceil(len(layers) / 40)
    axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90, fontsize=7)
    axes.set_yticks(range(len(classes)), classes)
    colour_bar(image, figure.add_axes((1 - 0.9 / width, bottom / height, 0.16 / width, body / height)), drawing.label)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    name, _, aggregation = drawing.sources[0].partition(":")
    chosen: dict[str, tuple[Array, list[str]]] = {}
    for title, members in scene.panels(drawing, scene.groups).items():
        for group in members:
            tables = tables_of(scene, group, name, ["class", "aggregation", "V"])
            if tables:
                grid, classes, _ = class_grid(tables, aggregation)
                chosen[title] = grid, classes
    if not chosen:
        return None
    figure, axes = panel_grid(chosen, columns=3, panel_height=1.7, legend_rows=0, share_y=False, right=0.95)
    image = None
    for index, (panel, (grid, classes)) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = draw_classes(panel, grid)
        panel.set_xticks([])
        names = [name if len(name) <= 6 else f"{name[:5]}." for name in classes]
        panel.set_yticks(range(len(classes)), names if index % 3 == 0 else [], fontsize=7)
        if index + 3 >= len(chosen):
            panel.set_xlabel("layer, input to output")
    assert image is not None
    side_bar(figure, image, drawing.label)
    return figure


def class_grid(tables: Sequence[pd.DataFrame], aggregation: str) -> tuple[Array, list[str], list[str]]:
    """Return (classes x layers) means over tables, the classes and the layers."""
    rows = pd.concat(tables)
    rows = rows[rows["aggregation"] == aggregation]
    classes, layers = list(dict.fromkeys(rows["class"])), list(dict.fromkeys(rows.sort_values("depth")["layer"]))
    means = rows.pivot_table(index="class", columns="layer", values="V", aggfunc="mean")
    return means.reindex(index=classes, columns=layers).to_numpy(dtype=float), classes, short_layers(layers)


def draw_classes(axes: Axes, grid: Array) -> AxesImage:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#e0e0e0")
    return axes.imshow(np.ma.masked_invalid(grid), cmap=COLOURS, vmin=0, vmax=LARGEST, aspect="auto")
