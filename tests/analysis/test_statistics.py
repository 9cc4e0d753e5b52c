"""Intervals and tests against hand-worked numbers, scipy and simulation."""

from __future__ import annotations

from math import isnan, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from poolbench.analysis.statistics import (
    Estimate,
    crossed_estimate,
    crossed_interval,
    further_seeds,
    seeds_estimate,
    straight_line,
    t_interval,
)


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


def test_the_estimate_of_differences_is_the_paired_test_of_scipy() -> None:
    generator = np.random.default_rng(2)
    a = generator.normal(0, 1, 6)
    b = a + generator.normal(0.3, 0.4, 6)
    expected = stats.ttest_rel(a, b)
    found = seeds_estimate((a - b).tolist())
    assert found.p_above_zero() == pytest.approx(stats.ttest_rel(a, b, alternative="greater").pvalue)
    low, high = expected.confidence_interval(0.95)
    assert (found.interval().low, found.interval().high) == pytest.approx((low, high))


@pytest.mark.parametrize(("shift", "p"), [(0.5, 0.0), (0.0, 1.0), (-0.5, 1.0)])
def test_equal_differences(shift: float, p: float) -> None:
    found = seeds_estimate([shift, shift, shift])
    assert found.p_above_zero() == p
    assert (found.interval().low, found.interval().high) == (shift, shift)


def mean_squares(values: np.ndarray[Any, Any]) -> tuple[float, float, float]:
    """Return the mean squares of rows, columns and rest, entry by entry (Montgomery, Design of Experiments, ch. 5)."""
    rows, columns = values.shape
    grand = values.mean()
    of_rows = columns * sum((values[i].mean() - grand) ** 2 for i in range(rows)) / (rows - 1)
    of_columns = rows * sum((values[:, j].mean() - grand) ** 2 for j in range(columns)) / (columns - 1)
    rest = sum(
        (values[i, j] - values[i].mean() - values[:, j].mean() + grand) ** 2
        for i in range(rows)
        for j in range(columns)
    )
    return of_rows, of_columns, rest / ((rows - 1) * (columns - 1))


def drawn(
    generator: np.random.Generator, seeds: int, images: int, of_seeds: float, of_images: float, rest: float
) -> np.ndarray[Any, Any]:
    """Draw values (seeds, images) with these standard deviations around 0."""
    values: np.ndarray[Any, Any] = (
        generator.normal(0, of_seeds, (seeds, 1))
        + generator.normal(0, of_images, (1, images))
        + generator.normal(0, rest, (seeds, images))
    )
    return values


def test_the_crossed_interval_is_the_direct_formula() -> None:
    values = 3 + drawn(np.random.default_rng(0), 4, 30, 0.2, 1.0, 0.5)
    rows, columns, rest = mean_squares(values)
    variance = (rows + columns - rest) / values.size
    freedom = (rows + columns - rest) ** 2 / (rows**2 / 3 + columns**2 / 29 + rest**2 / (3 * 29))
    found = crossed_interval(values)
    assert columns > rest
    assert (found.mean, found.n) == (pytest.approx(values.mean()), 4)
    assert found.half_width == pytest.approx(stats.t.ppf(0.975, freedom) * sqrt(variance))


def test_images_without_an_effect_leave_the_interval_of_the_seeds() -> None:
    # Where images differ less than the rest would make them, their part is cut at 0.
    values = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 2.0]]) + np.arange(3)[:, None]
    _, columns, rest = mean_squares(values)
    assert columns < rest
    assert crossed_interval(values).half_width == pytest.approx(t_interval(values.mean(axis=1).tolist()).half_width)
    assert isnan(crossed_interval(values[:1]).low)


def test_blocks_of_images_add_up() -> None:
    """Two sets of images of equal weight: the parts of the images add with weights of a quarter."""
    generator = np.random.default_rng(1)
    a, b = (drawn(generator, 5, 40, 0.1, 1.0, 0.3) for _ in range(2))
    parts = []
    for values in (a, b):
        _, columns, rest = mean_squares(values)
        parts.append((columns - rest) / values.size / 4)
    found = crossed_estimate([a, b], [0.5, 0.5])
    assert found.fixed_part == pytest.approx(sum(parts))
    assert found.seeds_part == pytest.approx(((a.mean(axis=1) + b.mean(axis=1)) / 2).var(ddof=1) / 5)
    with pytest.raises(ValueError, match="same seeds"):
        crossed_estimate([a, b[:3]], [0.5, 0.5])


@pytest.mark.parametrize("deviations", [(0.1, 1.0, 0.5), (0.3, 0.0, 1.0)])
def test_the_crossed_interval_covers_new_seeds_and_images(deviations: tuple[float, float, float]) -> None:
    generator, trials = np.random.default_rng(3), 8000
    crossed = 0
    for _ in range(trials):
        values = drawn(generator, 5, 20, *deviations)
        interval = crossed_interval(values)
        crossed += interval.low <= 0 <= interval.high
    assert 0.94 <= crossed / trials <= 0.965
    # Over seeds alone, most intervals miss if the images make the difference.
    seeds = [drawn(generator, 5, 20, *deviations).mean(axis=1).tolist() for _ in range(2000)]
    alone = sum(t_interval(values).low <= 0 <= t_interval(values).high for values in seeds)
    assert (alone / 2000 < 0.6) == (deviations[1] > 0)


def test_logarithms_cover_what_skewed_values_hide() -> None:
    """Lognormal values of five seeds: the t interval of the mean covers .8, that of the logarithms .95."""
    generator, trials, spread = np.random.default_rng(4), 20000, 1.2
    logs = generator.normal(0, spread, (trials, 5))

    def covered(values: np.ndarray[Any, Any], truth: float) -> float:
        reach = stats.t.ppf(0.975, 4) * values.std(axis=1, ddof=1) / sqrt(5)
        return float((np.abs(values.mean(axis=1) - truth) <= reach).mean())

    assert covered(np.exp(logs), float(np.exp(spread**2 / 2))) < 0.82
    assert covered(logs, 0.0) == pytest.approx(0.95, abs=0.006)


def test_further_seeds_by_hand() -> None:
    # s = 1, mean .5: t(n - 1) / sqrt n falls below .5 from n = 18 on (2.110 / 4.243 = .497; n = 17: .514).
    found = Estimate(0.5, 1 / 5, 0.0, 4, 5)
    assert further_seeds(found, 0.0) == 13
    # A mean of 0 is inside +-.5 then, too.
    assert further_seeds(Estimate(0.0, 1 / 5, 0.0, 4, 5), 0.5) == 13
    assert further_seeds(Estimate(0.0, 1 / 5, 0.0, 4, 5), 0.0) is None
    # No number of seeds helps if the images alone leave it open.
    assert further_seeds(Estimate(0.5, 1 / 5, 0.1, 4, 5), 0.0) is None


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
