"""Training: the schedule of the learning rate advances once per epoch in place of once per step.

Imitates ``scheduler.step()`` in the outer loop. A one-cycle schedule of a few hundred steps stays at its first,
lowest rates. Constant rates are not affected.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import poolbench.engine.optimisation
from poolbench.core import TrainConfig
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.engine.optimisation, "learning_rate")
def by_epochs(original: Callable[..., float], config: TrainConfig, step: int, steps: int) -> float:
    """Return the rate of the step whose number is that of the epoch."""
    return original(config, step // (steps // config.epochs), steps)
