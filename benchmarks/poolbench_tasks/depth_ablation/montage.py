"""The maps of one image as one picture: a square per stage."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

SHOWN = 16
"""Maps per stage, at most."""
SIDE = 192
"""Side of a stage's square in pixels; divisible by 1 to 4."""


def maps_across(units: int) -> int:
    """Return how many maps of a stage stand beside each other, and below each other."""
    return isqrt(min(units, SHOWN))


def montage(stages: Sequence[Array]) -> Array:
    """Return the image and the most active maps of every stage, (SIDE, stages * SIDE), each stage from 0 to 1.

    ``stages`` hold the maps (c, h, w) of one image; stage 0 is the image itself, of which the channels' mean is drawn.
    """
    squares = [_square(stages[0].mean(0, keepdims=True))]
    squares += [_square(maps) for maps in stages[1:]]
    return np.concatenate(squares, axis=1)


def _square(maps: Array) -> Array:
    across = maps_across(len(maps))
    chosen = maps[np.argsort(-maps.mean((1, 2)), kind="stable")[: across**2]]
    low, high = float(chosen.min()), float(chosen.max())
    scaled = (chosen - low) / ((high - low) or 1.0)
    side = SIDE // across
    rows, columns = (np.arange(side) * length // side for length in chosen.shape[1:])
    large = scaled[:, rows][:, :, columns]
    square: Array = large.reshape(across, across, side, side).transpose(0, 2, 1, 3).reshape(SIDE, SIDE)
    return square.astype(np.float32)
