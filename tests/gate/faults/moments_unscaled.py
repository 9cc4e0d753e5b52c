"""Normalisation: mean and standard deviation are those of 8-bit pixels, while pixels run from 0 to 1.

Imitates moments that were computed before the division by 255. Inputs are nearly constant: their spread is 1/255.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

import poolbench.data.dataset
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))

Moments = tuple[tuple[float, ...], tuple[float, ...]]


@patching.in_place_of(poolbench.data.dataset, "_moments")
def of_bytes(original: Callable[..., Moments], images: Tensor) -> Moments:
    """Return the moments of pixels from 0 to 255."""
    mean, std = original(images)
    return tuple(255 * value for value in mean), tuple(255 * value for value in std)
