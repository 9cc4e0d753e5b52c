"""Lines of means over seeds with their interval as a band."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import nan
from typing import Any

from matplotlib.axes import Axes

from poolbench.analysis.statistics import Interval, anytime_interval

Curve = dict[float, list[float]]
"""The values of the seeds by x."""


def line(axes: Axes, curve: Curve, colour: str, dashes: str, marker: str, band: float) -> None:
    """Draw the mean over seeds by x, with its 95 % interval as a band of opacity ``band`` (0: no band)."""
    interval_line(axes, {x: anytime_interval(values) for x, values in curve.items()}, colour, dashes, marker, band)


def interval_line(
    axes: Axes, intervals: Mapping[float, Interval], colour: str, dashes: str, marker: str, band: float
) -> None:
    """Draw means by x, with their intervals as a band of opacity ``band`` (0: no band)."""
    xs = sorted(intervals)
    found = [intervals[x] for x in xs]
    means = [interval.mean for interval in found]
    axes.plot(xs, means, color=colour, linestyle=dashes, linewidth=1.4, **marks(len(xs), marker))
    if band and any(interval.is_bounded for interval in found):
        shown = [(i.low, i.high) if i.is_bounded else (nan, nan) for i in found]
        lows, highs = [low for low, _ in shown], [high for _, high in shown]
        if len(xs) > 1:
            axes.fill_between(xs, lows, highs, color=colour, alpha=band, linewidth=0)
        else:  # a band of one point has no width
            axes.vlines(xs, lows, highs, color=colour, alpha=0.3, linewidth=4)


def band_opacity(lines: int) -> float:
    """Return the opacity of bands when this many lines share a panel."""
    return 0.14 if lines <= 2 else 0.06


def marks(points: int, marker: str = "o") -> dict[str, Any]:
    """Return marker options: markers only for few points, so that a single epoch is visible."""
    return {"marker": marker, "markersize": 3} if points <= 20 else {}


def scale_to_values(axes: Sequence[Axes], curves: Iterable[Curve]) -> None:
    """Scale the shared y axis to the values of the seeds: bands of few seeds reach far beyond them."""
    values = [value for curve in curves for members in curve.values() for value in members]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05
    axes[0].set_ylim(low - margin, high + margin)
