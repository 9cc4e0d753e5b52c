"""The groups of a benchmark as figures see them: which panel, which colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.lines import Line2D

from poolbench.analysis.groups import Group
from poolbench.analysis.text import term
from poolbench.core import Benchmark, Result, Scalar
from poolbench.core import Figure as Drawing
from poolbench.plots.parts import (
    GREY,
    MARKERS,
    PALETTE,
    key,
)
from poolbench.runner.ledger import Ledger


@dataclass(frozen=True)
class Scene:
    """What the figures over all cells of a benchmark draw from."""

    benchmark: Benchmark
    groups: Sequence[Group]
    varying: Sequence[str]
    ledger: Ledger

    def panels(self, drawing: Drawing, groups: Sequence[Group]) -> dict[str, list[Group]]:
        """Return {title: groups}; the fields that tell panels apart are in the title."""
        inside = () if drawing.kind in ("map", "parts") else (drawing.colour, drawing.columns)
        return self.split([*drawing.panels, *self.others(*drawing.panels, *inside)], groups)

    def others(self, *names: str) -> list[str]:
        """Return the fields that vary beside these."""
        return [name for name in self.varying if name not in names]

    def split(self, names: Sequence[str], groups: Sequence[Group]) -> dict[str, list[Group]]:
        """Return {title: groups} by those of the fields that differ between the groups.

        Where none differs, those in which the groups differ from the benchmark's others name them. What a
        group does not have, and the variant "default", is not worth a word.
        """
        told = _differing(names, groups) or _differing(names, self.groups)
        found: dict[str, list[Group]] = {}
        for group in groups:
            present = [term(name, group.fields[name]) for name in told if name in group.fields]
            title = " · ".join(text for text in present if text != "default") or " · ".join(present)
            found.setdefault(title, []).append(group)
        return found

    def looks(self, drawing: Drawing) -> dict[Scalar | None, tuple[str, str]]:
        """Return {value of the colour field: (colour, marker)}; an absent operator ("none") is grey."""
        values = dict.fromkeys(group.fields.get(drawing.colour) for group in self.groups)
        real = [value for value in values if value != "none"]
        looks: dict[Scalar | None, tuple[str, str]] = {"none": (GREY, MARKERS[0])} if "none" in values else {}
        for index, value in enumerate(real):
            turn, place = divmod(index, len(PALETTE))
            looks[value] = (PALETTE[place], MARKERS[turn % len(MARKERS)])
        return looks

    def keys(self, drawing: Drawing, groups: Iterable[Group], dashed: Sequence[str] = ()) -> list[Line2D]:
        """Return legend entries for the values of the colour field that occur."""
        looks, present = self.looks(drawing), {group.fields.get(drawing.colour) for group in groups}
        return [
            key(term(drawing.colour, value), colour, "--" if value in dashed else "-", marker)
            for value, (colour, marker) in looks.items()
            if value in present
        ]


def _differing(names: Sequence[str], groups: Sequence[Group]) -> list[str]:
    return [name for name in names if len({group.fields.get(name) for group in groups}) > 1]


def example(group: Group) -> Result:
    """Return one network of a group, the first that has learned: a pattern is a network's, and a mean hides it."""
    return next((result for result in group.results if result.facts["learned"]), group.results[0])
