"""The sums of :class:`~poolbench.measures.rotation.moments.Moments` in one reading of the activations, by numba.

An extra (``pip install poolbench[fast]``): what torch does in twelve passes over memory is here one loop that stays
in the cache. Without numba, on a GPU and in half precision torch's way serves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

Sums = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
Array = np.ndarray[Any, Any]

# Units at a time: their sums over all angles, three numbers a unit and angle, stay in a core's cache.
WIDTH = 2048


def compiled_sums(values: Tensor) -> Sums | None:
    """Return the function that adds such activations to their sums, None where torch has to do it.

    It takes activations (angles, b, units), shift (angles, 1, units), and adds in place to sums and squares
    (angles, 1, units) of the differences from the shift and to deviations (2, units): the root of the sum
    of squared deviations over the angles, and that sum. All contiguous.
    """
    suits = values.device.type == "cpu" and values.dtype in (torch.float32, torch.float64)
    return _sums() if suits else None


@lru_cache(maxsize=1)
def _sums() -> Sums | None:
    try:
        from numba import njit
    except ImportError:
        return None
    # Fused multiply-adds round once where two operations round twice; nothing else may be rearranged.
    options: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}}
    add_differences = njit(**options)(_add_differences)

    def add(values: Array, shift: Array, sums: Array, squares: Array, deviations: Array) -> None:
        angles, count, units = values.shape
        # Slices of flat arrays are known to be contiguous, without which no loop becomes a vector loop.
        flat, flat_shift, flat_deviations = values.reshape(-1), shift.reshape(-1), deviations.reshape(-1)
        flat_sums, flat_squares = sums.reshape(-1), squares.reshape(-1)
        own_sums, own_squares = np.empty(WIDTH, values.dtype), np.empty(WIDTH, values.dtype)
        for start in range(0, units, WIDTH):
            width = min(WIDTH, units - start)
            own_sum, own_square = own_sums[:width], own_squares[:width]
            roots = flat_deviations[start : start + width]
            total = flat_deviations[units + start : units + start + width]
            for image in range(count):
                own_sum[:] = 0
                own_square[:] = 0
                first = flat[image * units + start : image * units + start + width]
                for angle in range(angles):
                    place = (angle * count + image) * units + start
                    over_images = slice(angle * units + start, angle * units + start + width)
                    own = flat[place : place + width]
                    add_differences(own, flat_shift[over_images], flat_sums[over_images], flat_squares[over_images])
                    add_differences(own, first, own_sum, own_square)
                for unit in range(width):
                    square = own_square[unit] - own_sum[unit] * own_sum[unit] / angles
                    # Rounding may leave less than nothing; NaN stays NaN.
                    if square < 0:
                        square = 0 * square
                    roots[unit] += np.sqrt(square)
                    total[unit] += square

    compiled = njit(**options)(add)

    def sums_of(*tensors: Tensor) -> None:
        compiled(*(tensor.numpy() for tensor in tensors))

    return sums_of


def _add_differences(values: Array, origin: Array, sums: Array, squares: Array) -> None:
    for index in range(values.size):
        difference = values[index] - origin[index]
        sums[index] += difference
        squares[index] += difference * difference
