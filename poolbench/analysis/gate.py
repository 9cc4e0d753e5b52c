"""The regression gate: current results against the spread of a baseline's seeds.

regressed      worse than the prediction interval allows, and by more than the metric's tolerance
inconclusive   not shown to be worse, but a drop that matters could hide: the interval is wider than the
               tolerance, or the metric is undefined for too many seeds
fine           neither; always if both sides have equal values
no data        a benchmark, group, seed or metric of the baseline that the current results lack

Networks that have not learned enter no mean. If a group has fewer networks that have learned than in the baseline,
that is a comparison of its own, named "learned".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import pandas as pd
from scipy import stats

from poolbench.analysis.frames import fields_of, varying_fields
from poolbench.analysis.statistics import Interval, prediction_interval
from poolbench.core import Metric

Outcome = Literal["regressed", "inconclusive", "fine", "no data"]
ALPHA = 0.01


@dataclass(frozen=True)
class Comparison:
    """One metric of one group: the current mean against the baseline's prediction interval.

    ``expected`` is None without an interval (missing data, or fewer than 2 defined values in the
    baseline). ``n`` counts the current values, ``observed`` is their mean (NaN for none), ``margin`` the
    metric's tolerance.
    """

    benchmark: str
    group: str
    label: str
    metric: str
    expected: Interval | None
    observed: float
    n: int
    margin: float
    outcome: Outcome
    reason: str


@dataclass(frozen=True)
class _Side:
    """One group on one side of the comparison: the seeds it has, {seed: value} where a metric is defined.

    ``learned`` counts the networks that have learned; only those have values.
    """

    seeds: frozenset[int]
    values: Mapping[int, float]
    learned: int


def compare(
    baseline: pd.DataFrame, current: pd.DataFrame, metrics: Mapping[str, Sequence[Metric]], alpha: float = ALPHA
) -> list[Comparison]:
    """Compare every group and directed metric of the baseline with the current results (two results frames).

    ``metrics`` maps the name of each known benchmark to its metrics. A metric regresses if its mean leaves
    the baseline's 1 - alpha t prediction interval on the bad side and differs from the baseline's mean by
    more than its tolerance. Results are judged beforehand (see ``learning.judged``), the current ones by the best
    accuracies of the baseline.
    """
    found: list[Comparison] = []
    for name, before in baseline.groupby("benchmark"):
        if str(name) not in metrics:
            gone = f"there is no benchmark '{name}' any more"
            found.append(Comparison(str(name), "", "all", "all", None, math.nan, 0, 0.0, "no data", gone))
            continue
        after = current[current["benchmark"] == name]
        directed = {m.name: m for m in metrics[str(name)] if m.higher_is_better is not None}
        found += _compare_benchmark(str(name), before, after, directed, alpha)
    return found


def _compare_benchmark(
    benchmark: str, before: pd.DataFrame, after: pd.DataFrame, directed: Mapping[str, Metric], alpha: float
) -> list[Comparison]:
    labels = _labels(before)
    seeds_before, seeds_after = _seeds(before), _seeds(after)
    learned_before, learned_after = (frame[frame["learned"].astype(bool)] for frame in (before, after))
    counts = {group: (_count(learned_before, group), _count(learned_after, group)) for group in seeds_before}
    values_after = _values(learned_after)
    found = []
    for group, (was, now) in counts.items():
        all_there = len(seeds_after.get(group, ())) >= len(seeds_before[group])
        if all_there and now / len(seeds_after[group]) < was / len(seeds_before[group]):
            trained = len(seeds_before[group]), len(seeds_after[group])
            found.append(_fewer_learned(benchmark, group, labels[group], (was, now), trained, alpha))
    for (group, name), values in _values(learned_before).items():
        if name not in directed:
            continue
        old = _Side(seeds_before[group], values, counts[group][0])
        new = _Side(seeds_after.get(group, frozenset()), values_after.get((group, name), {}), counts[group][1])
        metric = directed[name]
        expected, outcome, reason = _judge(old, new, metric, alpha)
        n = len(new.values)
        observed = sum(new.values.values()) / n if n else math.nan
        found.append(
            Comparison(benchmark, group, labels[group], name, expected, observed, n, metric.tolerance, outcome, reason)
        )
    return found


def _count(learned: pd.DataFrame, group: str) -> int:
    return int(learned.loc[learned["group"] == group, "seed"].nunique())


def _fewer_learned(
    benchmark: str, group: str, label: str, learned: tuple[int, int], trained: tuple[int, int], alpha: float
) -> Comparison:
    """Compare how many networks have learned, (baseline, current): Fisher's exact test, one-sided."""
    p = float(stats.hypergeom.cdf(learned[1], sum(trained), sum(learned), trained[1]))
    reason = f"{learned[1]} of {trained[1]} networks have learned, in the baseline {learned[0]} of {trained[0]}"
    outcome: Outcome = "regressed" if p <= alpha else "inconclusive"
    return Comparison(
        benchmark, group, label, "learned", None, learned[1] / trained[1], trained[1], 0.0, outcome, reason
    )


def _seeds(frame: pd.DataFrame) -> dict[str, frozenset[int]]:
    """Return {group: seeds}. A finished cell always has some metric, so rows of any metric show its seed."""
    return {str(group): frozenset(seeds) for group, seeds in frame.groupby("group")["seed"]}


def _values(frame: pd.DataFrame) -> dict[tuple[str, str], dict[int, float]]:
    """Return {(group, metric): {seed: value}} of the defined values, sorted by group and metric."""
    defined = frame.dropna(subset=["value"])
    return {
        (str(group), str(metric)): dict(zip(rows["seed"], rows["value"], strict=True))
        for (group, metric), rows in defined.groupby(["group", "metric"])
    }


def _judge(old: _Side, new: _Side, metric: Metric, alpha: float) -> tuple[Interval | None, Outcome, str]:
    """Return (prediction interval if there is one, outcome, reason) of one metric of one group."""
    if not new.seeds:
        return None, "no data", "the current results lack this group"
    if len(new.seeds) < len(old.seeds):
        return None, "no data", f"the current results have {len(new.seeds)} of {len(old.seeds)} seeds"
    if not new.values and not new.learned:
        return None, "inconclusive", "no network has learned"
    if not new.values:
        return None, "no data", "the metric is missing or undefined for every seed of the current results"
    expected = prediction_interval(list(old.values.values()), len(new.values), alpha) if len(old.values) > 1 else None
    if new.values == old.values:
        return expected, "fine", ""
    if expected is None:
        return None, "inconclusive", "the baseline has fewer than 2 seeds with a defined value"
    observed = sum(new.values.values()) / len(new.values)
    worse = expected.mean - observed if metric.higher_is_better else observed - expected.mean
    if worse > expected.half_width and worse > metric.tolerance:
        return expected, "regressed", f"worse by {worse:.4g}, margin {metric.tolerance:g}"
    if expected.half_width > metric.tolerance:
        reason = f"seeds differ by +-{expected.half_width:.3g}, more than the margin {metric.tolerance:g}"
        return expected, "inconclusive", reason
    if len(new.values) < len(old.values):
        reason = f"defined for {len(new.values)} seeds, in the baseline for {len(old.values)}"
        return expected, "inconclusive", reason
    return expected, "fine", ""


def _labels(frame: pd.DataFrame) -> dict[str, str]:
    """Return {group: the fields that vary between the groups, as "name=value, ..."}."""
    shown = varying_fields(frame)
    first = frame.drop_duplicates("group").set_index("group")[[*fields_of(frame)]]
    return {
        str(group): ", ".join(f"{name}={row[name]}" for name in shown if pd.notna(row[name]))
        for group, row in first.iterrows()
    }


def exit_code(comparisons: Sequence[Comparison]) -> int:
    """Return 1 if anything regressed, else 3 if data is missing or there is nothing to compare, else 0."""
    outcomes = {comparison.outcome for comparison in comparisons}
    if "regressed" in outcomes:
        return 1
    return 3 if "no data" in outcomes or not outcomes else 0
