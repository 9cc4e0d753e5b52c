"""False alarms of the regression gate on simulated nights of unchanged code, and coverage of its intervals.

    python benchmarks/gate/false_alarms.py --nights 5000

Groups of equal networks run twice. What rounding does differs between groups: their true variances are drawn from
scaled inverse chi^2 distributions, from alike (many degrees of freedom) to chaotic (few), and one in ten groups may
move ten times as far. Metrics of a group and groups of a seed share a part of the noise. Each night is judged without
confirmation and with one on reserve seeds.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import numpy as np

from poolbench.analysis.differences import Comparison, compare_differences, differences
from poolbench.analysis.incidents import SUSPICION, Incident, Learned, judge
from poolbench.analysis.moderation import Prior, fit_prior
from poolbench.core import Metric

METRICS = (
    Metric("accuracy", "accuracy", True, 0.001, gated=True, share=True),
    Metric("V", "V", False, 0.001, gated=True),
)
LEVELS, DEVIATIONS = (0.8, 0.3), (0.006, 0.01)
Values = np.ndarray[tuple[int, ...], np.dtype[np.float64]]


def two_runs(
    generator: np.random.Generator, groups: int, seeds: int, true: Values, rho: float
) -> tuple[Values, Values]:
    """Return two runs (groups, metrics, seeds); ``true`` (groups, 1, 1) are the relative deviations of the groups."""
    shape = (groups, len(METRICS), seeds)
    spread = np.array(DEVIATIONS)[:, None]
    before = np.array(LEVELS)[:, None] + 3 * spread * generator.normal(size=shape)
    shared = generator.normal(size=(1, 1, seeds)) + generator.normal(size=(groups, 1, seeds))
    noise = np.sqrt(1 - rho) * generator.normal(size=shape) + np.sqrt(rho / 2) * shared
    return before, before + true * spread * noise


def compared(before: Values, after: Values, priors: list[Prior] | None) -> tuple[list[list[Comparison]], list[Prior]]:
    """Return the comparisons of each group, and the priors that were fitted where none are given."""
    found = [
        [
            differences(metric, dict(enumerate(old.tolist())), dict(enumerate(new.tolist())))
            for metric, old, new in zip(METRICS, group_before, group_after, strict=True)
        ]
        for group_before, group_after in zip(before, after, strict=True)
    ]
    known = [[one for one in group if one is not None] for group in found]
    if priors is None:
        priors = [
            fit_prior([group[i].variance for group in known], [group[i].freedom for group in known])
            for i in range(len(METRICS))
        ]
    return [[compare_differences(one, prior) for one, prior in zip(g, priors, strict=True)] for g in known], priors


def deviations(generator: np.random.Generator, groups: int, freedom: float, outliers: bool) -> Values:
    true = np.sqrt(freedom / generator.chisquare(freedom, groups))
    if outliers:
        true[generator.random(groups) < 0.1] *= 10
    return true[:, None, None]


def simulate(nights: int, groups: int, seeds: int, reserve: int, freedom: float, outliers: bool) -> str:
    """Return a row: alarms without and with confirmation, suspicious groups, coverage."""
    generator = np.random.default_rng(7)
    alone = confirmed = suspicious = covered = 0
    for _ in range(nights):
        true = deviations(generator, groups, freedom, outliers)
        every, priors = compared(*two_runs(generator, groups, seeds, true, 0.5), None)
        again, _ = compared(*two_runs(generator, groups, reserve, true, 0.5), priors)
        learned = Learned(seeds, seeds, seeds, seeds)
        night = [
            Incident("study", str(i), "", comparisons=found, learned=learned, reserve=reserve)
            for i, found in enumerate(every)
        ]
        alone += any(found.verdict == "regressed" for found in judge([replace(i, reserve=0) for i in night]))
        tried = [replace(i, confirmation=_confirmation(i, c)) for i, c in zip(night, again, strict=True)]
        confirmed += any(found.verdict == "regressed" for found in judge(tried, confirming=True))
        suspicious += sum(found.is_suspicious for found in night)
        covered += sum((c.low < 0) + (c.high > 0) for found in every for c in found)
    kind = f"{freedom:g} degrees of freedom" + (", one in ten 10 times wider" if outliers else "")
    share = covered / (2 * nights * groups * len(METRICS))
    return (
        f"| {kind} | {seeds} | {100 * alone / nights:.2f} % | {100 * confirmed / nights:.2f} % | "
        f"{suspicious / nights:.2f} | {share:.3f} |"
    )


def _confirmation(found: Incident, again: list[Comparison]) -> Incident | None:
    if not found.is_suspicious:
        return None
    suspects = {c.metric.name for c in found.gated if found.tests * c.p_worse <= SUSPICION}
    return replace(found, comparisons=[c for c in again if c.metric.name in suspects], learned=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nights", type=int, default=5000)
    parser.add_argument("--groups", type=int, default=30)
    parser.add_argument("--reserve", type=int, default=8)
    given = parser.parse_args()
    print("| groups differ as | seeds | alarms, night alone | alarms, confirmed | suspicious groups | coverage |")
    print("|---|--:|--:|--:|--:|--:|")
    for freedom, outliers in ((100.0, False), (4.0, False), (2.0, False), (10.0, True)):
        for seeds in (5, 7):
            print(simulate(given.nights, given.groups, seeds, given.reserve, freedom, outliers), flush=True)


if __name__ == "__main__":
    main()
