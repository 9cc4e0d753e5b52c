"""Names and places of layers between the input and the output of a network."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes


def percent_of_depth(depth: pd.Series[int]) -> pd.Series[float]:
    """Return layers' positions in percent: 0 for the first layer, 100 for the largest index in ``depth``."""
    percent: pd.Series[float] = 100 * depth / max(1, depth.max())
    return percent


def short_names(names: Sequence[str]) -> list[str]:
    """Return layers' dotted names without the leading modules that all of them share."""
    short = list(names)
    while len({name.partition(".")[0] for name in short}) == 1 and all("." in name for name in short):
        short = [name.partition(".")[2] for name in short]
    return short


def layer_ticks(axes: Axes, names: Sequence[str], most: int) -> None:
    """Write the layers' names below the x axis, upright; every second (third, ...) one if there are too many."""
    step = math.ceil(len(names) / most)
    axes.set_xticks(range(0, len(names), step), names[::step], rotation=90, fontsize=7)
