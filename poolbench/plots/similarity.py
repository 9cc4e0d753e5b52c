"""CKA of each layer with itself on turned images, against the angle."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.parts import panel_grid, side_bar
from poolbench.plots.scene import Scene
from poolbench.plots.tables import percent_of_depth, tables_of
from poolbench.runner.ledger import CellRecord

DEPTHS = matplotlib.colormaps["plasma"].resampled(256)
NETWORKS = {"trained": "trained", "random": "random weights"}


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    table = record.table(drawing.sources[0])
    networks = [name for name in NETWORKS if name in set(table["network"])]
    figure, axes = panel_grid([NETWORKS[name] for name in networks], 2, 2.6, legend_rows=0, right=0.95)
    for panel, name in zip(axes, networks, strict=True):
        draw_layers(panel, [table[table["network"] == name]])
    axes[0].set_ylabel(drawing.label)
    _depth_bar(figure)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    panels: dict[str, list[pd.DataFrame]] = {}
    for title, members in scene.panels(drawing, scene.groups).items():
        for group in members:
            tables = tables_of(scene, group, drawing.sources[0], ["network", "layer", "depth", "angle", "CKA"])
            if tables:
                panels[title] = [table[table["network"] == "trained"] for table in tables]
    if not panels:
        return None
    figure, axes = panel_grid(panels, min(3, len(panels)), 1.7, legend_rows=0, right=0.95)
    for panel, tables in zip(axes, panels.values(), strict=True):
        draw_layers(panel, tables)
        spec = panel.get_subplotspec()
        if spec is not None and spec.is_first_col():
            panel.set_ylabel(drawing.label)
    _depth_bar(figure)
    return figure


def draw_layers(panel: Axes, tables: Sequence[pd.DataFrame]) -> None:
    """Draw one line per layer, the mean over tables, coloured from input (dark) to output (bright)."""
    rows = pd.concat(tables)
    rows = rows.assign(percent=percent_of_depth(rows), turn=(rows["angle"] + 180) % 360 - 180)
    means = rows.pivot_table(index="turn", columns="percent", values="CKA", aggfunc="mean")
    if -180.0 in means.index:
        means.loc[180.0] = means.loc[-180.0]
    for percent in means.columns:
        # The brightest end of the scale cannot be seen on white.
        colour = DEPTHS(0.9 * float(percent) / 100)
        panel.plot(means.index.to_numpy(dtype=float), means[percent].to_numpy(dtype=float), color=colour, linewidth=1)
    panel.set_xlim(-185, 185)
    panel.set_xticks(range(-180, 181, 90), [f"{angle}°" for angle in range(-180, 181, 90)])
    panel.set_ylim(0, 1.02)


def _depth_bar(figure: Figure) -> None:
    shown = DEPTHS(np.linspace(0, 0.9, 256))
    scale = ScalarMappable(Normalize(0, 100), matplotlib.colors.ListedColormap(shown))
    side_bar(figure, scale, "depth / %")
