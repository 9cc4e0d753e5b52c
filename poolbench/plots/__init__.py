"""Figures of one cell, for its run, and of all seeds, for the report.

Built on matplotlib's objects, never on pyplot: there is no figure of the process that two callers could
share, and nothing to close.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import matplotlib
from matplotlib.figure import Figure

from poolbench.analysis.frames import results_frame, varying_fields
from poolbench.analysis.groups import groups_of
from poolbench.core import Benchmark, Result
from poolbench.core import Figure as Drawing
from poolbench.plots import (
    angles,
    bars,
    classes,
    curves,
    depth,
    heatmaps,
    intervals,
    map_parts,
    maps,
    scatter,
    sensitivity,
    similarity,
    units,
)
from poolbench.plots.map_parts import map_overview
from poolbench.plots.parts import STYLE, to_png, to_svg
from poolbench.plots.scene import Scene
from poolbench.runner.ledger import CellRecord, Ledger

__all__ = ["cell_figures", "map_overview", "summary_figures", "to_png", "to_svg"]

MOST_GROUPS = 150  # more panels and lines than anyone can read, and minutes to draw


def cell_figures(benchmark: Benchmark, result: Result, record: CellRecord) -> dict[str, Figure]:
    """Return the figures of one cell by name; figures that need several cells or lack their data are left out."""
    found: dict[str, Figure] = {}
    drawn: set[str] = set()
    for drawing in benchmark.figures:
        # One figure holds all learning curves of a cell.
        if drawing.kind not in _CELL_FIGURES or (drawing.kind == "curves" and "curves" in drawn):
            continue
        with matplotlib.rc_context(STYLE):
            try:
                figure = _CELL_FIGURES[drawing.kind](drawing, result, record)
            except (FileNotFoundError, KeyError):
                continue
        if figure is not None:
            found[drawing.name] = figure
            drawn.add(drawing.kind)
    return found


def summary_figures(benchmark: Benchmark, results: Sequence[Result], ledger: Ledger) -> dict[str, Figure]:
    """Return the figures over the finished cells of a benchmark by name; {} where there are none or too many.

    Every line, map and interval belongs to one group. Fields that vary beside those a figure names
    split its panels further, so that different configurations are told apart.
    """
    groups = groups_of(results)
    if not groups or len(groups) > MOST_GROUPS:
        return {}
    scene = Scene(benchmark, groups, varying_fields(results_frame(results)), ledger)
    found = {}
    with matplotlib.rc_context(STYLE):
        for drawing in benchmark.figures:
            figure = _SUMMARY_FIGURES[drawing.kind](drawing, scene)
            if figure is not None:
                found[drawing.name] = figure
    return found


_CELL_FIGURES: Mapping[str, Callable[[Drawing, Result, CellRecord], Figure | None]] = {
    "curves": curves.draw_cell,
    "map": maps.draw_cell,
    "parts": map_parts.draw_cell,
    "sensitivity": sensitivity.draw_cell,
    "depth": depth.draw_cell,
    "units": units.draw_cell,
    "classes": classes.draw_cell,
    "angles": angles.draw_cell,
    "similarity": similarity.draw_cell,
}
_SUMMARY_FIGURES: Mapping[str, Callable[[Drawing, Scene], Figure | None]] = {
    "curves": curves.draw_summary,
    "map": maps.draw_summary,
    "intervals": intervals.draw_summary,
    "parts": map_parts.draw_summary,
    "scatter": scatter.draw_summary,
    "heatmap": heatmaps.draw_summary,
    "sensitivity": sensitivity.draw_summary,
    "bars": bars.draw_summary,
    "depth": depth.draw_summary,
    "units": units.draw_summary,
    "classes": classes.draw_summary,
    "angles": angles.draw_summary,
    "similarity": similarity.draw_summary,
}
