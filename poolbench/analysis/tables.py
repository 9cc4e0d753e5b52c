"""Comparison tables: groups as rows, headline metrics as columns, and which group is best beyond the noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from poolbench.analysis.effects import estimate, group_points, paired
from poolbench.analysis.frames import results_frame, varying_fields
from poolbench.analysis.groups import AXES, Group, groups_of
from poolbench.analysis.images import NO_IMAGES, ImageValues
from poolbench.analysis.statistics import LEAST_SEEDS
from poolbench.analysis.text import metric_label, number_text
from poolbench.core import Metric, Result

SHOWN_COSTS = {"cost_parameters": "parameters", "cost_forward_ms": "forward / ms"}


@dataclass(frozen=True)
class Entry:
    """One number of a table; ``best`` if it beats every other group of the table, ``tied`` if it shares first place."""

    text: str
    best: bool = False
    tied: bool = False


@dataclass(frozen=True)
class Row:
    """One group of a table: its field values, its numbers, its networks (``n``) and how many have not learned."""

    fields: Sequence[str]
    entries: Sequence[Entry]
    n: int
    unlearned: int

    @property
    def seeds_text(self) -> str:
        """The networks behind the numbers, such as "5" or "4 of 5 learned"."""
        if self.unlearned:
            return f"{self.n - self.unlearned} of {self.n} learned"
        return str(self.n) if self.n >= LEAST_SEEDS else f"n = {self.n}, no interval"


@dataclass(frozen=True)
class Table:
    """Groups that can be compared: same data set, same variant.

    ``equal`` names the metrics whose numbers look the same in every row, with their value; they have no column.
    """

    caption: str
    fields: Sequence[str]
    metrics: Sequence[str]
    rows: Sequence[Row]
    equal: str = ""

    @property
    def has_best(self) -> bool:
        return any(entry.best for row in self.rows for entry in row.entries)


def comparison_tables(
    metrics: Sequence[Metric], results: Sequence[Result], images: ImageValues = NO_IMAGES, headline: bool = True
) -> list[Table]:
    """Return a table of the headline metrics (else: the others) for each data set and variant of a benchmark's results.

    Numbers of different data sets or variants do not compare, so they never share a table.
    """
    wanted = [metric for metric in metrics if metric.headline == headline]
    tables: dict[tuple[str, str], list[Group]] = {}
    for group in groups_of(results):
        tables.setdefault((str(group.fields["dataset"]), str(group.fields["variant"])), []).append(group)
    names = [name for name in varying_fields(results_frame(results)) if name not in ("dataset", "variant")] or ["pool"]
    return [_table(wanted, groups, names, images) for groups in tables.values()]


@dataclass(frozen=True)
class FirstPlace:
    """Ids of groups: ``best`` beats all others; without it, ``tied`` are the leader and those it does not beat."""

    best: str | None = None
    tied: frozenset[str] = frozenset()


def first_place(groups: Sequence[Group], metric: Metric, images: ImageValues = NO_IMAGES) -> FirstPlace:
    """Return which group is best in a metric, or which ones share first place.

    The group with the best mean is best if the 95 % interval of its lead, paired by seed, lies above 0 for each other
    group. To say that it beats all of them takes every one of these comparisons to succeed (an intersection-union
    test, Berger 1982), so no correction for their number is due. Nothing is said where some group has too few seeds
    in common with the leader. Networks that have not learned take no part.
    """
    points = {group.id: group_points(group, metric, images) for group in groups}
    points = {name: found for name, found in points.items() if found}
    if metric.higher_is_better is None or len(points) < 2:
        return FirstPlace()
    leader = max(points, key=lambda name: metric.sign * estimate(points[name]).mean)
    unbeaten = set()
    for name in points.keys() - {leader}:
        differences = {key: lead.times(metric.sign) for key, lead in paired(points[leader], points[name]).items()}
        if len(differences) < LEAST_SEEDS:
            return FirstPlace()
        if estimate(differences).interval().low <= 0:
            unbeaten.add(name)
    return FirstPlace(tied=frozenset({leader, *unbeaten})) if unbeaten else FirstPlace(best=leader)


def _table(metrics: Sequence[Metric], groups: Sequence[Group], names: Sequence[str], images: ImageValues) -> Table:
    names = [name for name in names if any(name in group.fields for group in groups)]
    shown = [m for m in metrics if any(g.values(m.name) or g.unlearned_values(m.name) for g in groups)]
    first = {metric.name: first_place(groups, metric, images) for metric in shown}
    costs = {name: title for name, title in SHOWN_COSTS.items() if any(g.least(name) is not None for g in groups)}
    rows = [
        Row(
            [str(group.fields.get(name, "-")) for name in names],
            [
                *(_entry(group, metric, first[metric.name], images) for metric in shown),
                *(Entry(_cost_text(group, name)) for name in costs),
            ],
            len(group.results),
            group.unlearned,
        )
        for group in groups
    ]
    columns = [*(_column(metric) for metric in shown), *costs.values()]
    return _without_equal(Table(_caption(groups, names), names, columns, rows))


def _without_equal(table: Table) -> Table:
    """Return the table without the columns that have one text in all rows and no winner; these are named below it."""
    columns = [[row.entries[index] for row in table.rows] for index in range(len(table.metrics))]
    equal = {
        index: f"{table.metrics[index]} {found[0].text}"
        for index, found in enumerate(columns)
        if len(found) > 1 and len({entry.text for entry in found}) == 1 and not any(entry.best for entry in found)
    }
    kept = [index for index in range(len(columns)) if index not in equal]
    rows = [replace(row, entries=[row.entries[index] for index in kept]) for row in table.rows]
    told = ", ".join(text for index, text in equal.items() if columns[index][0].text != "-")
    return replace(table, metrics=[table.metrics[index] for index in kept], rows=rows, equal=told)


def _entry(group: Group, metric: Metric, first: FirstPlace, images: ImageValues) -> Entry:
    return Entry(number_text(group, metric, images=images), first.best == group.id, group.id in first.tied)


def _column(metric: Metric) -> str:
    return metric_label(metric) + (", geometric mean" if metric.scale == "log" else "")


def _caption(groups: Sequence[Group], names: Sequence[str]) -> str:
    """Return the axes that are constant in a table, without those that say nothing ("none", "default")."""
    constant = [name for name in AXES if name not in names and len({group.fields[name] for group in groups}) == 1]
    telling = [name for name in constant if groups[0].fields[name] not in ("none", "default")]
    return ", ".join(f"{name} {groups[0].fields[name]}" for name in telling)


def _cost_text(group: Group, name: str) -> str:
    """Return a cost without an interval, see ``Group.least``."""
    value = group.least(name)
    if value is None:
        return "-"
    return f"{value:,.0f}" if name == "cost_parameters" else f"{value:.2f}"
