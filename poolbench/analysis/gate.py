"""The regression gate: a night's results against a baseline, group by group.

A group is the cells that differ only by seed. What the gate says about one is an incident, however many of its metrics
moved:

identical      every seed ran in the baseline's environment and gave the same bits: nothing to test
regressed      a gated metric fell, or fewer networks learned
improved       a gated metric rose, and none fell
fine           neither, and drops of the tolerance are ruled out with 95 % confidence each
inconclusive   neither, but a drop of the tolerance could hide
no data        the group, some of its seeds, or a gated metric is missing

Runs are compared seed by seed where they share seeds (see ``differences``), with variances moderated over all groups of
a metric (see ``moderation``). A group's p is the smallest of its gated metrics times their number (Bonferroni); over
the groups, Holm's method (1979) bounds the probability of any false alarm in a night. Suspicious groups can be run
again on reserve seeds; then those seeds alone decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
from scipy import stats

from poolbench.analysis.differences import Comparison, Differences, compare_differences, differences
from poolbench.analysis.moderation import NO_PRIOR, Prior, fit_prior
from poolbench.analysis.runs import ACCURACY, GroupRun, group_runs
from poolbench.core import Metric

Verdict = Literal["identical", "fine", "regressed", "improved", "inconclusive", "no data"]
Bits = Literal["same", "changed", "unknown"]
"""Same bits in the same environment, other bits in the same environment, or another environment."""
Metrics = Mapping[str, Sequence[Metric]]
"""The metrics of each known benchmark."""
Priors = Mapping[tuple[str, str, bool], Prior]
"""By benchmark, metric, and whether runs are paired."""

ALPHA = 0.005
"""Nominal probability of any false alarm in a night, and of any false improvement.

Half of the 1 % that is promised: the prior of the variances is estimated, too, which doubled the alarms at worst
(benchmarks/gate/false_alarms.py).
"""
SUSPICION = 0.05
"""A group with a smaller p is suspicious."""
FIRST_RESERVE_SEED = 1000
"""Seeds from here on are the reserve: a baseline holds them for confirmations, and no night runs them."""
LEAST_RESERVE = 3
"""Fewer reserve seeds than these confirm nothing and are not used."""
ORDER: tuple[Verdict, ...] = ("regressed", "no data", "improved", "inconclusive", "fine", "identical")
"""From the verdict that matters most to the one that matters least."""


@dataclass(frozen=True)
class Learned:
    """How many networks have learned, of how many, in the baseline (reserve seeds included) and in the night."""

    before: int = 0
    trained_before: int = 0
    after: int = 0
    trained: int = 0

    @property
    def is_lower(self) -> bool:
        return self.after * self.trained_before < self.before * self.trained

    @property
    def p_worse(self) -> float:
        """The one-sided p of "the same share learns" (Fisher's exact test)."""
        both = self.trained_before + self.trained
        return float(stats.hypergeom.cdf(self.after, both, self.before + self.after, self.trained)) if both else 1.0

    def __str__(self) -> str:
        return (
            f"{self.after} of {self.trained} networks learned, in the baseline {self.before} of {self.trained_before}"
        )


@dataclass(frozen=True)
class Incident:
    """What the gate found out about one group.

    ``missing`` says what data is absent ("": none is). ``comparisons`` holds every metric with a direction.
    In a night that was confirmed, ``reserve`` counts the baseline's reserve seeds; ``confirmation`` is the same group
    on those, with the metrics that were suspicious, None if it was not run. ``reference`` names what the night was
    compared with.
    """

    benchmark: str
    group: str
    label: str
    reference: str = "baseline"
    bits: Bits = "unknown"
    missing: str = ""
    comparisons: Sequence[Comparison] = ()
    learned: Learned | None = None
    reserve: int = 0
    confirmation: Incident | None = None
    verdict: Verdict = "inconclusive"

    @property
    def gated(self) -> list[Comparison]:
        """The comparisons on which the verdict rests."""
        return [comparison for comparison in self.comparisons if comparison.metric.gated]

    @property
    def tests(self) -> int:
        """Number of tests behind a p of the group: gated metrics, and the share of networks that learn."""
        return len(self.gated) + (self.learned is not None)

    @property
    def p_worse(self) -> float:
        """The p of "nothing fell". Metrics of which a drop that matters is ruled out do not count."""
        found = [c.p_worse for c in self.gated if c.high >= c.metric.tolerance]
        found += [self.learned.p_worse] if self.learned else []
        return min([1.0, *(self.tests * p for p in found)])

    @property
    def p_better(self) -> float:
        """The p of "nothing rose". Metrics of which a rise that matters is ruled out do not count."""
        return min([1.0, *(self.tests * c.p_better for c in self.gated if -c.low >= c.metric.tolerance)])

    @property
    def is_suspicious(self) -> bool:
        return self.bits != "same" and self.p_worse <= SUSPICION

    @property
    def fallen(self) -> list[Comparison]:
        """The gated comparisons that are suspicious by themselves."""
        return [c for c in self.gated if self.tests * c.p_worse <= SUSPICION]

    @property
    def risen(self) -> list[Comparison]:
        """The gated comparisons that are as far above the baseline as suspicious ones are below it."""
        return [c for c in self.gated if self.tests * c.p_better <= SUSPICION]

    @property
    def latest(self) -> list[Comparison]:
        """The gated comparisons, those of the confirmation in the place of their suspicious ones."""
        confirmed = {c.metric.name: c for c in self.confirmation.gated} if self.confirmation else {}
        return [confirmed.get(c.metric.name, c) for c in self.gated]


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


def judge(incidents: Sequence[Incident], confirming: bool = False) -> list[Incident]:
    """Return the incidents with their verdicts. All of them together are one family of tests at level ``ALPHA``.

    ``confirming`` says that suspicious groups were run again: a group with reserve seeds is then judged on those
    alone, if it was suspicious, and is not tested for a drop any more if it was not. Rises are not confirmed.
    """
    tested = [found for found in incidents if found.bits != "same"]
    family = [found for found in tested if not confirming or not found.reserve or found.is_suspicious]
    worse = _holm([(found.confirmation or found).p_worse for found in family], ALPHA)
    better = _holm([found.p_better for found in tested], ALPHA)
    fell = {id(found) for found, rejected in zip(family, worse, strict=True) if rejected}
    rose = {id(found) for found, rejected in zip(tested, better, strict=True) if rejected}
    return [replace(found, verdict=_verdict(found, id(found) in fell, id(found) in rose)) for found in incidents]


def judge_bits(incidents: Sequence[Incident]) -> list[Incident]:
    """Return the incidents with verdicts on bits alone: changed ones regressed, unknown ones are no data."""
    verdicts: dict[Bits, Verdict] = {"same": "identical", "changed": "regressed", "unknown": "no data"}
    return [replace(found, verdict=verdicts[found.bits]) for found in incidents]


def _verdict(found: Incident, fell: bool, rose: bool) -> Verdict:
    if fell:
        return "regressed"
    if found.missing or (found.confirmation and found.confirmation.missing):
        return "no data"
    if found.bits == "same":
        return "identical"
    if rose:
        return "improved"
    learned = found.confirmation.learned if found.confirmation and found.confirmation.learned else found.learned
    fewer = learned is not None and learned.is_lower
    ruled_out = all(comparison.high < comparison.metric.tolerance for comparison in found.latest)
    return "fine" if found.latest and ruled_out and not fewer else "inconclusive"


def worst_by_group(incidents: Sequence[Incident]) -> list[Incident]:
    """Return one incident per group, the one that matters most where a night was compared with several references."""
    worst: dict[str, Incident] = {}
    for found in sorted(incidents, key=lambda found: ORDER.index(found.verdict)):
        worst.setdefault(found.group, found)
    return list(worst.values())


def exit_code(incidents: Sequence[Incident]) -> int:
    """Return 1 if a group regressed, else 3 if data is missing or there is nothing to compare, else 0."""
    verdicts = {found.verdict for found in incidents}
    if "regressed" in verdicts:
        return 1
    return 3 if "no data" in verdicts or not verdicts else 0


def _holm(p_values: Sequence[float], alpha: float) -> list[bool]:
    """Return which hypotheses Holm's method (1979) rejects with a familywise error of at most ``alpha``."""
    order = sorted(range(len(p_values)), key=lambda i: p_values[i])
    rejected = [False] * len(p_values)
    for rank, i in enumerate(order):
        if p_values[i] > alpha / (len(p_values) - rank):
            break
        rejected[i] = True
    return rejected


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
    """Return what a run lacks, "" for nothing: the benchmark, the group, or some of its seeds."""
    if old.benchmark not in metrics:
        return f"there is no benchmark '{old.benchmark}' any more"
    if not old.seeds:
        return "the baseline has reserve seeds only"
    if not new.seeds:
        return "the group is absent"
    absent = old.seeds - new.seeds
    if absent and old.seeds & new.seeds:
        return f"{len(old.seeds) - len(absent)} of {len(old.seeds)} seeds are there"
    return ""


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
