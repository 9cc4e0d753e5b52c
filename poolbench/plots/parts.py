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
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, ScalarFormatter

from poolbench.analysis.statistics import t_interval

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
    "axes.titley": 1.0,  # fixed: to find free room above the ticks takes a layout of every axis
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
Dashes = Literal["-", "--", ""]


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
) -> tuple[Figure, list[Axes]]:
    """Return a figure and one axes per title, row by row; sizes in inches, room for the legend on top.

    Titles wider than their panel are broken between their terms.
    The margins are computed because a layout engine takes longer than all the drawing.
    """
    titles = list(titles)
    rows = math.ceil(len(titles) / columns)
    left, bottom, gap_x = 0.62, 0.45, 0.3
    width = min(WIDTH, left + right + 4.6 * columns)
    panel_width = (width - left - right - gap_x * (columns - 1)) / columns
    titles = [_broken(title, panel_width) for title in titles]
    more = 0.145 * max(title.count("\n") for title in titles)
    gap_y, top = 0.72 + more, 0.3 + 0.22 * legend_rows + more
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


def _broken(title: str, width: float) -> str:
    """Break a panel's title between terms into lines of at most ``width`` inches, where terms are that short."""
    lines: list[str] = []
    for paragraph in title.split("\n"):
        first, *terms = paragraph.split(" · ")
        lines.append(first)
        for text in terms:
            # Text is about 0.07 in wide per character at this size.
            if 0.07 * len(f"{lines[-1]} · {text}") <= width:
                lines[-1] += f" · {text}"
            else:
                lines.append(text)
    return "\n".join(lines)


def axes_at(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Return new axes; sizes in inches, from the figure's left and upper edge."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def heading(figure: Figure, top: float, title: str) -> None:
    """Write the title of a row of panels with its base ``top`` inches below the upper edge."""
    across, down = figure.get_size_inches()
    figure.text(0.1 / across, 1 - top / down, title, fontweight="bold", fontsize=8.5)


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


def finish_axes(axes: Sequence[Axes], label: str, curves: Iterable[Curve]) -> None:
    """Scale the shared y axis to the observed values: bands of few seeds reach far beyond them."""
    values = [value for curve in curves for members in curve.values() for value in members]
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05
    axes[0].set_ylim(low - margin, high + margin)
    for panel in axes:
        spec = panel.get_subplotspec()
        if spec is not None and spec.is_first_col():
            panel.set_ylabel(label)


def epoch_axis(axes: Axes) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def heatmap(
    axes: Axes,
    array: np.ndarray[Any, Any],
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


def write_on(axes: Axes, image: AxesImage, row: int, column: int, text: str, size: float = 7.5) -> None:
    """Write on one element of a heatmap, in white where it is dark."""
    array = image.get_array()
    assert array is not None
    red, green, blue, _ = image.cmap(image.norm(array[row, column]))
    is_dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
    axes.text(column, row, text, color="white" if is_dark else "black", fontsize=size, ha="center", va="center")


def colour_bar(image: ScalarMappable, axes: Axes, label: str) -> None:
    bar = axes.figure.colorbar(image, cax=axes)
    bar.outline.set_visible(False)
    # As vectors the bar is 256 paths.
    assert bar.solids is not None
    bar.solids.set_rasterized(True)
    # The border part and rounding have sizes that no one can write out beside a bar.
    bar.formatter = ScalarFormatter()
    bar.formatter.set_powerlimits((-3, 4))
    bar.set_label(label)


def side_bar(figure: Figure, image: ScalarMappable, label: str) -> None:
    """Draw the one colour bar of a panel grid that left 0.95 in free on its right and has no legend above."""
    width, height = figure.get_size_inches()
    # From top to bottom of the panels, unless they are many.
    colour_bar(image, axes_at(figure, width - 0.75, 0.35, 0.16, min(3.0, height - 0.8)), label)


def key(label: str, colour: str, dashes: Dashes = "-", marker: str = "") -> Line2D:
    return Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=label)


def legend_rows(keys: Sequence[Line2D]) -> int:
    return math.ceil(len(keys) / _legend_columns(keys))


def _legend_columns(keys: Sequence[Line2D]) -> int:
    """Return in how many columns, filled one after the other, the entries fit into the width."""
    # Handle, gaps, and text of about 0.08 in per character.
    widths = [0.7 + 0.08 * len(str(entry.get_label())) for entry in keys]
    if len(widths) <= 7 and sum(widths) <= WIDTH:
        return len(widths)
    rows = math.ceil(len(widths) / min(7, max(1, int(WIDTH / max(widths)))))
    return math.ceil(len(widths) / rows)


def legend(figure: Figure, keys: Sequence[Line2D], rows_above: int = 0) -> None:
    figure.legend(
        handles=list(keys), loc="upper center", bbox_to_anchor=(0.5, 1 - 0.22 * rows_above / figure.get_figheight()),
        ncols=_legend_columns(keys), borderaxespad=0.2, handlelength=2.6,
    )  # fmt: skip
