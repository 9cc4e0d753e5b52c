"""What all figures share: colours, panels, lines, heatmaps, legends, and how they are stored."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from poolbench_tracking.statistics import t_interval

# Okabe and Ito's colours for all kinds of colour vision, without the yellow that vanishes on white.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D")
GREY = "#767676"
# Two hues around white: which side of 0.5 an output is on decides, so the scale shows it.
MAP_COLOURS = "RdBu_r"
WIDTH = 9.0
FONTS = "'DejaVu Sans', Verdana, 'Segoe UI', Helvetica, Arial, sans-serif"
STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "image.interpolation": "none",
    # Names come from users: a dollar sign is no formula.
    "text.parse_math": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "poolbench",
}
Curve = dict[float, list[float]]
Dashes = Literal["-", "--"]


def to_png(figure: Figure, dpi: int = 110) -> bytes:
    """Return the figure as a PNG."""
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="png", dpi=dpi, metadata={"Software": None})
    return content.getvalue()


def to_svg(figure: Figure) -> str:
    """Return the figure as an <svg> element for a page: scales with its width, equal for equal figures.

    Ids carry a prefix that depends on the content, so several elements share a page without mixing up
    their clip paths.
    """
    content = BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = content.getvalue().decode()
    svg = svg[svg.index("<svg") :].strip()
    # A reader's machine may lack the font whose widths were used; the next best ones are as wide or narrower.
    svg = svg.replace("'DejaVu Sans'", FONTS)
    width = round(figure.get_figwidth() * 96)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', rf'\1 style="width: 100%; max-width: {width}px"', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    prefix = "f" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    return re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)


def panel_grid(
    titles: Iterable[str],
    columns: int,
    panel_height: float,
    legend_rows: int,
    share_y: bool = True,
    right: float = 0.15,
    gap_y: float = 0.72,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and one axes per title, row by row; sizes in inches, room for the legend on top.

    The margins are computed because a layout engine takes longer than all the drawing.
    """
    titles = list(titles)
    rows = math.ceil(len(titles) / columns)
    left, bottom, top, gap_x = 0.62, 0.45, 0.3 + 0.22 * legend_rows + (gap_y - 0.72), 0.3
    width = min(WIDTH, left + right + 4.6 * columns)
    panel_width = (width - left - right - gap_x * (columns - 1)) / columns
    height = top + bottom + rows * panel_height + (rows - 1) * gap_y
    figure = Figure(figsize=(width, height))
    grid = figure.subplots(
        rows, columns, squeeze=False, sharey=share_y,
        gridspec_kw={
            "left": left / width, "right": 1 - right / width, "bottom": bottom / height, "top": 1 - top / height,
            "wspace": gap_x / panel_width, "hspace": gap_y / panel_height,
        },
    )  # fmt: skip
    axes = list(grid.flat)
    for unused in axes[len(titles) :]:
        unused.remove()
    for panel, title in zip(axes, titles, strict=False):
        panel.set_title(title)
    return figure, axes[: len(titles)]


def line(axes: Axes, curve: Curve, colour: str, dashes: str, marker: str, band: float) -> None:
    """Draw the mean over seeds with its 95 % t band in the given opacity."""
    xs = sorted(curve)
    intervals = [t_interval(curve[x]) for x in xs]
    means = [interval.mean for interval in intervals]
    axes.plot(xs, means, color=colour, linestyle=dashes, linewidth=1.4, **marks(len(xs), marker))
    if band and any(interval.n > 1 for interval in intervals):
        lows, highs = [interval.low for interval in intervals], [interval.high for interval in intervals]
        axes.fill_between(xs, lows, highs, color=colour, alpha=band, linewidth=0)


def band_opacity(lines: int) -> float:
    """Opacity of bands of which this many may overlap."""
    return 0.14 if lines <= 2 else 0.06


def marks(points: int, marker: str = "o") -> dict[str, Any]:
    """Markers where there are few points, so that a single epoch is seen."""
    return {"marker": marker, "markersize": 3} if points <= 20 else {}


def finish_axes(axes: Sequence[Axes], label: str, curves: Iterable[Curve], bottom: float | None = None) -> None:
    """Scale the shared y axis to the observed values: bands of few seeds reach far beyond them."""
    values = [value for curve in curves for members in curve.values() for value in members]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05
    axes[0].set_ylim(low - margin if bottom is None else bottom, high + margin)
    for panel in axes:
        spec = panel.get_subplotspec()
        if spec is not None and spec.is_first_col():
            panel.set_ylabel(label)


def epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def heatmap(axes: Axes, array: np.ndarray[Any, Any]) -> AxesImage:
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=True))
    return axes.imshow(array, cmap=MAP_COLOURS, vmin=0, vmax=1)


def colour_bar(figure: Figure, image: AxesImage, place: tuple[float, float, float, float], label: str) -> None:
    bar = figure.colorbar(image, cax=figure.add_axes(place))
    bar.outline.set_visible(False)
    # As vectors the bar is 256 paths.
    assert bar.solids is not None
    bar.solids.set_rasterized(True)
    bar.set_label(label)


def key(label: str, colour: str, dashes: Dashes = "-", marker: str = "") -> Line2D:
    return Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=label)


def legend_rows(keys: Sequence[Line2D]) -> int:
    return math.ceil(len(keys) / 7)


def legend(figure: Figure, keys: Sequence[Line2D]) -> None:
    figure.legend(handles=list(keys), loc="upper center", ncols=min(len(keys), 7), borderaxespad=0.2, handlelength=2.6)
