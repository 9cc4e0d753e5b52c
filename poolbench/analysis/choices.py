"""Which pool or head to take: ranks beyond the noise, prices against a reference, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from poolbench.analysis.effects import group_interval, lead_interval
from poolbench.analysis.frames import results_frame, varying_fields
from poolbench.analysis.groups import Group, groups_of
from poolbench.analysis.images import NO_IMAGES, ImageValues
from poolbench.analysis.statistics import LEAST_SEEDS, Interval
from poolbench.analysis.text import change_text, interval_text, listed, term
from poolbench.choice import Choice
from poolbench.core import Metric, Result

TIME = "cost_forward_ms"
NOISE_OF_TIMES = 0.1
"""Relative difference of two times that may be noise."""


@dataclass(frozen=True)
class Score:
    """A candidate in one metric: mean with interval, and 1 + the number of candidates that are better beyond the noise.

    ``rank`` is None with too few seeds for an interval.
    """

    interval: Interval
    text: str
    rank: int | None


@dataclass(frozen=True)
class Candidate:
    """One value of the field. ``time`` is that of a forward pass of 16 images in ms, None if unknown.

    ``dominated_by`` is a candidate that is better beyond the noise in a metric or in time, and by its means no worse in
    the others; "" on the Pareto front.
    """

    name: str
    group: Group
    scores: Sequence[Score]
    time: float | None
    dominated_by: str = ""


@dataclass(frozen=True)
class Weighing:
    """A choice in one setting: its candidates, the best mean of the first metric first, and their sentences."""

    choice: Choice
    setting: str
    metrics: Sequence[Metric]
    candidates: Sequence[Candidate]
    sentences: Sequence[str]


def weighings(
    choice: Choice, metrics: Sequence[Metric], results: Sequence[Result], images: ImageValues = NO_IMAGES
) -> Iterator[Weighing]:
    """Yield a weighing per setting in which two candidates or more have learned.

    ``metrics`` are those of the benchmark, ``results`` its finished cells. Raises KeyError for a metric of the choice
    that the benchmark lacks.
    """
    known = {metric.name: metric for metric in metrics}
    chosen = [known[name] for name in choice.metrics]
    conditions = choice.where.items()
    groups = [
        group
        for group in groups_of(results)
        if choice.field in group.fields
        and all(group.fields.get(name) == value for name, value in conditions)
        and all(group.values(metric.name) for metric in chosen)
    ]
    for setting, members in _settings(choice, groups).items():
        values = [group.fields[choice.field] for group in members]
        # Two groups with one value differ in something that a setting does not name.
        if len(members) > 1 and len(set(values)) == len(members):
            candidates = _candidates(choice, chosen, members, images)
            lead = f"{choice.lead}, {setting}" if setting else choice.lead
            yield Weighing(choice, setting, chosen, candidates, _sentences(choice, lead, candidates, chosen, images))


def _settings(choice: Choice, groups: Sequence[Group]) -> dict[str, list[Group]]:
    """Return {setting: groups} by the fields that vary besides that of the choice and what it determines."""
    if not groups:
        return {}
    frame = results_frame([result for group in groups for result in group.results])
    varying = varying_fields(frame, given=[choice.field])
    found: dict[str, list[Group]] = {}
    for group in groups:
        title = " ".join(term(name, group.fields[name]) for name in varying if name in group.fields)
        found.setdefault(title, []).append(group)
    return found


def _candidates(
    choice: Choice, metrics: Sequence[Metric], groups: Sequence[Group], images: ImageValues
) -> list[Candidate]:
    """Return the candidates, the best in the first metric first."""
    ahead = {
        (metric.name, one.id, other.id): _is_ahead(one, other, metric, images)
        for metric in metrics
        for one in groups
        for other in groups
        if one is not other
    }

    def score(group: Group, metric: Metric) -> Score:
        interval = group_interval(group, metric, images)
        assert interval is not None  # groups without a value were left out
        against = [ahead[metric.name, other.id, group.id] for other in groups if other is not group]
        rank = None if None in against else 1 + against.count(True)
        return Score(interval, interval_text(interval, metric), rank)

    found = [
        Candidate(str(group.fields[choice.field]), group, [score(group, metric) for metric in metrics], _time(group))
        for group in groups
    ]
    sign = 1 if metrics[0].higher_is_better else -1
    found.sort(key=lambda one: -sign * one.scores[0].interval.mean)

    def dominates(one: Candidate, other: Candidate) -> bool:
        if one is other or not _is_no_worse(one, other, metrics):
            return False
        return any(ahead[metric.name, one.group.id, other.group.id] for metric in metrics) or _is_faster(one, other)

    return [
        replace(one, dominated_by=next((other.name for other in found if dominates(other, one)), "")) for one in found
    ]


def _is_ahead(one: Group, other: Group, metric: Metric, images: ImageValues) -> bool | None:
    """Return whether a group is better than another beyond the noise, None with too few common seeds."""
    lead = lead_interval(one, other, metric, images)
    if lead is None or not lead.is_bounded:
        return None
    nothing = 1.0 if metric.scale == "log" else 0.0
    return lead.low > nothing if metric.higher_is_better else lead.high < nothing


def _is_no_worse(one: Candidate, other: Candidate, metrics: Sequence[Metric]) -> bool:
    """Return whether the means of a candidate are at least as good, and it is not slower."""
    for metric, mine, theirs in zip(metrics, one.scores, other.scores, strict=True):
        sign = 1 if metric.higher_is_better else -1
        if sign * (mine.interval.mean - theirs.interval.mean) < 0:
            return False
    return not _is_faster(other, one)


def _is_faster(one: Candidate, other: Candidate) -> bool:
    """Return whether a candidate is faster by more than times scatter."""
    return one.time is not None and other.time is not None and one.time * (1 + NOISE_OF_TIMES) < other.time


def _time(group: Group) -> float | None:
    """Return the shortest forward pass of a group's networks: other work on the machine only ever adds time."""
    times = [*group.values(TIME).values(), *group.unlearned_values(TIME).values()]
    return min(times) if times else None


def _sentences(
    choice: Choice, lead: str, candidates: Sequence[Candidate], metrics: Sequence[Metric], images: ImageValues
) -> list[str]:
    values = listed([f"{one.name} {one.scores[0].text}" for one in candidates])
    sentences = [f"{lead}: {values}. {_order(candidates)}"]
    reference = next((one for one in candidates if one.group.fields[choice.field] == choice.reference), None)
    if reference is None:
        return sentences
    for one in candidates:
        if one is not reference:
            changes = [_change(one, reference, metric, images) for metric in metrics]
            changes += _slower(one, reference)
            sentences.append(f"{one.name} instead of {reference.name}: {', '.join(changes)}.")
    return sentences


def _order(candidates: Sequence[Candidate]) -> str:
    """Return a sentence on who is first in the first metric, and how sure that is."""
    first = [one.name for one in candidates if one.scores[0].rank == 1]
    if any(one.scores[0].rank is None for one in candidates):
        return f"With fewer than {LEAST_SEEDS} seeds there is no order."
    if len(first) == len(candidates):
        return "The noise leaves no order among them."
    if len(first) > 1:
        return f"{listed(first)} share first place: no other is ahead of them by more than the noise."
    others = "all others" if len(candidates) > 2 else "the other"
    return f"{first[0]} is ahead of {others} by more than the noise."


def _change(one: Candidate, reference: Candidate, metric: Metric, images: ImageValues) -> str:
    lead = lead_interval(one.group, reference.group, metric, images)
    return f"{metric.title} {change_text(lead, metric, metric.scale == 'log') if lead else 'not compared'}"


def _slower(one: Candidate, reference: Candidate) -> list[str]:
    """Return what a forward pass costs against the reference, in words; [] if unknown."""
    if one.time is None or not reference.time:
        return []
    change = one.time / reference.time - 1
    if abs(change) < NOISE_OF_TIMES:
        return ["about the same time"]
    return [f"{abs(change) * 100:.0f} % {'more' if change > 0 else 'less'} time"]
