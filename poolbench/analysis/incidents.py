"""What the gate finds out about groups, and the verdicts.

A group is the cells that differ only by seed. What the gate says about one is an incident, however many of its metrics
moved:

identical      every seed ran in the baseline's environment and gave the same bits: nothing to test
regressed      a gated metric fell, or fewer networks learned
improved       a gated metric rose, and none fell
fine           neither, and drops of the tolerance are ruled out with 95 % confidence each
inconclusive   neither, but a drop of the tolerance could hide
no data        the group, some of its seeds, or values of a gated metric are missing

A group's p is the smallest of its gated metrics times their number (Bonferroni); over the groups, Holm's method (1979)
bounds the probability of any false alarm in a night.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scipy import stats

from poolbench.analysis.differences import Comparison

Verdict = Literal["identical", "fine", "regressed", "improved", "inconclusive", "no data"]
Bits = Literal["same", "changed", "unknown"]
"""Same bits in the same environment, other bits in the same environment, or another environment."""
ALPHA = 0.005
"""Nominal probability of any false alarm in a night, and of any false improvement.

Half of the 1 % that is promised: the prior of the variances is estimated, too, which doubled the alarms at worst
(benchmarks/gate/false_alarms.py).
"""
SUSPICION = 0.05
"""A group with a smaller p is suspicious."""
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
