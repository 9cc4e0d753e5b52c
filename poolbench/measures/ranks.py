"""Rank correlation."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def rank_correlation(one: Array, other: Array) -> float:
    """Return Spearman's (1904) rank correlation of two series (n,), n of at least 3.

    NaN for fewer values, for values that are not finite, and if all of one side are equal.
    """
    if len(one) < 3 or not (np.isfinite(one).all() and np.isfinite(other).all()):
        return float("nan")
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)
