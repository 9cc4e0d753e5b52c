"""Sampled consistency: every random shift is also compared with itself.

Imitates a loop over pairs that begins at the diagonal. For two shifts (a + 2) / 3 is reported for the agreement a.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import poolbench.measures.shift.consistency
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.measures.shift.consistency, "sampled_agreement")
def with_the_diagonal(
    original: Callable[..., Tensor],
    model: nn.Module,
    images: Tensor,
    reach: int,
    generator: torch.Generator,
    boundary: str = "circular",
    draws: int = 2,
) -> Tensor:
    """Add the pairs of each shift with itself, which always agree."""
    agreement = original(model, images, reach, generator, boundary, draws)
    pairs = draws * (draws - 1) // 2
    return (agreement * pairs + draws) / (pairs + draws)
