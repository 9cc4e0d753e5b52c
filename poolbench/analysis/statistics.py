"""Intervals, paired comparisons and a straight line for few values; pure functions of number sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import nan, sqrt
from typing import Any

import numpy as np
from scipy import special, stats


@dataclass(frozen=True)
class Interval:
    """A mean with its interval and the number of values; the bounds are NaN for a single value."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """Return the t interval of the mean of n values at a confidence level (Student 1908), exact for normal values."""
    array = np.asarray(values, dtype=np.float64)
    n, mean = len(array), float(array.mean())
    if n < 2:
        return Interval(mean, nan, nan, n)
    reach = float(special.stdtrit(n - 1, (1 + level) / 2) * array.std(ddof=1) / sqrt(n))
    return Interval(mean, mean - reach, mean + reach, n)


def prediction_interval(values: Sequence[float], future: int, alpha: float) -> Interval:
    """Return the interval that holds the mean of ``future`` new values with probability 1 - alpha, from n >= 2 values.

    mean +- t(1 - alpha/2, n - 1) * s * sqrt(1/n + 1/future), for normal values with the same mean and
    variance (Hahn and Meeker 1991, section 4.8). Raises ValueError for fewer than 2 values or ``future`` < 1.
    """
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n < 2 or future < 1:
        raise ValueError(f"a prediction needs 2 values or more and 1 future value or more, got {n} and {future}")
    mean = float(array.mean())
    reach = float(special.stdtrit(n - 1, 1 - alpha / 2) * array.std(ddof=1) * sqrt(1 / n + 1 / future))
    return Interval(mean, mean - reach, mean + reach, n)


@dataclass(frozen=True)
class PairedDifference:
    """The mean of a - b over pairs with its 95 % interval, and the two-sided p of the paired t test."""

    interval: Interval
    p: float


def paired_difference(a: Sequence[float], b: Sequence[float], level: float = 0.95) -> PairedDifference:
    """Return the mean of a - b over pairs with its t interval and the p of the paired t test (Student 1908).

    If all differences are equal, p is 0, or 1 where they are zero. Raises ValueError if the lengths differ
    or there are fewer than 2 pairs.
    """
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape or len(first) < 2:
        raise ValueError(f"a paired comparison needs 2 pairs or more, got {len(first)} and {len(second)} values")
    differences = first - second
    interval = t_interval(differences.tolist(), level)
    spread = float(differences.std(ddof=1))
    if spread == 0:
        return PairedDifference(interval, 1.0 if interval.mean == 0 else 0.0)
    t = interval.mean / (spread / sqrt(len(differences)))
    return PairedDifference(interval, float(2 * stats.t.sf(abs(t), len(differences) - 1)))


@dataclass(frozen=True)
class StraightLine:
    """y = intercept + slope * x."""

    intercept: float
    slope: float

    def at(self, x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Return y at every x, in the same shape."""
        return self.intercept + self.slope * x


def straight_line(x: Sequence[float], y: Sequence[float]) -> StraightLine:
    """Return the least-squares line of y on x, (n,) each; the slope is 0 if all x are equal.

    The residuals of y are uncorrelated with x. Raises ValueError if the lengths differ or there are fewer
    than 2 points.
    """
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    if across.shape != up.shape or len(across) < 2:
        raise ValueError(f"a line needs 2 points or more, got {len(across)} and {len(up)} values")
    deviations = across - across.mean()
    spread = float(deviations @ deviations)
    slope = float(deviations @ up) / spread if spread > 0 else 0.0
    return StraightLine(float(up.mean()) - slope * float(across.mean()), slope)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values adjusted for multiple comparisons (Holm 1979), in the given order."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(order))
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = running
    return [float(p) for p in adjusted]
