"""Numbers and fields as text, in tables and figures alike."""

from __future__ import annotations

import math

from poolbench.analysis.groups import Group
from poolbench.analysis.statistics import t_interval
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


def number_text(group: Group, metric: Metric, separator: str = " ") -> str:
    """Return "mean ± half width of the 95 % t interval" over seeds; one seed gives its value alone, none "-"."""
    values = list(group.values(metric.name).values())
    if not values:
        return "-"
    interval = t_interval(values)
    mean = rounded(interval.mean, metric)
    return mean if interval.n < 2 else f"{mean}{separator}± {rounded(interval.half_width, metric)}"
