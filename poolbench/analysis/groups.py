"""Comparison groups: the finished cells that differ only by seed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poolbench.core import Cell, Result, Scalar

AXES = ("dataset", "architecture", "variant", "pool", "head")


def cell_fields(cell: Cell) -> dict[str, Scalar]:
    """Return {field: value} of all fields by which groups can differ: the axes first, then every option.

    Analysis and tracking read a cell's fields here and nowhere else.
    """
    return cell.fields


@dataclass(frozen=True)
class Group:
    """The finished cells that differ only by seed, in order of seed."""

    id: str
    fields: Mapping[str, Scalar]
    results: Sequence[Result]

    @property
    def learned(self) -> list[Result]:
        """The results of networks that have learned: those that means, intervals and lines are made of."""
        return [result for result in self.results if has_learned(result)]

    @property
    def unlearned(self) -> int:
        """Number of networks that have not learned."""
        return len(self.results) - len(self.learned)

    def values(self, metric: str) -> dict[int, float]:
        """Return {seed: value} of a metric over the networks that have learned, finite values only."""
        return _values(self.learned, metric)

    def unlearned_values(self, metric: str) -> dict[int, float]:
        """Return {seed: value} of a metric over the networks that have not learned, finite values only."""
        return _values([result for result in self.results if not has_learned(result)], metric)

    def least(self, metric: str) -> float | None:
        """Return the least value over all networks, learned or not, None without any: for costs.

        They do not depend on what a network has learned, and other work on the machine only ever adds to a time.
        """
        found = _values(self.results, metric)
        return min(found.values()) if found else None


def has_learned(result: Result) -> bool:
    """Return what ``learning.judged`` found; True for results that it has not seen."""
    return bool(result.facts.get("learned", True))


def _values(results: Sequence[Result], metric: str) -> dict[int, float]:
    found = {result.cell.seed: result.metrics.get(metric, math.nan) for result in results}
    return {seed: value for seed, value in found.items() if math.isfinite(value)}


def groups_of(results: Sequence[Result]) -> list[Group]:
    """Return the groups of the finished results, in order of first appearance."""
    members: dict[str, list[Result]] = {}
    for result in results:
        if result.status == "finished":
            members.setdefault(result.cell.group, []).append(result)
    return [
        Group(name, cell_fields(found[0].cell), sorted(found, key=lambda result: result.cell.seed))
        for name, found in members.items()
    ]
