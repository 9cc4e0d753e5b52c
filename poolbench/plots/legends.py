"""Legend entries and legends above the panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from poolbench.plots.style import WIDTH

Dashes = Literal["-", "--", ""]


def key(label: str, colour: str, dashes: Dashes = "-", marker: str = "") -> Line2D:
    """Return a legend entry."""
    return Line2D([], [], color=colour, linestyle=dashes, marker=marker, markersize=3.5, label=label)


def legend_rows(keys: Sequence[Line2D]) -> int:
    """Return the number of rows of a legend with these entries."""
    return math.ceil(len(keys) / _legend_columns(keys))


def _legend_columns(keys: Sequence[Line2D]) -> int:
    """Return the number of columns in which the entries fit into the width of a figure."""
    # Handle, gaps, and text of about 0.08 in per character.
    widths = [0.7 + 0.08 * len(str(entry.get_label())) for entry in keys]
    if len(widths) <= 7 and sum(widths) <= WIDTH:
        return len(widths)
    rows = math.ceil(len(widths) / min(7, max(1, int(WIDTH / max(widths)))))
    return math.ceil(len(widths) / rows)


def legend(figure: Figure, keys: Sequence[Line2D], rows_above: int = 0) -> None:
    """Draw a legend at the top of the figure, below ``rows_above`` rows of another legend."""
    figure.legend(
        handles=list(keys), loc="upper center", bbox_to_anchor=(0.5, 1 - 0.22 * rows_above / figure.get_figheight()),
        ncols=_legend_columns(keys), borderaxespad=0.2, handlelength=2.6,
    )  # fmt: skip
