"""Whether the order of poolings survives tuning: the same comparisons with default and with tuned hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from poolbench.analysis.choices import is_ahead
from poolbench.analysis.effects import estimate, group_points, lead_interval, paired, unscaled_difference
from poolbench.analysis.groups import Group
from poolbench.analysis.images import NO_IMAGES, ImageValues
from poolbench.analysis.statistics import Interval
from poolbench.analysis.text import change_text, listed, number_text
from poolbench.core import Metric

Fate = Literal["changed", "reversed", "same"]
"""What tuning does to the lead of one rival over another.

It changes by more than the noise; it changes, and the other one is ahead then; or no change can be told from the noise.
"""
SAID: Mapping[Fate, str] = {
    "changed": "changes the lead",
    "reversed": "reverses the order",
    "same": "no change beyond the noise",
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
    """The lead of one rival over another before and after tuning, its change, and what that says.

    ``was_clear`` and ``is_clear``: one of the two is ahead by more than the noise, before and after. A lead that is
    clear only once is no evidence of a change.
    """

    first: str
    second: str
    before: str
    after: str
    change: str
    fate: Fate
    was_clear: bool
    is_clear: bool

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
    change = _change(one, other, metric, images)
    sides = _ahead(before, metric), _ahead(after, metric)
    fate = fate_of(*sides, changed=bool(_ahead(change, metric)))
    then, now, by = (_text(found, metric) for found in (before, after, change))
    return Pair(one.name, other.name, then, now, by, fate, bool(sides[0]), bool(sides[1]))


def _change(one: Rival, other: Rival, metric: Metric, images: ImageValues) -> Interval | None:
    """Return the lead after tuning minus the lead before, paired by seed; a ratio for logarithmic metrics."""
    groups = ((one.tuned, other.tuned), (one.default, other.default))
    after, before = (paired(*(group_points(group, metric, images) for group in sides)) for sides in groups)
    points = paired(after, before)
    return unscaled_difference(estimate(points).interval(), metric, order=2) if points else None


def fate_of(before: int, after: int, changed: bool) -> Fate:
    """Return what happens to a lead.

    ``before`` and ``after`` are 1 if the first rival is ahead, -1 if the second is, 0 if neither is by more than the
    noise; ``changed`` says whether the change of the lead is more than the noise.
    """
    if not changed:
        return "same"
    return "reversed" if before * after < 0 else "changed"


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
    title, total = metric.title[:1].upper() + metric.title[1:], len(pairs)
    changed = [pair for pair in pairs if pair.fate != "same"]
    clear = [sum(pair.was_clear for pair in pairs), sum(pair.is_clear for pair in pairs)]
    names = listed([f"{pair.first} over {pair.second} by {pair.change}" for pair in changed])
    return [
        f"{title} after tuning: {listed([f'{one.rival.name} {one.after}' for one in gains])}.",
        f"One of two is ahead by more than the noise in {clear[0]} of {total} {_pairs(total)} with default "
        f"hyperparameters, in {clear[1]} with tuned ones.",
        f"Tuning changes the lead of {names}."
        if changed
        else f"In none of the {_pairs(total)} does tuning change the lead by more than the noise.",
        *(f"Reversed: {pair.first} over {pair.second}." for pair in changed if pair.fate == "reversed"),
    ]


def _pairs(count: int) -> str:
    return "pair" if count == 1 else "pairs"
