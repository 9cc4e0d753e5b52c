"""The pictures of ``inspect pools``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from poolbench.inspect.filters import SHOWN, named_filter
from poolbench.inspect.pools import Change, PooledMap, PoolInspection
from poolbench.plots.images import Array, colour_bar, heatmap, write_on
from poolbench.plots.panels import axes_at, heading
from poolbench.plots.style import MAP_COLOURS, STYLE, WIDTH

ACTIVATION_COLOURS = "magma"
BRIGHTEST = 99.5
"""Percentile of the activated values at which their colour scale ends: few pixels are far brighter than the others."""
REACH = 2.0
"""End of the colour scale of differences, in standard deviations of the pooled map."""
LEFT, TOP = 0.5, 0.42  # inches, of the first panel
PANEL, GAP = 1.36, 0.38  # inches, width of a panel and space beside it
TALLEST = 1.5  # height of a panel, at most, as a multiple of its width


@dataclass(frozen=True)
class Picture:
    """A picture with the name of its file, a title and a caption."""

    name: str
    title: str
    caption: str
    draw: Callable[[PoolInspection], Figure]


def sequence(found: PoolInspection) -> Figure:
    """Draw the photograph, filters with their weights, the filtered maps, after ReLU, and after 2x2 max pooling."""
    filters = [named_filter(name) for name in SHOWN]
    responses = [found.filtered[one.name].numpy() for one in filters]
    pooled = [found.pooled[one.name].numpy() for one in filters]
    limit = _brightest(np.abs(np.stack(responses)))
    high = _panel_height(found.photograph.numpy())
    rows = (
        ("filtered", responses, (-limit, limit), MAP_COLOURS),
        (
            "after ReLU: negative values are 0",
            [np.maximum(each, 0) for each in responses],
            (0, limit),
            ACTIVATION_COLOURS,
        ),
        ("after 2x2 max pooling with stride 2", pooled, (0, limit), ACTIVATION_COLOURS),
    )
    with matplotlib.rc_context(STYLE):
        pitch = high + 0.78
        figure = Figure(figsize=(WIDTH, TOP + PANEL + 0.5 + pitch * len(rows)))
        _photograph(_panel(figure, 0, TOP, min(high, PANEL)), found.photograph.numpy())
        for column, one in enumerate(filters, start=1):
            _weights(_panel(figure, column, TOP, PANEL), np.array(one.weights), one.name)
        for index, (title, maps, limits, colours) in enumerate(rows):
            top = TOP + PANEL + 0.78 + index * pitch
            heading(figure, top - 0.22, title)
            for column, values in enumerate(maps, start=1):
                image = heatmap(_panel(figure, column, top, high), values, limits, colours)
                image.axes.set_title(_size(values), fontsize=8)
            colour_bar(image, axes_at(figure, LEFT + 0.2, top, 0.13, high), "")
            figure.axes[-1].tick_params(labelsize=7)
    return figure


def pools_side_by_side(found: PoolInspection) -> Figure:
    """Draw the activated map and, on the same scale, what every pool makes of it, with their sizes in px."""
    panels = [("no pool", found.activated.numpy()), *((_name(one), one.before.numpy()) for one in found.maps)]
    limits = (0.0, _brightest(found.activated.numpy()))
    columns, high = 5, _panel_height(found.activated.numpy())
    pitch = high + 0.72
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH + 0.9, TOP - 0.2 + pitch * -(-len(panels) // columns)))
        for index, (name, values) in enumerate(panels):
            row, column = divmod(index, columns)
            image = heatmap(_panel(figure, column, TOP + row * pitch, high), values, limits, ACTIVATION_COLOURS)
            image.axes.set_title(f"{name}\n{_size(values)}", fontsize=8)
        colour_bar(image, axes_at(figure, WIDTH + 0.1, TOP, 0.13, high), "activation")
    return figure


def step_differences(found: PoolInspection) -> Figure:
    """Draw every pool's map after the step beside what the step changed, in order of the change."""
    limits = (0.0, _brightest(found.activated.numpy()))
    columns, high = 2, _panel_height(found.activated.numpy())
    wide, pitch = 3 * PANEL + 0.6, high + 0.58
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(LEFT + columns * wide + 0.65, TOP - 0.2 + pitch * -(-len(found.maps) // columns)))
        for index, one in enumerate(found.maps):
            row, column = divmod(index, columns)
            left, top = LEFT - 0.1 + column * wide, TOP - 0.1 + row * pitch
            after = heatmap(axes_at(figure, left, top, PANEL, high), one.after.numpy(), limits, ACTIVATION_COLOURS)
            after.axes.set_title(_name(one), fontsize=8, loc="left", fontweight="bold")
            size = one.after.shape[0], one.after.shape[1]
            for place, (title, change) in enumerate((("window", one.shown), ("torus", one.shown_circular)), start=1):
                panel = axes_at(figure, left + place * (PANEL + 0.06), top, PANEL, high)
                _difference(panel, change, size, title)
        scale = ScalarMappable(Normalize(-REACH, REACH), matplotlib.colormaps[MAP_COLOURS])
        colour_bar(scale, axes_at(figure, LEFT + columns * wide - 0.2, TOP - 0.1, 0.13, high), "difference / contrast")
    return figure


def _difference(axes: Axes, change: Change, size: tuple[int, int], title: str) -> None:
    """Draw what a step changed in a pooled map of this size (h, w), where it is compared."""
    difference = change.difference[0].numpy()
    margin = (size[0] - len(difference)) // 2
    heatmap(axes, difference, (-REACH, REACH), MAP_COLOURS, (margin, margin))
    axes.set(xlim=(-0.5, size[1] - 0.5), ylim=(size[0] - 0.5, -0.5), xticks=[], yticks=[])
    axes.set_title(f"{title} {number(float(change.size))}", fontsize=8, loc="left")


def number(value: float) -> str:
    """Return a change as text: an exact 0 as "0", what rounds to 0 as "< 0.001"."""
    return "0" if value == 0 else "< 0.001" if value < 0.0005 else f"{value:.3f}"


def _panel(figure: Figure, column: int, top: float, height: float) -> Axes:
    """Return the axes of a column of panels; ``top`` and ``height`` in inches."""
    return axes_at(figure, LEFT + column * (PANEL + GAP), top, PANEL, height)


def _panel_height(image: Array) -> float:
    """Return the height of a panel in inches that an image (h, w) fills, at most ``TALLEST`` times its width."""
    height, width = image.shape
    return PANEL * min(TALLEST, float(height) / float(width))


def _photograph(axes: Axes, image: Array) -> None:
    heatmap(axes, image, (0, 1), "gray").axes.set_title(f"photograph\n{_size(image)}", fontsize=8)


def _weights(axes: Axes, weights: Array, name: str) -> None:
    """Draw a filter as squares with the weights on them."""
    reach = float(np.abs(weights).max())
    image = heatmap(axes, weights, (-reach, reach), "PuOr_r")
    for row, column in np.ndindex(weights.shape):
        write_on(axes, image, row, column, f"{weights[row, column]:.0f}".replace("-", "\N{MINUS SIGN}"), 9)
    axes.set(xticks=[], yticks=[])
    axes.set_title(name, fontsize=8)


def _brightest(values: Array) -> float:
    """Return the end of the colour scale of activations."""
    return float(np.percentile(values, BRIGHTEST)) or float(values.max()) or 1.0


def _name(one: PooledMap) -> str:
    return f"{one.pool} *" if one.weights else one.pool


def _size(image: Array) -> str:
    return f"{image.shape[1]} x {image.shape[0]} px"


PICTURES: Sequence[Picture] = (
    Picture(
        "sequence",
        "Filter, ReLU, max pooling",
        "The photograph in grey, four filters of the bank with their weights, their responses (red: positive, blue: "
        "negative), what a ReLU leaves of them, and the largest value of each 2x2 window. Axes are in px: pooling "
        f"halves the sides. The colours end at the {BRIGHTEST:g}th percentile of the responses.",
        sequence,
    ),
    Picture(
        "pools",
        "One activated map behind every pool",
        "All on the colour scale of the map without a pool; values beyond its ends have the colours of the ends. The "
        "order is that of the next picture. A star marks pools at their initial weights.",
        pools_side_by_side,
    ),
    Picture(
        "step",
        "What a step of one pixel changes",
        "Left: the pooled map after the photograph has moved one pixel down and one to the right. Beside it, on one "
        "colour scale: the difference to the map before the step, moved by 0 or 1 px along each axis, whichever leaves "
        "least, in standard deviations of the map. White: the map has only moved. Window: new content enters at the "
        "border, which is not compared. Torus: what leaves on one side enters on the other. The number is the root "
        "mean square of the difference.",
        step_differences,
    ),
)
