"""Intervals and tests against hand-worked numbers, scipy and simulation."""

from __future__ import annotations

from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from poolbench.analysis.statistics import holm, paired_difference, prediction_interval, straight_line, t_interval


def test_t_interval_by_hand() -> None:
    interval = t_interval([1.0, 2.0, 3.0, 4.0])
    # s = sqrt(5/3), the 97.5 % quantile of t with 3 degrees of freedom is 3.18245 (tables).
    reach = 3.18245 * sqrt(5 / 3) / 2
    assert interval.mean == 2.5
    assert interval.n == 4
    assert interval.low == pytest.approx(2.5 - reach, abs=1e-5)
    assert interval.high == pytest.approx(2.5 + reach, abs=1e-5)
    assert interval.half_width == pytest.approx(reach, abs=1e-5)


@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_t_interval_is_that_of_scipy(level: float) -> None:
    values = np.random.default_rng(0).normal(3, 2, 7)
    low, high = stats.t.interval(level, 6, values.mean(), stats.sem(values))
    interval = t_interval(values.tolist(), level)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_a_single_value_has_no_interval() -> None:
    interval = t_interval([0.7])
    assert (interval.mean, interval.n) == (0.7, 1)
    assert isnan(interval.low)
    assert isnan(interval.high)
    assert isnan(interval.half_width)


def test_prediction_interval_by_hand() -> None:
    interval = prediction_interval([0.0, 2.0], future=2, alpha=0.1)
    # s = sqrt 2, t(0.95, 1) = 6.31375, sqrt(1/2 + 1/2) = 1.
    assert interval.mean == 1.0
    assert interval.high == pytest.approx(1 + 6.31375 * sqrt(2), abs=1e-4)
    assert interval.low == pytest.approx(1 - 6.31375 * sqrt(2), abs=1e-4)


@pytest.mark.parametrize(("n", "future", "alpha"), [(3, 1, 0.1), (5, 3, 0.05), (5, 5, 0.2)])
def test_prediction_interval_covers_as_often_as_it_says(n: int, future: int, alpha: float) -> None:
    generator = np.random.default_rng(1)
    trials = 4000
    hits = 0
    for _ in range(trials):
        interval = prediction_interval(generator.normal(5, 3, n).tolist(), future, alpha)
        hits += interval.low <= generator.normal(5, 3, future).mean() <= interval.high
    # 4 standard errors of the simulated share.
    assert hits / trials == pytest.approx(1 - alpha, abs=4 * sqrt(alpha * (1 - alpha) / trials))


@pytest.mark.parametrize(("values", "future"), [([1.0], 1), ([1.0, 2.0], 0)])
def test_prediction_needs_two_values_and_a_future(values: list[float], future: int) -> None:
    with pytest.raises(ValueError, match="2 values or more"):
        prediction_interval(values, future, 0.05)


def test_paired_difference_is_that_of_scipy() -> None:
    generator = np.random.default_rng(2)
    a = generator.normal(0, 1, 6)
    b = a + generator.normal(0.3, 0.4, 6)
    expected = stats.ttest_rel(a, b)
    found = paired_difference(a.tolist(), b.tolist())
    assert found.p == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high))
    # Pairing matters: the unpaired test sees less.
    assert found.p < stats.ttest_ind(a, b).pvalue


@pytest.mark.parametrize(("shift", "p"), [(0.0, 1.0), (0.5, 0.0), (-0.5, 0.0)])
def test_equal_differences(shift: float, p: float) -> None:
    found = paired_difference([1.0 + shift, 2.0 + shift], [1.0, 2.0])
    assert found.p == p
    assert found.interval.mean == shift


@pytest.mark.parametrize(("a", "b"), [([1.0], [2.0]), ([1.0, 2.0], [1.0, 2.0, 3.0])])
def test_pairs_are_two_or_more_and_complete(a: list[float], b: list[float]) -> None:
    with pytest.raises(ValueError, match="2 pairs or more"):
        paired_difference(a, b)


def test_holm_by_hand() -> None:
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1, never falling: 0.04, 0.06, 0.06, 0.06.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([0.05]) == [0.05]
    assert holm([]) == []


def test_the_residuals_of_a_line_are_those_of_numpy() -> None:
    generator = np.random.default_rng(0)
    x = generator.uniform(0.5, 0.9, 12)
    y = 2 - x + generator.normal(0, 0.1, 12)
    line = straight_line(x.tolist(), y.tolist())
    assert (line.slope, line.intercept) == pytest.approx(tuple(np.polyfit(x, y, 1)))
    residuals = y - line.at(x)
    assert residuals.sum() == pytest.approx(0, abs=1e-12)
    assert residuals @ x == pytest.approx(0, abs=1e-12)


def test_a_line_over_one_place_is_level() -> None:
    line = straight_line([0.5, 0.5, 0.5], [1.0, 2.0, 6.0])
    assert (line.intercept, line.slope) == (3.0, 0.0)


@pytest.mark.parametrize(("x", "y"), [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_a_line_needs_two_points(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="2 points"):
        straight_line(x, y)
