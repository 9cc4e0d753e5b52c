"""The groups of a benchmark as figures see them: which panel, which colour."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from matplotlib.lines import Line2D

from poolbench.core import Benchmark, Scalar
from poolbench.core import Figure as Drawing
from poolbench.runner.ledger import Ledger
from poolbench_tracking.figures.parts import (
    GREY,
    MARKERS,
    PALETTE,
    key,
)
from poolbench_tracking.results import Group, term


@dataclass(frozen=True)
class Scene:
    """What the figures over all cells of a benchmark draw from."""

    benchmark: Benchmark
    groups: Sequence[Group]
    varying: Sequence[str]
    ledger: Ledger

    def panels(self, drawing: Drawing, groups: Sequence[Group]) -> dict[str, list[Group]]:
        """Return {title: groups}; the fields that tell panels apart are in the title."""
        colour = () if drawing.kind == "map" else (drawing.colour,)
        names = [*drawing.panels, *(name for name in self.varying if name not in (*drawing.panels, *colour))]
        told = [name for name in names if len({group.fields.get(name) for group in self.groups}) > 1]
        found: dict[str, list[Group]] = {}
        for group in groups:
            present = [term(name, group.fields[name]) for name in told if name in group.fields]
            found.setdefault(" · ".join(present), []).append(group)
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
