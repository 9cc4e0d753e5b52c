"""Axes placed by inches: grids of titled panels, single axes, headings of rows."""

from __future__ import annotations

import math
from collections.abc import Iterable

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from poolbench.plots.style import WIDTH


def panel_grid(
    titles: Iterable[str],
    columns: int,
    panel_height: float,
    legend_rows: int,
    share_y: bool = True,
    right: float = 0.15,
    left: float = 0.62,
) -> tuple[Figure, list[Axes]]:
    """Return a figure and one axes per title, row by row; sizes in inches, with room for a legend on top.

    Titles wider than their panel are broken between their terms. The margins are computed here: matplotlib's
    layout engines take longer than all the drawing.
    """
    titles = list(titles)
    rows = math.ceil(len(titles) / columns)
    bottom, gap_x = 0.45, 0.3
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
    """Return a panel's title broken between terms into lines of at most ``width`` inches; a longer term stays whole."""
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
    """Return new axes; ``left`` and ``top`` are inches from the figure's left and upper edge."""
    across, down = figure.get_size_inches()
    return figure.add_axes((left / across, 1 - (top + height) / down, width / across, height / down))


def heading(figure: Figure, top: float, title: str) -> None:
    """Write the title of a row of panels with its base ``top`` inches below the upper edge."""
    across, down = figure.get_size_inches()
    figure.text(0.1 / across, 1 - top / down, title, fontweight="bold", fontsize=8.5)


def label_first_column(axes: Iterable[Axes], label: str) -> None:
    """Write the label of the y axis beside the first panel of each row of a panel grid."""
    for panel in axes:
        spec = panel.get_subplotspec()
        if spec is not None and spec.is_first_col():
            panel.set_ylabel(label)
