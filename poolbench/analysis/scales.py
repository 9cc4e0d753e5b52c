"""The scale on which a metric is tested: differences on it have about the same variance at every level."""

from __future__ import annotations

from dataclasses import dataclass
from math import asin, exp, sin, sqrt

from poolbench.analysis.images import scaled
from poolbench.core import Metric

ROUNDING = 1e-6
"""Relative size of differences that single precision makes of equal computations."""


@dataclass(frozen=True)
class TestScale:
    """Logarithms of logarithmic metrics, the arcsine of the root of shares (Fisher 1922), other values unchanged."""

    metric: Metric
    __test__ = False  # pytest collects classes by this name

    def to(self, value: float) -> float:
        """Return a value in the metric's unit on this scale."""
        return asin(sqrt(min(max(value, 0.0), 1.0))) if self.metric.share else scaled(value, self.metric)

    def back(self, scaled: float) -> float:
        """Return a value on this scale in the metric's unit."""
        if self.metric.scale == "log":
            return exp(min(scaled, 700.0))
        return sin(min(max(scaled, 0.0), asin(1.0))) ** 2 if self.metric.share else scaled

    def drop(self, level: float, distance: float) -> float:
        """Return the drop, in the metric's unit, from ``level`` to ``distance`` away from it on this scale.

        A drop is a change for the worse, whatever the metric's direction.
        """
        sign = -1.0 if self.metric.higher_is_better else 1.0
        return sign * (self.back(level + sign * distance) - self.back(level))

    def resolution(self, level: float, images: int) -> float:
        """Return the smallest variance, on this scale, that a difference at ``level`` may be given.

        Of a share over ``images`` images it is that of half a count: equal values do not show that the next image
        would not differ. Without images it is the rounding of the numbers.
        """
        smallest = (ROUNDING * max(1.0, abs(level))) ** 2
        if not images or not self.metric.share:
            return smallest
        share = min(max(self.back(level), 1 / images), 1.0)
        return max(smallest, (self.to(share) - self.to(share - 1 / images)) ** 2 / 2)
