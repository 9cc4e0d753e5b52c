"""Training: angles of the augmentation are drawn in radians and used as degrees, at most 3.14 of them.

Imitates a unit that two libraries do not share. Training images are practically upright.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import poolbench.data.augment
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.data.augment, "draw_augmentations")
def small_angles(
    original: Callable[..., dict[str, Tensor]], kinds: Sequence[str], count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw angles in radians."""
    draws = original(kinds, count, generator)
    return {name: values * (math.pi / 180) if name == "rotation" else values for name, values in draws.items()}
