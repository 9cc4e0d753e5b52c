"""Learning curves: metrics of the history against the epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from poolbench.analysis.groups import Group
from poolbench.core import Result
from poolbench.plots.legends import key, legend, legend_rows
from poolbench.plots.lines import Curve, band_opacity, line, marks, scale_to_values
from poolbench.plots.panels import label_first_column, panel_grid
from poolbench.plots.scene import Scene
from poolbench.plots.style import GREY, PALETTE


def history_curves(result: Result) -> Figure | None:
    """Draw accuracy and loss of one network, on training and validation images, by epoch; None without a history."""
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
        _epoch_axis(panel)
    legend(figure, [key("training", GREY, "--"), key("validation", PALETTE[0])])
    return figure


def learning_curves(
    scene: Scene, sources: Sequence[str], panels: Sequence[str] = (), colour: str = "pool", label: str = ""
) -> Figure | None:
    """Draw columns of the history (``sources``, such as "val_accuracy") by epoch: means over seeds, one line per group.

    ``panels`` and ``colour`` name fields; ``label`` is that of the y axis. Training is dashed if ``sources`` hold
    both splits.
    """
    curves = {group.id: _curves(group, sources) for group in scene.groups}
    groups = [group for group in scene.groups if any(curves[group.id].values())]
    if not groups:
        return None
    has_both = len({source.partition("_")[0] for source in sources}) > 1
    members_of = scene.panels(groups, panels, within=(colour,))
    keys = scene.keys(colour, groups)
    if has_both:
        keys += [key("training", "#333333", "--"), key("validation", "#333333")]
    figure, axes = panel_grid(members_of, min(3, len(members_of)), 2.1, legend_rows(keys))
    styles = scene.styles(colour)
    for panel, members in zip(axes, members_of.values(), strict=True):
        for group in members:
            shade, marker = styles[group.fields.get(colour)]
            for source, curve in curves[group.id].items():
                is_training = has_both and source.startswith("train_")
                band = 0 if is_training else band_opacity(len(members))
                line(panel, curve, shade, "--" if is_training else "-", marker, band)
        _epoch_axis(panel)
    scale_to_values(axes, [curve for by_source in curves.values() for curve in by_source.values()])
    label_first_column(axes, label)
    legend(figure, keys)
    return figure


def _curves(group: Group, sources: Sequence[str]) -> dict[str, Curve]:
    """Return {source: {epoch: finite values of the networks that have learned}}."""
    found: dict[str, Curve] = {}
    for source in sources:
        curve: Curve = {}
        for row in (row for result in group.learned for row in result.history):
            if source in row and math.isfinite(row[source]):
                curve.setdefault(row["epoch"], []).append(row[source])
        found[source] = curve
    return found


def _epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
