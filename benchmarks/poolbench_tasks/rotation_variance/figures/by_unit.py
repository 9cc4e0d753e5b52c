"""V as colour: of every unit of every layer, and of every class and layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from poolbench.plots.depth import layer_ticks, short_names
from poolbench.plots.images import Array, colour_bar, side_bar
from poolbench.plots.panels import panel_grid
from poolbench.plots.scene import Record, Scene, example
from poolbench.plots.style import WIDTH

ROWS = 60  # resolution of a layer's sorted units
COLOURS = "viridis"
LARGEST = 1.5  # V from here on has one colour
AGGREGATION = "mean"  # a unit is the mean of a map
MOST_LAYERS = 40  # with names on the axis


def units(scene: Scene, panels: Sequence[str]) -> Figure | None:
    """Draw the sorted V of every layer's units, one network per group: units have no counterparts in another seed."""
    chosen: dict[str, Array] = {}
    for title, members in scene.panels(scene.groups, panels).items():
        for group in members:
            table = scene.table(example(group), "units", ("aggregation", "layer", "depth", "V"))
            if table is not None:
                chosen[title] = sorted_units(table[table["aggregation"] == AGGREGATION])[0]
    if not chosen:
        return None
    figure, axes = panel_grid(chosen, columns=3, panel_height=1.5, legend_rows=0, right=0.95)
    image = None
    for index, (panel, grid) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = _draw_units(panel, grid)
        panel.set_xticks([])
        if index % 3 == 0:
            panel.set_ylabel("units / %")
        if index + 3 >= len(chosen):
            panel.set_xlabel("layer, input to output")
    assert image is not None
    side_bar(figure, image, "V")
    return figure


def units_of_cell(record: Record) -> Figure:
    """Draw the sorted V of every layer's units."""
    table = record.table("units")
    grid, layers = sorted_units(table[table["aggregation"] == AGGREGATION])
    bottom = 0.3 + 0.065 * max(len(layer) for layer in layers)
    width, height = max(4.6, min(WIDTH, 2.0 + 0.25 * len(layers))), 2.8 + bottom
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0.65 / width, bottom / height, 1 - 1.75 / width, 2.6 / height))
    image = _draw_units(axes, grid)
    layer_ticks(axes, layers, MOST_LAYERS)
    axes.set_ylabel("units of a layer, sorted / %")
    colour_bar(image, figure.add_axes((1 - 0.9 / width, bottom / height, 0.16 / width, 2.6 / height)), "V")
    return figure


def classes(scene: Scene, panels: Sequence[str]) -> Figure | None:
    """Draw V by class and layer, the mean over units and seeds, one panel per group."""
    chosen: dict[str, tuple[Array, list[str]]] = {}
    for title, members in scene.panels(scene.groups, panels).items():
        for group in members:
            tables = scene.tables(group, "classes", ("class", "aggregation", "V"))
            if tables:
                grid, names, _ = _class_grid(tables)
                chosen[title] = grid, names
    if not chosen:
        return None
    figure, axes = panel_grid(chosen, columns=3, panel_height=1.7, legend_rows=0, share_y=False, right=0.95)
    image = None
    for index, (panel, (grid, names)) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = _draw_classes(panel, grid)
        panel.set_xticks([])
        short = [name if len(name) <= 6 else f"{name[:5]}." for name in names]
        panel.set_yticks(range(len(names)), short if index % 3 == 0 else [], fontsize=7)
        if index + 3 >= len(chosen):
            panel.set_xlabel("layer, input to output")
    assert image is not None
    side_bar(figure, image, "V")
    return figure


def classes_of_cell(record: Record) -> Figure:
    """Draw V by class and layer, the mean over units."""
    grid, names, layers = _class_grid([record.table("classes")])
    bottom = 0.3 + 0.065 * max(len(layer) for layer in layers)
    left = 0.35 + 0.075 * max(len(name) for name in names)
    width = max(4.6, min(WIDTH, left + 1.3 + 0.25 * len(layers)))
    body = 0.22 * len(names)
    height = body + bottom + 0.2
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((left / width, bottom / height, 1 - (left + 1.1) / width, body / height))
    image = _draw_classes(axes, grid)
    layer_ticks(axes, layers, MOST_LAYERS)
    axes.set_yticks(range(len(names)), names)
    colour_bar(image, figure.add_axes((1 - 0.9 / width, bottom / height, 0.16 / width, body / height)), "V")
    return figure


def sorted_units(table: pd.DataFrame) -> tuple[Array, list[str]]:
    """Return (rows x layers) values of V of each layer's units in ascending order, and the layers; NaN (dead) last."""
    columns, names = [], []
    for layer, rows in table.sort_values("depth", kind="stable").groupby("layer", sort=False):
        values = np.sort(rows["V"].to_numpy(dtype=float))
        columns.append(values[np.minimum((np.arange(ROWS) + 0.5) / ROWS * len(values), len(values) - 1).astype(int)])
        names.append(str(layer))
    return np.stack(columns, axis=1), short_names(names)


def _class_grid(tables: Sequence[pd.DataFrame]) -> tuple[Array, list[str], list[str]]:
    """Return (classes x layers) means over tables, the classes and the layers."""
    rows = pd.concat(tables)
    rows = rows[rows["aggregation"] == AGGREGATION]
    classes, layers = list(dict.fromkeys(rows["class"])), list(dict.fromkeys(rows.sort_values("depth")["layer"]))
    means = rows.pivot_table(index="class", columns="layer", values="V", aggfunc="mean")
    return means.reindex(index=classes, columns=layers).to_numpy(dtype=float), classes, short_names(layers)


def _draw_units(axes: Axes, grid: Array) -> AxesImage:
    _clear(axes)
    extent = (-0.5, grid.shape[1] - 0.5, 0, 100)
    shown = np.ma.masked_invalid(np.where(np.isinf(grid), LARGEST, grid))
    return axes.imshow(shown, cmap=COLOURS, vmin=0, vmax=LARGEST, aspect="auto", origin="lower", extent=extent)


def _draw_classes(axes: Axes, grid: Array) -> AxesImage:
    _clear(axes)
    return axes.imshow(np.ma.masked_invalid(grid), cmap=COLOURS, vmin=0, vmax=LARGEST, aspect="auto")


def _clear(axes: Axes) -> None:
    """Remove grid and frame, and make the background grey: units and classes without a value show it."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_facecolor("#e0e0e0")
