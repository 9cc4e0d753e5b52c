"""The candidates of a choice in two metrics, and the front of those that no other one beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.analysis.choices import NOISE_OF_TIMES, Candidate, Weighing
from poolbench.analysis.statistics import Interval
from poolbench.analysis.text import metric_label
from poolbench.core import Metric
from poolbench.plots.panels import axes_at
from poolbench.plots.style import GREY, PALETTE

Place = tuple[Interval, Interval]
WIDTH, HEIGHT = 5.2, 3.1  # inches
LEFT, RIGHT, BOTTOM, TOP = 0.62, 0.2, 0.5, 0.12
LINE = 0.17  # of text


def pareto(weighing: Weighing) -> Figure | None:
    """Draw the first metric of a choice against its second, or against the time of a forward pass.

    None if no time is known.

    Crosses are 95 % intervals. The dashed line is the front by the means of two metrics. Candidates that are dominated
    in all columns, time included, are hollow.
    """
    metrics = weighing.metrics[:2]
    shown = [one for one in weighing.candidates if len(metrics) > 1 or one.time is not None]
    if not shown:
        return None
    figure = Figure(figsize=(WIDTH, HEIGHT))
    axes = axes_at(figure, LEFT, TOP, WIDTH - LEFT - RIGHT, HEIGHT - BOTTOM - TOP)
    places = {one.name: _place(one, metrics) for one in shown}
    for one in shown:
        x, y = places[one.name]
        colour = GREY if one.dominated_by else PALETTE[0]
        for interval, along, across in ((x, [x.low, x.high], [y.mean] * 2), (y, [x.mean] * 2, [y.low, y.high])):
            if interval.is_bounded:
                axes.plot(along, across, color=colour, linewidth=1.2, alpha=0.6)
        face = "white" if one.dominated_by else colour
        axes.plot([x.mean], [y.mean], "o", color=colour, markerfacecolor=face, markersize=6)
    axes.margins(0.08)
    labels = [metric_label(metric) for metric in metrics]
    if len(metrics) > 1:
        front = _front(list(places.values()), [metric.sign for metric in metrics])
        axes.plot([x for x, _ in front], [y for _, y in front], "--", color="#333333", linewidth=1, zorder=0)
        axes.set(xlabel=labels[1], ylabel=labels[0])
    else:
        # Differences that may be noise look small: the axis spans twice as much at least.
        times = [x.mean for x, _ in places.values()]
        axes.set(xlabel="forward pass of 16 images / ms\u00a0↓", ylabel=labels[0])
        axes.set_xlim(min(times) * (1 - NOISE_OF_TIMES), max(times) * (1 + NOISE_OF_TIMES))
    _write_names(axes, places)
    return figure


def _write_names(axes: Axes, places: Mapping[str, Place]) -> None:
    """Write the names beside their means; those of close means above each other."""
    low, high = axes.get_ylim()
    step = (high - low) * LINE / (HEIGHT - BOTTOM - TOP)
    middle = sum(axes.get_xlim()) / 2
    taken: list[float] = []
    for name, (x, y) in sorted(places.items(), key=lambda item: item[1][1].mean):
        height = max([y.mean + 0.6 * step, *(other + step for other in taken if abs(other - y.mean) < 1.6 * step)])
        taken.append(height)
        offset, side = (6, "left") if x.mean < middle else (-6, "right")
        axes.annotate(name, (x.mean, height), (offset, 0), textcoords="offset points", ha=side, va="center")


def _place(one: Candidate, metrics: Sequence[Metric]) -> Place:
    y = one.scores[0].interval
    if len(metrics) > 1:
        return one.scores[1].interval, y
    assert one.time is not None  # those without a time are not shown
    return Interval(one.time, one.time, one.time, 1), y


def _front(places: Sequence[Place], signs: Sequence[int]) -> list[tuple[float, float]]:
    """Return the means (x, y) that no other one exceeds in both, as a staircase from the best x to the best y.

    ``signs`` are those of y and x: 1 if higher is better.
    """
    of_y, of_x = signs
    means = sorted(((of_x * x.mean, of_y * y.mean) for x, y in places), reverse=True)
    steps: list[tuple[float, float]] = []
    for x, y in means:
        if not steps or y > steps[-1][1]:
            if steps:
                steps.append((x, steps[-1][1]))
            steps.append((x, y))
    return [(of_x * x, of_y * y) for x, y in steps]
