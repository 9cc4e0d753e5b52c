"""Where a tuning looks for hyperparameters: data that tasks declare for training, pools and heads for their options."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from poolbench.core import Scalar


@dataclass(frozen=True)
class Interval:
    """Numbers from ``low`` to ``high``, widened to contain the default; ``log``: even in the logarithm."""

    low: float
    high: float
    log: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"an interval runs upwards, a logarithmic one from above 0, got {self.low} to {self.high}")


@dataclass(frozen=True)
class Factor:
    """Numbers from default / ``factor`` to default * ``factor``, even in the logarithm."""

    factor: float

    def __post_init__(self) -> None:
        if self.factor <= 1:
            raise ValueError(f"a factor is above 1, got {self.factor}")


@dataclass(frozen=True)
class OneOf:
    """One of some values; the default is always among them."""

    values: tuple[Scalar, ...]


Search = Interval | Factor | OneOf

TRAINING: Mapping[str, Search] = {
    "learning_rate": Factor(30),
    "weight_decay": OneOf((0.0, 1e-5, 1e-4, 1e-3, 1e-2)),
    "batch_size": OneOf((32, 64, 128, 256)),
    "schedule": OneOf(("constant", "cosine", "one_cycle")),
}
"""What is tuned of every training. A task may add to it: an augmentation that is no treatment there."""
