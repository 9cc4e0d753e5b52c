"""Metrics as tables in colour: one field down, another across."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.analysis.groups import Group
from poolbench.analysis.text import metric_label, number_text, term
from poolbench.core import Figure as Drawing
from poolbench.core import Metric
from poolbench.plots.parts import GREY, WIDTH, axes_at, heading, heatmap, write_on
from poolbench.plots.scene import Scene

COLOURS = "Blues"


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    groups = [group for group in scene.groups if drawing.columns in group.fields]
    metrics = [scene.benchmark.metric(name) for name in drawing.sources]
    metrics = [metric for metric in metrics if any(group.values(metric.name) for group in groups)]
    if not metrics:
        return None
    panels = scene.panels(drawing, groups)
    columns = list(dict.fromkeys(group.fields[drawing.columns] for group in groups))
    rows = {
        title: list(dict.fromkeys(group.fields.get(drawing.colour) for group in members))
        for title, members in panels.items()
    }
    names = [term(drawing.colour, value) for values in rows.values() for value in values]
    # Text is about 0.075 in wide per character at this size.
    left, gap, cell = 0.3 + 0.075 * max(len(name) for name in names), 0.25, 0.36
    head, between, bottom = 0.1, 0.55 if any(panels) else 0.25, 0.35
    width = min(2.6, (WIDTH - left - 0.15 - gap * (len(metrics) - 1)) / len(metrics))
    height = head + bottom + sum(cell * len(values) + between for values in rows.values())
    figure = Figure(figsize=(left + 0.15 + (width + gap) * len(metrics) - gap, height))
    # Data sets are not equally hard: on a scale for all of them, the pools of one would look alike.
    alike = {name: [g for g in groups if g.fields["dataset"] == name] for name in {g.fields["dataset"] for g in groups}}
    limits = {(name, metric.name): _limits(own, metric) for name, own in alike.items() for metric in metrics}
    across = figure.get_figwidth()
    for index, metric in enumerate(metrics):
        place = (left + index * (width + gap) + width / 2) / across, 1 - 0.25 / height
        figure.text(*place, metric_label(metric), ha="center", fontsize=9)
    top = head
    for title, members in panels.items():
        top += between
        heading(figure, top - 0.1, title)
        for index, metric in enumerate(metrics):
            axes = axes_at(figure, left + index * (width + gap), top, width, cell * len(rows[title]))
            places = {
                (
                    rows[title].index(group.fields.get(drawing.colour)),
                    columns.index(group.fields[drawing.columns]),
                ): group
                for group in members
            }
            _draw_table(
                axes,
                metric,
                places,
                (len(rows[title]), len(columns)),
                limits[members[0].fields["dataset"], metric.name],
            )
            labels = [term(drawing.colour, value) for value in rows[title]] if index == 0 else []
            axes.set_yticks(range(len(labels)), labels)
            axes.set_xticks(range(len(columns)), [term(drawing.columns, value) for value in columns])
            axes.tick_params(length=0)
        top += cell * len(rows[title])
    return figure


def _draw_table(
    axes: Axes,
    metric: Metric,
    places: Mapping[tuple[int, int], Group],
    shape: tuple[int, int],
    limits: tuple[float, float],
) -> None:
    """Draw the means of groups by (row, column); white and grey where a network has not learned."""
    means = np.full(shape, np.nan)
    for place, group in places.items():
        if not group.unlearned and group.values(metric.name):
            means[place] = fmean(group.values(metric.name).values())
    image = heatmap(axes, means, limits, COLOURS)
    axes.set_aspect("auto")
    for (row, column), group in places.items():
        text = number_text(group, metric)
        if group.unlearned:
            axes.text(column, row, f"{text}\nnot learned", color=GREY, fontsize=7, ha="center", va="center")
        else:
            write_on(axes, image, row, column, text)


def _limits(groups: Sequence[Group], metric: Metric) -> tuple[float, float]:
    """Return limits that hold the learned groups' means; the lowest has a colour, too: white is not learned."""
    means = [
        fmean(values.values()) for group in groups if not group.unlearned and (values := group.values(metric.name))
    ]
    low, high = min(means, default=0.0), max(means, default=1.0)
    return low - 0.2 * ((high - low) or 1), high
