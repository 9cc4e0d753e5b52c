"""What to do about unstable decisions: every remedy with its price, the Pareto front, and a recommendation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from poolbench.analysis.bootstrap import bootstrap_interval
from poolbench.analysis.statistics import ALPHA, Interval, crossed_estimate
from poolbench.analysis.text import listed
from poolbench.own_model.answers import percent, points, with_interval
from poolbench.own_model.remedies import Remedy
from poolbench.own_model.results import DataFacts, ModelFacts, SiteEffect, Timing

Array = np.ndarray[Any, Any]
TOLERANCE = 0.01
"""A loss of accuracy that nobody would act on."""
NOISE_OF_TIMES = 0.1
"""Two times may differ by this part by chance."""
LEAST_REDUCTION = 0.1
"""A remedy that removes less than this part of the flips is not worth its trouble."""


@dataclass(frozen=True)
class Trial:
    """A remedy with a table per seed (one row per judged image: flips, change, decision, and right: 0 or 1).

    ``right`` is whether the decision is that of the label; without labels, that of the network as it is. ``timing`` is
    that of one image's answer, ``slowdown`` its ratio to that of the network as it is; ``changed`` and ``left`` say
    what surgery did.
    """

    remedy: Remedy
    tables: Sequence[pd.DataFrame]
    timing: Timing
    slowdown: float
    changed: Sequence[str] = ()
    left: Sequence[str] = ()

    def block(self, column: str) -> Array:
        """Return the values (seeds, images) of a column."""
        return np.stack([table[column].to_numpy(dtype=np.float64) for table in self.tables])


@dataclass(frozen=True)
class Outcome:
    """A remedy's numbers. ``flips``: share of (image, one-pixel step) pairs with another decision.

    ``right``: accuracy; without labels, agreement with the network as it is. The differences to the network as it is
    are paired by image and hold for all remedies at once with 95 %; None for the network as it is. ``slowdown``: time
    over that of the network as it is. ``dominated_by``: a remedy that is clearly better in one of flips, accuracy and
    time, and no worse in the others; "" on the Pareto front.
    """

    trial: Trial
    flips: Interval
    right: Interval
    flips_change: Interval | None
    right_change: Interval | None
    slowdown: float
    dominated_by: str = ""

    @property
    def name(self) -> str:
        return self.trial.remedy.name

    @property
    def is_steadier(self) -> bool:
        """Whether it clearly removes flips, and on average enough of them."""
        change = self.flips_change
        if change is None:
            return False
        return change.high < 0 and change.mean < -LEAST_REDUCTION * (self.flips.mean - change.mean)

    @property
    def keeps_accuracy(self) -> bool:
        """Whether a loss of accuracy that matters is ruled out."""
        return self.right_change is not None and self.right_change.low > -TOLERANCE


@dataclass(frozen=True)
class Advice:
    """All outcomes, the network as it is first; ``chosen`` is None where nothing is better than leaving it.

    ``not_tried`` are remedies for which there was no time, or that failed, each with its reason.
    """

    model: ModelFacts
    data: DataFacts
    judged_images: int
    trained_images: int
    epochs: int
    sites: Sequence[SiteEffect]
    outcomes: Sequence[Outcome]
    chosen: Outcome | None
    sentences: Sequence[str]
    not_tried: Mapping[str, str]
    seconds: float


def outcomes_of(trials: Sequence[Trial], strata: Array | None) -> list[Outcome]:
    """Return the outcomes of trials, of which the first is that of the network as it is; ``strata`` (images,)."""
    first = trials[0]
    alpha = ALPHA / max(1, len(trials) - 1)
    found = []
    for trial in trials:
        flips, right = (_mean(trial.block(column), strata) for column in ("flips", "right"))
        flips_change = right_change = None
        if trial is not first:
            flips_change = _difference(trial, first, "flips", strata, alpha)
            right_change = _difference(trial, first, "right", strata, alpha)
        found.append(Outcome(trial, flips, right, flips_change, right_change, _beyond_noise(trial.slowdown)))
    return [replace(one, dominated_by=_dominant(one, found, strata)) for one in found]


def _mean(block: Array, strata: Array | None, share: bool = True, alpha: float = ALPHA) -> Interval:
    """Return the interval of the mean of a block (seeds, images), over both where there are seeds."""
    if len(block) == 1:
        return bootstrap_interval(block[0], strata, share, alpha)
    # The number of seeds was fixed beforehand.
    found = crossed_estimate([block]).planned_interval(alpha)
    return found.within(0.0, 1.0) if share else found


def _difference(one: Trial, other: Trial, column: str, strata: Array | None, alpha: float = ALPHA) -> Interval:
    """Return the interval of one trial's mean minus that of another on the same images, paired by seed if both have."""
    first, second = one.block(column), other.block(column)
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        # Time ran out for a seed of one of them.
        common = min(len(first), len(second))
        first, second = first[:common], second[:common]
    return _mean(first - second, strata, share=False, alpha=alpha)


def _beyond_noise(ratio: float) -> float:
    """Return a ratio of times, 1 if the difference may be noise."""
    return 1.0 if 1 / (1 + NOISE_OF_TIMES) <= ratio <= 1 + NOISE_OF_TIMES else ratio


def _dominant(one: Outcome, others: Sequence[Outcome], strata: Array | None) -> str:
    """Return the name of an outcome that dominates this one, "" if there is none."""
    return next((other.name for other in others if other is not one and _dominates(other, one, strata)), "")


def _dominates(one: Outcome, other: Outcome, strata: Array | None) -> bool:
    """Return whether an outcome is clearly better in flips, accuracy or time, and on average no worse in the others."""
    faster = one.slowdown < other.slowdown / (1 + NOISE_OF_TIMES)
    slower = one.slowdown > other.slowdown * (1 + NOISE_OF_TIMES)
    if slower or one.flips.mean > other.flips.mean or one.right.mean < other.right.mean:
        return False
    if faster:
        return True
    flips = _difference(one.trial, other.trial, "flips", strata)
    right = _difference(one.trial, other.trial, "right", strata)
    return flips.high < 0 or right.low > 0


def choose(found: Sequence[Outcome], strata: Array | None) -> Outcome | None:
    """Return the outcome to take, None for leaving the network as it is.

    Of those that clearly remove flips and for which a loss of accuracy that matters is ruled out: the fastest of those
    that may be as stable as the most stable one.
    """
    fit = [one for one in found if one.is_steadier and one.keeps_accuracy]
    if not fit:
        return None
    best = min(fit, key=lambda one: one.flips.mean)
    ties = [
        one for one in fit if one is best or _difference(one.trial, best.trial, "flips", strata).low <= 0
    ]  # fmt: skip
    return min(ties, key=lambda one: (one.slowdown, one.trial.remedy.is_trained, one.flips.mean))


def sentences_of(found: Sequence[Outcome], chosen: Outcome | None, labelled: bool) -> list[str]:
    """Return the recommendation, what it rests on, and what is to be had without training."""
    first, what = found[0], "accuracy" if labelled else "agreement with the network as it is"
    now = f"As it is, {with_interval(first.flips)} of the one-pixel steps change the decision"
    sentences = [f"{now}; {what} {with_interval(first.right)}." if labelled else f"{now}."]
    if chosen is None:
        sentences.insert(0, "Leave it as it is.")
        steadier = [one for one in found if one.is_steadier]
        if steadier:
            best = min(steadier, key=lambda one: one.flips.mean)
            sentences.append(f"No remedy removes flips without a possible loss of {what}. {_told(best, what)}")
        else:
            sentences.append("No remedy clearly removes a tenth of them.")
        return sentences
    sentences.insert(0, f"Take: {_told(chosen, what)}")
    untrained = [one for one in found if not one.trial.remedy.is_trained and one.is_steadier and one.keeps_accuracy]
    if chosen.trial.remedy.is_trained:
        if untrained:
            best = min(untrained, key=lambda one: one.flips.mean)
            sentences.append(f"Without training: {_told(best, what)}")
        else:
            sentences.append(f"Without training, no remedy removes flips without a possible loss of {what}.")
    return sentences


def _told(one: Outcome, what: str) -> str:
    """Return an outcome in words."""
    assert one.flips_change is not None
    assert one.right_change is not None
    change = one.slowdown - 1
    time = (
        "about the same time" if change == 0 else f"{100 * abs(change):.0f} % {'more' if change > 0 else 'less'} time"
    )
    return (
        f"{one.name}. The share of steps that change the decision changes by {points(one.flips_change)} to "
        f"{percent(one.flips.mean)}, {what} by {points(one.right_change)}; {time}."
    )


def untried_text(not_tried: Mapping[str, str]) -> str:
    """Return the remedies that were not tried by reason, "" if all were."""
    reasons: dict[str, list[str]] = {}
    for name, reason in not_tried.items():
        reasons.setdefault(reason, []).append(name)
    return "; ".join(f"not tried ({reason}): {listed(names)}" for reason, names in reasons.items())
