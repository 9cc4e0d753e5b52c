"""Two sets of results side by side: each metric of each group, paired by seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

import pandas as pd

from poolbench.analysis.claims import Ruling, ruling_of
from poolbench.analysis.effects import scaled_margin, unscaled_difference, values_interval
from poolbench.analysis.frames import COLUMNS
from poolbench.analysis.images import scaled
from poolbench.analysis.matching import matched_groups
from poolbench.analysis.runs import GroupRun, group_runs
from poolbench.analysis.statistics import Interval, anytime_interval
from poolbench.core import Metric

VERDICTS: Mapping[Ruling, str] = {
    "holds": "better",
    "holds, too small to matter": "better, too small to matter",
    "no difference that matters": "no difference that matters",
    "does not hold, too small to matter": "worse, too small to matter",
    "does not hold": "worse",
    "undecided": "undecided",
}
EQUAL = "equal"


@dataclass(frozen=True)
class Change:
    """A metric of a group before and after, over the ``change.n`` seeds with which both have learned.

    ``change`` is after minus before (logarithmic metrics: the ratio), with an interval over seeds; the images are the
    same. ``verdict`` is one of ``VERDICTS`` or "equal", if no value changed.
    """

    benchmark: str
    label: str
    metric: Metric
    before: Interval
    after: Interval
    change: Interval
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The changes of all groups that both sides have.

    ``learned`` says of which groups more or fewer networks have learned. ``apart`` says why groups are not compared:
    only one side has them, their fields are ambiguous, or no seed has learned on both sides.
    """

    changes: Sequence[Change]
    learned: Sequence[str]
    apart: Sequence[str]

    def count(self, verdict: str) -> int:
        """Return how many changes have a verdict."""
        return sum(change.verdict == verdict for change in self.changes)


def compare_results(before: pd.DataFrame, after: pd.DataFrame, metrics: Mapping[str, Sequence[Metric]]) -> Comparison:
    """Compare the headline metrics with a direction. ``metrics`` are those of each benchmark.

    Groups are matched by their fields (see :func:`matched_groups`), or by their ids where a frame has no fields.
    """
    ambiguous: Sequence[str] = ()
    if set(COLUMNS) <= set(before) and set(COLUMNS) <= set(after):
        match = matched_groups(before, after)
        matched, ambiguous = match.frame, match.ambiguous
        others = after[~after["cell"].isin(matched["cell"])]
    else:
        matched = after[after["group"].isin(before["group"])]
        others = after[~after["group"].isin(before["group"])]
    old, new = group_runs(before), group_runs(matched)
    pairs = [(run, new[group]) for group, run in old.items() if group in new]
    changes, apart = [], [f"{_name(run)}: only before" for group, run in old.items() if group not in (*new, *ambiguous)]
    apart += [f"{_name(old[group])}: several groups have these fields" for group in ambiguous]
    apart += [] if ambiguous else [f"{_name(run)}: only after" for run in group_runs(others).values()]
    for run, again in pairs:
        found = [_change(metric, run, again) for metric in metrics.get(run.benchmark, ()) if _is_compared(metric)]
        changes += [change for change in found if change]
        if not any(found):
            apart.append(f"{_name(run)}: no headline metric of a network that has learned on both sides")
    learned = [
        f"{_name(run)}: {len(run.learned)} of {len(run.seeds)} networks learned before, {len(again.learned)} of "
        f"{len(again.seeds)} after"
        for run, again in pairs
        if len(run.learned) * len(again.seeds) != len(again.learned) * len(run.seeds)
    ]
    return Comparison(changes, learned, apart)


def _name(run: GroupRun) -> str:
    return f"{run.benchmark}: {run.label}" if run.label else run.benchmark


def _is_compared(metric: Metric) -> bool:
    return metric.headline and metric.higher_is_better is not None


def _change(metric: Metric, old: GroupRun, new: GroupRun) -> Change | None:
    before, after = old.learned_values(metric.name), new.learned_values(metric.name)
    seeds = [seed for seed in before if seed in after]
    if not seeds:
        return None
    first, second = [before[seed] for seed in seeds], [after[seed] for seed in seeds]
    differences = [scaled(b, metric) - scaled(a, metric) for a, b in zip(first, second, strict=True)]
    found = anytime_interval(differences)
    signed = found if metric.sign > 0 else -found
    level = fmean(scaled(value, metric) for value in [*first, *second])
    verdict = VERDICTS[ruling_of(signed, scaled_margin(metric.tolerance, level, metric))]
    return Change(
        old.benchmark,
        old.label,
        metric,
        values_interval(first, metric),
        values_interval(second, metric),
        unscaled_difference(found, metric),
        EQUAL if first == second else verdict,
    )
