"""The findings of an inspection in sentences: on stdout and at the top of the page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from poolbench.inspect.class_maps import Answered, ClassHead
from poolbench.inspect.findings import Inspection, NetworkFindings
from poolbench.inspect.saliency import METHODS, Kept
from poolbench.own_model.answers import percent, points, with_interval

LEAST_VALUES = 100
"""Values of a unit, over images and positions, below which it is not called dead or a copy."""
FEW = 30
"""Below so many images shares of dead and duplicate units say little."""


def warnings(found: Inspection) -> list[str]:
    """Return sentences that a reader must know before the numbers."""
    told = []
    if found.is_untrained:
        told.append("The weights are random: maps and numbers are those of an untrained network. Give --weights.")
    if found.images < FEW:
        told.append(
            f"Numbers of units are measured on {counted(found.images, 'image')}: a unit that is dead here may answer "
            "to others. Give --data for more."
        )
    first = found.networks[0]
    if first.accuracy is not None and len(found.classes) > 1 and first.accuracy.low <= 1 / len(found.classes):
        told.append(
            f"The accuracy, {with_interval(first.accuracy)} of {first.accuracy.n:,} images, cannot be told from "
            "chance: the network has not learned these classes."
        )
    return told


def answers(found: Inspection) -> list[str]:
    """Return the findings in sentences, for the network as it is, then for each pool; brackets are 95 % intervals."""
    first, *others = found.networks
    told = [_of_units(first), _of_depth(first), _of_classes(first), _of_saliency(first)]
    return told + [_of_pool(other, first) for other in others]


def _of_pool(other: NetworkFindings, first: NetworkFindings) -> str:
    """Return the sentence on a network with other pools beside the original."""
    parts = []
    if other.accuracy is not None and first.accuracy is not None:
        parts.append(
            f"accuracy {with_interval(other.accuracy)} instead of {with_interval(first.accuracy)} of "
            f"{counted(other.accuracy.n, 'image')}"
        )
    last, before = other.stages[-1].invariance, first.stages[-1].invariance
    if last.shift_max is not None and before.shift_max is not None:
        parts.append(
            f"maxima of the last maps change by {percent(last.shift_max)} instead of {percent(before.shift_max)} when "
            f"the image moves by 1 px ({counted(last.images, 'image')})"
        )
    decided = [a.decision != b.decision for a, b in zip(other.looks, first.looks, strict=True)]
    parts.append(f"{sum(decided)} of {counted(len(decided), 'shown image')} decided otherwise")
    return f"With pool {other.name}, weights kept: {'; '.join(parts)}."


def counted(number: int, what: str) -> str:
    """Return "1 image", "3 images"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _of_units(network: NetworkFindings) -> str:
    units = sum(stage.shape[0] for stage in network.stages)
    dead = sum(len(stage.units.dead) for stage in network.stages)
    copies = sum(len(stage.units.duplicates) for stage in network.stages)
    last = network.stages[-1]
    values = last.units.images * last.shape[1] * last.shape[2]
    told = f"{counted(units, 'unit')} in {counted(len(network.stages), 'stage')}"
    if values < LEAST_VALUES:
        return (
            f"{told}. Which of them are dead or copies is not said: {counted(last.units.images, 'image')} gives "
            f"{counted(values, 'value')} per unit of the last stage, and that takes {LEAST_VALUES}."
        )
    return (
        f"{told}: {dead} never answer and {copies} copy another one, over {counted(last.units.images, 'image')}. In "
        f"the last stage: {len(last.units.dead)} and {len(last.units.duplicates)} of {last.shape[0]}."
    )


def _of_depth(network: NetworkFindings) -> str:
    first, last = network.stages[0], network.stages[-1]
    told = f"The last maps have {last.shape[1]}x{last.shape[2]} positions, the first {first.shape[1]}x{first.shape[2]}."
    one, other = first.invariance.follows, last.invariance.follows
    if one is None or other is None:
        return told
    base = last.invariance.other
    against = "" if base is None else f" ({base:.2f} with another image)"
    return (
        f"{told} Turn the image by 10° and turn its maps back: they correlate with the maps of the upright image by "
        f"{other:.2f} in the last stage{against} and by {one:.2f} in the first; noise would give 0 "
        f"({counted(last.invariance.images, 'image')}, median over units)."
    )


def _of_classes(network: NetworkFindings) -> str:
    if network.head is None or network.answered is None:
        return "The network has no class maps: its head is not a global pool followed by at most one linear layer."
    return of_answered(network.head, network.answered)


def of_answered(head: ClassHead, found: Answered) -> str:
    """Return the sentence on what mean and maximum of the class maps would decide."""
    others = [("maximum", found.by_max, found.max_gain, found.same_max)] if head.pool != "max" else []
    others += [("mean", found.by_mean, found.mean_gain, found.same_mean)] if head.pool != "avg" else []
    images = counted(found.images, "image")
    if found.own is None:
        parts = [
            f"the {name} of the class maps decides the same for {with_interval(same)}" for name, _, _, same in others
        ]
        return f"Head {head.pool}: {' and '.join(parts)} of {images}."
    parts = [
        f"the {name} of the class maps would be right for {with_interval(right)} ({points(gain)})"
        for name, right, gain, _ in others
        if right is not None and gain is not None
    ]
    return f"Head {head.pool}, accuracy {with_interval(found.own)} of {images}: {' and '.join(parts)}."


def _of_saliency(network: NetworkFindings) -> str:
    parts = []
    for method, name in METHODS.items():
        kept = [one for look in network.looks for one in look.saliency if one.method == method]
        shift, turn = mean_of(kept, "shift"), mean_of(kept, "turn")
        if shift is not None or turn is not None:
            parts.append(f"{name} {number(shift)} and {number(turn)}")
    return (
        "Rank correlation of the saliency map with that of the image moved by 1 px, and turned by 10°, moved back: "
        f"{', '.join(parts) or 'undefined, the maps are constant'} (mean of {counted(len(network.looks), 'image')})."
    )


def mean_of(kept: Sequence[Kept], name: str) -> float | None:
    """Return the mean of a rank correlation over the images where it is defined, None where there is none."""
    values = [value for one in kept if (value := getattr(one, name)) is not None]
    return fmean(values) if values else None


def number(value: float | None) -> str:
    """Return a correlation with two decimals, "-" for none."""
    return "-" if value is None else f"{value:.2f}"
