"""What figures draw from: the groups of a benchmark, how they divide into panels and colours, and their stored data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.lines import Line2D

from poolbench.analysis.effects import group_interval, lead_interval
from poolbench.analysis.groups import Group
from poolbench.analysis.images import ImageValues
from poolbench.analysis.statistics import Interval
from poolbench.analysis.text import number_text, term
from poolbench.core import Metric, Result, Scalar
from poolbench.plots.legends import key
from poolbench.plots.style import GREY, MARKERS, PALETTE

Styles = dict[Scalar | None, tuple[str, str]]
"""(colour, marker) by the value of a field."""


class Record(Protocol):
    """The stored tables and arrays of one cell."""

    def table(self, name: str) -> pd.DataFrame:
        """Return a table; raise FileNotFoundError if the cell has none of that name."""
        ...

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return an array; raise FileNotFoundError or KeyError if the cell has none of that name."""
        ...


@dataclass(frozen=True)
class Scene:
    """The finished groups of one benchmark, as figures over all cells draw them.

    ``varying`` names the fields that take more than one value over the groups. ``record`` returns the stored
    data of a result.
    """

    metrics: Sequence[Metric]
    groups: Sequence[Group]
    varying: Sequence[str]
    record: Callable[[Result], Record]

    def metric(self, name: str) -> Metric:
        """Return the metric of that name; raise KeyError if the benchmark declares none."""
        return {metric.name: metric for metric in self.metrics}[name]

    def interval(self, group: Group, metric: Metric) -> Interval | None:
        """Return the 95 % interval of the group's mean, as tables print it; None if no network has learned."""
        return group_interval(group, metric, self.images)

    def lead(self, group: Group, reference: Group, metric: Metric) -> Interval | None:
        """Return the 95 % interval of the group's lead over another, paired by seed; None without common seeds."""
        return lead_interval(group, reference, metric, self.images)

    def number(self, group: Group, metric: Metric) -> str:
        """Return the group's mean and interval as text, as tables print it."""
        return number_text(group, metric, images=self.images)

    @cached_property
    def images(self) -> ImageValues:
        """The values per image of the groups' networks."""
        results = {result.cell.id: result for group in self.groups for result in group.results}
        return ImageValues(lambda cell, name: self.record(results[cell]).table(name))

    def panels(
        self, groups: Sequence[Group], fields: Sequence[str], within: Sequence[str] = ()
    ) -> dict[str, list[Group]]:
        """Return {title: groups}, one panel per value of ``fields`` and of every other varying field.

        Fields in ``within`` vary inside a panel (colours, rows, columns) and do not split it. Splitting by all
        others keeps different configurations from sharing a line.
        """
        return self.split(groups, [*fields, *self.others(*fields, *within)])

    def others(self, *fields: str) -> list[str]:
        """Return the fields that vary besides these."""
        return [name for name in self.varying if name not in fields]

    def following(self, field: str) -> list[str]:
        """Return the other varying fields that follow from a field: all groups with one value of it agree in them."""
        found = []
        for name in self.others(field):
            pairs = {(group.fields.get(field), group.fields.get(name)) for group in self.groups}
            if len(pairs) == len({value for value, _ in pairs}):
                found.append(name)
        return found

    def split(self, groups: Sequence[Group], fields: Sequence[str]) -> dict[str, list[Group]]:
        """Return {title: groups} by those of the fields that differ between the groups.

        If none differs, the title holds the fields in which these groups differ from the benchmark's other ones.
        Fields that a group does not have and the value "default" are left out of the title.
        """
        told = _differing(fields, groups) or _differing(fields, self.groups)
        found: dict[str, list[Group]] = {}
        for group in groups:
            present = [term(name, group.fields[name]) for name in told if name in group.fields]
            title = " · ".join(text for text in present if text != "default") or " · ".join(present)
            found.setdefault(title, []).append(group)
        return found

    def styles(self, field: str) -> Styles:
        """Return {value of the field: (colour, marker)}; an absent operator ("none") is grey."""
        values = dict.fromkeys(group.fields.get(field) for group in self.groups)
        real = [value for value in values if value != "none"]
        styles: Styles = {"none": (GREY, MARKERS[0])} if "none" in values else {}
        for index, value in enumerate(real):
            turn, place = divmod(index, len(PALETTE))
            styles[value] = (PALETTE[place], MARKERS[turn % len(MARKERS)])
        return styles

    def keys(self, field: str, groups: Iterable[Group]) -> list[Line2D]:
        """Return legend entries for the values of the field that occur in the groups."""
        present = {group.fields.get(field) for group in groups}
        return [
            key(term(field, value), colour, "-", marker)
            for value, (colour, marker) in self.styles(field).items()
            if value in present
        ]

    def table(self, result: Result, name: str, columns: Sequence[str]) -> pd.DataFrame | None:
        """Return a stored table of a result; None if there is none with these columns (in an older version, say)."""
        try:
            table = self.record(result).table(name)
        except FileNotFoundError:
            return None
        return table if set(columns) <= set(table) else None

    def tables(self, group: Group, name: str, columns: Sequence[str]) -> list[pd.DataFrame]:
        """Return the stored tables with these columns of the group's networks that have learned."""
        found = (self.table(result, name, columns) for result in group.learned)
        return [table for table in found if table is not None]

    def arrays(self, result: Result, *names: str) -> list[np.ndarray[Any, Any]] | None:
        """Return stored arrays of a result; None if one of them is missing."""
        try:
            return [self.record(result).array(name) for name in names]
        except (FileNotFoundError, KeyError):
            return None


def _differing(fields: Sequence[str], groups: Sequence[Group]) -> list[str]:
    return [name for name in fields if len({group.fields.get(name) for group in groups}) > 1]


def example(group: Group) -> Result:
    """Return one result of a group, the first that has learned: averaging over networks would blur their patterns."""
    return next(iter(group.learned), group.results[0])
