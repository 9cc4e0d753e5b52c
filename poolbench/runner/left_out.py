"""Cells of a work folder that this process cannot interpret, because their plugin or their version is not there."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from poolbench.core import NO_COMPONENT, Cell, Result
from poolbench.registry import TIMM, Registry, architectures, benchmarks, datasets, heads, pools

FIELDS: Mapping[str, Registry[Any]] = {
    "benchmark": benchmarks,
    "dataset": datasets,
    "architecture": architectures,
    "pool": pools,
    "head": heads,
}


class KnownNames:
    """The names that are registered at this moment."""

    def __init__(self) -> None:
        self._names = {field: {*registry.names(), NO_COMPONENT.name} for field, registry in FIELDS.items()}

    def missing(self, cell: Cell) -> list[tuple[str, str]]:
        """Return (field, name) of the cell's benchmark and components that nothing registers."""
        used = {field: value if isinstance(value := getattr(cell, field), str) else value.name for field in FIELDS}
        # Whether timm has the model was checked when the cell was planned; checking again would import timm.
        return [
            (field, name)
            for field, name in used.items()
            if name not in self._names[field] and not (field == "architecture" and name.startswith(TIMM))
        ]


def explanations(left_out: Iterable[Result], unreadable: int) -> list[str]:
    """Return one line per kind of left-out cells: how many, of which benchmark, and how to get them back.

    ``unreadable`` is the number of cells that another version of poolbench wrote.
    """
    known = KnownNames()
    kinds: Counter[tuple[str, tuple[str, ...], tuple[str, ...]]] = Counter()
    for result in left_out:
        missing = known.missing(result.cell)
        parts = () if "benchmark" in dict(missing) else tuple(f"no {field} '{name}'" for field, name in missing)
        kinds[result.cell.benchmark, parts, tuple(result.facts.get("plugins", ()))] += 1
    lines = []
    for (benchmark, parts, plugins), count in kinds.items():
        reason = f" ({', '.join(parts)})" if parts else ""
        lines.append(f"{_cells(count, benchmark)} left out{reason}: {_advice(plugins)}")
    if unreadable:
        lines.append(f"{_cells(unreadable)} left out: written by another version of poolbench")
    return lines


def _advice(plugins: Sequence[str]) -> str:
    if not plugins:
        return "no plugin is recorded; install the package, or the version of poolbench, that they came from"
    give = f"give {' '.join(f'--plugin {shlex.quote(plugin)}' for plugin in plugins)}"
    return give if all(plugin.endswith(".py") for plugin in plugins) else f"{give}, or install it"


def _cells(count: int, benchmark: str = "") -> str:
    of = f"of '{benchmark}' " if benchmark else ""
    return f"{count} cell {of}is" if count == 1 else f"{count} cells {of}are"
