"""Canvas maps in parts: what the position modulo the stride does (phase), and what the border does."""

from __future__ import annotations

import math
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from poolbench.core import Figure as Drawing
from poolbench.core import Result
from poolbench.plots.maps import draw_map
from poolbench.plots.parts import (
    GREY,
    MAP_COLOURS,
    STYLE,
    WIDTH,
    axes_at,
    colour_bar,
    heatmap,
    write_on,
)
from poolbench.plots.scene import Scene, example
from poolbench.runner.ledger import CellRecord

Array = np.ndarray[Any, Any]
Parts = tuple[Array, Array, Array]  # phase (h, w), border (h, w), value of each phase (s, s)
DETAIL = 16  # pixels: on the whole map a pattern that repeats every 2 or 4 would be too fine to see


def draw_cell(drawing: Drawing, result: Result, record: CellRecord) -> Figure:
    figure = Figure(figsize=(WIDTH, 2.85))
    _draw_parts(figure, _parts(drawing, record), 0.5, 0.55, 1.95, drawing.label, with_titles=True)
    return figure


def draw_summary(drawing: Drawing, scene: Scene) -> Figure | None:
    chosen = []
    for group in scene.groups:
        result = example(group)
        try:
            chosen.append((group, result, _parts(drawing, scene.ledger.record(result.cell.id))))
        except (FileNotFoundError, KeyError):
            continue
    if not chosen:
        return None
    panels = scene.panels(drawing, [group for group, _, _ in chosen])
    names = {group.id: title for title, members in panels.items() for group in members}
    size, gap, first = 1.3, 0.4, 0.55
    figure = Figure(figsize=(WIDTH, first + len(chosen) * (size + gap)))
    for index, (group, result, parts) in enumerate(chosen):
        top = first + index * (size + gap)
        learned = result.facts["learned"]
        lines = [*names[group.id].split(" · "), f"seed {result.cell.seed}", *([] if learned else ["not learned"])]
        place = (0.12 / WIDTH, 1 - (top + size / 2) / figure.get_figheight())
        figure.text(*place, "\n".join(filter(None, lines)), va="center", color="#000000" if learned else GREY)
        _draw_parts(figure, parts, 2.1, top, size, drawing.label, with_titles=index == 0)
    return figure


def map_overview(probability: Array, parts: Parts | None, label: str) -> Figure:
    """Return one page with a map (h, w) of probabilities and, where there are any, its parts in the logit's unit.

    ``parts`` are the phase part (h, w), the border part (h, w) and the value of each phase (s, s);
    ``label`` names the probability.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.6) if parts is None else (WIDTH, 7.4))
        draw_map(figure, probability, 0.62 if parts is None else 2.4, 0.26, 3.8, label)
        if parts is not None:
            _draw_parts(figure, parts, 0.62, 5.1, 1.9, "logit", with_titles=True)
    return figure


def _parts(drawing: Drawing, record: CellRecord) -> Parts:
    phase, boundary, phases = (record.array(name) for name in drawing.sources)
    return phase, boundary, phases


def _draw_parts(
    figure: Figure, parts: Parts, left: float, top: float, size: float, label: str, with_titles: bool
) -> None:
    """Draw a detail of the phase part, the phases and the border part in a row, from ``left`` to the right edge.

    Phase and border have colour bars of their own: they differ by orders of magnitude.
    """
    phase, boundary, phases = parts
    beside = 0.95  # inches, for a colour bar with its label
    gap = (WIDTH - left - 3 * size - 2 * beside) / 2
    corners = [left, left + size + gap, left + 2 * (size + gap) + beside]
    detail, pattern, whole = (axes_at(figure, corner, top, size, size) for corner in corners)

    corner = max(0, (phase.shape[0] - DETAIL) // 2), max(0, (phase.shape[1] - DETAIL) // 2)
    cut = phase[corner[0] : corner[0] + DETAIL, corner[1] : corner[1] + DETAIL]
    deviations = phases - phases.mean()
    limits = _limits(deviations)
    heatmap(detail, cut, limits, MAP_COLOURS, corner)
    image = heatmap(pattern, deviations, limits)
    texts = [_value(value, phases) for value in phases.flat]
    for index, text in enumerate(texts):
        # Text is about 0.0085 in wide per character and point.
        points = min(9.0, 0.9 * size / len(phases) / (0.0085 * max(len(text) for text in texts)))
        write_on(pattern, image, index // phases.shape[1], index % phases.shape[1], text, points)
    pattern.set(xticks=range(phases.shape[1]), yticks=range(phases.shape[0]))
    colour_bar(image, axes_at(figure, corners[1] + size + 0.1, top, 0.12, size), label)

    image = heatmap(whole, boundary, _limits(boundary))
    colour_bar(image, axes_at(figure, corners[2] + size + 0.1, top, 0.12, size), label)
    if with_titles:
        detail.set_title(f"phase part\n(middle {cut.shape[1]} x {cut.shape[0]} px)")
        pattern.set_title("value of each phase\n(colour: from their mean)")
        whole.set_title("border part\n(whole map)")


def _limits(array: Array) -> tuple[float, float]:
    """Return limits around 0 that hold the array."""
    reach = float(np.abs(array).max()) or 1.0
    return -reach, reach


def _value(value: float, phases: Array) -> str:
    """Return a phase's value with the decimals that tell phases apart, four at most."""
    spread = float(phases.max() - phases.min())
    places = min(4, max(2, 1 - math.floor(math.log10(spread)))) if spread > 0 else 2
    return f"{value:.{places}f}"
