"""The one-standard-error rule: the smallest size that is as good as the best, as far as the data can tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt

import numpy as np

from poolbench.analysis.statistics import folds_estimate


@dataclass(frozen=True)
class Sufficient:
    """The rule's answer: the smallest sufficient size, the best one, their means and the standard error of the best.

    ``without_one`` are the answers if one seed is left out, smallest and largest: how much the rule depends on a seed.
    """

    size: int
    best: int
    mean: float
    best_mean: float
    standard_error: float
    without_one: tuple[int, int]
    n: int


def sufficient(values: Mapping[int, Mapping[int, float]], folds: int) -> Sufficient | None:
    """Return the smallest size whose mean is within one standard error of the best mean (Breiman et al. 1984).

    ``values`` are {size: {seed: value}}, higher is better; only seeds that all sizes have count. Seeds are folds of a
    cross-validation with ``folds`` parts, whose overlap the standard error allows for (see
    ``statistics.folds_estimate``). None for fewer than 3 seeds or fewer than 2 sizes.
    """
    seeds = sorted(set.intersection(*(set(found) for found in values.values()))) if values else []
    if len(values) < 2 or len(seeds) < 3:
        return None
    table = {size: np.array([values[size][seed] for seed in seeds]) for size in sorted(values)}
    size, best, error = _rule(table, folds)
    leaving_out = [_rule({k: np.delete(found, i) for k, found in table.items()}, folds)[0] for i in range(len(seeds))]
    extremes = min(leaving_out), max(leaving_out)
    return Sufficient(size, best, float(table[size].mean()), float(table[best].mean()), error, extremes, len(seeds))


def _rule(table: Mapping[int, np.ndarray[tuple[int, ...], np.dtype[np.float64]]], folds: int) -> tuple[int, int, float]:
    """Return the smallest sufficient size, the best size, and its standard error."""
    best = max(table, key=lambda size: float(table[size].mean()))
    estimate = folds_estimate(table[best].tolist(), folds)
    error = sqrt(estimate.seeds_part + estimate.fixed_part)
    threshold = float(table[best].mean()) - error
    return next(size for size in sorted(table) if float(table[size].mean()) >= threshold), best, error
