"""Canvas maps: the output for an object at every position, and its parts.

The phase part depends on the position modulo the stride, the border part on the distance to the border.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from poolbench.analysis.groups import has_learned
from poolbench.core import Result
from poolbench.plots.images import Array, colour_bar, heatmap, write_on
from poolbench.plots.panels import axes_at, panel_grid
from poolbench.plots.scene import Scene, example
from poolbench.plots.style import GREY, MAP_COLOURS, STYLE, WIDTH

Parts = tuple[Array, Array, Array]  # phase (h, w), border (h, w), value of each phase (s, s)
DETAIL = 16  # pixels: a pattern that repeats every 2 or 4 is too fine to see on the whole map


def single_map(array: Array, label: str) -> Figure:
    """Return a figure of one map (h, w) of probabilities; ``label`` names the probability."""
    figure = Figure(figsize=(4.6, 3.7))
    _draw_map(figure, array, 0.62, 0.26, 2.96, label)
    return figure


def map_panels(
    scene: Scene, array: str, panels: Sequence[str], label: str, facts: Callable[[Result], Sequence[str]]
) -> Figure | None:
    """Draw the stored array of one network per group, all on the scale 0 to 1; None if no group has it.

    ``panels`` names the fields that come first in the titles; ``facts`` returns what the title says of a result
    besides its seed and that it has not learned.
    """
    chosen: dict[str, tuple[Result, Array]] = {}
    for group in scene.groups:
        result = example(group)
        found = scene.arrays(result, array)
        if found is not None:
            chosen[group.id] = result, found[0]
    if not chosen:
        return None
    members_of = scene.panels([group for group in scene.groups if group.id in chosen], panels)
    names = {group.id: title for title, members in members_of.items() for group in members}
    titles = []
    for group_id, (result, _) in chosen.items():
        learned = [] if has_learned(result) else ["not learned"]
        text = ", ".join([f"seed {result.cell.seed}", *facts(result), *learned])
        titles.append("\n".join(filter(None, [names[group_id], text])))
    figure, axes = panel_grid(titles, columns=4, panel_height=1.75, legend_rows=0, right=0.95)
    image = None
    for index, (panel, (result, values)) in enumerate(zip(axes, chosen.values(), strict=True)):
        image = heatmap(panel, values)
        panel.title.set(fontsize=8, color="#000000" if has_learned(result) else GREY)
        if index % 4 == 0:
            panel.set_ylabel("y / px")
        if index + 4 >= len(chosen):
            panel.set_xlabel("x / px")
    assert image is not None
    span = min(3.0, figure.get_figheight() - 1.2)
    colour_bar(image, axes_at(figure, WIDTH - 0.75, 0.5, 0.16, span), label)
    return figure


def map_overview(probability: Array, parts: Parts | None, label: str) -> Figure:
    """Return one page with a map (h, w) of probabilities and, unless None, its parts in the unit of the logit.

    ``parts`` are the phase part (h, w), the border part (h, w) and the value of each phase (s, s);
    ``label`` names the probability.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(5.6, 4.6) if parts is None else (WIDTH, 7.4))
        _draw_map(figure, probability, 0.62 if parts is None else 2.4, 0.26, 3.8, label)
        if parts is not None:
            draw_parts(figure, parts, 0.62, 5.1, 1.9, "logit", with_titles=True)
    return figure


def _draw_map(figure: Figure, array: Array, left: float, top: float, size: float, label: str) -> None:
    """Draw a map (h, w) of probabilities with its colour bar; sizes in inches."""
    axes = axes_at(figure, left, top, size, size)
    image = heatmap(axes, array)
    axes.set(xlabel="x of the centre / px", ylabel="y of the centre / px")
    colour_bar(image, axes_at(figure, left + size + 0.15, top, 0.16, size), label)


def draw_parts(
    figure: Figure, parts: Parts, left: float, top: float, size: float, label: str, with_titles: bool
) -> None:
    """Draw a detail of the phase part, the phases and the border part in a row, from ``left`` to the right edge.

    Sizes are in inches. Phase and border have separate colour bars: they differ by orders of magnitude.
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
    """Return limits around 0 that contain the array."""
    reach = float(np.abs(array).max()) or 1.0
    return -reach, reach


def _value(value: float, phases: Array) -> str:
    """Return a phase's value with the decimals that tell phases apart, four at most."""
    spread = float(phases.max() - phases.min())
    places = min(4, max(2, 1 - math.floor(math.log10(spread)))) if spread > 0 else 2
    return f"{value:.{places}f}"
