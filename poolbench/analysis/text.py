"""Numbers and fields as text, in tables and figures alike."""

from __future__ import annotations

import math

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

    Logarithmic metrics give "geometric mean [low, high]". Too few seeds give the mean alone, none "-".
    """
    interval = group_interval(group, metric, images)
    if interval is None:
        return "-"
    mean = rounded(interval.mean, metric)
    if not interval.is_bounded:
        return mean
    if metric.scale == "log":
        return f"{mean}{separator}[{rounded(interval.low, metric)}, {rounded(interval.high, metric)}]"
    return f"{mean}{separator}± {rounded(interval.half_width, metric)}"


def effect_text(effect: Interval, metric: Metric, is_ratio: bool) -> str:
    """Return an effect with its interval, such as "+0.400 [+0.152, +0.648], n = 3"; ratios as "x1.90 [1.20, 3.00]"."""
    if not effect.is_bounded:
        mean = f"x{effect.mean:.3g}" if is_ratio else rounded(effect.mean, metric, "+")
        return f"{mean}, n = {effect.n}: {LEAST_SEEDS} seeds or more give an interval"
    if is_ratio:
        return f"x{effect.mean:.3g} [{effect.low:.3g}, {effect.high:.3g}], n = {effect.n}"
    mean, low, high = (rounded(value, metric, "+") for value in (effect.mean, effect.low, effect.high))
    return f"{mean} [{low}, {high}], n = {effect.n}"
