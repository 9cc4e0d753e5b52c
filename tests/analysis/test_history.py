"""The history of nights: which nights count, what the window says, series, steps and the range of commits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isnan, nan
from statistics import mean
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from poolbench.analysis.history import (
    ALPHA,
    COLUMNS,
    SHOWN,
    Night,
    Step,
    Trend,
    find_step,
    levels,
    trends,
    window_reference,
)
from poolbench.core import Metric

METRICS = {
    "study": (
        Metric("accuracy", "accuracy", True, 0.01),
        Metric("loss", "loss", False, 0.01),
        Metric("units", "units"),
    )
}
Values = Mapping[int, float]


def day(number: int) -> str:
    return f"2026-11-{number:02}T02:17:00+00:00"


def rows(number: int, values: Values, verdict: str = "fine", **changes: Any) -> list[dict[str, Any]]:
    """One metric of one group in one night: {seed: value}."""
    common = {
        "night": day(number), "benchmark": "study", "group": "g", "label": "pool=max", "metric": "accuracy",
        "learned": True, "verdict": verdict, "commit": f"commit {number}", "poolbench": "1", "torch": "2", "numpy": "2",
        "machine": "m", "cpu_capability": "AVX2", "fingerprint": "f",
    }  # fmt: skip
    return [{**common, "seed": seed, "value": value, **changes} for seed, value in values.items()]


def history(*nights: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    found = pd.DataFrame([row for night in nights for row in night], columns=list(COLUMNS))
    return found.astype(dict(COLUMNS))


def series(*nights: Sequence[Mapping[str, Any]]) -> list[float]:
    found = history(*nights)
    return list(levels(found[found["group"] == "g"], sorted(found["night"].unique())))


def window_values(found: pd.DataFrame, count: int) -> dict[str, float]:
    """Return {group: accuracy of seed 0 in the window of ``count`` nights}."""
    reference = window_reference(found, count)
    reference = reference[(reference["metric"] == "accuracy") & (reference["seed"] == 0)]
    return dict(zip(reference["group"], reference["value"], strict=True))


def test_only_good_verdicts_count_and_the_last_ones() -> None:
    verdicts = ["fine", "identical", "regressed", "no data", "improved", "inconclusive", "regressed"]
    nights = history(*(rows(number, {0: float(number)}, verdict) for number, verdict in enumerate(verdicts, start=1)))
    assert window_values(nights, 9) == {"g": mean([1, 2, 5, 6])}
    # Rows in another order, further metrics and groups change nothing.
    more = pd.concat([nights[::-1], history(rows(7, {0: 9.0}, group="h"), rows(1, {0: 9.0}, metric="loss"))])
    assert window_values(more, 2) == {"g": mean([5, 6]), "h": 9.0}


def test_the_window_is_the_mean_of_the_good_nights_of_each_seed() -> None:
    nights = [
        rows(1, {0: 9.0, 1: 9.0}),
        rows(2, {0: 0.1, 1: 0.5}),
        rows(3, {0: 0.2, 2: 0.7}, label="newer"),
        rows(4, {0: 5.0, 1: 5.0}, "regressed"),
        rows(4, {0: 4.0}, "fine", group="h"),
    ]
    found = window_reference(history(*nights), count=2)
    values = {(row["group"], row["seed"]): row["value"] for _, row in found.iterrows()}
    assert values == {("g", 0): pytest.approx(0.15), ("g", 1): 0.5, ("g", 2): 0.7, ("h", 0): 4.0}
    assert list(found.loc[found["group"] == "g", "label"].unique()) == ["newer"]
    columns = {"benchmark", "group", "label", "metric", "seed", "learned", "value", "fingerprint", "images"}
    assert set(found.columns) == columns
    assert found["learned"].dtype == bool


@pytest.mark.parametrize("count", [3, 5, 7, 11])
def test_the_window_of_equal_nights_is_equal_to_the_last_bit(count: int) -> None:
    values = dict(enumerate(np.random.default_rng(0).random(200)))
    found = window_reference(history(*(rows(number, values, "identical") for number in range(1, count + 1))), count)
    assert dict(zip(found["seed"], found["value"], strict=True)) == values


def test_a_seed_has_learned_if_it_has_in_most_nights_and_the_others_do_not_count() -> None:
    collapsed = rows(2, {0: 0.1}, learned=False)
    found = window_reference(history(rows(1, {0: 0.8}), collapsed, rows(3, {0: 0.9})))
    assert found[["learned", "value"]].to_numpy().tolist() == [[True, pytest.approx(0.85)]]
    found = window_reference(history(rows(1, {0: 0.8}), collapsed))
    assert found[["learned", "value"]].to_numpy().tolist() == [[False, 0.1]]


def test_no_nights_give_no_reference_and_no_trends() -> None:
    assert window_reference(history()).empty
    assert trends(history(), METRICS) == []
    assert window_reference(history(rows(1, {0: 0.8}, "regressed"))).empty


def test_nights_with_other_seeds_do_not_jump() -> None:
    # Seeds differ by .2, nights by .01; the change of night 3 is that of the seed it shares with night 2.
    found = series(
        rows(1, {0: 0.7, 1: 0.9}), rows(2, {1: 0.91, 2: 0.5}), rows(3, {2: 0.49}), rows(4, {0: 0.7, 2: 0.49})
    )
    assert found == pytest.approx([0.8, 0.81, 0.8, 0.8])


def test_a_new_seed_does_not_hide_a_drop() -> None:
    assert series(rows(1, {0: 0.8}), rows(2, {0: 0.7, 1: 0.3}), rows(3, {0: 0.7, 1: 0.3})) == pytest.approx(
        [0.8, 0.7, 0.7]
    )


def test_a_series_has_a_gap_where_the_group_is_absent_or_has_not_learned() -> None:
    found = series(
        rows(1, {0: 1.0}, group="h"), rows(2, {0: 0.8}), rows(3, {0: nan}), rows(4, {0: 0.1}, learned=False),
        rows(5, {0: 0.8, 1: 0.2}), rows(6, {7: 0.6}),
    )  # fmt: skip
    assert [isnan(value) for value in found] == [True, False, True, True, False, False]
    assert [found[1], found[4], found[5]] == [0.8, 0.8, 0.8]


def slow_step(values: Sequence[float]) -> tuple[float, int]:
    """The least p over all splits by scipy's t test, corrected, and its split."""
    n = len(values)
    p = {k: float(stats.ttest_ind(values[:k], values[k:], equal_var=True).pvalue) for k in range(1, n)}
    best = min(p, key=lambda k: p[k])
    return p[best] * (n - 1), best


def test_a_step_is_the_split_with_the_largest_t() -> None:
    generator = np.random.default_rng(0)
    decided = []
    for _ in range(100):
        n = int(generator.integers(3, 12))
        split = int(generator.integers(1, n))
        values = generator.normal(size=n)
        values[split:] += generator.choice([0, 4, 12])
        p, best = slow_step(values.tolist())
        found = find_step(values)
        assert (found is not None) == (p <= ALPHA)
        if found is not None:
            means = float(values[:best].mean()), float(values[best:].mean())
            assert (found.index, found.before, found.after) == (best, *map(pytest.approx, means))
        decided.append(found is not None)
    assert 20 < sum(decided) < 80


@pytest.mark.parametrize("n", [3, 8, 20])
def test_noise_shows_a_step_in_at_most_one_and_a_half_percent(n: int) -> None:
    nights = np.random.default_rng(n).normal(0.8, 0.003, (3000, n))
    assert sum(find_step(values) is not None for values in nights) / len(nights) <= 0.015


def test_one_last_bad_night_is_found() -> None:
    noise = stats.zscore(np.random.default_rng(1).normal(size=7), ddof=1)
    found = find_step([*(0.8 + 0.002 * noise), 0.8 - 6 * 0.002])
    assert found is not None
    assert (found.index, found.before, found.after) == (7, pytest.approx(0.8), pytest.approx(0.788))
    assert find_step([*(0.8 + 0.002 * noise), 0.8 - 3 * 0.002]) is None
    larger = np.random.default_rng(2).normal(size=(500, 8))
    larger[:, 7] += 10
    assert np.mean([step is not None and step.index == 7 for step in map(find_step, larger)]) > 0.95


def test_equal_nights_need_no_deviation() -> None:
    assert find_step([0.85] * 4 + [0.81]) == Step(4, 0.85, pytest.approx(0.81))
    assert find_step([0.0] * 5) is None
    assert find_step([0.85] * 5) is None
    # Another rounding is no step.
    assert find_step([0.85] * 4 + [0.85 + 1e-9]) is None
    assert find_step([0.85, 0.5]) is None


def test_a_step_counts_absent_nights_and_ignores_them() -> None:
    assert find_step([nan, 0.9, 0.9, nan, 0.9, nan, 0.8, 0.8]) == Step(6, 0.9, pytest.approx(0.8))


def only(found: Sequence[Trend], metric: str = "accuracy") -> Trend:
    (trend,) = (trend for trend in found if trend.metric.name == metric)
    return trend


def test_a_trend_tells_since_when_and_which_commits() -> None:
    levels = [(0.80, "fine"), (0.82, "identical"), (0.5, "regressed"), (0.81, "improved"), (0.5, "regressed"),
              (0.5, "no data"), (0.5, "regressed")]  # fmt: skip
    trend = only(trends(history(*(rows(n, {0: v}, verdict) for n, (v, verdict) in enumerate(levels, 1))), METRICS))
    assert trend.values == pytest.approx([value for value, _ in levels])
    assert trend.bad == {day(3), day(5), day(7)}
    assert (trend.last_good, trend.first_bad) == (Night(day(4), "commit 4"), Night(day(5), "commit 5"))
    assert trend.band is not None
    assert (trend.band.mean, trend.band.low, trend.band.high) == pytest.approx((0.81, 0.79, 0.83))


def test_a_good_night_ends_a_regression() -> None:
    trend = only(trends(history(rows(1, {0: 0.8}), rows(2, {0: 0.7}, "regressed"), rows(3, {0: 0.8})), METRICS))
    assert (trend.last_good, trend.first_bad) == (Night(day(3), "commit 3"), None)


def test_absence_heals_nothing() -> None:
    other = [rows(number, {0: 0.8}, group="h") for number in range(1, 5)]
    gone = trends(history(rows(1, {0: 0.8}), rows(2, {0: 0.7}, "regressed"), *other), METRICS)
    assert {trend.group: trend.first_bad for trend in gone} == {"g": Night(day(2), "commit 2"), "h": None}


def test_a_group_that_was_bad_from_the_start_has_no_good_commit() -> None:
    trend = only(trends(history(rows(1, {0: 0.8}, "regressed")), METRICS))
    assert (trend.last_good, trend.first_bad, trend.band, trend.step) == (None, Night(day(1), "commit 1"), None, None)


def test_trends_are_those_of_directed_metrics_of_known_benchmarks() -> None:
    nights = history(*(
        rows(1, {0: 0.8}, metric=metric, benchmark=benchmark)
        for metric in ("accuracy", "loss", "units", "old") for benchmark in ("study", "gone")
    ))  # fmt: skip
    found = [(trend.benchmark, trend.metric.name) for trend in trends(nights, METRICS)]
    assert found == [("study", "accuracy"), ("study", "loss")]


def test_trends_show_the_last_nights_and_remember_older_regressions() -> None:
    def night(number: int) -> str:
        return f"2026-{1 + number // 28:02}-{1 + number % 28:02}T02:17:00+00:00"

    nights = [rows(1, {0: 0.8}, group=group, night=night(0)) for group in ("retired", "broken")]
    nights += [rows(1, {0: 0.7}, "regressed", group="broken", night=night(1))]
    nights += [rows(1, {0: 0.8}, night=night(number)) for number in range(2, SHOWN + 2)]
    found = {trend.group: trend for trend in trends(history(*nights), METRICS)}
    assert set(found) == {"g", "broken"}
    assert all(trend.nights == tuple(map(night, range(2, SHOWN + 2))) for trend in found.values())
    assert found["broken"].first_bad == Night(night(1), "commit 1")
    assert all(map(isnan, found["broken"].values))
    assert (found["broken"].bad, found["broken"].band) == (frozenset(), None)
