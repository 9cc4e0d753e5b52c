"""Which drops the gate can see: the power of its tests, from a baseline whose cells were run twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, inf, sqrt

import pandas as pd
from scipy import optimize, special

from poolbench.analysis.differences import Differences
from poolbench.analysis.gate import LEAST_RESERVE, Metrics, Priors, group_differences, priors_of
from poolbench.analysis.incidents import ALPHA, SUSPICION
from poolbench.analysis.moderation import NO_PRIOR
from poolbench.analysis.runs import GroupRun, group_runs
from poolbench.analysis.scales import TestScale
from poolbench.core import FIRST_RESERVE_SEED, Metric

POWER = 0.9
CONFIRMED = 3
"""Groups that are confirmed in one night, for the level of each: one that fell, and two by chance."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Sight:
    """What the gate can see in one gated metric of one group.

    ``level`` is the baseline's mean, ``deviation`` that of a paired difference between two environments, about
    ``level``, and ``drop`` the smallest drop that is seen with power .9, all in the metric's unit. ``halved`` is the
    number of seeds (with the reserve in the same proportion) that would halve the drop, None for more than 1000.
    """

    benchmark: str
    group: str
    label: str
    metric: Metric
    level: float
    deviation: float
    seeds: int
    reserve: int
    drop: float
    halved: int | None

    @property
    def sees_tolerance(self) -> bool:
        return self.drop <= self.metric.tolerance


@dataclass(frozen=True)
class _Design:
    """The tests of one metric: how many seeds a night and a confirmation have, and the levels of both."""

    seeds: int
    reserve: int
    night_alpha: float
    confirmation_alpha: float
    variance: float
    freedom_of_prior: float

    def power(self, distance: float) -> float:
        """Return the probability that a drop of ``distance`` on the test scale is seen by night and confirmation."""
        found = self._seen(distance, self.seeds, self.night_alpha)
        return found * self._seen(distance, self.reserve, self.confirmation_alpha) if self.reserve else found

    def _seen(self, distance: float, n: int, alpha: float) -> float:
        freedom = n - 1 + self.freedom_of_prior
        if freedom <= 0:
            return 0.0
        critical = float(special.stdtrit(freedom, 1 - alpha))
        return 1 - float(special.nctdtr(freedom, distance / sqrt(self.variance / n), critical))

    def smallest(self) -> float:
        """Return the distance that is seen with probability ``POWER``."""
        step = sqrt(self.variance)
        if self.power(1e6 * step) < POWER:
            return inf  # no degrees of freedom
        while self.power(step) < POWER:
            step *= 2
        return float(optimize.brentq(lambda distance: self.power(distance) - POWER, 0, step))

    def more(self, seeds: int) -> _Design:
        """Return the design with more seeds and a reserve in proportion."""
        return replace(self, seeds=seeds, reserve=ceil(self.reserve * seeds / self.seeds))


def power_table(baseline: pd.DataFrame, repeat: pd.DataFrame, metrics: Metrics) -> list[Sight]:
    """Return what the gate can see in each gated metric of each group, from a baseline and the same cells run again.

    With reserve seeds in the baseline a drop must be suspicious in the night and confirmed; without them it must pass
    Holm's method over all groups.
    """
    before, again = group_runs(baseline), group_runs(repeat)
    found = {
        group: group_differences(_without_reserve(old), _without_reserve(again[group]), metrics.get(old.benchmark, ()))
        for group, old in before.items()
        if group in again
    }
    priors = priors_of([(before[group].benchmark, one) for group, every in found.items() for one in every])
    return [sight for group, every in found.items() for sight in _sights(before[group], every, priors, len(found))]


def _without_reserve(run: GroupRun) -> GroupRun:
    return run.only(frozenset(seed for seed in run.seeds if seed < FIRST_RESERVE_SEED))


def _sights(old: GroupRun, every: list[Differences], priors: Priors, groups: int) -> Iterator[Sight]:
    gated = [one for one in every if one.metric.gated]
    tests = len(gated) + 1
    # A night has all seeds of the baseline, even if fewer were repeated.
    night = sum(seed < FIRST_RESERVE_SEED for seed in old.seeds)
    reserve = len(old.seeds) - night
    reserve = reserve if reserve >= LEAST_RESERVE else 0
    for one in gated:
        prior = priors.get((old.benchmark, one.metric.name, one.paired), NO_PRIOR)
        variance, _ = prior.moderate(one.variance, one.freedom)
        levels = (SUSPICION / tests, ALPHA / CONFIRMED) if reserve else (ALPHA / (groups * tests), 1.0)
        design = _Design(night, reserve, *levels, variance, prior.freedom)
        scale, smallest = TestScale(one.metric), design.smallest()
        yield Sight(
            old.benchmark, old.group, old.label, one.metric, one.before,
            abs(scale.drop(one.level, sqrt(variance))), night, reserve, scale.drop(one.level, smallest),
            _halving(design, smallest),
        )  # fmt: skip


def _halving(design: _Design, smallest: float) -> int | None:
    """Return the fewest seeds with which half of the distance is seen, by bisection."""
    low, high = design.seeds, MOST_SEEDS
    if smallest == inf or design.more(high).power(smallest / 2) < POWER:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if design.more(middle).power(smallest / 2) >= POWER else (middle, high)
    return high
