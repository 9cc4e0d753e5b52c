"""Feature maps as a population of units: which never answer, and which answer as another one does."""

from __future__ import annotations

import torch
from torch import Tensor


def dead_units(maps: Tensor) -> Tensor:
    """Return booleans (c,) for maps (n, c, h, w): True for a unit that is never above 0, or the same everywhere."""
    by_unit = maps.transpose(0, 1).flatten(1)
    high, low = by_unit.amax(1), by_unit.amin(1)
    return (high <= 0) | (high == low)


def duplicate_units(maps: Tensor, threshold: float = 0.95) -> Tensor:
    """Return booleans (c,) for maps (n, c, h, w): True for a unit that copies an earlier one.

    A copy has an absolute correlation above ``threshold`` with an earlier unit, over all images and positions. Dead
    units are neither copies nor copied.
    """
    alive = ~dead_units(maps)
    values = maps.transpose(0, 1).flatten(1)[alive].double()
    values = values - values.mean(1, keepdim=True)
    values = values / values.norm(dim=1, keepdim=True)
    alike = (values @ values.T).abs() > threshold
    found = torch.zeros(maps.shape[1], dtype=torch.bool, device=maps.device)
    found[alive] = alike.tril(-1).any(1)
    return found
