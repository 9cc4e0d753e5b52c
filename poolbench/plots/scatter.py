"""One metric against another, and the residuals of a straight line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from poolbench.analysis.groups import Group
from poolbench.analysis.statistics import Interval, StraightLine, anytime_interval, straight_line
from poolbench.analysis.text import metric_label, term
from poolbench.core import Metric
from poolbench.plots.intervals import clip, draw_dots
from poolbench.plots.legends import key, legend, legend_rows
from poolbench.plots.panels import axes_at
from poolbench.plots.scene import Scene
from poolbench.plots.style import GREY, MARKERS, WIDTH

SHAPES = (*MARKERS, "v", "p", "*", "d")  # none that looks like the arrows of cut intervals
FEWEST = 3  # groups: a line through two leaves no residuals
LEFT, RIGHT, BOTTOM, TITLE, SIZE = 0.75, 0.2, 0.7, 0.35, 2.9  # inches


@dataclass(frozen=True)
class Cloud:
    """The seeds of one group as points, their means with intervals, and their name, colour and marker."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    x: Interval
    y: Interval
    colour: str
    marker: str


def metric_scatter(
    scene: Scene, x_metric: str, y_metric: str, panels: Sequence[str] = (), colour: str = "pool"
) -> Figure | None:
    """Draw one metric against another and, beside it, the residuals of a straight line, for networks that have learned.

    ``panels`` and ``colour`` name fields; markers tell apart what else varies.
    """
    x, y = scene.metric(x_metric), scene.metric(y_metric)
    groups = [group for group in scene.groups if group.values(x.name).keys() & group.values(y.name).keys()]
    if not groups:
        return None
    members_of = scene.split(groups, panels)
    kinds = scene.split(groups, scene.others(*panels, colour))
    clouds = _clouds(scene, kinds, colour, x, y)
    keys = [key(str(entry.get_label()), str(entry.get_color()), "", "o") for entry in scene.keys(colour, groups)]
    shapes = []
    if len(kinds) > 1:
        shapes = [key(title, "#333333", "", SHAPES[index % len(SHAPES)]) for index, title in enumerate(kinds)]
    # Text is about 0.07 in wide per character at this size.
    names = 0.25 + 0.07 * max(len(cloud.name) for cloud in clouds.values())
    heights = [max(2.3, 0.19 * len(members)) for members in members_of.values()]
    rows = legend_rows(keys)
    top = 0.1 + 0.22 * (rows + (legend_rows(shapes) if shapes else 0))
    figure = Figure(figsize=(WIDTH, top + sum(heights) + (BOTTOM + TITLE) * len(heights)))
    for (title, members), height in zip(members_of.items(), heights, strict=True):
        top += TITLE
        against = axes_at(figure, LEFT, top, SIZE, height)
        against.set_title(title)
        _draw_row(against, [clouds[group.id] for group in members], x, y, names)
        top += height + BOTTOM
    legend(figure, keys)
    if shapes:
        legend(figure, shapes, rows)
    return figure


def _draw_row(against: Axes, clouds: Sequence[Cloud], x: Metric, y: Metric, names: float) -> None:
    """Draw one panel and its residuals to the right, beyond ``names`` inches for the names of the rows."""
    figure = against.get_figure(root=True)
    assert figure is not None
    fit = None
    if len(clouds) >= FEWEST:
        fit = straight_line([v for cloud in clouds for v in cloud.xs], [v for cloud in clouds for v in cloud.ys])
    _draw_clouds(against, clouds, fit)
    against.set(xlabel=metric_label(x), ylabel=metric_label(y))
    place = against.get_position()
    if fit is None:
        text = f"fewer than {FEWEST} groups have learned:\nno line, no residual"
        figure.text((LEFT + SIZE + 0.4) / WIDTH, (place.y0 + place.y1) / 2, text, color=GREY)
        return
    beside = LEFT + SIZE + names
    residuals = figure.add_axes((beside / WIDTH, place.y0, (WIDTH - RIGHT - beside) / WIDTH, place.height))
    _draw_residuals(residuals, clouds, fit)
    residuals.set_title(f"what {x.title} does not explain")
    arrow = {True: "\u00a0↑", False: "\u00a0↓", None: ""}[y.higher_is_better]
    residuals.set_xlabel(f"{y.title} minus the line\nfitted on {x.title}{arrow}")


def _clouds(scene: Scene, kinds: Mapping[str, list[Group]], colour: str, x: Metric, y: Metric) -> dict[str, Cloud]:
    found, styles = {}, scene.styles(colour)
    for index, (kind, members) in enumerate(kinds.items()):
        for group in members:
            value = group.fields.get(colour)
            name = " · ".join(filter(None, [term(colour, value), kind if len(kinds) > 1 else ""]))
            xs, ys = group.values(x.name), group.values(y.name)
            seeds = [seed for seed in xs if seed in ys]
            across, up = scene.interval(group, x), scene.interval(group, y)
            # The groups were chosen by their values.
            assert across is not None
            assert up is not None
            if group.unlearned:
                name += f" ({len(group.learned)} of {len(group.results)} learned)"
            marker = SHAPES[index % len(SHAPES)]
            found[group.id] = Cloud(
                name, [xs[s] for s in seeds], [ys[s] for s in seeds], across, up, styles[value][0], marker
            )
    return found


def _draw_clouds(axes: Axes, clouds: Sequence[Cloud], fit: StraightLine | None) -> None:
    """Draw seeds as faint dots, means with intervals in both directions, and the line over the range of its points."""
    for cloud in clouds:
        axes.plot(cloud.xs, cloud.ys, "o", markersize=2.6, color=cloud.colour, alpha=0.4, markeredgewidth=0)
        x, y = cloud.x, cloud.y
        if x.is_bounded and y.is_bounded:
            axes.plot([x.low, x.high], [y.mean, y.mean], color=cloud.colour, linewidth=0.9, alpha=0.7)
            axes.plot([x.mean, x.mean], [y.low, y.high], color=cloud.colour, linewidth=0.9, alpha=0.7)
        axes.plot([x.mean], [y.mean], cloud.marker, markersize=5.5, color=cloud.colour)
    if fit is not None:
        fitted = [x for cloud in clouds for x in cloud.xs]
        ends = np.array([min(fitted), max(fitted)])
        axes.plot(ends, fit.at(ends), "--", color="#333333", linewidth=1)
    for scale, values in (
        (axes.set_xlim, [x for cloud in clouds for x in cloud.xs]),
        (axes.set_ylim, [y for cloud in clouds for y in cloud.ys]),
    ):
        margin = 0.06 * (max(values) - min(values)) or 0.05
        scale(min(values) - margin, max(values) + margin)


def _draw_residuals(axes: Axes, clouds: Sequence[Cloud], fit: StraightLine) -> None:
    seen = []
    for row, cloud in enumerate(clouds):
        residuals = (np.array(cloud.ys) - fit.at(np.array(cloud.xs))).tolist()
        draw_dots(axes, row, residuals, anytime_interval(residuals), cloud.colour, cloud.marker)
        seen += residuals
    clip(axes, seen)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.axvline(0, color="#333333", linewidth=1, linestyle="--", zorder=0)
    axes.set_ylim(len(clouds) - 0.4, -0.6)
    axes.set_yticks(range(len(clouds)), [cloud.name for cloud in clouds])
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
