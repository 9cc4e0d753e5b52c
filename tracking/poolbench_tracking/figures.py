"""The figures of a benchmark, drawn: those of one cell for its run, those over all cells for the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import matplotlib
from matplotlib.figure import Figure

from poolbench.analysis.choices import Weighing
from poolbench.analysis.frames import results_frame, varying_fields
from poolbench.analysis.groups import groups_of
from poolbench.core import Result
from poolbench.plots.pareto import pareto
from poolbench.plots.scene import Record, Scene
from poolbench.plots.style import STYLE
from poolbench.task import Benchmark

MOST_GROUPS = 150  # more panels and lines are unreadable and take minutes to draw


def cell_figures(benchmark: Benchmark, result: Result, record: Record, most: int) -> dict[str, Figure]:
    """Return {name: figure} of one cell, the first ``most``; those that need several cells or data are left out."""
    drawn: dict[str, Figure] = {}
    for figure in benchmark.figures:
        if figure.draw_cell is None or len(drawn) == most:
            continue
        with matplotlib.rc_context(STYLE):
            try:
                picture = figure.draw_cell(result, record)
            except (FileNotFoundError, KeyError):
                continue  # a table or array that the cell does not have
        if picture is not None:
            drawn[figure.name] = picture
    return drawn


def too_many_groups(results: Sequence[Result]) -> bool:
    """Return whether the finished cells have more groups than a figure can show."""
    return len(groups_of(results)) > MOST_GROUPS


def front_figures(found: Sequence[Weighing]) -> list[Figure | None]:
    """Return the picture of every weighing: its candidates in two metrics, or in one and time if that is known."""
    with matplotlib.rc_context(STYLE):
        return [pareto(weighing) for weighing in found]


def scene_of(benchmark: Benchmark, results: Sequence[Result], record: Callable[[str], Record]) -> Scene:
    """Return what the figures over all cells draw; ``record(cell)`` returns the stored data of a cell by its id."""
    varying = varying_fields(results_frame(results))
    return Scene(benchmark.metrics, groups_of(results), varying, lambda result: record(result.cell.id))


def summary_figures(
    benchmark: Benchmark,
    results: Sequence[Result],
    record: Callable[[str], Record],
    on_error: Callable[[str, Exception], None] | None = None,
) -> dict[str, Figure]:
    """Return {name: figure} over the finished cells of a benchmark; {} if there are none or too many groups.

    The exception of a drawing function goes to ``on_error(name, error)``; without it, it is raised.
    """
    scene = scene_of(benchmark, results, record)
    if not scene.groups or too_many_groups(results):
        return {}
    drawn = {}
    with matplotlib.rc_context(STYLE):
        for figure in benchmark.figures:
            try:
                picture = figure.draw_summary(scene) if figure.draw_summary is not None else None
            except Exception as error:
                if on_error is None:
                    raise
                on_error(figure.name, error)
                continue
            if picture is not None:
                drawn[figure.name] = picture
    return drawn
