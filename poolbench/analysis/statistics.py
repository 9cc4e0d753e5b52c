"""Means with intervals over seeds and images that may be looked at any time, and a straight line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, isfinite, nan
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Interval:
    """A mean with its interval and the number of values; the bounds are infinite for too few values."""

    mean: float
    low: float
    high: float
    n: int

    @property
    def is_bounded(self) -> bool:
        """Whether there are enough values for an interval."""
        return isfinite(self.low) and isfinite(self.high)

    @property
    def half_width(self) -> float:
        return (self.high - self.low) / 2

    def __neg__(self) -> Interval:
        return Interval(-self.mean, -self.high, -self.low, self.n)

    def within(self, least: float, most: float) -> Interval:
        """Return the interval without what lies outside of least and most, the bounds of any value.

        It keeps the mean, also one outside of them, and stays as it is if it is infinite.
        """
        if not self.is_bounded:
            return self
        return replace(self, low=min(max(self.low, least), self.mean), high=max(min(self.high, most), self.mean))


ALPHA = 0.05
"""Probability that an interval misses the mean at any number of values. Each claim has an alpha of its own."""
C2 = 0.3
"""The parameter of the normal mixture: one for all intervals, chosen before any of them was seen."""


def anytime_interval(values: Sequence[float], alpha: float = ALPHA, c2: float = C2) -> Interval:
    """Return the interval of the mean of n values that holds at every n at once with probability 1 - alpha.

    So one may look after every seed and stop at any time, for any reason. Exact for normal values: the
    normal-mixture confidence sequence for unknown variance (Lai 1976; Wang and Ramdas 2025). Infinite for fewer than
    4 values at the defaults.
    """
    return seeds_estimate(values).interval(alpha, c2)


def anytime_reach(n: ArrayLike, alpha: float = ALPHA, c2: float = C2) -> Array:
    """Return the half width of the anytime interval in standard errors s / sqrt(n), for each n of 2 or more."""
    n = np.asarray(n, dtype=np.float64)
    a = c2 / (n + c2)
    k = (alpha * np.sqrt(a)) ** (-2 / n)
    room = 1 - a * k
    return np.where(room > 0, np.sqrt((n - 1) * (k - 1) / np.where(room > 0, room, 1.0)), inf)


LEAST_SEEDS = next(n for n in range(2, 100) if isfinite(anytime_reach(n)))
"""Fewer seeds than these give no interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over ``n`` seeds with the two parts of its variance and its degrees of freedom.

    ``seeds_part`` falls as 1 / n with more seeds; ``fixed_part`` does not (the choice of images, say). Both are NaN
    for one seed. ``images`` is the number of images behind a mean of shares, 0 for other means; ``largest`` is how far
    one of them lies from the mean.
    """

    mean: float
    seeds_part: float
    fixed_part: float
    freedom: float
    n: int
    images: int = 0
    largest: float = 1.0

    def interval(self, alpha: float = ALPHA, c2: float = C2) -> Interval:
        """Return the interval of the mean that holds at any number of seeds with probability 1 - alpha.

        See :func:`anytime_interval`. The fixed part does not change while seeds are added, so a quantile of Student's t
        is enough for it, at two thirds of alpha: the two half widths add in squares, and simulation then gives at most
        alpha for any share of the two parts. (-inf, inf) for too few seeds.

        Equal values on all images do not show that no image differs. A share allows for images of a kind that none of
        ``images`` belongs to: for the upper bound of their share (the rule of three, about 3 / images; Hanley and
        Lippman-Hand 1983), each as far from the mean as the ``largest`` so far.
        """
        if self.n < 2:
            return Interval(self.mean, -inf, inf, self.n)
        half = float(_half_width(self, np.asarray(self.n), alpha, c2))
        return Interval(self.mean, self.mean - half, self.mean + half, self.n)

    def planned_interval(self, alpha: float = ALPHA) -> Interval:
        """Return the interval of the mean for a number of seeds that was fixed before any was run.

        Student's t with Satterthwaite's degrees of freedom. Narrower than :meth:`interval`, which may be looked at
        after every seed. (-inf, inf) for one seed.
        """
        if self.n < 2:
            return Interval(self.mean, -inf, inf, self.n)
        half = float(special.stdtrit(self.freedom, 1 - alpha / 2)) * float(np.sqrt(self.seeds_part + self.fixed_part))
        return Interval(self.mean, self.mean - half, self.mean + half, self.n)


def _half_width(estimate: Estimate, n: Array, alpha: float, c2: float) -> Array:
    """Return the half width of an estimate's interval if it had n seeds and the same mean, spread and fixed part."""
    reach = anytime_reach(n, alpha, c2)
    of_seeds = np.where(np.isfinite(reach), reach, 0.0) ** 2 * estimate.seeds_part * estimate.n / n
    # Too few seeds say nothing, even if they agree.
    return np.where(np.isfinite(reach), np.sqrt(of_seeds + images_reach(estimate, n, alpha) ** 2), inf)


def images_reach(estimate: Estimate, n: ArrayLike, alpha: float = ALPHA) -> Array:
    """Return the half width that the choice of images alone gives to an estimate with n seeds."""
    # With more seeds the fixed part is known better, too.
    quantile = special.stdtrit(np.maximum(estimate.freedom, np.asarray(n) - 1), 1 - alpha / 3)
    unseen = estimate.largest * (1 - (2 * alpha / 3) ** (1 / estimate.images)) if estimate.images else 0.0
    reach: Array = np.sqrt(quantile**2 * estimate.fixed_part + unseen**2)
    return reach


def seeds_estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of one value per seed and its variance s^2 / n (Student 1908)."""
    array = np.asarray(values, dtype=np.float64)
    n = len(array)
    if n < 2:
        return Estimate(float(array.mean()), nan, nan, nan, n)
    return Estimate(float(array.mean()), float(array.var(ddof=1)) / n, 0.0, n - 1, n)


def folds_estimate(values: Sequence[float], folds: int) -> Estimate:
    """Return the mean of one value per seed, where seeds are folds of a repeated cross-validation with ``folds`` parts.

    Trainings of different folds share most of their images, so their values are correlated and s^2 / n is too small.
    By Nadeau and Bengio (2003) the variance is s^2 (1 / n + test images / training images) with the ratio
    1 / (folds - 1); the second part does not fall with more seeds, since they bring no new images.
    """
    found = seeds_estimate(values)
    return replace(found, fixed_part=found.seeds_part * found.n / (folds - 1))


def crossed_estimate(blocks: Sequence[Array], weights: Sequence[float] = (1.0,)) -> Estimate:
    """Return the mean over seeds and images, both drawn at random, from a value per seed and image.

    Each block (seeds, images) is one set of images on which the same seeds are judged; the mean is that of the
    blocks' means with weights that add up to 1. In the crossed design y_ij = m + a_i + b_j + e_ij with I seeds, J
    images and the mean squares A (seeds), B (images), E (rest), the variance of the mean is (A + B - E) / IJ. The
    part of the seeds, A / IJ, is s^2 / I of their means; that of the images, (B - E) / IJ, is cut at 0.
    The degrees of freedom are Satterthwaite's (1946).
    Raises ValueError for blocks of different seeds.
    """
    if len({len(block) for block in blocks}) != 1 or len(blocks) != len(weights):
        raise ValueError(f"blocks need the same seeds and a weight each, got {[b.shape for b in blocks]}, {weights}")
    per_seed = sum(weight * block.mean(axis=1) for block, weight in zip(blocks, weights, strict=True))
    alone = seeds_estimate(np.asarray(per_seed).tolist())
    n = alone.n
    if n < 2:
        return alone
    of_choice, spread = 0.0, alone.seeds_part**2 / (n - 1)
    for block, weight in zip(blocks, weights, strict=True):
        images = block.shape[1]
        if images < 2:
            continue
        by_image = block.mean(axis=0)
        rest = block - block.mean(axis=1, keepdims=True) - by_image + block.mean()
        of_images = n * float(by_image.var(ddof=1))
        of_rest = float((rest**2).sum()) / ((n - 1) * (images - 1))
        if of_images > of_rest:
            factor = weight**2 / (n * images)
            of_choice += factor * (of_images - of_rest)
            spread += factor**2 * (of_images**2 + of_rest**2 / (n - 1)) / (images - 1)
    total = alone.seeds_part + of_choice
    return Estimate(alone.mean, alone.seeds_part, of_choice, total**2 / spread if spread > 0 else n - 1, n)


def further_seeds(estimate: Estimate, margin: float, beyond: float = 0.0, most: int = 1000) -> int | None:
    """Return how many more seeds put the interval of a mean inside +-margin or its size above ``beyond``.

    Mean, variance between seeds and fixed part are taken as they are. None if ``most`` seeds in all would not do, or
    for an estimate of one seed.
    """
    if estimate.n < 2:
        return None
    n = np.arange(estimate.n + 1, most + 1)
    reach, size = _half_width(estimate, n, ALPHA, C2), abs(estimate.mean)
    enough = np.flatnonzero((size - reach > beyond) | (size + reach < margin))
    return int(n[enough[0]]) - estimate.n if len(enough) else None


@dataclass(frozen=True)
class StraightLine:
    """y = intercept + slope * x."""

    intercept: float
    slope: float

    def at(self, x: Array) -> Array:
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
