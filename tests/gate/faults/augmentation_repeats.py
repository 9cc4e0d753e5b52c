"""Training: every epoch draws the same augmentations.

Imitates random numbers of loader processes that start from the same seed in every epoch. A place in the order of the
epoch has its angle or shift once and for all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

import poolbench.data.augment
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.data.augment, "draw_augmentations")
def the_same_again(
    original: Callable[..., dict[str, Tensor]], kinds: Sequence[str], count: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """Draw, and put the generator back to where it was."""
    state = generator.get_state()
    draws = original(kinds, count, generator)
    generator.set_state(state)
    return draws
