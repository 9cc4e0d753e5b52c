"""The history of nights: which of them serve as a reference, how a metric went, and since when it is worse.

A history has the columns of ``COLUMNS``: a row per night, benchmark, group, metric and seed. A night is its UTC time in
ISO format, so that the order of the text is that of time. ``verdict`` is that of the row's group in that night.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import isnan, nan
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from poolbench.analysis.statistics import Interval
from poolbench.core import Metric

COLUMNS: Mapping[str, str] = {
    "night": "str", "benchmark": "str", "group": "str", "label": "str", "metric": "str", "seed": "int64",
    "value": "float64", "learned": "bool", "verdict": "str", "commit": "str", "poolbench": "str", "torch": "str",
    "numpy": "str", "machine": "str", "cpu_capability": "str", "fingerprint": "str",
}  # fmt: skip
"""The columns of a history with their types."""
GOOD = ("identical", "fine", "improved", "inconclusive")
"""Verdicts of nights that serve as a reference. A night without data says nothing; it heals nothing either."""
BAD = "regressed"
SHOWN = 30
"""Number of nights that a trend shows."""
ALPHA = 0.01
"""Highest probability with which a series of nights without a step shows one, for normal noise."""
LEAST_DEVIATION = 1e-6
"""Least deviation between nights, relative to the largest value. Without noise, every change of bits is a step else."""

_GROUP = ["benchmark", "group"]
_SEED = [*_GROUP, "metric", "seed"]


def _good(history: pd.DataFrame) -> pd.DataFrame:
    """Return the benchmark, group and night of every good verdict once, in order of time."""
    good = history.loc[history["verdict"].isin(GOOD), [*_GROUP, "night"]]
    return good.drop_duplicates().sort_values("night", kind="stable")


def window_reference(history: pd.DataFrame, count: int = 5) -> pd.DataFrame:
    """Return what the last ``count`` good nights of every group say, as a baseline for the gate.

    One row per benchmark, group, metric and seed: ``value`` is the mean over the good nights that have the seed,
    ``learned`` whether the network had learned in most of them. Nights in which it was the other way round do not
    enter the value. Nights with equal values give exactly that value. ``label`` is the latest of the group.
    """
    last = _good(history).groupby(_GROUP).tail(count)
    rows = history.merge(last).dropna(subset=["value"]).sort_values("night", kind="stable")
    rows["label"] = rows.groupby(_GROUP)["label"].transform("last")
    mostly = rows.groupby(_SEED)["learned"].transform("mean") > 0.5
    rows = rows[rows["learned"] == mostly]
    first = rows.groupby(_SEED)["value"].transform("first")
    # The mean of the changes to the first night is exactly 0 for equal values; a mean of values is rounded.
    rows = rows.assign(first=first, change=rows["value"] - first)
    names = ["label", "learned", "first", "change"]
    found = rows.groupby(_SEED, as_index=False)[names].agg(
        {"label": "first", "learned": "first", "first": "first", "change": "mean"}
    )
    found = found.assign(value=found["first"] + found["change"], fingerprint="", images=0)
    return found.drop(columns=["first", "change"])


def levels(rows: pd.DataFrame, nights: Sequence[str]) -> Iterator[float]:
    """Yield the value of one metric of one group in every night, NaN where there is none.

    Differences between nights are means over seeds that both nights have, so nights with other seeds do not jump:
    the first night gives the level, and a seed that comes later starts at the level of the others in its first night.
    A night without any earlier seed repeats the level before it. Networks that have not learned do not count.
    """
    values: dict[str, dict[int, float]] = {}
    columns = (rows[name].tolist() for name in ("night", "seed", "value", "learned"))
    for night, seed, value, learned in zip(*columns, strict=True):
        if learned and not isnan(value):
            values.setdefault(night, {})[seed] = value
    # What each seed would have given in the first night, and the change since then.
    starts: dict[int, float] = {}
    level, change = nan, 0.0
    for night in nights:
        now = values.get(night, {})
        changes = [value - starts[seed] for seed, value in now.items() if seed in starts]
        if changes:
            change = float(np.mean(changes))
        for seed, value in now.items():
            starts.setdefault(seed, value - change)
        if now and isnan(level):
            level = float(np.mean(list(now.values())))
        yield level + change if now else nan


@dataclass(frozen=True)
class Step:
    """A change of level: ``index`` is the first night after it, ``before`` and ``after`` are the means around it."""

    index: int
    before: float
    after: float


def find_step(values: Sequence[float]) -> Step | None:
    """Return the one change of level that explains the values best, None if noise does as well; NaN are skipped.

    Each split into nights before and after (3 nights or more in all) gives Student's t with pooled variance. The
    largest counts if its two-sided p, times the number of splits (Bonferroni), is at most ``ALPHA``.
    """
    array = np.asarray(values, dtype=np.float64)
    there = np.flatnonzero(np.isfinite(array))
    known = array[there]
    n = len(known)
    if n < 3:
        return None
    # Relative to the first value, equal nights have a variance of exactly 0.
    changes = known - known[0]
    left = np.arange(1, n)
    right = n - left
    sums = changes.cumsum()[:-1]
    before, after = sums / left, (changes.sum() - sums) / right
    squares = (changes**2).sum() - left * before**2 - right * after**2
    least = LEAST_DEVIATION * (np.abs(known).max() or 1.0)
    deviation = np.maximum(np.sqrt(np.maximum(squares, 0.0) / (n - 2)), least)
    t = np.abs(after - before) / (deviation * np.sqrt(1 / left + 1 / right))
    best = int(t.argmax())
    if 2 * float(special.stdtr(n - 2, -t[best])) * len(left) > ALPHA:
        return None
    return Step(int(there[best + 1]), float(known[0] + before[best]), float(known[0] + after[best]))


@dataclass(frozen=True)
class Night:
    """A night with the commit that ran in it."""

    night: str
    commit: str


@dataclass(frozen=True)
class Trend:
    """One metric of one group over the last nights, the earliest first.

    ``values`` has one value per night (NaN where absent, see :func:`levels`), ``bad`` are the nights in which the
    group regressed. ``band`` is the mean +- 2 deviations of the good nights among them, None for fewer than 2; ``step``
    counts in ``nights``. ``first_bad`` is the first regressed night after ``last_good``, None if there is none: a group
    that is absent after a regression is still regressed. These two may be earlier than ``nights``.
    """

    benchmark: str
    group: str
    label: str
    metric: Metric
    nights: tuple[str, ...]
    values: tuple[float, ...]
    bad: frozenset[str]
    band: Interval | None
    step: Step | None
    last_good: Night | None
    first_bad: Night | None


def trends(history: pd.DataFrame, metrics: Mapping[str, Sequence[Metric]]) -> list[Trend]:
    """Return the trends of all metrics with a direction, by benchmark, label and metric, over ``SHOWN`` nights.

    ``metrics`` maps the name of each known benchmark to its metrics. Groups that are absent from these nights have a
    trend only if they are still regressed.
    """
    nights = tuple(str(night) for night in sorted(history["night"].unique())[-SHOWN:])
    found: list[Trend] = []
    for (benchmark, group), rows in history.sort_values("night", kind="stable").groupby(_GROUP):
        verdicts = rows.drop_duplicates("night")
        last_good, first_bad = _turn(verdicts)
        shown = rows[rows["night"] >= nights[0]]
        if shown.empty and first_bad is None:
            continue
        by_metric = dict(iter((rows if shown.empty else shown).groupby("metric")))
        common: dict[str, Any] = {
            "benchmark": str(benchmark),
            "group": str(group),
            "label": str(rows["label"].iloc[-1]),
            "nights": nights,
            "bad": frozenset(verdicts.loc[verdicts["verdict"] == BAD, "night"]) & frozenset(nights),
            "last_good": last_good,
            "first_bad": first_bad,
        }
        good = frozenset(verdicts.loc[verdicts["verdict"].isin(GOOD), "night"])
        for metric in metrics.get(str(benchmark), ()):
            if metric.higher_is_better is not None and metric.name in by_metric:
                values = tuple(levels(by_metric[metric.name], nights))
                of_good = [value for night, value in zip(nights, values, strict=True) if night in good]
                found.append(Trend(metric=metric, values=values, band=_band(of_good), step=find_step(values), **common))
    return sorted(found, key=lambda trend: (trend.benchmark, trend.label, trend.metric.name))


def _turn(verdicts: pd.DataFrame) -> tuple[Night | None, Night | None]:
    """Return the last good night and the first bad one after it, from one row per night in order of time."""
    good = verdicts[verdicts["verdict"].isin(GOOD)].tail(1)
    bad = verdicts[verdicts["verdict"] == BAD]
    if not good.empty:
        bad = bad[bad["night"] > good["night"].iloc[0]]
    return _night(good), _night(bad)


def _night(rows: pd.DataFrame) -> Night | None:
    return None if rows.empty else Night(str(rows["night"].iloc[0]), str(rows["commit"].iloc[0]))


def _band(values: Sequence[float]) -> Interval | None:
    known = np.array([value for value in values if not isnan(value)])
    if len(known) < 2:
        return None
    mean, reach = float(known.mean()), 2 * float(known.std(ddof=1))
    return Interval(mean, mean - reach, mean + reach, len(known))
