"""Comparison tables: groups as rows, headline metrics as columns, and which group is best beyond the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from poolbench.analysis.frames import results_frame, varying_fields
from poolbench.analysis.groups import AXES, Group, groups_of
from poolbench.analysis.statistics import holm, paired_difference, t_interval
from poolbench.analysis.text import metric_label, number_text
from poolbench.core import Metric, Result

ALPHA = 0.05
SHOWN_COSTS = {"cost_parameters": "parameters", "cost_forward_ms": "forward / ms"}


@dataclass(frozen=True)
class Entry:
    """One number of a table; ``best`` if it beats every other group of the table."""

    text: str
    best: bool = False


@dataclass(frozen=True)
class Row:
    """One group of a table: its field values, its numbers, its seeds (``n``) and how many have not learned."""

    fields: Sequence[str]
    entries: Sequence[Entry]
    n: int
    unlearned: int


@dataclass(frozen=True)
class Table:
    """Groups that can be compared: same data set, same variant."""

    caption: str
    fields: Sequence[str]
    metrics: Sequence[str]
    rows: Sequence[Row]

    @property
    def has_best(self) -> bool:
        return any(entry.best for row in self.rows for entry in row.entries)


def comparison_tables(metrics: Sequence[Metric], results: Sequence[Result]) -> list[Table]:
    """Return a table of the headline metrics for each data set and variant of one benchmark's results.

    Numbers of different data sets or variants do not compare, so they never share a table.
    """
    tables: dict[tuple[str, str], list[Group]] = {}
    for group in groups_of(results):
        tables.setdefault((str(group.fields["dataset"]), str(group.fields["variant"])), []).append(group)
    names = [name for name in varying_fields(results_frame(results)) if name not in ("dataset", "variant")] or ["pool"]
    return [_table(metrics, groups, names) for groups in tables.values()]


def best_group(groups: Sequence[Group], metric: Metric) -> str | None:
    """Return the id of the group that beats every other group in a metric, None if noise could explain its lead.

    The group with the best mean wins if a paired t test over common seeds separates it from each other
    group at p <= 0.05 after Holm's correction (Holm 1979). Groups with a network that has not learned
    take no part.
    """
    values = {group.id: group.values(metric.name) for group in groups if not group.unlearned}
    values = {name: by_seed for name, by_seed in values.items() if by_seed}
    if metric.higher_is_better is None or len(values) < 2:
        return None
    sign = 1 if metric.higher_is_better else -1
    best = max(values, key=lambda name: sign * t_interval(list(values[name].values())).mean)
    p_values = []
    for name in values.keys() - {best}:
        seeds = sorted(values[best].keys() & values[name].keys())
        if len(seeds) < 2:
            return None
        difference = paired_difference([values[best][s] for s in seeds], [values[name][s] for s in seeds])
        if sign * difference.interval.mean <= 0:
            return None
        p_values.append(difference.p)
    return best if max(holm(p_values)) <= ALPHA else None


def _table(metrics: Sequence[Metric], groups: Sequence[Group], names: Sequence[str]) -> Table:
    names = [name for name in names if any(name in group.fields for group in groups)]
    shown = [m for m in metrics if m.headline and any(group.values(m.name) for group in groups)]
    best = {metric.name: best_group(groups, metric) for metric in shown}
    costs = {name: title for name, title in SHOWN_COSTS.items() if any(group.values(name) for group in groups)}
    rows = [
        Row(
            [str(group.fields.get(name, "-")) for name in names],
            [
                *(Entry(number_text(group, metric), best[metric.name] == group.id) for metric in shown),
                *(Entry(_cost_text(group, name)) for name in costs),
            ],
            len(group.results),
            group.unlearned,
        )
        for group in groups
    ]
    columns = [*(metric_label(metric) for metric in shown), *costs.values()]
    return Table(_caption(groups, names), names, columns, rows)


def _caption(groups: Sequence[Group], names: Sequence[str]) -> str:
    """Return the axes that are constant in a table, without those that say nothing ("none", "default")."""
    constant = [name for name in AXES if name not in names and len({group.fields[name] for group in groups}) == 1]
    telling = [name for name in constant if groups[0].fields[name] not in ("none", "default")]
    return ", ".join(f"{name} {groups[0].fields[name]}" for name in telling)


def _cost_text(group: Group, name: str) -> str:
    """Return the mean cost without an interval: parameters as an integer, milliseconds with two decimals."""
    values = list(group.values(name).values())
    if not values:
        return "-"
    return f"{fmean(values):,.0f}" if name == "cost_parameters" else f"{fmean(values):.2f}"
