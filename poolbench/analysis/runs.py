"""Results of one run by comparison group: the values of each metric by seed, who has learned, and whose bits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pandas as pd

from poolbench.analysis.frames import varying_fields
from poolbench.analysis.identity import numbers_digest

ACCURACY = "accuracy"


@dataclass(frozen=True)
class GroupRun:
    """The cells of one group in one run. A metric that is undefined for a seed has no value there.

    ``fingerprints`` says where each seed ran ("" if unknown), ``images`` how many images are behind a metric.
    """

    benchmark: str
    group: str
    label: str
    seeds: frozenset[int] = frozenset()
    learned: frozenset[int] = frozenset()
    values: Mapping[str, Mapping[int, float]] = field(default_factory=dict)
    fingerprints: Mapping[int, str] = field(default_factory=dict)
    images: Mapping[str, int] = field(default_factory=dict)

    def only(self, seeds: frozenset[int]) -> GroupRun:
        """Return the group with these of its seeds."""
        values = {name: {seed: v for seed, v in found.items() if seed in seeds} for name, found in self.values.items()}
        return GroupRun(
            self.benchmark, self.group, self.label, self.seeds & seeds, self.learned & seeds,
            {name: found for name, found in values.items() if found}, self.fingerprints, self.images,
        )  # fmt: skip

    def learned_values(self, metric: str) -> dict[int, float]:
        """Return {seed: value} over the networks that have learned."""
        return {seed: value for seed, value in self.values.get(metric, {}).items() if seed in self.learned}

    def digest(self, seed: int, metrics: Collection[str]) -> str:
        """Return the digest of a seed's numbers of these metrics."""
        known = {name: self.values.get(name, {}) for name in metrics}
        return numbers_digest({name: values[seed] for name, values in known.items() if seed in values})


def group_runs(frame: pd.DataFrame) -> dict[str, GroupRun]:
    """Return {group: its run} of a results frame, in order of first appearance."""
    labels = group_labels(frame)
    found: dict[str, _Parts] = {}
    # Plain rows: grouping a wide frame by metric takes pandas a hundred times longer.
    rows = frame[["benchmark", "group", "seed", "learned", "fingerprint", "metric", "value", "images"]]
    for benchmark, group, seed, learned, environment, metric, value, images in rows.itertuples(index=False, name=None):
        parts = found.setdefault(str(group), _Parts(str(benchmark)))
        parts.fingerprints[seed] = environment if isinstance(environment, str) else ""
        if learned:
            parts.learned.add(seed)
        if not math.isnan(value):
            parts.values.setdefault(metric, {})[seed] = float(value)
            parts.images[metric] = min(int(images), parts.images.get(metric, int(images)))
    return {
        group: GroupRun(
            parts.benchmark, group, labels[group], frozenset(parts.fingerprints), frozenset(parts.learned),
            parts.values, parts.fingerprints, parts.images,
        )
        for group, parts in found.items()
    }  # fmt: skip


@dataclass
class _Parts:
    benchmark: str
    learned: set[int] = field(default_factory=set)
    values: dict[str, dict[int, float]] = field(default_factory=dict)
    fingerprints: dict[int, str] = field(default_factory=dict)
    images: dict[str, int] = field(default_factory=dict)


def group_labels(frame: pd.DataFrame) -> dict[str, str]:
    """Return {group: its label}: the column of that name, if there is one.

    Otherwise it is made of the axes and options that vary between the groups of a benchmark: "name=value, ...".
    """
    labels: dict[str, str] = {}
    if "label" in frame:
        return {str(group): str(label) for group, label in zip(frame["group"], frame["label"], strict=True)}
    for _, rows in frame.drop_duplicates("group").groupby("benchmark", sort=False):
        shown = varying_fields(rows)
        for group, row in rows.set_index("group")[shown].iterrows():
            labels[str(group)] = ", ".join(f"{name}={row[name]}" for name in shown if pd.notna(row[name]))
    return labels
