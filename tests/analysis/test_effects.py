"""Means and differences over seeds and images, on planted values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import exp, inf, log, sqrt
from typing import Any

import numpy as np
import pandas as pd
import pytest

from poolbench.analysis.effects import (
    estimate,
    group_estimate,
    group_interval,
    group_points,
    lead_interval,
    paired,
    scaled_margin,
    unscaled_difference,
    values_interval,
)  # fmt: skip
from poolbench.analysis.groups import Group, groups_of
from poolbench.analysis.images import ImageValues, image_contributions
from poolbench.analysis.statistics import Interval, anytime_interval, crossed_estimate
from poolbench.core import Metric, Result

Finished = Callable[..., Result]
CONSISTENCY = Metric("consistency", "consistency", True, 0.01, per_image="decisions.consistency")
ACCURACY = Metric("accuracy", "accuracy", True, 0.01)
SPREAD = Metric("spread", "spread", False, 0.1, scale="log", floor=0.001, per_image="decisions.spread")


def values_of(tables: Mapping[str, Mapping[str, Any]]) -> ImageValues:
    """Return the values per image of cells by id."""

    def table(cell: str, name: str) -> pd.DataFrame:
        if name != "decisions" or cell not in tables:
            raise FileNotFoundError(cell)
        return pd.DataFrame(tables[cell])

    return ImageValues(table)


def study(finished: Finished, arrays: Mapping[str, np.ndarray[Any, Any]]) -> tuple[list[Result], ImageValues]:
    """Return results whose consistency is the mean of values (seeds, images) by pool, and these values."""
    results, tables = [], {}
    for pool, array in arrays.items():
        for seed, row in enumerate(array):
            result = finished(pool, seed, 0.5, metrics={"consistency": float(row.mean())})
            results.append(result)
            tables[result.cell.id] = {"consistency": row}
    return results, values_of(tables)


def test_the_interval_of_a_group_covers_images_where_their_values_are_known(finished: Finished) -> None:
    array = np.random.default_rng(0).random((6, 50)) + np.linspace(0, 2, 50)
    results, images = study(finished, {"max": array})
    (group,) = groups_of(results)
    found = group_interval(group, CONSISTENCY, images)
    assert found is not None
    expected = crossed_estimate([array]).interval()
    assert (found.mean, found.half_width) == pytest.approx((expected.mean, expected.half_width))
    # Without tables, or with one missing, the seeds are all there is.
    alone = anytime_interval(array.mean(axis=1).tolist())
    for known in (values_of({}), values_of({results[0].cell.id: {"consistency": array[0]}})):
        over_seeds = group_interval(group, CONSISTENCY, known)
        assert over_seeds is not None
        assert over_seeds.half_width == pytest.approx(alone.half_width)
    assert expected.half_width > 2 * alone.half_width


def test_differences_are_paired_by_image(finished: Finished) -> None:
    generator = np.random.default_rng(1)
    hard = generator.random(40)  # images differ far more than pools
    arrays = {pool: hard + lead + generator.normal(0, 0.05, (4, 40)) for pool, lead in (("max", 0.1), ("avg", 0.0))}
    results, images = study(finished, arrays)
    a, b = groups_of(results)
    found = estimate(paired(group_points(a, CONSISTENCY, images), group_points(b, CONSISTENCY, images)))
    expected = crossed_estimate([arrays["max"] - arrays["avg"]]).interval()
    assert found.interval().half_width == pytest.approx(expected.half_width)
    lone = group_interval(a, CONSISTENCY, images)
    assert lone is not None
    assert expected.half_width < lone.half_width / 3


def test_images_of_another_number_or_data_set_do_not_pair(finished: Finished) -> None:
    array = np.random.default_rng(2).random((3, 20)) + np.linspace(0, 2, 20)
    results, images = study(finished, {"max": array, "avg": array[:, :10]})
    a, b = groups_of(results)
    found = estimate(paired(group_points(a, CONSISTENCY, images), group_points(b, CONSISTENCY, images)))
    assert found.fixed_part == 0


def test_values_that_do_not_give_the_metric_are_not_used() -> None:
    column = np.array([0.0, 1.0, 1.0, 0.0])
    images = values_of({"c": {"consistency": column, "spread": [0.3, 0.4, 0.0, 0.0]}})
    assert image_contributions(0.5, CONSISTENCY, "c", images) == pytest.approx(column)
    assert image_contributions(0.6, CONSISTENCY, "c", images) is None
    # The root mean square of (.3, .4, 0, 0) is .25.
    found = image_contributions(0.25, SPREAD, "c", images)
    assert found is not None
    assert found.mean() == pytest.approx(log(0.25))


def test_the_image_part_of_a_root_mean_square_is_that_of_the_jackknife() -> None:
    values = np.random.default_rng(3).gamma(2.0, 1.0, 400)
    rms = sqrt(float((values**2).mean()))
    found = image_contributions(rms, SPREAD, "c", values_of({"c": {"spread": values}}))
    assert found is not None
    left = np.array([log(sqrt(np.delete(values**2, index).mean())) for index in range(400)])
    jackknife = 399 / 400 * ((left - left.mean()) ** 2).sum()
    assert found.var(ddof=1) / 400 == pytest.approx(jackknife, rel=0.02)


def test_logarithmic_metrics_have_geometric_means_and_floors(finished: Finished) -> None:
    results = [finished("max", seed, 0.5, metrics={"spread": value}) for seed, value in enumerate((0.1, 0.2, 0.4, 0.2))]
    (group,) = groups_of(results)
    found = group_interval(group, SPREAD)
    expected = anytime_interval([log(0.1), log(0.2), log(0.4), log(0.2)])
    assert found is not None
    assert found.is_bounded
    assert (found.mean, found.low, found.high) == pytest.approx((0.2, exp(expected.low), exp(expected.high)))
    assert values_interval([0.0, 0.0], SPREAD).mean == pytest.approx(0.001)
    # Too few values leave every positive number possible.
    few = values_interval([0.1, 0.2, 0.4], SPREAD)
    assert (few.mean, few.low, few.high, few.is_bounded) == (pytest.approx(0.2), 0, inf, False)
    # An interval can reach beyond what a float can hold.
    assert values_interval([1e-3, 1e-3, 1e200, 1e200], SPREAD).high == inf
    with pytest.raises(ValueError, match="floor"):
        Metric("m", "m", scale="log")


def test_margins_on_logarithms_are_those_of_the_unit() -> None:
    # .3 and .2 differ by .1; their geometric mean is sqrt .06.
    assert scaled_margin(0.1, log(sqrt(0.06)), SPREAD) == pytest.approx(log(0.3 / 0.2))
    assert scaled_margin(0.1, 5.0, CONSISTENCY) == 0.1


def test_a_group_that_has_not_learned_has_no_mean(finished: Finished) -> None:
    (group,) = groups_of([finished("max", seed, 0.5, learned=False) for seed in range(3)])
    assert group_estimate(group, CONSISTENCY) is None
    assert group_interval(group, CONSISTENCY) is None


def test_a_lead_is_paired_by_seed_and_a_ratio_for_logarithms(finished: Finished) -> None:
    def group(pool: str, spreads: Mapping[int, float]) -> Group:
        made = [finished(pool, seed, value, metrics={"spread": value}) for seed, value in spreads.items()]
        return groups_of(made)[0]

    first = group("max", {0: 0.1, 1: 0.4, 2: 0.9, 3: 0.8, 4: 0.6})
    second = group("avg", {1: 0.1, 2: 0.3, 3: 0.2, 4: 0.2, 5: 0.7})
    found = lead_interval(first, second, ACCURACY)
    expected = anytime_interval([0.3, 0.6, 0.6, 0.4])
    assert found is not None
    assert found.n == 4
    assert (found.mean, found.low, found.high) == pytest.approx((expected.mean, expected.low, expected.high))
    ratio = lead_interval(first, second, SPREAD)
    assert ratio is not None
    ratios = anytime_interval([log(4), log(3), log(4), log(3)])
    assert ratio.mean == pytest.approx(sqrt(4 * 3))
    assert (ratio.low, ratio.high) == pytest.approx((exp(ratios.low), exp(ratios.high)))
    assert lead_interval(first, group("none", {7: 0.5}), ACCURACY) is None


def test_a_table_of_values_per_image_is_named_with_its_column() -> None:
    for name in ("correct", ".correct", "answers."):
        with pytest.raises(ValueError, match=r"per_image of metric accuracy is 'table\.column'"):
            Metric("accuracy", "accuracy", True, 0.01, per_image=name)


def test_a_share_allows_for_images_as_far_off_as_the_farthest(finished: Finished) -> None:
    metric = Metric("consistency", "consistency", True, 0.01, per_image="decisions.consistency", share=True)
    equal, mixed = np.ones((4, 250)), np.ones((4, 250))
    mixed[:, 0] = 0.5
    results, images = study(finished, {"max": equal, "avg": mixed})
    same, other = (group_estimate(group, metric, images) for group in groups_of(results))
    assert same is not None
    assert other is not None
    # Nothing says how far an image may lie from the others, or one lies .5 - 1/500 below the mean of .998.
    assert (same.images, same.largest) == (250, 1.0)
    assert (other.images, other.largest) == (250, pytest.approx(0.498))
    interval = group_interval(groups_of(results)[0], metric, images)
    assert interval is not None
    assert interval.high == 1.0
    assert 1 - interval.low == pytest.approx(1 - (0.1 / 3) ** (1 / 250))
    lead = lead_interval(*groups_of(results), metric, images)
    assert lead is not None
    assert lead.half_width < 0.02


def test_intervals_end_at_the_bounds_of_their_metric(finished: Finished) -> None:
    metric = Metric("correlation", "correlation", bounds=(-1.0, 1.0))
    values = {"max": (-1.0, -1.0, -0.9, -1.0), "avg": (1.0, 0.9, 1.0, 1.0)}
    results = [
        finished(pool, seed, 0.5, metrics={"correlation": value})
        for pool, found in values.items()
        for seed, value in enumerate(found)
    ]
    groups = {group.fields["pool"]: group for group in groups_of(results)}
    low, high = group_interval(groups["max"], metric), values_interval(values["avg"], metric)
    free = anytime_interval(values["max"])
    assert free.low < -1.0
    assert low == Interval(free.mean, -1.0, free.high, 4)
    assert high.high == 1.0
    lead = lead_interval(groups["avg"], groups["max"], metric)
    unbounded = lead_interval(groups["avg"], groups["max"], Metric("correlation", "correlation"))
    assert lead is not None
    assert unbounded is not None
    assert unbounded.high > 2.0
    assert lead == Interval(unbounded.mean, unbounded.low, 2.0, 4)
    # The difference of two differences reaches twice as far, and ratios have no such bound.
    assert unscaled_difference(Interval(0.0, -5.0, 3.0, 4), metric, order=2) == Interval(0.0, -4.0, 3.0, 4)
    spread = Metric("spread", "spread", scale="log", floor=0.001, bounds=(0.0, 1.0))
    assert unscaled_difference(Interval(0.0, 0.0, log(5.0), 4), spread).high == pytest.approx(5.0)


def test_an_interval_keeps_a_mean_outside_of_the_bounds() -> None:
    metric = Metric("percent", "percent", bounds=(0.0, 1.0))
    found = values_interval([56.0, 57.0, 58.0, 57.0], metric)
    assert found.low <= found.mean == 57.0 <= found.high


def test_bounds_are_declared_in_order() -> None:
    assert Metric("accuracy", "accuracy", share=True).bounds == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"metric accuracy is a share: its bounds are 0 and 1, got \(0\.0, 100\.0\)"):
        Metric("accuracy", "accuracy", share=True, bounds=(0.0, 100.0))
    for bounds in ((1.0, 0.0), (0.0, 0.0), (0.0, float("nan"))):
        with pytest.raises(ValueError, match="bounds of metric accuracy are the least and the greatest value"):
            Metric("accuracy", "accuracy", bounds=bounds)
