"""Stored tables, as figures over many cells read them."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from poolbench.analysis.groups import Group
from poolbench.core import Result
from poolbench.plots.scene import Scene


def table_of(scene: Scene, result: Result, name: str, columns: Sequence[str]) -> pd.DataFrame | None:
    """Return a cell's stored table, None where there is none with these columns (an older version's, say)."""
    try:
        table = scene.ledger.record(result.cell.id).table(name)
    except FileNotFoundError:
        return None
    return table if set(columns) <= set(table) else None


def tables_of(scene: Scene, group: Group, name: str, columns: Sequence[str]) -> list[pd.DataFrame]:
    """Return the stored tables of a group's cells that have one."""
    found = (table_of(scene, result, name, columns) for result in group.results)
    return [table for table in found if table is not None]


def percent_of_depth(table: pd.DataFrame) -> pd.Series[float]:
    """Return the place of each row's layer between the first (0) and the last (100)."""
    percent: pd.Series[float] = 100 * table["depth"] / max(1, table["depth"].max())
    return percent


def short_layers(names: Sequence[str]) -> list[str]:
    """Return layers' dotted names without the modules that are around all of them."""
    short = list(names)
    while len({name.partition(".")[0] for name in short}) == 1 and all("." in name for name in short):
        short = [name.partition(".")[2] for name in short]
    return short


def two_lines(title: str) -> str:
    """Return a panel's title with its second half on a line of its own."""
    parts = title.split(" · ")
    half = (len(parts) + 1) // 2
    return "\n".join(" · ".join(own) for own in (parts[:half], parts[half:]) if own)
