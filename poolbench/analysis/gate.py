"""The regression gate: a night's results against a baseline, group by group.

Runs are compared seed by seed where they share seeds (see ``differences``), with variances moderated over all groups of
a metric (see ``moderation``). Suspicious groups can be run again on reserve seeds; then those seeds alone decide (see
``incidents``, which has the verdicts).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from poolbench.analysis.differences import Comparison, Differences, compare_differences, differences
from poolbench.analysis.incidents import SUSPICION, Bits, Incident, Learned
from poolbench.analysis.moderation import NO_PRIOR, Prior, fit_prior
from poolbench.analysis.runs import ACCURACY, GroupRun, group_runs
from poolbench.core import FIRST_RESERVE_SEED, Metric

Metrics = Mapping[str, Sequence[Metric]]
"""The metrics of each known benchmark."""
Priors = Mapping[tuple[str, str, bool], Prior]
"""By benchmark, metric, and whether runs are paired."""

LEAST_RESERVE = 3
"""Fewer reserve seeds than these confirm nothing and are not used."""


@dataclass(frozen=True)
class Night:
    """The incidents of a night, not judged yet, and what all groups together say about variances."""

    incidents: Sequence[Incident]
    priors: Priors


def compare(
    baseline: pd.DataFrame,
    current: pd.DataFrame,
    metrics: Metrics,
    repeat: pd.DataFrame | None = None,
    identity: bool = True,
    reference: str = "baseline",
) -> Night:
    """Compare each group of a baseline with a night (two results frames); ``judge`` then gives the verdicts.

    ``repeat`` holds the baseline's cells run again in another environment: what rounding alone does, as further
    evidence on variances. Without ``identity`` equal bits are tested like any others. Results are judged beforehand
    (see ``learning.judged``), the current ones by the best accuracies of the baseline.
    """
    before, after = group_runs(baseline), group_runs(current)
    again = group_runs(repeat) if repeat is not None else {}
    incidents: list[Incident] = []
    tested: dict[str, list[Differences]] = {}
    of_repeat: list[tuple[str, Differences]] = []
    for group, whole in before.items():
        known = metrics.get(whole.benchmark, ())
        old = whole.only(frozenset(seed for seed in whole.seeds if seed < FIRST_RESERVE_SEED))
        new = after.get(group, GroupRun(whole.benchmark, group, whole.label))
        new = new.only(frozenset(seed for seed in new.seeds if seed < FIRST_RESERVE_SEED))
        found = Incident(
            whole.benchmark, group, whole.label, reference, _bits(old, new) if identity else "unknown",
            _missing(old, new, metrics), learned=_learned(whole, new),
        )  # fmt: skip
        tested[group] = [] if found.bits == "same" else group_differences(old, new, known)
        if found.bits != "same" and not found.missing:
            found = replace(found, missing=_untested(old, new, known, tested[group]))
        incidents.append(found)
        if group in again:
            of_repeat += [(whole.benchmark, one) for one in group_differences(old, again[group], known)]
    of_night = [(before[group].benchmark, one) for group, every in tested.items() for one in every]
    priors = priors_of([*of_night, *of_repeat])
    return Night([replace(i, comparisons=_compared(i.benchmark, tested[i.group], priors)) for i in incidents], priors)


def confirm(night: Night, baseline: pd.DataFrame, confirmed: pd.DataFrame, metrics: Metrics) -> Night:
    """Return the night with the confirmation of each suspicious group: its reserve seeds in the two results frames."""
    before, after = group_runs(baseline), group_runs(confirmed)
    return replace(
        night, incidents=[_confirmed(found, before, after, metrics, night.priors) for found in night.incidents]
    )


def _confirmed(
    found: Incident,
    before: Mapping[str, GroupRun],
    after: Mapping[str, GroupRun],
    metrics: Metrics,
    priors: Priors,
) -> Incident:
    reserve = frozenset(seed for seed in before[found.group].seeds if seed >= FIRST_RESERVE_SEED)
    if len(reserve) < LEAST_RESERVE:
        return found
    found = replace(found, reserve=len(reserve))
    if not found.is_suspicious:
        return found
    old = before[found.group].only(reserve)
    new = after.get(found.group, GroupRun(found.benchmark, found.group, found.label)).only(reserve)
    suspects = [comparison.metric for comparison in found.fallen]
    tested = group_differences(old, new, suspects)
    lost = {metric.name for metric in suspects} - {one.metric.name for one in tested}
    fewer = found.learned is not None and found.tests * found.learned.p_worse <= SUSPICION
    again = replace(
        found,
        comparisons=_compared(found.benchmark, tested, priors),
        learned=_learned(old, new) if fewer else None,
        missing=_missing(old, new, metrics) or (f"too few values to test {', '.join(sorted(lost))}" if lost else ""),
    )
    return replace(found, confirmation=again)


def _bits(old: GroupRun, new: GroupRun) -> Bits:
    """Compare digests, computed from the values, of the seeds that ran in equal environments."""
    seeds = [
        seed for seed in old.seeds & new.seeds
        if old.fingerprints.get(seed) and old.fingerprints.get(seed) == new.fingerprints.get(seed)
    ]  # fmt: skip
    # Metrics that are new do not matter; one that is gone does.
    known = old.values.keys()
    if any(old.digest(seed, known) != new.digest(seed, known) for seed in seeds):
        return "changed"
    return "same" if seeds and len(seeds) == len(old.seeds) else "unknown"


def _learned(old: GroupRun, new: GroupRun) -> Learned:
    return Learned(len(old.learned), len(old.seeds), len(new.learned), len(new.seeds))


def _missing(old: GroupRun, new: GroupRun, metrics: Metrics) -> str:
    """Return what a run lacks, "" for nothing: the benchmark, the group, some of its seeds, or some of their values."""
    if old.benchmark not in metrics:
        return f"there is no benchmark '{old.benchmark}' any more"
    if not old.seeds:
        return "the baseline has reserve seeds only"
    if not new.seeds:
        return "the group is absent"
    absent = old.seeds - new.seeds
    if absent and old.seeds & new.seeds:
        return f"{len(old.seeds) - len(absent)} of {len(old.seeds)} seeds are there"
    gated = [metric.name for metric in metrics[old.benchmark] if metric.gated]
    lost = {name: len(_without_value(old, new, name)) for name in gated}
    return ", ".join(f"{name} has no value for {n} of {len(new.seeds)} seeds" for name, n in lost.items() if n)


def _without_value(old: GroupRun, new: GroupRun, metric: str) -> frozenset[int]:
    """Return the seeds of a run that have no value of a metric although the baseline leads to expect one.

    Each network has an accuracy. Other metrics may be undefined for one that has not learned.
    """
    expected = frozenset(old.values.get(metric, {}))
    if metric == ACCURACY and expected:
        seeds = new.seeds - (old.seeds - expected)
    else:
        seeds = expected & old.learned & new.learned
    return seeds - new.values.get(metric, {}).keys()


def _untested(old: GroupRun, new: GroupRun, metrics: Sequence[Metric], tested: Sequence[Differences]) -> str:
    """Return which gated metrics could not be tested although the baseline has values, "" for none.

    A group of which hardly any network learned in the baseline has nothing to test.
    """
    if len(old.seeds) > 1 and len(old.learned) < 2:
        return ""
    done = {one.metric.name for one in tested}
    known = [m for m in metrics if m.gated and m.name not in done and old.learned_values(m.name)]
    # Where no network learned, the accuracies have said so.
    lost = [metric.name for metric in known if len(new.learned) > 1 or len(old.seeds) < 2 or len(new.seeds) < 2]
    return f"too few values to test {', '.join(lost)}" if lost else ""


def group_differences(old: GroupRun, new: GroupRun, metrics: Sequence[Metric]) -> list[Differences]:
    """Return the differences of every metric with a direction over the networks that have learned.

    If fewer than two learned in the new run, the accuracies of all count: that nothing is learned is a drop, too.
    """
    found = []
    for metric in metrics:
        before, after = old.learned_values(metric.name), new.learned_values(metric.name)
        if metric.name == ACCURACY and len(new.learned) < 2:
            after = dict(new.values.get(ACCURACY, {}))
        images = new.images.get(metric.name, 0)
        if metric.higher_is_better is not None and (one := differences(metric, before, after, images)):
            found.append(one)
    return found


def priors_of(known: Sequence[tuple[str, Differences]]) -> dict[tuple[str, str, bool], Prior]:
    """Fit one prior per benchmark, metric and kind of difference to the variances of all groups."""
    families: dict[tuple[str, str, bool], list[Differences]] = {}
    for benchmark, one in known:
        families.setdefault((benchmark, one.metric.name, one.paired), []).append(one)
    return {
        key: fit_prior([one.variance for one in found], [one.freedom for one in found])
        for key, found in families.items()
    }


def _compared(benchmark: str, found: Sequence[Differences], priors: Priors) -> list[Comparison]:
    return [compare_differences(one, priors.get((benchmark, one.metric.name, one.paired), NO_PRIOR)) for one in found]
