"""Metrics with their intervals, one row per group."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.analysis.groups import Group
from poolbench.analysis.statistics import Interval
from poolbench.analysis.text import metric_label, term
from poolbench.plots.scene import Scene
from poolbench.plots.style import GREY, WIDTH


def metric_intervals(
    scene: Scene, metrics: Sequence[str], panels: Sequence[str] = (), colour: str = "pool"
) -> Figure | None:
    """Draw each metric's seeds, mean and 95 % interval, one row per group; ``panels`` and ``colour`` name fields."""
    shown = [scene.metric(name) for name in metrics]
    shown = [metric for metric in shown if any(group.values(metric.name) for group in scene.groups)]
    if not shown:
        return None
    rows: list[Group | str] = []
    for title, members in scene.panels(scene.groups, panels, within=(colour,)).items():
        rows += [title, *members] if title else members
    labels = [row if isinstance(row, str) else _row_label(row, colour) for row in rows]
    # Text is about 0.075 in wide per character at this size; headings may extend into the first axes' margin.
    left = 0.3 + 0.075 * max(len(label) for label in labels)
    height = 0.25 + 0.21 * len(rows) + 0.5
    width = min(WIDTH, left + 0.2 + 3.4 * len(shown))
    figure = Figure(figsize=(width, height))
    margins = {"left": left / width, "right": 1 - 0.15 / width, "bottom": 0.5 / height, "top": 1 - 0.1 / height}
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False, gridspec_kw={**margins, "wspace": 0.1})[0]
    styles = scene.styles(colour)
    for metric, panel in zip(shown, axes, strict=True):
        for y, row in enumerate(rows):
            if isinstance(row, Group):
                style = styles[row.fields.get(colour)]
                draw_dots(panel, y, list(row.values(metric.name).values()), scene.interval(row, metric), *style)
        panel.set_xlabel(metric_label(metric))
        clip(panel, [value for group in scene.groups for value in group.values(metric.name).values()])
        panel.set_ylim(len(rows) - 0.4, -0.6)
        panel.grid(axis="y", visible=False)
        panel.tick_params(axis="y", length=0)
    axes[0].set_yticks(range(len(rows)), labels)
    for text, row in zip(axes[0].get_yticklabels(), rows, strict=True):
        if isinstance(row, str):
            text.set_fontweight("bold")
        elif not row.learned:
            text.set_color(GREY)
    return figure


def _row_label(group: Group, colour: str) -> str:
    name, count = term(colour, group.fields.get(colour)), len(group.results)
    return f"{name} ({len(group.learned)} of {count} learned)" if group.unlearned else name


def draw_dots(
    axes: Axes, y: float, values: Sequence[float], interval: Interval | None, colour: str, marker: str
) -> None:
    """Draw the values of seeds as faint dots, and the interval and mean above them; nothing without an interval."""
    if interval is None:
        return
    below = [y + 0.3] * len(values)
    axes.plot(values, below, linestyle="", marker="o", markersize=3.2, color=colour, alpha=0.55, markeredgewidth=0)
    if interval.is_bounded:
        axes.plot([interval.low, interval.high], [y, y], color=colour, linewidth=1.6, solid_capstyle="butt")
    axes.plot([interval.mean], [y], marker=marker, markersize=5.5, color=colour, linestyle="")


def clip(axes: Axes, values: Sequence[float]) -> None:
    """Scale the x axis to ``values`` (the seeds) and mark intervals that extend beyond it with arrows."""
    margin = 0.06 * (max(values) - min(values)) or 0.05
    low, high = min(values) - margin, max(values) + margin
    for line in axes.get_lines():
        xs, ys = np.asarray(line.get_xdata(), dtype=float), np.asarray(line.get_ydata(), dtype=float)
        for edge, marker, cut in ((low, 4, xs.min() < low), (high, 5, xs.max() > high)):
            if cut:
                axes.plot([edge], [ys[0]], marker=marker, color=line.get_color(), markersize=5, clip_on=False)
    axes.set_xlim(low, high)
