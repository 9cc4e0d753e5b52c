"""One metric of one group in two runs: the drop, its variance, and the test; paired by seed where seeds are shared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, sqrt

import numpy as np
from scipy import special

from poolbench.analysis.images import scaled
from poolbench.analysis.moderation import Prior
from poolbench.analysis.scales import TestScale
from poolbench.core import Metric

LEVEL = 0.95
"""Confidence of each of the two bounds of a drop."""


@dataclass(frozen=True)
class Differences:
    """How far one metric of one group fell, on the scale on which it is tested; a rise is negative.

    ``variance`` is that of one difference of a pair, or of one value if the runs share fewer than two seeds;
    ``variance`` * ``factor`` is that of the mean ``drop``. ``level`` is the baseline's mean, ``before`` and ``after``
    are the means in the metric's unit. ``n`` counts pairs, or the values of the second run.
    """

    metric: Metric
    level: float
    drop: float
    variance: float
    freedom: int
    factor: float
    before: float
    after: float
    n: int
    paired: bool


@dataclass(frozen=True)
class Comparison:
    """The test of one metric of one group. A drop is a change for the worse, in the metric's unit.

    The true drop is above ``low`` and below ``high`` with 95 % confidence each. ``p_worse`` is the one-sided p of
    "no drop", ``p_better`` that of "no rise".
    """

    metric: Metric
    before: float
    after: float
    low: float
    high: float
    p_worse: float
    p_better: float
    n: int
    paired: bool


def differences(
    metric: Metric, before: Mapping[int, float], after: Mapping[int, float], images: int = 0
) -> Differences | None:
    """Return the differences of two runs {seed: value}; None with fewer than two values on a side.

    With two common seeds or more they are paired by seed and other seeds are ignored. ``images`` is the number of
    images behind each value (0: unknown); it bounds the variance from below.
    """
    scale = TestScale(metric)
    common = sorted(before.keys() & after.keys())
    paired = len(common) > 1
    if not paired and min(len(before), len(after)) < 2:
        return None
    old = np.array([before[seed] for seed in (common if paired else sorted(before))])
    new = np.array([after[seed] for seed in (common if paired else sorted(after))])
    was, now = (np.array([scale.to(float(value)) for value in values]) for values in (old, new))
    level, drop = float(was.mean()), metric.sign * float(was.mean() - now.mean())
    if paired:
        variance, freedom, factor = float((was - now).var(ddof=1)), len(common) - 1, 1 / len(common)
    else:
        freedom = len(was) + len(now) - 2
        variance = float(((was - was.mean()) ** 2).sum() + ((now - now.mean()) ** 2).sum()) / freedom
        factor = 1 / len(was) + 1 / len(now)
    variance = max(variance, scale.resolution(level, images))
    before_mean, after_mean = _mean(old, metric), _mean(new, metric)
    return Differences(metric, level, drop, variance, freedom, factor, before_mean, after_mean, len(now), paired)


def _mean(values: np.ndarray[tuple[int, ...], np.dtype[np.float64]], metric: Metric) -> float:
    """Return the mean in the metric's unit: the geometric one of a logarithmic metric."""
    if metric.scale == "log":
        return exp(float(np.mean([scaled(value, metric) for value in values])))
    return float(values.mean())


def compare_differences(found: Differences, prior: Prior) -> Comparison:
    """Return the moderated t test of a drop (Smyth 2004, section 5)."""
    scale = TestScale(found.metric)
    variance, freedom = prior.moderate(found.variance, found.freedom)
    error = sqrt(variance * found.factor)
    reach = float(special.stdtrit(freedom, LEVEL)) * error
    low, high = (scale.drop(found.level, found.drop + sign * reach) for sign in (-1, 1))
    p_worse, p_better = (float(special.stdtr(freedom, -sign * found.drop / error)) for sign in (1, -1))
    return Comparison(found.metric, found.before, found.after, low, high, p_worse, p_better, found.n, found.paired)
