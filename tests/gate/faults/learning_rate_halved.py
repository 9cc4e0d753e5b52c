"""Training: the learning rate is half of what the cell says, at every step.

Imitates a rate that was scaled with the number of devices, or a mean taken over two accumulated batches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import poolbench.engine.optimisation
from poolbench.core import TrainConfig
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.engine.optimisation, "learning_rate")
def half(original: Callable[..., float], config: TrainConfig, step: int, steps: int) -> float:
    """Return half the rate."""
    return original(config, step, steps) / 2
