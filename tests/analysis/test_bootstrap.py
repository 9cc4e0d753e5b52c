"""Bootstrap intervals: coverage by simulation, against binomial intervals, strata, and shares that do not vary."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from poolbench.analysis.bootstrap import bootstrap_interval, bootstrap_intervals


@pytest.mark.parametrize(("share", "per_class"), [(0.5, 20), (0.08, 40), (0.93, 40)])
def test_intervals_cover_the_share_in_the_population(share: float, per_class: int) -> None:
    generator = np.random.default_rng(1)
    strata = np.repeat(np.arange(5), per_class)
    # Classes differ, which stratification takes out of the interval.
    shares = np.clip(share + 0.1 * share * (1 - share) * (strata - 2), 0, 1)
    hits = 0
    for repetition in range(200):
        found = bootstrap_interval((generator.random(len(strata)) < shares).astype(float), strata, seed=repetition)
        hits += found.low <= shares.mean() <= found.high
    assert binom.cdf(hits, 200, 0.95) > 1e-3
    assert hits > 176


def test_the_interval_of_a_share_is_about_the_binomial_one() -> None:
    values = np.repeat([0.0, 1.0], [300, 100])
    found = bootstrap_interval(values)
    low, high = binom.ppf([0.025, 0.975], 400, 0.25) / 400
    assert found.mean == 0.25
    assert found.low == pytest.approx(low, abs=0.006)
    assert found.high == pytest.approx(high, abs=0.006)


def test_the_variance_of_small_classes_is_not_understated() -> None:
    # With as many draws as images, the variance of two images per class would be half of what it is.
    values = np.random.default_rng(0).normal(size=400)
    strata = np.repeat(np.arange(200), 2)
    found = bootstrap_interval(values, strata, share=False)
    within = values.reshape(200, 2).std(axis=1, ddof=1)
    error = np.sqrt((within**2).mean() / 400)
    assert found.half_width == pytest.approx(1.96 * error, rel=0.08)


def test_classes_with_one_image_still_vary() -> None:
    values = np.random.default_rng(0).normal(size=300)
    alone = bootstrap_interval(values, np.arange(300), share=False)
    assert alone.half_width == pytest.approx(bootstrap_interval(values, share=False).half_width, rel=0.1)


def test_strata_narrow_the_interval_where_classes_differ() -> None:
    strata = np.repeat([0, 1], 100)
    values = strata + np.random.default_rng(0).normal(scale=0.1, size=200)
    narrow = bootstrap_interval(values, strata, share=False)
    assert 4 * narrow.half_width < bootstrap_interval(values, share=False).half_width


def test_equal_shares_allow_for_images_that_were_not_seen() -> None:
    n = 60
    rule = 1 - 0.025 ** (1 / n)
    none, every = bootstrap_interval(np.zeros(n)), bootstrap_interval(np.ones(n))
    assert (none.mean, none.low) == (0, 0)
    assert none.high == pytest.approx(rule)
    assert (every.mean, every.high) == (1, 1)
    assert every.low == pytest.approx(1 - rule)
    # The exact binomial bound at no success of n.
    assert binom.cdf(0, n, none.high) == pytest.approx(0.025)
    by_class = bootstrap_interval(np.repeat([0.0, 1.0], n // 2), np.repeat([0, 1], n // 2))
    assert by_class.half_width == pytest.approx(rule)


def test_columns_are_independent_of_each_other_and_seeds_repeat() -> None:
    values = np.random.default_rng(0).random((50, 3))
    together = bootstrap_intervals(values, share=[True, False, True])
    assert together == bootstrap_intervals(values, share=[True, False, True])
    alone = bootstrap_interval(values[:, 1], share=False)
    assert (together[1].low, together[1].high) == pytest.approx((alone.low, alone.high))
    with pytest.raises(ValueError, match="an image or more"):
        bootstrap_interval([])
