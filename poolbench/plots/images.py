"""Arrays as colour images, the text on them, and their colour bars."""

from __future__ import annotations

from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from poolbench.plots.panels import axes_at
from poolbench.plots.style import MAP_COLOURS

Array = np.ndarray[Any, Any]


def heatmap(
    axes: Axes,
    array: Array,
    limits: tuple[float, float] = (0, 1),
    colours: str = MAP_COLOURS,
    corner: tuple[int, int] = (0, 0),
) -> AxesImage:
    """Draw an array (h, w) whose first element lies at ``corner`` (y, x)."""
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    (top, left), (height, width) = corner, array.shape
    extent = (left - 0.5, left + width - 0.5, top + height - 0.5, top - 0.5)
    return axes.imshow(array, cmap=colours, vmin=limits[0], vmax=limits[1], extent=extent)


def map_image(array: Array, least: int = 256) -> Array:
    """Return a map (h, w) of values from 0 to 1 as an image (H, W, 3) of uint8, in the colours of :func:`heatmap`.

    Every pixel is enlarged to a square, so that the shorter side has ``least`` pixels or more.
    """
    factor = -(-least // min(array.shape))
    colours: Array = matplotlib.colormaps[MAP_COLOURS](np.asarray(array, dtype=float), bytes=True)[..., :3]
    return colours.repeat(factor, 0).repeat(factor, 1)


def write_on(axes: Axes, image: AxesImage, row: int, column: int, text: str, size: float = 7.5) -> None:
    """Write text on one element of a heatmap, white on dark elements."""
    array = image.get_array()
    assert array is not None
    red, green, blue, _ = image.cmap(image.norm(array[row, column]))
    is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    axes.text(column, row, text, color="white" if is_dark else "black", fontsize=size, ha="center", va="center")


def colour_bar(image: ScalarMappable, axes: Axes, label: str) -> None:
    """Draw the colour bar of an image into axes of its own."""
    bar = axes.figure.colorbar(image, cax=axes)
    bar.outline.set_visible(False)
    # As vectors the bar is 256 paths.
    assert bar.solids is not None
    bar.solids.set_rasterized(True)
    # Values may be many orders of magnitude below 1: an exponent keeps the ticks short.
    bar.formatter = ScalarFormatter()
    bar.formatter.set_powerlimits((-3, 4))
    bar.set_label(label)


def side_bar(figure: Figure, image: ScalarMappable, label: str) -> None:
    """Draw one colour bar beside a panel grid without a legend that leaves 0.95 in free on its right."""
    width, height = figure.get_size_inches()
    # As high as the panels, but at most 3 in.
    colour_bar(image, axes_at(figure, width - 0.75, 0.35, 0.16, min(3.0, height - 0.8)), label)
