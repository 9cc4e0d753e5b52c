"""Metrics as coloured tables: one field down, another across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.analysis.groups import Group
from poolbench.analysis.text import metric_label, term
from poolbench.core import Metric, Scalar
from poolbench.plots.images import heatmap, write_on
from poolbench.plots.panels import axes_at, heading
from poolbench.plots.scene import Scene
from poolbench.plots.style import GREY, WIDTH

COLOURS = "Blues"
GAP, CELL, HEAD, BOTTOM = 0.25, 0.36, 0.1, 0.35  # inches


def metric_tables(
    scene: Scene,
    metrics: Sequence[str],
    columns: str,
    rows: str = "pool",
    panels: Sequence[str] = (),
    scale: str = "dataset",
) -> Figure | None:
    """Draw each metric's means as a coloured table per panel; None without groups that have the field ``columns``.

    ``columns``, ``rows`` and ``panels`` name fields. Groups that share the field ``scale`` share the colours of a
    metric: data sets differ in difficulty, and on one scale for all of them the pools of one would look alike.
    """
    groups = [group for group in scene.groups if columns in group.fields]
    shown = [scene.metric(name) for name in metrics]
    shown = [m for m in shown if any(group.values(m.name) or group.unlearned_values(m.name) for group in groups)]
    if not shown:
        return None
    members_of = scene.panels(groups, panels, within=(rows, columns))
    across = _values(groups, columns)
    down = {title: _values(members, rows) for title, members in members_of.items()}
    # Text is about 0.075 in wide per character at this size.
    left = 0.3 + 0.075 * max(len(term(rows, value)) for values in down.values() for value in values)
    between = 0.55 if any(members_of) else 0.25
    width = min(2.6, (WIDTH - left - 0.15 - GAP * (len(shown) - 1)) / len(shown))
    height = HEAD + BOTTOM + sum(CELL * len(values) + between for values in down.values())
    figure = Figure(figsize=(left + 0.15 + (width + GAP) * len(shown) - GAP, height))
    limits = {
        (value, metric.name): _limits(scene, [group for group in groups if group.fields.get(scale) == value], metric)
        for value in _values(groups, scale)
        for metric in shown
    }
    for index, metric in enumerate(shown):
        place = (left + index * (width + GAP) + width / 2) / figure.get_figwidth(), 1 - 0.25 / height
        figure.text(*place, metric_label(metric), ha="center", fontsize=9)
    top = HEAD
    for title, members in members_of.items():
        top += between
        heading(figure, top - 0.1, title)
        places = {
            (down[title].index(group.fields.get(rows)), across.index(group.fields[columns])): group for group in members
        }
        for index, metric in enumerate(shown):
            axes = axes_at(figure, left + index * (width + GAP), top, width, CELL * len(down[title]))
            shape = (len(down[title]), len(across))
            _draw_table(axes, scene, metric, places, shape, limits[members[0].fields.get(scale), metric.name])
            _label(axes, [term(rows, value) for value in down[title]] if index == 0 else [], columns, across)
        top += CELL * len(down[title])
    return figure


def _label(axes: Axes, rows: Sequence[str], field: str, columns: Sequence[Scalar | None]) -> None:
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), [term(field, value) for value in columns])
    axes.tick_params(length=0)


def _values(groups: Sequence[Group], field: str) -> list[Scalar | None]:
    """Return the values of a field in order of appearance."""
    return list(dict.fromkeys(group.fields.get(field) for group in groups))


def _draw_table(
    axes: Axes,
    scene: Scene,
    metric: Metric,
    places: Mapping[tuple[int, int], Group],
    shape: tuple[int, int],
    limits: tuple[float, float],
) -> None:
    """Draw the means of groups by (row, column); white and grey if no network has learned."""
    means = np.full(shape, np.nan)
    for place, group in places.items():
        interval = scene.interval(group, metric)
        if interval is not None:
            means[place] = interval.mean
    image = heatmap(axes, means, limits, COLOURS)
    axes.set_aspect("auto")
    for (row, column), group in places.items():
        text, count = scene.number(group, metric), len(group.results)
        if not group.learned:
            axes.text(column, row, "not learned", color=GREY, fontsize=7, ha="center", va="center")
        elif group.unlearned:
            write_on(axes, image, row, column, f"{text}\n{len(group.learned)} of {count} learned")
        else:
            write_on(axes, image, row, column, text)


def _limits(scene: Scene, groups: Sequence[Group], metric: Metric) -> tuple[float, float]:
    """Return limits around the groups' means; the lowest mean gets a colour too: white means not learned."""
    intervals = [scene.interval(group, metric) for group in groups]
    means = [interval.mean for interval in intervals if interval is not None]
    low, high = min(means, default=0.0), max(means, default=1.0)
    return low - 0.2 * ((high - low) or 1), high
