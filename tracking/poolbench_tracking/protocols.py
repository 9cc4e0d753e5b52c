"""Which preset a cell belongs to."""

from __future__ import annotations

from poolbench.core import Cell
from poolbench.task import Benchmark, Grid

OTHER_SETTINGS = "other settings"
VERSION = "version"
"""The first word of the protocol of cells of an older version."""


def protocol_of(cell: Cell, benchmark: Benchmark) -> str:
    """Return the name of the preset whose settings a cell has, such as "quick"; only cells of one protocol compare.

    "other settings" if no preset matches, "version 1" if the benchmark has a newer version than the cell. Data set,
    architecture, pool, head and seed are free: they can be selected within a preset.
    """
    if cell.version != benchmark.version:
        return f"{VERSION} {cell.version}"
    matching = (
        name for name, grids in benchmark.presets.items() if any(_matches(cell, benchmark, grid) for grid in grids)
    )
    return next(matching, OTHER_SETTINGS)


def _matches(cell: Cell, benchmark: Benchmark, grid: Grid) -> bool:
    settings = (cell.variant, cell.train, cell.padding_mode, dict(cell.measure))
    if settings != (grid.variant, grid.train, grid.padding_mode, benchmark.measure_options(grid)):
        return False
    # Options that another data set or architecture does not have are no difference.
    given = ((cell.dataset.options, grid.data), (cell.architecture.options, grid.model))
    return all(options[name] == value for options, part in given for name, value in part.items() if name in options)
