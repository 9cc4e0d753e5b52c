"""A bank of 3x3 edge filters, as data. Importing this module imports no torch."""

from __future__ import annotations

from dataclasses import dataclass

from poolbench.registry import closest

Weights = tuple[tuple[float, float, float], tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True)
class Filter:
    """A 3x3 filter: its name, its weights by row, and in words where its response is positive.

    The response at a pixel is the sum of weights times the pixels around it (a cross-correlation, as in a
    convolution layer). The weights of the bank sum to zero: a constant image gives zero.
    """

    name: str
    weights: Weights
    finds: str


def _negative(weights: Weights) -> Weights:
    (a, b, c), (d, e, f), (g, h, i) = weights
    return (-a, -b, -c), (-d, -e, -f), (-g, -h, -i)


def _transposed(weights: Weights) -> Weights:
    (a, b, c), (d, e, f), (g, h, i) = weights
    return (a, d, g), (b, e, h), (c, f, i)


_EDGES: Weights = ((-1, -1, -1), (-1, 8, -1), (-1, -1, -1))
_ROWS: Weights = ((-1, -1, -1), (1, 1, 1), (0, 0, 0))

FILTERS = (
    Filter("edges", _EDGES, "pixels brighter than their neighbours"),
    Filter("edges_negative", _negative(_EDGES), "pixels darker than their neighbours"),
    Filter("rows", _ROWS, "rows brighter than the row above"),
    Filter("rows_negative", _negative(_ROWS), "rows darker than the row above"),
    Filter("columns", _transposed(_ROWS), "columns brighter than the column to the left"),
    Filter("columns_negative", _transposed(_negative(_ROWS)), "columns darker than the column to the left"),
    # Angles as elsewhere in the package: counter-clockwise from the direction to the right.
    Filter("sobel_0", ((-1, 0, 1), (-2, 0, 2), (-1, 0, 1)), "brightness that increases to the right"),
    Filter("sobel_45", ((0, 1, 2), (-1, 0, 1), (-2, -1, 0)), "brightness that increases to the upper right"),
    Filter("sobel_90", ((1, 2, 1), (0, 0, 0), (-1, -2, -1)), "brightness that increases upwards"),
    Filter("sobel_135", ((2, 1, 0), (1, 0, -1), (0, -1, -2)), "brightness that increases to the upper left"),
)
"""The bank. Sobel filters (Sobel and Feldman 1968) estimate the gradient along their direction."""

SHOWN = ("edges", "edges_negative", "rows", "columns")
"""The filters of the picture of the whole sequence."""


def named_filter(name: str) -> Filter:
    """Return the filter of the bank with this name; raise UsageError with the nearest for an unknown one."""
    bank = {one.name: one for one in FILTERS}
    if name not in bank:
        raise closest("filter", name, bank)
    return bank[name]
