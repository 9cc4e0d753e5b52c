"""What to do about unstable decisions: every remedy with its price, the Pareto front, and a recommendation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from poolbench.analysis.bootstrap import bootstrap_interval
from poolbench.analysis.statistics import ALPHA, Interval, crossed_estimate
from poolbench.analysis.text import listed
from poolbench.core import FROM_0_TO_1
from poolbench.own_model.answers import percent, points, with_interval
from poolbench.own_model.pace import AnswerTime
from poolbench.own_model.remedies import Remedy
from poolbench.own_model.results import DataFacts, ModelFacts, SiteEffect

Array = np.ndarray[Any, Any]
TOLERANCE = 0.01
"""A loss of accuracy that nobody would act on."""
NOISE_OF_TIMES = 0.1
"""Two times may differ by this part by chance."""
LONG = 1.5
"""A ratio of times that is told before the gain."""
FEW = 3
"""Images up to which their share is bounded, whatever their values."""
LEAST_REDUCTION = 0.1
"""A remedy that removes less than this part of the flips is not worth its trouble."""


@dataclass(frozen=True)
class Trial:
    """A remedy with a table per seed (one row per judged image: flips, change, decision, and right: 0 or 1).

    ``right`` is whether the decision is that of the label; without labels, that of the network as it is. ``time`` is
    that of an answer for one image; ``changed`` says what surgery did.
    """

    remedy: Remedy
    tables: Sequence[pd.DataFrame]
    time: AnswerTime
    changed: Sequence[str] = ()

    def block(self, column: str) -> Array:
        """Return the values (seeds, images) of a column."""
        return np.stack([table[column].to_numpy(dtype=np.float64) for table in self.tables])


@dataclass(frozen=True)
class Outcome:
    """A remedy's numbers. ``flips``: share of (image, one-pixel step) pairs with another decision.

    ``right``: accuracy; without labels, agreement with the network as it is. The differences to the network as it is
    are paired by image and hold for all remedies at once with 95 %; None for the network as it is. ``slowdown``: time
    over that of the network as it is, 1 where up to 10 % cannot be excluded. ``dominated_by``: a remedy that is clearly
    better in one of flips, accuracy and time, and on average no worse in the others; "" on the Pareto front.
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
    # Two differences of every remedy.
    alpha = ALPHA / max(1, 2 * (len(trials) - 1))
    found = []
    for trial in trials:
        flips, right = (_mean(trial.block(column), strata) for column in ("flips", "right"))
        flips_change = right_change = None
        if trial is not first:
            flips_change = _difference(trial, first, "flips", strata, alpha)
            right_change = _difference(trial, first, "right", strata, alpha)
        found.append(Outcome(trial, flips, right, flips_change, right_change, _beyond_noise(trial.time.ratio)))
    return [replace(one, dominated_by=_dominant(one, found, strata)) for one in found]


def _mean(block: Array, strata: Array | None, share: bool = True, alpha: float = ALPHA) -> Interval:
    """Return the interval of the mean of a block (seeds, images), over both where there are seeds."""
    if len(block) == 1:
        return bootstrap_interval(block[0], strata, share, alpha)
    # The number of seeds was fixed beforehand.
    found = crossed_estimate([block]).planned_interval(alpha)
    return found.within(*FROM_0_TO_1) if share else found


def _difference(one: Trial, other: Trial, column: str, strata: Array | None, alpha: float = ALPHA) -> Interval:
    """Return the interval of one trial's mean minus that of another on the same images, paired by seed if both have.

    Few images that get worse, or none, do not show that no more of them would: their share is bounded as well.
    """
    first, second = one.block(column), other.block(column)
    if len(first) != len(second) and 1 not in (len(first), len(second)):
        # Time ran out for a seed of one of them.
        common = min(len(first), len(second))
        first, second = first[:common], second[:common]
    found, images = _mean(first - second, strata, share=False, alpha=alpha), (first - second).mean(axis=0)
    gains, losses = _bounded(images, alpha), _bounded(-images, alpha)
    low = np.clip(images, 0, None).mean() - losses if losses is not None else found.low
    high = gains - np.clip(-images, 0, None).mean() if gains is not None else found.high
    found = replace(found, low=min(found.low, float(low)), high=max(found.high, float(high)))
    return found.within(-1.0, 1.0)


def _bounded(images: Array, alpha: float) -> float | None:
    """Return an upper bound of the mean of the positive parts of values in [-1, 1], from the share of images with one.

    Clopper and Pearson (1934), for values that are 0 or 1 or that hardly any image has; None for others, whose mean
    varies less than this would say.
    """
    positive = images[images > 0]
    is_share = bool((positive == 1).all())
    if not is_share and len(positive) > FEW:
        return None
    count, n = len(positive), len(images)
    return 1.0 if count == n else float(special.betaincinv(count + 1, n - count, 1 - alpha / 2))


def _beyond_noise(ratio: Interval) -> float:
    """Return a ratio of times, 1 unless its interval lies beyond 10 % more or less."""
    is_beyond = ratio.low > 1 + NOISE_OF_TIMES or ratio.high < 1 / (1 + NOISE_OF_TIMES)
    return ratio.mean if is_beyond else 1.0


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


def choose(found: Sequence[Outcome], strata: Array | None, labelled: bool) -> Outcome | None:
    """Return the outcome to take, None for leaving the network as it is.

    Of those that clearly remove flips and, with labels, for which a loss of accuracy that matters is ruled out: those
    that may be as stable as the most stable one. Of these the fastest; of equals those that may be as accurate as the
    most accurate one, and of these one without training.
    """
    fit = _fit(found, labelled)
    if not fit:
        return None
    ties = _as_good(fit, "flips", strata, lambda one: one.flips.mean)
    ties = [one for one in ties if one.dominated_by not in [other.name for other in ties]]
    fastest = min(one.slowdown for one in ties)
    ties = [one for one in ties if one.slowdown <= fastest * (1 + NOISE_OF_TIMES)]
    ties = _as_good(ties, "right", strata, lambda one: -one.right.mean)
    return min(ties, key=lambda one: (one.trial.remedy.is_trained, one.flips.mean))


def _fit(found: Sequence[Outcome], labelled: bool) -> list[Outcome]:
    """Return the outcomes that may be recommended: without labels nothing is known about accuracy."""
    return [one for one in found if one.is_steadier and (one.keeps_accuracy or not labelled)]


def _as_good(
    found: Sequence[Outcome], column: str, strata: Array | None, rank: Callable[[Outcome], float]
) -> list[Outcome]:
    """Return the outcomes that may be as good as the best by ``rank``: the interval of the difference holds 0."""
    best = min(found, key=rank)
    differences = [_difference(one.trial, best.trial, column, strata) for one in found]
    return [
        one for one, d in zip(found, differences, strict=True) if one is best or d.low <= 0 <= d.high
    ]  # fmt: skip


def sentences_of(found: Sequence[Outcome], chosen: Outcome | None, labelled: bool) -> list[str]:
    """Return the recommendation, what it rests on, and what is to be had without training or without more time."""
    first, what = found[0], "accuracy" if labelled else "agreement with the network as it is"
    now = f"As it is, {with_interval(first.flips)} of the one-pixel steps change the decision"
    sentences = [f"{now}; {what} {with_interval(first.right)}." if labelled else f"{now}."]
    if not labelled:
        sentences.append("Without labels nothing is known about accuracy: a steadier network may decide worse.")
    if len(found) == 1:
        return ["No remedy was tried.", *sentences]
    if chosen is None:
        sentences.insert(0, "Leave it as it is.")
        steadier = [one for one in found if one.is_steadier]
        if steadier:
            best = min(steadier, key=lambda one: one.flips.mean)
            sentences.append(f"No remedy removes flips while a loss of more than a point of {what} is ruled out.")
            sentences.append(f"The steadiest: {_told(best, what)}")
        else:
            sentences.append(f"None of the {len(found) - 1} remedies tried clearly removes a tenth of the changes.")
        return sentences
    sentences.insert(0, f"Take: {_told(chosen, what)}")
    fit = _fit(found, labelled)
    if chosen.trial.remedy.is_trained:
        sentences.append(_best_of([one for one in fit if not one.trial.remedy.is_trained], "Without training", what))
    if chosen.slowdown > LONG:
        sentences.append(_best_of([one for one in fit if one.slowdown <= LONG], "Without much more time", what))
    return sentences


def _best_of(fit: Sequence[Outcome], limit: str, what: str) -> str:
    """Return the most stable of the outcomes within a limit in words."""
    if not fit:
        return f"{limit}, no remedy removes flips while a loss of more than a point of {what} is ruled out."
    return f"{limit}: {_told(min(fit, key=lambda one: one.flips.mean), what)}"


def _told(one: Outcome, what: str) -> str:
    """Return an outcome in words."""
    assert one.flips_change is not None
    assert one.right_change is not None
    ratio = one.slowdown
    if ratio > LONG:
        price = f"An answer takes {ratio:.1f} times as long. "
    else:
        price = f"An answer takes {'about as long' if ratio == 1 else f'{ratio:.2f} times as long'}. "
    return (
        f"{one.name}. {price}The share of steps that change the decision changes by {points(one.flips_change)} to "
        f"{percent(one.flips.mean)}, {what} by {points(one.right_change)}."
    )


def untried_sentences(not_tried: Mapping[str, str]) -> list[str]:
    """Return what was not tried, a sentence per reason."""
    reasons: dict[str, list[str]] = {}
    for name, reason in not_tried.items():
        reasons.setdefault(reason, []).append(name)
    return [f"Not tried ({reason}): {listed(names)}." for reason, names in reasons.items()]
