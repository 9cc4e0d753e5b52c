"""Whether the order of poolings survives tuning: the same comparisons with default and with tuned hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from poolbench.analysis.choices import is_ahead
from poolbench.analysis.effects import lead_interval
from poolbench.analysis.groups import Group
from poolbench.analysis.images import NO_IMAGES, ImageValues
from poolbench.analysis.statistics import Interval
from poolbench.analysis.text import change_text, listed, number_text
from poolbench.core import Metric

Fate = Literal["kept", "reversed", "lost", "found", "open"]
"""What tuning does to the order of two rivals.

The same one is ahead, the other one is; only before, only after; neither is ahead by more than the noise at any time.
"""
SAID: Mapping[Fate, str] = {
    "kept": "the order stays",
    "reversed": "the order is reversed",
    "lost": "the lead is gone",
    "found": "a lead appears",
    "open": "not decided",
}


@dataclass(frozen=True)
class Rival:
    """One value of a choice, such as a head: its group with default and with tuned hyperparameters.

    They are one group where tuning found nothing better than the default.
    """

    name: str
    default: Group
    tuned: Group

    @property
    def is_changed(self) -> bool:
        """Whether tuning found other hyperparameters than the default."""
        return self.default.id != self.tuned.id


@dataclass(frozen=True)
class Gain:
    """What a rival gains by tuning on the test images, as text; ``interval`` is None where there is no common seed."""

    rival: Rival
    before: str
    after: str
    change: str
    interval: Interval | None


@dataclass(frozen=True)
class Pair:
    """The lead of one rival over another before and after tuning, and what tuning does to it."""

    first: str
    second: str
    before: str
    after: str
    fate: Fate

    @property
    def said(self) -> str:
        """The fate in words."""
        return SAID[self.fate]


@dataclass(frozen=True)
class Survival:
    """All rivals of a choice in one metric: gains, pairs, and what they come to in sentences."""

    metric: Metric
    gains: Sequence[Gain]
    pairs: Sequence[Pair]
    sentences: Sequence[str]


def survival(rivals: Sequence[Rival], metric: Metric, images: ImageValues = NO_IMAGES) -> Survival:
    """Return what tuning changes among rivals, paired by seed.

    Intervals are at 95 % each, without a correction for their number. Raises ValueError for fewer than two rivals.
    """
    if len(rivals) < 2:
        raise ValueError(f"at least two rivals compare, got {len(rivals)}")
    gains = [_gain(rival, metric, images) for rival in rivals]
    pairs = [_pair(one, other, metric, images) for one, other in combinations(rivals, 2)]
    return Survival(metric, gains, pairs, _sentences(gains, pairs, metric))


def _gain(rival: Rival, metric: Metric, images: ImageValues) -> Gain:
    texts = [number_text(group, metric, images=images) for group in (rival.default, rival.tuned)]
    if not rival.is_changed:
        return Gain(rival, texts[0], texts[1], "0 (the default is kept)", None)
    found = lead_interval(rival.tuned, rival.default, metric, images)
    return Gain(rival, texts[0], texts[1], _text(found, metric), found)


def _pair(one: Rival, other: Rival, metric: Metric, images: ImageValues) -> Pair:
    before = lead_interval(one.default, other.default, metric, images)
    after = lead_interval(one.tuned, other.tuned, metric, images)
    fate = fate_of(_ahead(before, metric), _ahead(after, metric))
    return Pair(one.name, other.name, _text(before, metric), _text(after, metric), fate)


def fate_of(before: int, after: int) -> Fate:
    """Return what happened to a lead; each is 1 if the first rival is ahead, -1 if the second is, 0 if neither is."""
    if not before or not after:
        return "lost" if before else "found" if after else "open"
    return "kept" if before == after else "reversed"


def _ahead(lead: Interval | None, metric: Metric) -> int:
    if lead is None or not lead.is_bounded:
        return 0
    if is_ahead(lead, metric):
        return 1
    beyond = lead.high < 1 or lead.low > 1 if metric.scale == "log" else lead.high < 0 or lead.low > 0
    return -1 if beyond else 0


def _text(lead: Interval | None, metric: Metric) -> str:
    return "-" if lead is None else change_text(lead, metric, metric.scale == "log")


def _sentences(gains: Sequence[Gain], pairs: Sequence[Pair], metric: Metric) -> list[str]:
    found: dict[str, list[Pair]] = {fate: [pair for pair in pairs if pair.fate == fate] for fate in SAID}
    clear = len(pairs) - len(found["open"]) - len(found["found"])
    title = metric.title[:1].upper() + metric.title[1:]
    sentences = [f"{title} after tuning: {listed([f'{one.rival.name} {one.after}' for one in gains])}."]
    sentences.append(
        f"With default hyperparameters {clear or 'none'} of {len(pairs)} pairs {_has(clear)} a clear order."
    )
    if clear:
        fates = {"keeps": found["kept"], "reverses": found["reversed"], "leaves undecided": found["lost"]}
        sentences[-1] += f" Tuning {listed([f'{verb} {len(own)}' for verb, own in fates.items() if own])} of these."
    if found["found"]:
        count = len(found["found"])
        sentences[-1] += f" {count} more {'becomes' if count == 1 else 'become'} clear by tuning."
    sentences += [
        f"Reversed: {pair.first} against {pair.second}, {pair.before} before, {pair.after} after."
        for pair in found["reversed"]
    ]
    return sentences


def _has(count: int) -> str:
    return "has" if count < 2 else "have"
