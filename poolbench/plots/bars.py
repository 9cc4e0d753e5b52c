"""Metrics between 0 and 1 as bars, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from poolbench.analysis.statistics import Interval
from poolbench.analysis.text import term
from poolbench.plots.panels import label_first_column, panel_grid
from poolbench.plots.scene import Scene


def metric_bars(
    scene: Scene,
    metrics: Sequence[str],
    ticks: Sequence[str],
    panels: Sequence[str] = (),
    colour: str = "pool",
    label: str = "",
    legend_text: str = "{}",
) -> Figure | None:
    """Draw the mean over seeds of each metric, one bar per group, with its 95 % interval.

    ``ticks`` are the texts below the metrics; ``panels`` and ``colour`` name fields; ``legend_text`` is the format
    of a legend entry, filled with the value of the colour field.
    """
    groups = [group for group in scene.groups if all(group.values(name) for name in metrics)]
    if not groups:
        return None
    members_of, styles = scene.panels(groups, panels, within=(colour,)), scene.styles(colour)
    figure, axes = panel_grid(members_of, min(3, len(members_of)), 1.9, legend_rows=1)
    width = 0.8 / max(len(members) for members in members_of.values())
    for panel, members in zip(axes, members_of.values(), strict=True):
        for place, group in enumerate(members):
            for x, name in enumerate(metrics):
                at = x + (place - (len(members) - 1) / 2) * width
                _bar(panel, at, width, scene.interval(group, scene.metric(name)), styles[group.fields.get(colour)][0])
        panel.set_xticks(range(len(metrics)), ticks)
        panel.set_ylim(0, 1)
        panel.grid(axis="x", visible=False)
    label_first_column(axes, label)
    keys = [Patch(color=shade, label=legend_text.format(term(colour, value))) for value, (shade, _) in styles.items()]
    figure.legend(handles=keys, loc="upper center", ncols=len(keys), borderaxespad=0.2)
    return figure


def _bar(panel: Axes, at: float, width: float, interval: Interval | None, colour: str) -> None:
    if interval is None:
        return
    panel.bar([at], [interval.mean], 0.92 * width, color=colour, alpha=0.9)
    if interval.is_bounded:
        panel.plot([at, at], [interval.low, interval.high], color="#222222", linewidth=1.2)
    text = f"{interval.mean:.3f}".replace("0.", ".", 1)
    panel.text(at, 0.02, text, ha="center", va="bottom", fontsize=7.5, color="white", fontweight="bold")
