"""Intervals of means over images by the bootstrap, stratified by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from poolbench.analysis.statistics import Interval

Array = np.ndarray[Any, Any]

RESAMPLES = 2000
PART = 200  # resamples at once: bounds the memory


def bootstrap_intervals(
    values: ArrayLike,
    strata: ArrayLike | None = None,
    share: bool | Sequence[bool] = True,
    alpha: float = 0.05,
    seed: int = 0,
) -> list[Interval]:
    """Return the mean of each column of values (n, k) over n images, with its interval at level 1 - alpha.

    Quantiles of 2,000 resamples. Images are drawn within their class (``strata`` (n,)), since a balanced test set has a
    fixed number of each. A class of m images gives m - 1 draws, so that the variance is unbiased (Rao and Wu 1988);
    classes with one image are one stratum.

    Resamples of values that are all equal do not vary, and few others vary too little. ``share`` marks columns of
    values from 0 to 1. Their interval then allows for images of a kind that none of the n belongs to: a share of up to
    1 - (alpha / 2)^(1 / n), where the mean is nearer to 0 or 1 than that, or no resample differs (the rule of three;
    Hanley and Lippman-Hand 1983).
    Raises ValueError for values without images.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.ndim != 2 or not len(array):
        raise ValueError(f"values are (images, columns) with an image or more, got {array.shape}")
    means, n = array.mean(axis=0), len(array)
    drawn = _resampled_means(array, _members(strata, n), np.random.default_rng(seed))
    lows, highs = np.quantile(drawn, [alpha / 2, 1 - alpha / 2], axis=0)
    found = [
        Interval(float(mean), float(low), float(high), n) for mean, low, high in zip(means, lows, highs, strict=True)
    ]
    return [
        _with_unseen(interval, 1 - (alpha / 2) ** (1 / n)) if is_share else interval
        for interval, is_share in zip(found, np.broadcast_to(share, len(found)).tolist(), strict=True)
    ]


def _with_unseen(interval: Interval, unseen: float) -> Interval:
    """Return the interval of a share, widened where the images cannot show a kind with a share below ``unseen``."""
    mean, low, high = interval.mean, interval.low, interval.high
    if low == high:
        low, high = max(0.0, mean - unseen), min(1.0, mean + unseen)
    if mean < unseen:
        high = max(high, unseen)
    if mean > 1 - unseen:
        low = min(low, 1 - unseen)
    return replace(interval, low=low, high=high)


def bootstrap_interval(
    values: ArrayLike, strata: ArrayLike | None = None, share: bool = True, alpha: float = 0.05, seed: int = 0
) -> Interval:
    """Return the mean of values (n,) with its interval; see :func:`bootstrap_intervals`."""
    column = np.asarray(values, dtype=np.float64)[:, None]
    return bootstrap_intervals(column, strata, share, alpha, seed)[0]


def _members(strata: ArrayLike | None, n: int) -> list[Array]:
    """Return the indices of the images of each stratum; classes with one image are joined."""
    if strata is None:
        return [np.arange(n)]
    labels = np.asarray(strata)
    groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    single = [group for group in groups if len(group) == 1]
    return [group for group in groups if len(group) > 1] + ([np.concatenate(single)] if single else [])


def _resampled_means(array: Array, strata: Sequence[Array], generator: np.random.Generator) -> Array:
    """Return the means (resamples, k) of resampled values (n, k)."""
    found = np.zeros((RESAMPLES, array.shape[1]))
    for members in strata:
        size, draws = len(members), max(1, len(members) - 1)
        for start in range(0, RESAMPLES, PART):
            part = found[start : start + PART]
            # How often each image is drawn says all about a resample, and makes its mean a matrix product.
            chosen = generator.integers(size, size=(len(part), draws)) + size * np.arange(len(part))[:, None]
            counts = np.bincount(chosen.ravel(), minlength=size * len(part)).reshape(len(part), size)
            part += counts @ array[members] * (size / draws / len(array))
    return found
