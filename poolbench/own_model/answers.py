"""The answers in sentences: on stdout, at the top of the page, in the description of the MLflow run."""

from __future__ import annotations

from poolbench.analysis.statistics import Interval
from poolbench.own_model.results import Evaluation

OTHERS = 2  # further downsamplings in the sentence on the cause


def percent(share: float, decimals: int = 1) -> str:
    """Return a share as "3.2 %"."""
    return f"{100 * share:.{decimals}f} %"


def with_interval(interval: Interval, decimals: int = 1) -> str:
    """Return a share with its interval as "3.2 % [2.1, 4.4]"."""
    low, high = (f"{100 * bound:.{decimals}f}" for bound in (interval.low, interval.high))
    return f"{percent(interval.mean, decimals)} [{low}, {high}]"


def points(interval: Interval) -> str:
    """Return a difference of shares with its interval in percentage points as "+1.2 points [+0.4, +2.0]"."""
    # Adding 0 turns a rounded -0.0 into 0.0.
    mean, low, high = (f"{round(100 * value, 1) + 0.0:+.1f}" for value in (interval.mean, interval.low, interval.high))
    return f"{mean} points [{low}, {high}]"


def warnings(found: Evaluation) -> list[str]:
    """Return sentences that a reader must know before the numbers."""
    told = []
    if found.model.is_untrained:
        told.append("The weights are random: these numbers describe an untrained network. Give --weights.")
    if found.is_constant:
        told.append(
            f"{percent(found.commonest)} of the images get the same decision. A network that always decides alike is "
            "stable for no good reason."
        )
    if found.accuracy is not None and len(found.data.classes) > 1:
        chance = 1 / len(found.data.classes)
        if found.accuracy.low <= chance:
            told.append(
                f"The accuracy cannot be told from chance ({percent(chance)}): the network has not learned these "
                "classes, or its classes are in another order than the names of the folders."
            )
    return told


def answers(found: Evaluation) -> list[str]:
    """Return the results in sentences, most important first; brackets are 95 % intervals over images."""
    steps, n = found.steps[0], found.data.images
    told = [
        f"Moving the crop by one pixel changes {with_interval(steps.flips)} of the decisions "
        f"({steps.changes} steps on each of {n:,} images).",
        f"At least one of the {steps.changes} steps changes the decision for {with_interval(steps.flipped)} of images.",
    ]
    if found.accuracy is not None and steps.worst is not None:
        told.append(
            f"Accuracy: {with_interval(found.accuracy)}. Correct before and after all {steps.changes} steps: "
            f"{with_interval(steps.worst)} of the images."
        )
    return [*told, _cause(found)]


def _cause(found: Evaluation) -> str:
    tried = [site for site in found.sites if site.removed is not None]
    if not tried:
        return "The network has no strided convolution or pool that could be anti-aliased."
    if found.compared[0].flips.mean == 0:
        return f"No step changes a decision on the {found.compared_images} compared images: no stride is to blame."
    if not found.causes:
        best, most = max(((site, site.removed) for site in tried if site.removed), key=lambda pair: pair[1].mean)
        return (
            f"No single stride stands out: {len(tried)} downsamplings were anti-aliased, each alone and with unchanged "
            f"weights, on {found.compared_images} images. The largest effect on the changed decisions, of {best.path}, "
            f"is {points(-most)}."
        )
    return _of_causes(found)


def _of_causes(found: Evaluation) -> str:
    first, *others = found.causes
    assert first.removed is not None
    told = (
        f"The stride with the largest effect is {first.path} ({first.kind}, {first.size_in} to {first.size_out} px): "
        f"anti-aliased alone, weights unchanged, it takes the changed decisions from {percent(first.flips_before)} to "
        f"{percent(first.flips_after)} ({points(-first.removed)}) on {found.compared_images} images"
    )
    if first.accuracy_change is not None:
        told += f"; the accuracy changes by {points(first.accuracy_change)}"
    more = ", ".join(f"{site.path} ({points(-site.removed)})" for site in others[:OTHERS] if site.removed)
    return f"{told}. Also with an effect beyond its interval: {more}." if more else f"{told}."
