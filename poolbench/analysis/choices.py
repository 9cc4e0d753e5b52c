"""Which pool or head to take: ranks beyond the noise, prices against a reference, and the Pareto front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from poolbench.analysis.effects import group_interval, lead_interval
from poolbench.analysis.frames import results_frame, varying_fields
from poolbench.analysis.groups import Group, groups_of
from poolbench.analysis.images import NO_IMAGES, ImageValues
from poolbench.analysis.statistics import LEAST_SEEDS, Interval
from poolbench.analysis.tables import FirstPlace, first_place
from poolbench.analysis.text import change_text, interval_text, listed, term
from poolbench.choice import Choice
from poolbench.core import Metric, Result

TIME = "cost_forward_ms"
NOISE_OF_TIMES = 0.1
"""Two times may differ by this part by chance."""


@dataclass(frozen=True)
class Score:
    """A candidate in one metric: its mean with the interval, and 1 + the number of candidates that are ahead of it.

    Ahead means better by more than the noise. ``rank`` is None where no pair has seeds enough for an interval.
    ``is_best``: ahead of all others; ``is_tied``: it shares first place.
    """

    interval: Interval
    text: str
    rank: int | None
    is_best: bool
    is_tied: bool


@dataclass(frozen=True)
class Candidate:
    """One value of the field. ``time`` is that of a forward pass of 16 images in ms on ``device``, None if unknown.

    ``dominated_by`` is a candidate that is ahead of this one in a metric or in time, and by its means no worse in the
    others; "" on the Pareto front. Each comparison is made at 95 %, so with many candidates some are wrong.
    """

    name: str
    group: Group
    scores: Sequence[Score]
    time: float | None
    device: str
    dominated_by: str = ""

    def slowdown(self, other: Candidate) -> float:
        """Return this candidate's time over the other's; 1 if a difference may be noise or times do not compare."""
        if self.time is None or not other.time or self.device != other.device:
            return 1.0
        ratio = self.time / other.time
        return 1.0 if 1 / (1 + NOISE_OF_TIMES) <= ratio <= 1 + NOISE_OF_TIMES else ratio


@dataclass(frozen=True)
class Weighing:
    """A choice in one setting: its candidates, the best mean of the first metric first, and their sentences."""

    choice: Choice
    setting: str
    metrics: Sequence[Metric]
    candidates: Sequence[Candidate]
    sentences: Sequence[str]


Leads = Mapping[tuple[str, str, str], Interval]
"""{(metric, group, other group): lead of the first over the second}, for pairs with seeds enough for an interval."""


def weighings(
    choice: Choice, metrics: Sequence[Metric], results: Sequence[Result], images: ImageValues = NO_IMAGES
) -> Iterator[Weighing]:
    """Yield a weighing per setting with two candidates or more that have all metrics of the choice.

    ``metrics`` are those of the benchmark, ``results`` its finished cells. Networks that have not learned do not count.
    Raises KeyError for a metric of the choice that the benchmark lacks.
    """
    known = {metric.name: metric for metric in metrics}
    chosen = [known[name] for name in choice.metrics]
    groups = [
        group
        for group in groups_of(results)
        if choice.field in group.fields
        and all(group.fields.get(name) == value for name, value in choice.where.items())
        and all(group.values(metric.name) for metric in chosen)
    ]
    for setting, members in _settings(choice, groups).items():
        if len(members) < 2:
            continue
        leads = _leads(chosen, list(members.values()), images)
        candidates = _candidates(members, chosen, leads, images)
        lead = f"{choice.lead}, {setting}" if setting else choice.lead
        yield Weighing(choice, setting, chosen, candidates, _sentences(choice, lead, candidates, chosen, leads))


def _settings(choice: Choice, groups: Sequence[Group]) -> dict[str, dict[str, Group]]:
    """Return {setting: {candidate: group}}.

    A candidate is named by the field's value and, if they vary, its options ("lp p=2"). The setting holds the other
    fields that vary and do not follow from these.
    """
    if not groups:
        return {}
    frame = results_frame([result for group in groups for result in group.results])
    options = [name for name in frame.columns if name.startswith(f"{choice.field}.") and frame[name].nunique() > 1]
    varying = varying_fields(frame, given=[choice.field, *options])
    found: dict[str, dict[str, Group]] = {}
    for group in groups:
        setting = " ".join(term(name, group.fields[name]) for name in varying if name in group.fields)
        own = [f"{name.partition('.')[2]}={group.fields[name]}" for name in options if name in group.fields]
        # Without quotes, "none is ahead" would say that nobody is.
        value = "'none'" if group.fields[choice.field] == "none" else str(group.fields[choice.field])
        found.setdefault(setting, {})[" ".join([value, *own])] = group
    return found


def _leads(metrics: Sequence[Metric], groups: Sequence[Group], images: ImageValues) -> Leads:
    found: dict[tuple[str, str, str], Interval] = {}
    for metric in metrics:
        for one, other in combinations(groups, 2):
            lead = lead_interval(one, other, metric, images)
            if lead is not None and lead.is_bounded:
                found[metric.name, one.id, other.id] = lead
                found[metric.name, other.id, one.id] = _reversed(lead, metric)
    return found


def _reversed(lead: Interval, metric: Metric) -> Interval:
    if metric.scale == "log":
        return Interval(1 / lead.mean, 1 / lead.high, 1 / lead.low, lead.n)
    return -lead


def _candidates(
    members: Mapping[str, Group], metrics: Sequence[Metric], leads: Leads, images: ImageValues
) -> list[Candidate]:
    """Return the candidates, the best mean of the first metric first."""
    groups = list(members.values())
    columns = [_scores(metric, groups, leads, images) for metric in metrics]
    found = [
        Candidate(name, group, scores, group.least(TIME), _device(group))
        for (name, group), scores in zip(members.items(), zip(*columns, strict=True), strict=True)
    ]
    found.sort(key=lambda one: -metrics[0].sign * one.scores[0].interval.mean)
    return [
        replace(
            one, dominated_by=next((other.name for other in found if _dominates(other, one, metrics, leads)), "")
        )
        for one in found
    ]  # fmt: skip


def _scores(metric: Metric, groups: Sequence[Group], leads: Leads, images: ImageValues) -> list[Score]:
    """Return the score of every group in one metric."""
    first = first_place([group for group in groups if len(group.values(metric.name)) >= LEAST_SEEDS], metric, images)
    return [_score(metric, group, groups, leads, first, images) for group in groups]


def _score(
    metric: Metric, group: Group, groups: Sequence[Group], leads: Leads, first: FirstPlace, images: ImageValues
) -> Score:
    interval = group_interval(group, metric, images)
    assert interval is not None  # groups without a value were left out
    against = [leads.get((metric.name, other.id, group.id)) for other in groups]
    known = [is_ahead(lead, metric) for lead in against if lead is not None]
    rank = 1 + known.count(True) if known else None
    return Score(interval, interval_text(interval, metric), rank, first.best == group.id, group.id in first.tied)


def is_ahead(lead: Interval, metric: Metric) -> bool:
    """Return whether a lead (a ratio for logarithmic metrics) is one for the better by more than the noise."""
    return min(_gain(lead.low, metric), _gain(lead.high, metric)) > 0


def _gain(lead: float, metric: Metric) -> float:
    """Return a number that is above 0 if a lead is one for the better, below 0 if for the worse."""
    return metric.sign * (lead - (1.0 if metric.scale == "log" else 0.0))


def _dominates(one: Candidate, other: Candidate, metrics: Sequence[Metric], leads: Leads) -> bool:
    """Return whether a candidate is ahead in a metric or in time, and by its means no worse in the others."""
    found = [leads.get((metric.name, one.group.id, other.group.id)) for metric in metrics]
    if one is other or None in found or one.slowdown(other) > 1:
        return False
    pairs = [(lead, metric) for lead, metric in zip(found, metrics, strict=True) if lead is not None]
    if any(_gain(lead.mean, metric) < 0 for lead, metric in pairs):
        return False
    return any(is_ahead(lead, metric) for lead, metric in pairs) or one.slowdown(other) < 1


def _device(group: Group) -> str:
    """Return the devices on which a group ran, as text; times of different ones do not compare."""
    facts = (result.facts.get("environment", {}) for result in group.results)
    return ", ".join(sorted({str(found.get("device_name", found.get("device", ""))) for found in facts}))


def _sentences(
    choice: Choice, lead: str, candidates: Sequence[Candidate], metrics: Sequence[Metric], leads: Leads
) -> list[str]:
    values = listed([f"{one.name} {one.scores[0].text}" for one in candidates])
    sentences = [f"{lead}: {values}. {_order(candidates)}"]
    reference = next((one for one in candidates if one.group.fields[choice.field] == choice.reference), None)
    if reference is None:
        return sentences
    for one in candidates:
        if one is not reference:
            changes = [_change(one, reference, metric, leads) for metric in metrics]
            changes += _slower(one, reference)
            sentences.append(f"{one.name} instead of {reference.name}: {', '.join(changes)}.")
    return sentences


def _order(candidates: Sequence[Candidate]) -> str:
    """Return a sentence on who is first in the first metric, and how sure that is."""
    best = [one.name for one in candidates if one.scores[0].is_best]
    tied = [one.name for one in candidates if one.scores[0].is_tied]
    if best:
        others = "all others" if len(candidates) > 2 else "the other"
        if any(one.scores[0].rank is None for one in candidates):
            others = f"all others that have {LEAST_SEEDS} seeds or more"
        return f"{best[0]} is ahead of {others} by more than the noise."
    if len(tied) == len(candidates):
        return "None is ahead by more than the noise."
    if tied:
        rest = "the other" if len(tied) == 2 else "the others"
        return f"{listed(tied)} share first place: {tied[0]} is not ahead of {rest} by more than the noise."
    return f"Nothing is said about first place: that takes {LEAST_SEEDS} common seeds."


def _change(one: Candidate, reference: Candidate, metric: Metric, leads: Leads) -> str:
    lead = leads.get((metric.name, one.group.id, reference.group.id))
    if lead is None:
        return f"{metric.title} not compared (fewer than {LEAST_SEEDS} common seeds)"
    return f"{metric.title} {change_text(lead, metric, metric.scale == 'log')}"


def _slower(one: Candidate, reference: Candidate) -> list[str]:
    """Return what a forward pass costs against the reference, in words; [] where times do not compare."""
    if one.time is None or reference.time is None or one.device != reference.device:
        return []
    change = one.slowdown(reference) - 1
    if change == 0:
        return ["about the same time"]
    return [f"{abs(change) * 100:.0f} % {'more' if change > 0 else 'less'} time"]
