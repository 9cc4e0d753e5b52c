"""Intervals and tests against hand-worked numbers, scipy and simulation."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import inf, sqrt
from typing import Any

import numpy as np
import pytest
from scipy import stats

from poolbench.analysis.statistics import (
    C2,
    LEAST_SEEDS,
    Estimate,
    anytime_interval,
    anytime_reach,
    crossed_estimate,
    further_seeds,
    seeds_estimate,
    straight_line,
)

# Half widths in standard errors, worked out apart from this code.
REACHES = {4: 7.67, 5: 5.41, 6: 4.73, 8: 4.18, 10: 3.94, 20: 3.60, 40: 3.51}


@pytest.mark.parametrize(("n", "reach"), REACHES.items())
def test_the_reach_of_the_anytime_interval(n: int, reach: float) -> None:
    values = np.random.default_rng(n).normal(3, 2, n)
    interval = anytime_interval(values.tolist())
    assert (interval.mean, interval.n) == (pytest.approx(values.mean()), n)
    assert interval.half_width / (values.std(ddof=1) / sqrt(n)) == pytest.approx(reach, abs=0.005)
    assert interval.mean - interval.low == pytest.approx(interval.high - interval.mean)


def mixture(values: np.ndarray[Any, Any], c2: float) -> float:
    """Return the evidence against a mean of 0, by numbers: the likelihood ratio of t, averaged over effects.

    The ratio is that of the noncentral t of the values to the central one, the effect (in deviations) is drawn from a
    normal distribution with variance 1 / c2. It ever exceeds 1 / alpha with probability alpha (Ville 1939).
    """
    n = len(values)
    t = values.mean() / (values.std(ddof=1) / sqrt(n))
    effects = np.linspace(-12, 12, 4001) / sqrt(c2)
    densities = stats.nct.pdf(t, n - 1, effects * sqrt(n)) * stats.norm.pdf(effects, 0, 1 / sqrt(c2))
    return float(np.trapezoid(np.nan_to_num(densities), effects) / stats.t.pdf(t, n - 1))


@pytest.mark.parametrize("n", [5, 8, 20])
@pytest.mark.parametrize("alpha", [0.05, 0.2])
def test_the_bound_is_where_the_mixture_of_t_reaches_one_over_alpha(n: int, alpha: float) -> None:
    values = np.random.default_rng(n).normal(0, 1, n)
    half = anytime_interval(values.tolist(), alpha).half_width
    assert mixture(values - values.mean() + half, C2) == pytest.approx(1 / alpha, rel=1e-3)


def test_too_few_values_have_no_interval() -> None:
    for values in ([0.7], [0.7, 0.8], [0.7, 0.7, 0.7]):
        interval = anytime_interval(values)
        assert (interval.mean, interval.n) == (pytest.approx(np.mean(values)), len(values))
        assert (interval.low, interval.high, interval.is_bounded) == (-inf, inf, False)
    assert LEAST_SEEDS == 4
    assert anytime_interval([0.5] * LEAST_SEEDS).is_bounded


def sequences(effect: float, images: float = 0.0, trials: int = 20_000, most: int = 100) -> Iterator[tuple[Any, Any]]:
    """Yield (low, high) of ``trials`` sequences of normal values, after every value from 4 to ``most``.

    Each sequence shares an error with deviation ``images``, as the choice of test images makes.
    """
    generator = np.random.default_rng(5)
    values = effect + generator.normal(size=(trials, most)) + images * generator.normal(size=(trials, 1))
    sums, squares = values.cumsum(axis=1), (values**2).cumsum(axis=1)
    for n in range(4, most + 1):
        mean = sums[:, n - 1] / n
        variance = (squares[:, n - 1] - n * mean**2) / (n - 1)
        of_images = stats.norm.ppf(1 - 0.05 / 3) * images
        half = np.sqrt(float(anytime_reach(n)) ** 2 * variance / n + of_images**2)
        yield mean - half, mean + half


@pytest.mark.parametrize("images", [0.0, 0.1, 0.3, 1.0, 3.0])
def test_looking_after_every_seed_misses_the_truth_in_five_percent_at_most(images: float) -> None:
    missed = np.zeros(20_000, dtype=bool)
    for low, high in sequences(0.0, images):
        missed |= (low > 0) | (high < 0)
    assert missed.mean() <= 0.05


def test_looking_after_every_seed_at_t_intervals_is_wrong_in_a_third() -> None:
    values = np.random.default_rng(5).normal(size=(4000, 100))
    missed = np.zeros(4000, dtype=bool)
    for n in range(3, 101):
        found = stats.ttest_1samp(values[:, :n], 0.0, axis=1)
        missed |= found.pvalue < 0.05
    assert missed.mean() > 0.3


@pytest.mark.parametrize(("effect", "median"), [(0.5, 40), (1.0, 12), (2.0, 6)])
def test_a_large_effect_is_seen_after_few_seeds(effect: float, median: int) -> None:
    seen = np.full(4000, 101)
    for n, (low, _) in enumerate(sequences(effect, trials=4000), start=4):
        seen[(low > 0) & (seen > 100)] = n
    assert abs(np.median(seen) - median) <= 1


def test_equal_differences() -> None:
    for shift in (0.5, 0.0, -0.5):
        found = seeds_estimate([shift] * 4).interval()
        assert (found.low, found.high) == (shift, shift)


def test_shares_that_agree_on_all_images_leave_room_for_an_image_that_differs() -> None:
    found = replace(crossed_estimate([np.ones((4, 250))]), images=250)
    interval = found.interval()
    # The largest share p of which 250 images show none with a probability of two thirds of 5 %.
    assert (1 - interval.half_width) ** 250 == pytest.approx(0.05 * 2 / 3)
    assert interval.half_width == pytest.approx(3.4 / 250, rel=0.01)
    assert replace(found, images=0).interval().half_width == 0
    # Where seeds and images differ, it hardly counts.
    wide = crossed_estimate([np.random.default_rng(0).random((8, 250))])
    assert replace(wide, images=250).interval().half_width == pytest.approx(wide.interval().half_width, rel=0.2)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.004, 0.01, 0.05, 0.3])
def test_the_interval_of_a_share_over_images_holds_at_every_level(share: float) -> None:
    """All seeds agree on each of 250 images, of which a share differs: only the images are random."""
    generator, trials, missed = np.random.default_rng(1), 4000, 0
    for count in generator.binomial(250, share, trials):
        values = np.tile(np.arange(250) < count, (4, 1)).astype(float)
        interval = replace(crossed_estimate([values]), images=250).interval()
        missed += not interval.low <= share <= interval.high
    assert missed / trials <= 0.05


def test_bounds_end_where_values_do() -> None:
    assert anytime_interval([0.9, 1.0, 1.0, 0.9]).within(0.0, 1.0).high == 1.0
    few = anytime_interval([0.9, 1.0])
    assert few.within(0.0, 1.0) == few


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


def test_the_parts_of_the_crossed_variance_are_the_direct_formulas() -> None:
    values = 3 + drawn(np.random.default_rng(0), 6, 30, 0.2, 1.0, 0.5)
    rows, columns, rest = mean_squares(values)
    found = crossed_estimate([values])
    assert columns > rest
    assert (found.mean, found.n) == (pytest.approx(values.mean()), 6)
    assert found.seeds_part == pytest.approx(rows / values.size)
    assert found.fixed_part == pytest.approx((columns - rest) / values.size)
    variance = rows + columns - rest
    assert found.freedom == pytest.approx(variance**2 / (rows**2 / 5 + columns**2 / 29 + rest**2 / (5 * 29)))
    of_seeds = REACHES[6] ** 2 * found.seeds_part
    of_images = stats.t.ppf(1 - 0.05 / 3, found.freedom) ** 2 * found.fixed_part
    assert found.interval().half_width == pytest.approx(sqrt(of_seeds + of_images), rel=1e-3)


def test_images_without_an_effect_leave_the_interval_of_the_seeds() -> None:
    # Where images differ less than the rest would make them, their part is cut at 0.
    values = np.array([[0.0, 1.0], [1.0, 0.0], [3.0, 2.0], [1.0, 1.0]]) + np.arange(4)[:, None]
    _, columns, rest = mean_squares(values)
    assert columns < rest
    alone = anytime_interval(values.mean(axis=1).tolist())
    assert crossed_estimate([values]).interval().half_width == pytest.approx(alone.half_width)
    assert not crossed_estimate([values[:1]]).interval().is_bounded


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
def test_intervals_of_the_crossed_design_hold_whenever_one_looks(deviations: tuple[float, float, float]) -> None:
    generator, trials = np.random.default_rng(3), 2000
    missed = alone = 0
    for _ in range(trials):
        values = drawn(generator, 20, 20, *deviations)
        found = [crossed_estimate([values[:n]]).interval() for n in range(4, 21, 2)]
        missed += any(interval.low > 0 or interval.high < 0 for interval in found)
        over_seeds = anytime_interval(values.mean(axis=1).tolist())
        alone += over_seeds.low > 0 or over_seeds.high < 0
    assert missed / trials <= 0.05
    # Over seeds alone, intervals miss if the images make the difference.
    assert (alone / trials > 0.3) == (deviations[1] > 0)


def test_logarithms_cover_what_skewed_values_hide() -> None:
    """Lognormal values of five seeds: the t interval of the mean covers .8, that of the logarithms .95."""
    generator, trials, spread = np.random.default_rng(4), 20000, 1.2
    logs = generator.normal(0, spread, (trials, 5))

    def covered(values: np.ndarray[Any, Any], truth: float) -> float:
        reach = stats.t.ppf(0.975, 4) * values.std(axis=1, ddof=1) / sqrt(5)
        return float((np.abs(values.mean(axis=1) - truth) <= reach).mean())

    assert covered(np.exp(logs), float(np.exp(spread**2 / 2))) < 0.82
    assert covered(logs, 0.0) == pytest.approx(0.95, abs=0.006)


def test_further_seeds_are_the_first_that_decide() -> None:
    # s = 1 and a mean of .5, five seeds: the reach in deviations, r(n) / sqrt(n), falls below .5 from n = 50 on.
    reaches = {n: float(anytime_reach(n)) / sqrt(n) for n in (49, 50)}
    assert reaches[50] < 0.5 < reaches[49]
    assert further_seeds(Estimate(0.5, 1 / 5, 0.0, 4, 5), 0.0) == 45
    # A mean of 0 is inside +-.5 then, too.
    assert further_seeds(Estimate(0.0, 1 / 5, 0.0, 4, 5), 0.5) == 45
    assert further_seeds(Estimate(0.0, 1 / 5, 0.0, 4, 5), 0.0) is None
    # No number of seeds helps if the images alone leave it open.
    assert further_seeds(Estimate(0.5, 1 / 5, 0.1, 4, 5), 0.0) is None
    # Two equal seeds still need two more.
    assert further_seeds(Estimate(0.5, 0.0, 0.0, 1, 2), 0.0) == 2


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
