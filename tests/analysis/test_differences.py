"""The test of one metric of one group against scipy, and the scales on which it is made."""

from __future__ import annotations

from math import asin, log, pi, sqrt

import numpy as np
import pytest
from scipy import stats

from poolbench.analysis.differences import Comparison, compare_differences, differences
from poolbench.analysis.moderation import NO_PRIOR, Prior
from poolbench.analysis.scales import TestScale
from poolbench.core import Metric

PLAIN = Metric("v", "V", True, 0.05)
LOWER = Metric("v", "V", False, 0.05)
SHARE = Metric("accuracy", "accuracy", True, 0.02, share=True)
LOG = Metric("aliasing", "aliasing", False, 0.05, scale="log", floor=0.001)


def drawn(seeds: range, shift: float = 0.0, seed: int = 0, level: float = 0.8) -> dict[int, float]:
    generator = np.random.default_rng(seed)
    return {s: level + shift + float(generator.normal(0, 0.01)) for s in seeds}


def compared(metric: Metric, before: dict[int, float], after: dict[int, float], **given: int) -> Comparison:
    found = differences(metric, before, after, **given)
    assert found is not None
    return compare_differences(found, NO_PRIOR)


def test_equal_seeds_are_a_paired_t_test() -> None:
    before, after = drawn(range(6)), drawn(range(6), -0.01, 1)
    found = compared(PLAIN, before, after)
    oracle = stats.ttest_rel(list(before.values()), list(after.values()), alternative="greater")
    assert (found.paired, found.n) == (True, 6)
    assert found.p_worse == pytest.approx(oracle.pvalue)
    assert found.p_better == pytest.approx(1 - oracle.pvalue)
    two_sided = stats.ttest_rel(list(before.values()), list(after.values())).confidence_interval(0.9)
    assert (found.low, found.high) == (pytest.approx(two_sided.low), pytest.approx(two_sided.high))


def test_other_seeds_are_a_two_sample_t_test() -> None:
    before, after = drawn(range(6)), drawn(range(10, 14), -0.01, 1)
    found = compared(PLAIN, before, after)
    oracle = stats.ttest_ind(list(before.values()), list(after.values()), alternative="greater")
    assert (found.paired, found.n) == (False, 4)
    assert found.p_worse == pytest.approx(oracle.pvalue)
    # One common seed is no pair.
    assert compared(PLAIN, before, {**after, 0: 0.8}).paired is False


def test_pairs_ignore_seeds_that_one_side_lacks() -> None:
    before, after = drawn(range(8)), drawn(range(2, 6), -0.01, 1)
    oracle = stats.ttest_rel([before[s] for s in after], list(after.values()), alternative="greater")
    assert compared(PLAIN, before, after).p_worse == pytest.approx(oracle.pvalue)


def test_a_drop_of_a_metric_that_should_be_low_is_a_rise() -> None:
    before, after = drawn(range(6)), drawn(range(6), 0.02, 1)
    found = compared(LOWER, before, after)
    assert found.p_worse < 0.05 < found.p_better
    assert 0 < found.low < found.high


def test_too_few_values_are_no_test() -> None:
    assert differences(PLAIN, {0: 1.0}, {0: 1.0}) is None
    assert differences(PLAIN, drawn(range(5)), {0: 1.0}) is None


def test_logarithms_are_compared_as_ratios() -> None:
    before = dict(enumerate((0.1, 0.2, 0.4, 0.1, 0.3)))
    after = {s: v * f for (s, v), f in zip(before.items(), (1.1, 1.3, 1.2, 1.2, 1.25), strict=True)}
    oracle = stats.ttest_rel(np.log(list(after.values())), np.log(list(before.values())), alternative="greater")
    found = compared(LOG, before, after)
    assert found.p_worse == pytest.approx(oracle.pvalue)
    geometric = float(stats.gmean(list(before.values())))
    assert found.before == pytest.approx(geometric)
    # Bounds are drops in the metric's unit from the baseline's geometric mean.
    ratio = float(stats.gmean([after[s] / before[s] for s in before]))
    assert found.low < geometric * (ratio - 1) < found.high
    # Below the floor nothing differs.
    assert compared(LOG, dict.fromkeys(range(4), 1e-5), dict.fromkeys(range(4), 1e-9)).p_worse == 0.5


def test_shares_are_compared_on_the_arcsine_scale() -> None:
    before = dict(enumerate((0.97, 0.99, 0.98, 1.0, 0.96)))
    after = {s: v - d for (s, v), d in zip(before.items(), (0.01, 0.03, 0.02, 0.01, 0.02), strict=True)}
    scaled = [np.arcsin(np.sqrt(list(side.values()))) for side in (before, after)]
    found = compared(SHARE, before, after)
    assert found.p_worse == pytest.approx(stats.ttest_rel(*scaled, alternative="greater").pvalue)
    assert found.before == pytest.approx(0.98)
    assert 0 < found.low < 0.018 < found.high


def test_equal_shares_do_not_make_an_interval_of_width_0() -> None:
    ones = dict.fromkeys(range(5), 1.0)
    fell = dict.fromkeys(range(5), 249 / 250)
    found = compared(SHARE, ones, fell, images=250)
    # One image of 250 in each of five networks is no evidence beyond any doubt; without the floor p would be 0.
    assert 0.0005 < found.p_worse < 0.5
    assert found.high - found.low > 1 / 250
    assert compared(SHARE, ones, ones, images=250).high > 0
    assert compared(SHARE, ones, fell, images=25_000).p_worse < found.p_worse


def test_a_prior_widens_or_narrows_the_interval() -> None:
    before, after = drawn(range(5)), drawn(range(5), 0, 1)
    found = differences(PLAIN, before, after)
    assert found is not None
    alone = compare_differences(found, NO_PRIOR)
    for variance, narrower in ((found.variance / 10, True), (found.variance * 10, False)):
        moderated = compare_differences(found, Prior(variance, 10))
        assert (moderated.high - moderated.low < alone.high - alone.low) == narrower
    # With the group's own variance the prior adds degrees of freedom.
    oracle = stats.t.sf(found.drop / sqrt(found.variance / 5), 14)
    assert compare_differences(found, Prior(found.variance, 10)).p_worse == pytest.approx(oracle)


@pytest.mark.parametrize("metric", [PLAIN, LOWER, SHARE, LOG])
@pytest.mark.parametrize("value", [0.03, 0.5, 0.97])
@pytest.mark.parametrize("amount", [-0.02, 0.01, 0.02])
def test_drops_on_the_scale_and_in_the_unit_agree(metric: Metric, value: float, amount: float) -> None:
    scale = TestScale(metric)
    level = scale.to(value)
    assert scale.back(level) == pytest.approx(value)
    sign = -1 if metric.higher_is_better else 1
    distance = sign * (scale.to(value + sign * amount) - level)
    assert scale.drop(level, distance) == pytest.approx(amount)


def test_the_scales() -> None:
    assert TestScale(SHARE).to(0.5) == pytest.approx(pi / 4)
    assert TestScale(SHARE).to(1.5) == pytest.approx(asin(1.0))
    assert TestScale(LOG).to(0.5) == pytest.approx(log(0.5))
    assert TestScale(PLAIN).to(0.5) == 0.5
    assert TestScale(PLAIN).resolution(0.5, 250) == pytest.approx(1e-12)
    # Half the squared step of one image.
    step = asin(1.0) - asin(sqrt(249 / 250))
    assert TestScale(SHARE).resolution(asin(1.0), 250) == pytest.approx(step**2 / 2)
