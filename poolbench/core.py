"""Frozen data that every layer shares: training, cells, metrics, claims, measurements, results.

Nothing here imports torch, so planning and listing answer at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Scalar = str | int | float | bool
Options = Mapping[str, Scalar]


class UsageError(ValueError):
    """Input that a user can mend: one line with what was given, what is allowed and what to do."""


class MissingData(Exception):
    """A data set that is neither on disk nor reachable; the message says how to fetch it."""


def derive_seed(seed: int, purpose: str) -> int:
    """Return the 63-bit seed of one random stream, from the cell's seed and the stream's purpose.

    Streams are independent of each other and of the order in which they are drawn, so two cells that
    share a seed share every stream whatever else they do.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


AUGMENTATIONS = ("flip", "rotation", "shift")
"""Mirrored left to right or not; a uniform angle in +-180 degrees; a uniform shift of up to 4 px per axis."""
OPTIMIZERS = ("adam", "adamw", "sgd")
"""Adam (decay as part of the gradient), AdamW (decay apart from it), SGD with Nesterov momentum 0.9."""
SCHEDULES = ("constant", "step", "cosine", "one_cycle")
"""What becomes of the rate during training; see ``engine.optimisation.learning_rate``."""
PRECISIONS = ("float32", "bfloat16")
"""Of the forward and backward pass in training; weights, losses and all measures are float32."""


@dataclass(frozen=True)
class TrainConfig:
    """How one network is trained; weight decay spares 1-d parameters.

    ``shuffle`` draws a new order of the training images every epoch. ``augment`` changes every image
    anew in every epoch: ``"none"``, or one or several of ``AUGMENTATIONS`` joined by "+".
    ``learning_rate`` is the highest of the schedule. ``precision`` is part of a cell's identity since it
    changes results: no device chooses it on its own.
    """

    epochs: int
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    shuffle: bool = True
    augment: str = "none"
    optimizer: str = "adam"
    schedule: str = "constant"
    label_smoothing: float = 0.0
    precision: str = "float32"

    def __post_init__(self) -> None:
        unknown = set(self.augmentations) - set(AUGMENTATIONS)
        if unknown:
            raise UsageError(
                f"augment is none or some of {', '.join(AUGMENTATIONS)} joined by '+', got {self.augment!r}"
            )
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError(f"epochs and batch_size are at least 1, got {self.epochs} and {self.batch_size}")
        if self.learning_rate <= 0 or self.weight_decay < 0:
            raise UsageError(
                "learning_rate is above 0 and weight_decay at least 0, "
                f"got {self.learning_rate} and {self.weight_decay}"
            )
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing is at least 0 and below 1, got {self.label_smoothing}")
        choices = {"optimizer": OPTIMIZERS, "schedule": SCHEDULES, "precision": PRECISIONS}
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    @property
    def augmentations(self) -> tuple[str, ...]:
        return () if self.augment == "none" else tuple(self.augment.split("+"))


@dataclass(frozen=True, eq=False)
class Cell:
    """One point of a grid: everything that decides its result, and nothing else.

    Its id is the start of the sha256 of its canonical configuration, so equal cells have equal ids on
    every machine. ``split`` says what it is judged on: the test images, or a validation part of the
    training images (tuning). ``version`` is the benchmark's: it grows when a measure changes its meaning.
    """

    benchmark: str
    dataset: str
    architecture: str
    pool: str
    head: str
    variant: str
    seed: int
    train: TrainConfig
    model: Options = field(default_factory=dict)
    data: Options = field(default_factory=dict)
    measure: Options = field(default_factory=dict)
    split: Literal["test", "validation"] = "test"
    version: int = 1

    def config(self) -> dict[str, Any]:
        """Return the full configuration as plain JSON types."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("model", "data", "measure"):
            plain[name] = dict(sorted(plain[name].items()))
        plain["train"] = asdict(self.train)
        return plain

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Cell:
        """Rebuild the cell that :meth:`config` described."""
        return cls(**{**config, "train": TrainConfig(**config["train"])})

    @property
    def id(self) -> str:
        return _digest(self.config())

    @property
    def group(self) -> str:
        """Id of the comparison group: the cell without its seed."""
        return _digest({key: value for key, value in self.config().items() if key != "seed"})

    @property
    def label(self) -> str:
        """One line for people: every axis of the cell that its benchmark may vary."""
        options = " ".join(f"{key}={value}" for key, value in sorted(self.model.items()))
        parts = [self.benchmark, self.dataset, self.architecture, f"pool={self.pool}", f"head={self.head}"]
        return " ".join([*parts, self.variant, *([options] if options else []), f"seed={self.seed}"])

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.id == other.id


def _digest(config: Mapping[str, Any]) -> str:
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Metric:
    """A number that a cell yields.

    ``higher_is_better`` is None where neither direction is good. ``tolerance`` is the difference, in
    the metric's unit, that nobody would act on: the gate's practical margin.
    """

    name: str
    title: str
    higher_is_better: bool | None = None
    tolerance: float = 0.0
    unit: str = ""
    headline: bool = True


COST_METRICS = (
    Metric("cost_parameters", "parameters"),
    Metric("cost_flops", "FLOPs of a forward pass", unit="16 images"),
    Metric("cost_forward_ms", "forward", unit="ms, 16 images"),
    Metric("cost_train_ms", "forward and backward", unit="ms, 16 images"),
    Metric("cost_peak_mb", "peak memory", unit="MB, 16 images"),
)
"""What every cell is charged with, beside its benchmark's own metrics (see ``measures.cost``)."""


@dataclass(frozen=True)
class Claim:
    """A published sentence of the form "A beats B in a metric", judged on cells paired by seed.

    ``better`` and ``worse`` give the fields in which the two sides differ; ``where`` restricts both.
    Fields are those of :class:`Cell` or keys of its model options.
    """

    name: str
    sentence: str
    source: str
    metric: str
    better: Mapping[str, Scalar]
    worse: Mapping[str, Scalar]
    where: Mapping[str, Scalar] = field(default_factory=dict)


@dataclass(frozen=True)
class Measurement:
    """What ``measure`` found: final metrics, tables (one row per entry) and arrays."""

    metrics: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataLocation:
    """Where data sets lie on disk, and whether a missing one may be downloaded."""

    folder: str
    download: bool = False


Status = Literal["finished", "failed", "skipped", "running", "pending"]


@dataclass(frozen=True)
class Result:
    """What the ledger knows of one cell.

    ``history`` holds one row per epoch with ``epoch``, ``time`` (seconds since 1970) and metrics;
    ``metrics`` the final numbers; ``facts`` everything else that was observed: seconds, environment,
    data digest, whether the network learned.
    """

    cell: Cell
    status: Status
    started: float | None = None
    ended: float | None = None
    history: Sequence[Mapping[str, float]] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    traceback: str = ""
