"""Published claims, judged on results paired by seed."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

import pandas as pd

from poolbench.analysis.effects import Key, Point, estimate, mean_point, paired, point, scaled_margin, unscaled
from poolbench.analysis.frames import fields_of, varying_fields
from poolbench.analysis.images import NO_IMAGES, Array, ImageValues, scaled
from poolbench.analysis.reach import NOT_A_TEST, within_reach
from poolbench.analysis.statistics import ALPHA, Estimate, Interval, further_seeds
from poolbench.claim import Claim
from poolbench.core import Metric, Scalar

Ruling = Literal[
    "holds",
    "holds, too small to matter",
    "no difference that matters",
    "does not hold, too small to matter",
    "does not hold",
    "depends on the setting",
    "undecided",
    "not a test of this claim",
]
MOST_SEEDS = 1000
FOR: frozenset[Ruling] = frozenset({"holds"})
AGAINST: frozenset[Ruling] = frozenset(
    {"does not hold", "does not hold, too small to matter", "no difference that matters"}
)


@dataclass(frozen=True)
class Verdict:
    """What the results say about a claim.

    ``effect`` is the mean effect with its interval, which holds at 95 % whenever one looks, signed so that positive
    values (ratios above 1 where ``is_ratio``) support the claim; None with fewer than two seeds. ``note`` names what
    weakens or prevents the ruling. ``further`` is the number of further seeds expected to decide an undecided claim,
    None if unknown. ``networks`` counts the networks that the claim compares, 0 if there are none to compare: one of
    its sides has none, or its sides differ in more than the claim names. ``margin`` is the difference that nobody would
    act on; a difference of logarithms for ratios. ``estimate`` is what the effect was made of, on the metric's scale.
    ``settings`` counts the settings that were also judged one by one.
    """

    claim: Claim
    ruling: Ruling
    effect: Interval | None
    note: str = ""
    is_ratio: bool = False
    further: int | None = None
    networks: int = 0
    margin: float = 0.0
    estimate: Estimate | None = None
    settings: int = 1


@dataclass(frozen=True)
class _Sides:
    """The rows of a claim: of both sides, or of all its cells; a second pair for ``than``."""

    sets: Sequence[pd.DataFrame]

    @property
    def total(self) -> int:
        return sum(map(len, self.sets))

    @property
    def all_present(self) -> bool:
        return all(map(len, self.sets))


def judge(
    claim: Claim,
    benchmark: str,
    metrics: Sequence[Metric],
    frame: pd.DataFrame,
    preset: str = "",
    images: ImageValues = NO_IMAGES,
) -> Verdict:
    """Judge one claim of a benchmark on a results frame that holds the cells of one ``preset``.

    Cells are paired if they agree in seed and in every field that the claim does not fix (a setting). The effects of a
    seed are averaged over the settings, so n is the number of seeds; where settings contradict each other, the ruling
    says where. Networks that have not learned are left out. Intervals cover seeds, and images where ``images`` has
    their values. See :func:`ruling_of` for the rulings and :class:`Reach` for where a claim may be judged.
    """
    metric = {metric.name: metric for metric in metrics}[claim.metric]
    rows = frame[frame["benchmark"] == benchmark]
    everyone = _sides(claim, rows[rows["metric"] == metric.name])
    learned = _Sides([side[side["learned"].astype(bool)] for side in everyone.sets])
    networks = everyone.total if everyone.all_present else 0
    notes = [_left_out("not learned", everyone, learned)]
    accuracies = rows[rows["metric"] == "accuracy"].set_index("cell")["value"]
    reached, why = within_reach(claim.reach, learned.sets, preset, accuracies)
    judged = learned if why else _Sides(reached)
    notes.append(_left_out("out of reach of the claim", learned, judged))
    effects, level, fields = _effects(claim, metrics, rows, judged, images)
    if len({seed for seed, _ in effects}) < 2:
        # Not for want of networks that have learned: those are told beside the claim.
        networks = 0 if _confounding(claim, everyone) else networks
        differing = _confounding(claim, judged)
        also = f"its two sides differ in {', '.join(differing)} as well"
        notes.insert(0, also if differing else "fewer than two pairs")
        return Verdict(claim, NOT_A_TEST if why else "undecided", None, _joined([*notes, why]), networks=networks)
    found = _estimate(claim, effects)
    margin = scaled_margin(metric.tolerance if claim.margin is None else claim.margin, level, metric)
    effect = unscaled(found.interval(), metric).within(*effect_bounds(claim, metrics))
    is_ratio = metric.scale == "log"
    if why:
        return Verdict(claim, NOT_A_TEST, effect, _joined([why, *notes]), is_ratio, None, networks, margin, found)
    by_setting = _by_setting(claim, effects, margin)
    ruling = ruling_of(found.interval(), margin, claim.says)
    further = None
    if contradicting(by_setting.values()):
        ruling = "depends on the setting"
        notes.insert(0, _settings_text(by_setting, fields))
    elif ruling == "undecided":
        further, text = _further(claim, found, margin)
        notes.insert(0, text)
    texts = _joined(notes)
    return Verdict(claim, ruling, effect, texts, is_ratio, further, networks, margin, found, len(by_setting))


@dataclass(frozen=True)
class Comparison:
    """The groups that a claim compares, and why their data and training are no test of it ("" if they may be one)."""

    groups: frozenset[str]
    out_of_reach: str


def comparison_of(claim: Claim, benchmark: str, frame: pd.DataFrame, preset: str = "") -> Comparison | None:
    """Return what a claim compares among the groups of a results frame, None if there is nothing to compare.

    These are the groups with a counterpart on every side. Those out of reach of the claim are left out, unless that
    leaves none. Only the fields of the cells matter, so the values may be of any kind.
    """
    everyone = _sides(claim, frame[(frame["benchmark"] == benchmark) & (frame["metric"] == claim.metric)])
    if not everyone.all_present:
        return None
    reached, why = within_reach(claim.reach, everyone.sets, preset, pd.Series(dtype=float))
    sides = everyone if why else _Sides(reached)
    if not sides.all_present or _confounding(claim, sides):
        return None
    keys, _ = _pairing_fields(claim, sides.sets)
    settings = [[_setting(row, keys) for row in side.to_dict("records")] for side in sides.sets]
    common = set.intersection(*map(set, settings))
    groups = frozenset(
        group
        for side, here in zip(sides.sets, settings, strict=True)
        for group, setting in zip(side["group"], here, strict=True)
        if setting in common
    )
    return Comparison(groups, why) if groups else None


def ruling_of(interval: Interval, margin: float, says: Literal["above", "equal"] = "above") -> Ruling:
    """Return the ruling on an effect whose positive values support the claim.

    An interval inside +-margin is no difference that matters, said with its sign where it excludes 0. Else the claim
    holds above 0, does not hold below 0 and is undecided across 0. A claim of equality holds inside +-margin,
    does not hold outside, and is undecided otherwise.
    """
    inside = -margin < interval.low and interval.high < margin
    if says == "equal":
        outside = interval.low > margin or interval.high < -margin
        return "holds" if inside else "does not hold" if outside else "undecided"
    if interval.low > 0:
        return "holds, too small to matter" if inside else "holds"
    if interval.high < 0:
        return "does not hold, too small to matter" if inside else "does not hold"
    return "no difference that matters" if inside else "undecided"


def _estimate(claim: Claim, effects: Mapping[Key, Point]) -> Estimate:
    found = estimate(effects)
    if claim.target_runs and found.n > 1:
        # The published mean scatters, too, by the variance of one run over the number of its runs.
        found = replace(found, fixed_part=found.fixed_part + found.seeds_part * found.n / claim.target_runs)
    return found


def _by_setting(
    claim: Claim, effects: Mapping[Key, Point], margin: float
) -> dict[tuple[object, ...], tuple[Ruling, Interval]]:
    """Return the ruling in each setting (architecture, padding, ...) alone, and the interval that it rests on.

    Each at alpha divided by the number of settings (Bonferroni), so that a contradiction between any two is an error
    with a probability of 5 % at most.
    """
    settings = list(dict.fromkeys(setting for _, setting in effects))
    members = {here: {key: point for key, point in effects.items() if key[1] == here} for here in settings}
    alpha = ALPHA / len(settings)
    intervals = {here: _estimate(claim, found).interval(alpha) for here, found in members.items()}
    return {here: (ruling_of(found, margin, claim.says), found) for here, found in intervals.items()}


def contradicting(settings: Iterable[tuple[Ruling, Interval]]) -> bool:
    """Return whether a claim holds in one setting and not in another: its mean over both would hide that.

    Their intervals must lie apart, too: an effect between 0 and the margin may hold in one and be no difference that
    matters in the other, and yet be the same.
    """
    found = list(settings)
    holding = [interval for ruling, interval in found if ruling in FOR]
    failing = [interval for ruling, interval in found if ruling in AGAINST]
    return any(one.low > other.high or other.low > one.high for one in holding for other in failing)


def _settings_text(by_setting: Mapping[tuple[object, ...], tuple[Ruling, Interval]], fields: Sequence[str]) -> str:
    """Return where a claim holds and where it does not, such as "holds: vgg_like; does not hold: resnet18"."""
    places: dict[Ruling, list[str]] = {}
    for setting, (ruling, _) in by_setting.items():
        known = zip(fields, setting, strict=True)
        places.setdefault(ruling, []).append(
            " ".join(str(value) if isinstance(value, str) else f"{name}={value}" for name, value in known)
        )
    return "; ".join(f"{ruling}: {', '.join(found)}" for ruling, found in places.items())


def _further(claim: Claim, found: Estimate, margin: float) -> tuple[int | None, str]:
    """Return how many further seeds would decide, as a number and in words."""
    count = further_seeds(found, margin, margin if claim.says == "equal" else 0.0, MOST_SEEDS)
    if count is not None:
        return (
            count,
            f"{count} more seed{'s' if count != 1 else ''} would decide it if mean and spread stay as they are",
        )
    return None, f"not even {MOST_SEEDS} seeds would decide it if mean and spread stay as they are"


def _sides(claim: Claim, rows: pd.DataFrame) -> _Sides:
    conditions = [claim.where, claim.than] if claim.than else [claim.where]
    sides = [claim.better, claim.worse] if claim.better else [{}]
    return _Sides([_where(_where(rows, condition), side) for condition in conditions for side in sides])


def _effects(
    claim: Claim, metrics: Sequence[Metric], rows: pd.DataFrame, sides: _Sides, images: ImageValues
) -> tuple[dict[Key, Point], float, Sequence[str]]:
    """Return the effect of every seed and setting, the mean of the metric on its scale, and the fields of a setting."""
    known = {metric.name: metric for metric in metrics}
    metric, (keys, differing) = known[claim.metric], _pairing_fields(claim, sides.sets)
    if not sides.all_present or (claim.than and differing):
        return {}, 0.0, keys
    subtracted = rows[rows["metric"] == claim.minus].set_index("cell")["value"] if claim.minus else None
    points = []
    for side in sides.sets:
        found: dict[Key, list[Point]] = {}
        for row in side.to_dict("records"):
            cell, value = str(row["cell"]), float(row["value"])
            here = point(value, metric, cell, _source(row), images)
            if subtracted is not None:
                if cell not in subtracted.index:
                    continue
                other = known[claim.minus]
                here = here.minus(point(float(subtracted[cell]), other, cell, here.source, images))
            key = (int(row["seed"]), _setting(row, keys))
            found.setdefault(key, []).append(here)
        points.append({key: mean_point(members) for key, members in found.items()})
    level = sum(scaled(float(value), metric) for side in sides.sets for value in side["value"]) / sides.total
    if claim.better:
        sign = -1.0 if metric.higher_is_better is False else 1.0
        effects = [paired(points[start], points[start + 1]) for start in range(0, len(points), 2)]
        effects = [{key: effect.times(sign) for key, effect in found.items()} for found in effects]
    else:
        effects = points
    result = paired(effects[0], effects[1]) if len(effects) > 1 else effects[0]
    if claim.target is not None:
        target = scaled(claim.target, metric)
        result = {key: replace(p, value=p.value - target, images=_less(p, target)) for key, p in result.items()}
    return result, level, keys


def effect_bounds(claim: Claim, metrics: Sequence[Metric]) -> tuple[float, float]:
    """Return the least and the greatest effect that the bounds of the metrics allow."""
    known = {metric.name: metric for metric in metrics}
    metric = known[claim.metric]
    if metric.scale == "log" or claim.target_runs:
        return -inf, inf
    least, greatest = metric.bounds
    if claim.minus:
        least, greatest = least - known[claim.minus].bounds[1], greatest - known[claim.minus].bounds[0]
    for condition in (claim.better, claim.than):
        if condition:
            least, greatest = least - greatest, greatest - least
    target = claim.target or 0.0
    return least - target, greatest - target


def _setting(row: Mapping[Hashable, Any], keys: Sequence[str]) -> tuple[object, ...]:
    return tuple(None if pd.isna(row[name]) else row[name] for name in keys)


def _less(point: Point, target: float) -> Array | None:
    return None if point.images is None else point.images - target


def _pairing_fields(claim: Claim, sets: Sequence[pd.DataFrame]) -> tuple[list[str], list[str]]:
    """Return the fields by which cells are paired, and those that vary but of which the sets share no value.

    The latter cannot pair cells (pool, if one side has no pooling layers). Fields that the claim fixes are neither.
    """
    fixed = {*claim.better, *claim.worse, *claim.where, *claim.than}
    together = pd.concat(sets)
    if claim.than:
        # All fields, also those that others determine: what differs beside the setting spoils the comparison.
        # Variants are only names for settings.
        varying = [name for name in fields_of(together) if name != "variant" and together[name].nunique() > 1]
    else:
        varying = varying_fields(together)
    varying = [name for name in varying if name not in fixed]
    shared = [name for name in varying if set.intersection(*(set(rows[name].dropna()) for rows in sets))]
    if len(sets) == 1:
        return varying, []
    return shared, [name for name in varying if name not in shared]


def _confounding(claim: Claim, sides: _Sides) -> list[str]:
    """Return the fields in which the two settings of a claim with ``than`` differ besides what it names."""
    return _pairing_fields(claim, sides.sets)[1] if claim.than and sides.all_present else []


def _source(row: Mapping[Hashable, Any]) -> object:
    """Return what decides on which images a cell was measured."""
    options = ((name, value) for name, value in row.items() if str(name).startswith("data.") and not pd.isna(value))
    return row["dataset"], tuple(options)


def _where(frame: pd.DataFrame, conditions: Mapping[str, Scalar]) -> pd.DataFrame:
    """Return the rows that have all these values; no rows if a field does not exist."""
    for name, value in conditions.items():
        frame = frame[frame[name] == value] if name in frame.columns else frame.iloc[:0]
    return frame


def _left_out(reason: str, before: _Sides, after: _Sides) -> str:
    dropped = before.total - after.total
    return f"left out because {reason}: {dropped} of {before.total} networks" if dropped else ""


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(filter(None, notes))
