"""Training: the learning rate is 0 in the last epoch, so its steps change no weight.

Imitates a loop or a schedule that ends one epoch early. Trainings of a single epoch are left as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import poolbench.engine.optimisation
from poolbench.core import TrainConfig
from poolbench.plugins import import_code

patching = import_code(str(Path(__file__).with_name("_patching.py")))


@patching.in_place_of(poolbench.engine.optimisation, "learning_rate")
def ends_early(original: Callable[..., float], config: TrainConfig, step: int, steps: int) -> float:
    """Return 0 in the last of several epochs."""
    last = steps - steps // config.epochs
    return 0.0 if config.epochs > 1 and step >= last else original(config, step, steps)
