"""Moderated variances against closed forms, scipy and simulated groups."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from poolbench.analysis.moderation import MOST_FREEDOM, NO_PRIOR, Prior, _inverse_trigamma, fit_prior


def variances(freedom: float, groups: int, of_prior: float, size: float, seed: int = 0) -> np.ndarray:
    """Draw s^2 of groups whose true variances follow size * of_prior / chi^2(of_prior)."""
    generator = np.random.default_rng(seed)
    true = size * of_prior / generator.chisquare(of_prior, groups)
    return true * generator.chisquare(freedom, groups) / freedom


@pytest.mark.parametrize("value", [1e-8, 1e-3, 0.1, 1.0, 30.0, 1e4, 1e9])
def test_the_inverse_of_trigamma(value: float) -> None:
    assert special.polygamma(1, _inverse_trigamma(value)) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize(("freedom", "of_prior"), [(4, 3.0), (6, 6.0), (18, 2.0)])
def test_the_prior_of_many_groups_is_found(freedom: int, of_prior: float) -> None:
    prior = fit_prior(variances(freedom, 40_000, of_prior, 0.25), [freedom] * 40_000, most=100)
    assert prior.freedom == pytest.approx(of_prior, rel=0.1)
    assert prior.variance == pytest.approx(0.25, rel=0.05)


def test_equal_variances_are_trusted_up_to_the_bound() -> None:
    same = np.random.default_rng(1).chisquare(5, 200) / 5 * 0.04
    prior = fit_prior(same, [5] * 200)
    assert prior.freedom == MOST_FREEDOM
    assert prior.variance == pytest.approx(0.04, rel=0.1)
    # Variances with less scatter than chance gives: the logarithmic mean, raised by what chance takes off.
    exact = fit_prior([0.04] * 9, [5] * 9)
    assert exact.freedom == MOST_FREEDOM
    assert exact.variance == pytest.approx(0.04 * 2.5 / np.exp(special.digamma(2.5)))


def test_groups_of_different_size_are_fitted_together() -> None:
    freedoms = [3] * 20_000 + [9] * 20_000
    drawn = np.concatenate([variances(3, 20_000, 4, 1.0, 2), variances(9, 20_000, 4, 1.0, 3)])
    prior = fit_prior(drawn, freedoms, most=100)
    assert prior.freedom == pytest.approx(4, rel=0.1)
    assert prior.variance == pytest.approx(1.0, rel=0.05)


def test_too_few_groups_say_nothing() -> None:
    assert fit_prior([1.0, 2.0], [4, 4]) == NO_PRIOR
    assert NO_PRIOR.moderate(0.3, 4) == (0.3, 4)


def test_a_moderated_variance_is_the_weighted_mean() -> None:
    assert Prior(1.0, 6.0).moderate(4.0, 2.0) == (pytest.approx(1.75), 8.0)


def test_moderated_t_values_follow_the_t_distribution() -> None:
    """With the true prior, mean / error of the moderated variance is t with d + d0 degrees of freedom."""
    generator = np.random.default_rng(4)
    groups, n, prior = 20_000, 5, Prior(1.0, 4.0)
    true = 4.0 / generator.chisquare(4.0, groups)
    values = generator.normal(0, np.sqrt(true)[:, None], (groups, n))
    moderated = [prior.moderate(float(v), n - 1) for v in values.var(axis=1, ddof=1)]
    t = values.mean(axis=1) / np.sqrt([v / n for v, _ in moderated])
    assert {freedom for _, freedom in moderated} == {8.0}
    assert stats.kstest(t, stats.t(8).cdf).pvalue > 0.001
    # The oracle can tell: with 4 degrees of freedom the tails would be others.
    assert stats.kstest(t, stats.t(4).cdf).pvalue < 0.001
