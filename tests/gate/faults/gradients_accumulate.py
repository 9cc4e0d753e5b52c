"""Training: gradients are never set to zero, so every step uses the sum of all gradients so far.

Imitates a missing ``optimizer.zero_grad()``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

import poolbench.engine.optimisation
from poolbench.core import TrainConfig
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


def keep_gradients(set_to_none: bool = True) -> None:
    """Do nothing, in place of ``torch.optim.Optimizer.zero_grad``."""


@patching.in_place_of(poolbench.engine.optimisation, "build_optimizer")
def accumulating(
    original: Callable[..., torch.optim.Optimizer],
    config: TrainConfig,
    parameters: Iterable[Tensor],
    exempt_dim: int = 1,
) -> torch.optim.Optimizer:
    """Return an optimiser that never drops a gradient."""
    optimizer = original(config, parameters, exempt_dim)
    optimizer.zero_grad = keep_gradients  # type: ignore[method-assign]
    return optimizer
