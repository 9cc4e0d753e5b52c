"""The one-standard-error rule, and intervals of folds."""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest
from scipy import stats

from poolbench.analysis.statistics import folds_estimate
from poolbench.analysis.sufficiency import sufficient

BEST = {0: 0.80, 1: 0.84, 2: 0.82, 3: 0.86}  # mean 0.83, standard error 0.0129


def shifted(by: float) -> dict[int, float]:
    return {seed: value - by for seed, value in BEST.items()}


def test_the_smallest_size_within_one_standard_error_of_the_best_is_enough() -> None:
    found = sufficient({1: shifted(0.1), 2: shifted(0.012), 3: shifted(0.005), 4: BEST, 5: shifted(0.001)}, 1001)
    assert found is not None
    assert (found.size, found.best, found.n) == (2, 4, 4)
    assert found.best_mean == pytest.approx(0.83)
    # With a thousand folds training sets hardly overlap less, but test sets are tiny: the correction vanishes.
    assert found.standard_error == pytest.approx(np.std(list(BEST.values()), ddof=1) / 2, rel=0.01)
    found = sufficient({1: shifted(0.1), 2: shifted(0.014), 3: shifted(0.013), 4: BEST}, 1001)
    assert found is not None
    assert found.size == 4


def test_the_rule_says_how_much_it_hangs_on_one_seed() -> None:
    # Without seed 3 size 1 is as good as size 2.
    found = sufficient({1: {0: 0.7, 1: 0.7, 2: 0.71, 3: 0.4}, 2: {0: 0.7, 1: 0.7, 2: 0.71, 3: 0.7}}, 1001)
    assert found is not None
    assert found.size == 2
    assert found.without_one == (1, 2)


def test_the_standard_error_allows_for_the_overlap_of_the_folds() -> None:
    found = sufficient({1: shifted(0.018), 2: BEST}, 4)
    assert found is not None
    assert found.standard_error == pytest.approx(np.std(list(BEST.values()), ddof=1) * sqrt(1 / 4 + 1 / 3))
    # It is 0.0197; without the overlap it would be 0.0129, and .018 less too little.
    assert found.size == 1


def test_seeds_that_a_size_lacks_do_not_count() -> None:
    found = sufficient({1: {0: 0.5, 1: 0.5, 2: 0.5}, 2: {0: 0.6, 1: 0.61, 2: 0.62, 3: 0.1}}, 1001)
    assert found is not None
    assert found.n == 3
    assert found.best_mean == pytest.approx(0.61)


@pytest.mark.parametrize("values", [{}, {1: BEST}, {1: BEST, 2: {0: 0.5, 1: 0.5}}])
def test_too_little_is_no_answer(values: dict[int, dict[int, float]]) -> None:
    assert sufficient(values, 5) is None


def test_the_interval_of_folds_is_nadeau_and_bengios() -> None:
    values = list(BEST.values())
    estimate = folds_estimate(values, 4)
    interval = estimate.planned_interval()
    error = np.std(values, ddof=1) * sqrt(1 / 4 + 1 / 3)
    low, high = stats.t.interval(0.95, 3, np.mean(values), error)
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


def test_more_seeds_of_the_same_images_leave_a_part_of_the_variance() -> None:
    few, many = folds_estimate([0.1, 0.2] * 5, 5), folds_estimate([0.1, 0.2] * 500, 5)
    assert many.seeds_part < few.seeds_part / 90
    assert many.fixed_part == pytest.approx(few.fixed_part, rel=0.2)
    assert many.fixed_part == pytest.approx(0.05**2 / 4, rel=0.01)
