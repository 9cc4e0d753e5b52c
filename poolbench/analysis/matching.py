"""The same groups in the results of two versions, whose ids differ once a field is added."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from poolbench.analysis.frames import fields_of
from poolbench.analysis.groups import AXES
from poolbench.analysis.runs import GroupRun, group_runs

Key = tuple[Hashable, ...]


@dataclass(frozen=True)
class Match:
    """The rows of the groups that both versions have, with the ids of the first one.

    ``missing`` are the groups of the first version that the second one lacks, ``ambiguous`` those for which no pair is
    the only one: one side has a field in which its groups differ and that the other side lacks.
    """

    frame: pd.DataFrame
    missing: Sequence[str]
    ambiguous: Sequence[str]


def matched_groups(before: pd.DataFrame, after: pd.DataFrame) -> Match:
    """Match the groups of two results frames: equal benchmark, equal axes, equal options of those that both have.

    Components of one name have the same options throughout a version. So an option without any value among the
    groups with the same axes is one that this version lacks, even if another component has an option of its name.
    """
    keys = ["benchmark", *AXES]
    shared = [name for name in fields_of(before) if name in fields_of(after) and name not in AXES]
    after_by_axes = dict(iter(after.drop_duplicates("group").groupby(keys)))
    ids: dict[str, str] = {}
    missing: list[str] = []
    ambiguous: list[str] = []
    for axes, old in before.drop_duplicates("group").groupby(keys):
        new = after_by_axes.get(axes, after.iloc[:0])
        options = [name for name in shared if old[name].notna().any() and new[name].notna().any()]
        partners = _by_options(new, options)
        for key, groups in _by_options(old, options).items():
            found = partners.get(key, [])
            if len(groups) == len(found) == 1:
                ids[found[0]] = groups[0]
            else:
                (ambiguous if found else missing).extend(groups)
    matched = after[after["group"].isin(ids)]
    return Match(matched.assign(group=matched["group"].map(ids)), missing, ambiguous)


def _by_options(groups: pd.DataFrame, options: Sequence[str]) -> Mapping[Key, list[str]]:
    """Return {values of the options: groups} of a frame with one row per group."""
    found: dict[Key, list[str]] = defaultdict(list)
    for _, row in groups.iterrows():
        found[tuple(_comparable(row[name]) for name in options)].append(str(row["group"]))
    return found


def _comparable(value: object) -> Hashable:
    """Return a value such that 3, 3.0 and "3" are equal: a column of a CSV file has one type for all its values."""
    if pd.isna(value):  # type: ignore[call-overload]
        return None
    if isinstance(value, bool):
        return str(value)
    try:
        return float(value)  # type: ignore[arg-type]
    except ValueError:
        return str(value)


def equal_groups(before: pd.DataFrame, after: pd.DataFrame) -> set[str]:
    """Return the groups with equal bits on both sides, for all seeds and metrics; measured costs may differ."""
    old, new = group_runs(before), group_runs(after)
    return {group for group, run in old.items() if group in new and _equal(run, new[group])}


def _equal(one: GroupRun, other: GroupRun) -> bool:
    metrics = one.values.keys() | other.values.keys()
    return one.seeds == other.seeds and all(
        one.digest(seed, metrics) == other.digest(seed, metrics) for seed in one.seeds
    )
