"""Numbers and fields as text, in tables and figures alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

from poolbench.analysis.effects import group_interval
from poolbench.analysis.groups import Group
from poolbench.analysis.images import NO_IMAGES, ImageValues
from poolbench.analysis.statistics import LEAST_SEEDS, Interval
from poolbench.core import Metric, Scalar


def term(name: str, value: Scalar | None) -> str:
    """Return a field's value as text: a string as it is, other types as "name=value", None as "-"."""
    if value is None:
        return "-"
    return value if isinstance(value, str) else f"{name}={value}"


def metric_label(metric: Metric) -> str:
    """Return title, unit and direction, such as "interior range / logit ↓"."""
    arrow = {True: "\u00a0↑", False: "\u00a0↓", None: ""}[metric.higher_is_better]
    return metric.title + (f" / {metric.unit}" if metric.unit else "") + arrow


def decimals(metric: Metric) -> int:
    """Return the number of decimals to show: one more than the metric's tolerance needs, 3 without a tolerance."""
    return max(0, 1 - math.floor(math.log10(metric.tolerance))) if metric.tolerance > 0 else 3


def rounded(value: float, metric: Metric, sign: str = "") -> str:
    """Return the value with the metric's decimals; with ``sign`` "+", positive values get a plus sign."""
    places = decimals(metric)
    # Adding 0 turns a rounded -0.0 into 0.0.
    return f"{round(value, places) + 0.0:{sign}.{places}f}"


def number_text(group: Group, metric: Metric, separator: str = " ", images: ImageValues = NO_IMAGES) -> str:
    """Return "mean ± half width of the 95 % interval" over the networks that have learned.

    Logarithmic metrics give "geometric mean [low, high]", intervals that end at a bound "mean [low, high]".
    Too few seeds give the mean alone, none "-".
    """
    interval = group_interval(group, metric, images)
    return "-" if interval is None else interval_text(interval, metric, separator)


def interval_text(interval: Interval, metric: Metric, separator: str = " ") -> str:
    """Return a mean with its interval as text (see :func:`number_text`)."""
    mean = rounded(interval.mean, metric)
    if not interval.is_bounded:
        return mean
    if metric.scale == "log" or interval.low == metric.bounds[0] or interval.high == metric.bounds[1]:
        return f"{mean}{separator}[{rounded(interval.low, metric)}, {rounded(interval.high, metric)}]"
    return f"{mean}{separator}± {rounded(interval.half_width, metric)}"


def change_text(change: Interval, metric: Metric, is_ratio: bool) -> str:
    """Return a difference with its interval, such as "+0.400 [+0.152, +0.648]"; a ratio as "x1.90 [1.20, 3.00]"."""
    mean, *bounds = (
        f"{value:.3g}" if is_ratio else rounded(value, metric, "+")
        for value in ((change.mean, change.low, change.high) if change.is_bounded else (change.mean,))
    )
    return ("x" if is_ratio else "") + mean + (f" [{', '.join(bounds)}]" if bounds else "")


def effect_text(effect: Interval, metric: Metric, is_ratio: bool) -> str:
    """Return an effect with its interval and the number of seeds, such as "+0.400 [+0.152, +0.648], n = 4"."""
    text = f"{change_text(effect, metric, is_ratio)}, n = {effect.n}"
    return text if effect.is_bounded else f"{text}: {LEAST_SEEDS} seeds or more give an interval"


def listed(texts: Sequence[str]) -> str:
    """Return texts as one: "a", "a and b", "a, b and c"."""
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))
