"""Values per image behind a metric: the array of seeds x images from which its interval is computed."""

from __future__ import annotations

from collections.abc import Callable
from math import log, sqrt
from typing import Any

import numpy as np
import pandas as pd

from poolbench.core import Metric

Array = np.ndarray[Any, Any]


class ImageValues:
    """The tables of cells that have one row per image, each read once.

    ``table(cell, name)`` returns a table by the cell's id and the table's name, and raises FileNotFoundError if there
    is none.
    """

    def __init__(self, table: Callable[[str, str], pd.DataFrame]) -> None:
        self._table = table
        self._tables: dict[tuple[str, str], pd.DataFrame | None] = {}

    def column(self, cell: str, name: str) -> Array | None:
        """Return the column (images,) "table.column" as floats; None if the cell lacks it or a value is undefined."""
        table_name, _, column = name.partition(".")
        key = cell, table_name
        if key not in self._tables:
            try:
                self._tables[key] = self._table(*key)
            except FileNotFoundError:
                self._tables[key] = None
        table = self._tables[key]
        if table is None or column not in table:
            return None
        values = table[column].to_numpy(dtype=np.float64)
        return values if len(values) and np.isfinite(values).all() else None


NO_IMAGES = ImageValues(lambda cell, name: pd.DataFrame())
"""For results whose tables are not at hand: intervals then cover the seeds alone."""


def scaled(value: float, metric: Metric) -> float:
    """Return a value on the scale on which a metric is averaged: its logarithm, from the floor up, or itself."""
    return log(max(value, metric.floor)) if metric.scale == "log" else value


def image_contributions(value: float, metric: Metric, cell: str, images: ImageValues) -> Array | None:
    """Return what each image (images,) contributes to a cell's value; the mean of the result is ``scaled(value)``.

    For a mean these are the values of the images. For a root mean square, and for logarithms, it is the first-order
    (influence) term, whose mean over new images has the right variance. None if the cell has no values per image, or
    if the metric is neither their mean nor their root mean square (when it was computed on other images, say).
    """
    column = images.column(cell, metric.per_image) if metric.per_image else None
    if column is None:
        return None
    if _close(float(column.mean()), value):
        deviations = column - column.mean()
    elif _close(sqrt(float((column**2).mean())), value) and value > 0:
        deviations = (column**2 - float((column**2).mean())) / (2 * value)
    else:
        return None
    if metric.scale == "log":
        deviations = deviations / value if value > metric.floor else np.zeros_like(deviations)
    contributions: Array = scaled(value, metric) + deviations
    return contributions


def _close(a: float, b: float) -> bool:
    # Metrics may have been summed in float32.
    return abs(a - b) <= 1e-5 * max(1.0, abs(b))
