"""Every unit of every layer: V as colour."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import WIDTH, colour_bar, panel_grid, side_bar
from poolbench.plots.scene import Scene
from poolbench.plots.tables import short_layers, table_of
from poolbench.runner.ledger import CellRecord

Array = np.ndarray[tuple[int, int], np.dtype[np.float64]]
ROWS = 60  # so finely is a layer's range of units drawn
COLOURS = "viridis"
LARGEST = 1.5


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    name, _, aggregation = drawing.sources[0].partition(":")
    table = record.table(name)
    grid, names = sorted_units(table[table["aggregation"] == aggregation], drawing.sources[1])
    bottom = 0.3 + 0.065 * max(len(layer) for layer in names)
    width, height = max(4.6, min(WIDTH, 2.0 + 0.25 * len(names))), 2.8 + bottom
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.65 / width, bottom / height, 1 - 1.75 / width, 2.6 / height))
    image = draw_units(axes, grid)
    step = math.ceil(len(names) / 40)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
    axes.set_ylabel("units of a layer, sorted / %")
    colour_bar(image, figure.add_axes((1 - 0.9 / width, bottom / height, 0.16 / width, 2.6 / height)), drawing.label)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    name, _, aggregation = drawing.sources[0].partition(":")
    column = drawing.sources[1]
    chosen: dict[str, Array] = {}
    for title, members in scene.panels(drawing, scene.groups).items():
        for group in members:
            # One network, not a mean of several: units have no counterparts in another seed.
            result = next((result for result in group.results if result.facts["learned"]), group.results[0])
            table = table_of(scene, result, name, ["aggregation", "layer", "depth", column])
            if table is not None:
                chosen[title] = sorted_units(table[table["aggregation"] == aggregation], column)[0]
    if not chosen:
        return None
    figure, axes = panel_grid(chosen, columns=3, panel_height=1.5, legend_rows=0, right=0.95)
    image = None
    for index, (panel, grid) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = draw_units(panel, grid)
        panel.set_xticks([])
        if index % 3 == 0:
            panel.set_ylabel("units / %")
        if index + 3 >= len(chosen):
            panel.set_xlabel("layer, input to output")
    assert image is not None
    side_bar(figure, image, drawing.label)
    return figure


def sorted_units(table: pd.DataFrame, column: str) -> tuple[Array, list[str]]:
    """Return (rows x layers) values of each layer's units from low to high, and the layers; NaN (dead) on top."""
    columns, names = [], []
    for layer, rows in table.sort_values("depth", kind="stable").groupby("layer", sort=False):
        values = np.sort(rows[column].to_numpy(dtype=float))
        columns.append(values[np.minimum((np.arange(ROWS) + 0.5) / ROWS * len(values), len(values) - 1).astype(int)])
        names.append(str(layer))
    return np.stack(columns, axis=1), short_layers(names)


def draw_units(axes: Axes, grid: Array) -> AxesImage:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#e0e0e0")
    extent = (-0.5, grid.shape[1] - 0.5, 0, 100)
    shown = np.ma.masked_invalid(np.where(np.isinf(grid), LARGEST, grid))
    return axes.imshow(shown, cmap=COLOURS, vmin=0, vmax=LARGEST, aspect="auto", origin="lower", extent=extent)
