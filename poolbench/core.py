"""Frozen data that every layer shares: training, cells, metrics, measurements, results; imports no torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from math import inf
from typing import TYPE_CHECKING, Any, Literal, get_args

from poolbench.configuration import COMPONENTS as COMPONENTS
from poolbench.configuration import check_cell, check_training
from poolbench.errors import MissingData as MissingData
from poolbench.errors import UsageError as UsageError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

Scalar = str | int | float | bool | None
Options = Mapping[str, Scalar]


def derive_seed(seed: int, purpose: str) -> int:
    """Return the 63-bit seed of one random stream, from the cell's seed and the stream's purpose.

    Streams are independent of each other and of the order of drawing, so cells with one seed share every stream.
    """
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _sorted(options: Options) -> dict[str, Scalar]:
    return dict(sorted(options.items()))


@dataclass(frozen=True)
class Component:
    """A registered pool, head, architecture or data set, with the value of each of its options.

    ``Registry.resolve`` builds it and fills in the defaults, so equal components have equal options.
    """

    name: str
    options: Options = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((self.name, tuple(sorted(self.options.items()))))

    def config(self) -> dict[str, Any]:
        """Return the component as plain JSON types."""
        return {"name": self.name, "options": _sorted(self.options)}


FIRST_RESERVE_SEED = 1000
"""Seeds from here on are the reserve: a baseline holds them for confirmations, and nothing else runs them."""
NO_COMPONENT = Component("none")
"""The pool of a network without local pooling."""
AUGMENTATIONS = ("flip", "rotation", "shift")
"""Horizontal flip with probability 1/2; uniform angle in +-180 degrees; uniform shift of up to 4 px per axis."""
CHOICES: Mapping[str, tuple[str, ...]] = {
    # Adam (L2 penalty in the gradient), AdamW (decoupled decay), SGD with Nesterov momentum 0.9.
    "optimizer": ("adam", "adamw", "sgd"),
    # See engine.optimisation.learning_rate.
    "schedule": ("constant", "step", "cosine", "one_cycle"),
    # Of the forward and backward pass in training. Weights, losses and all measures are float32.
    "precision": ("float32", "bfloat16"),
    # "disc" blackens all pixels outside the inscribed disc, in training and in validation.
    "mask": ("none", "disc"),
    # "frozen" keeps the BatchNorm statistics of the first epoch (a fault of Quiroga et al. 2019).
    "batch_norm": ("moving", "frozen"),
}
"""Training options that are one of a few words, with the words."""


@dataclass(frozen=True)
class TrainConfig:
    """How one network is trained. Parameters with one dimension are exempt from weight decay.

    ``shuffle`` draws a new order of the training images every epoch. ``augment`` names the random changes of
    every image in every epoch, some of ``AUGMENTATIONS``; their order does not matter. ``learning_rate`` is the
    highest of the schedule. ``train_images`` (0: all) counts the stored training images that are used, balanced over
    the classes and chosen by the cell's seed. Raises UsageError for values out of range.
    """

    epochs: int
    batch_size: int = 64
    train_images: int = 0
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    shuffle: bool = True
    augment: tuple[str, ...] = ()
    optimizer: str = "adam"
    schedule: str = "constant"
    label_smoothing: float = 0.0
    precision: str = "float32"
    mask: str = "none"
    batch_norm: str = "moving"

    def __post_init__(self) -> None:
        given = self.augment
        if isinstance(given, str) or any(name not in AUGMENTATIONS for name in given):
            raise UsageError(f"augment is a tuple of some of {', '.join(AUGMENTATIONS)}, got {given!r}")
        # One order for equal trainings, so that they have equal ids.
        object.__setattr__(self, "augment", tuple(sorted(set(given))))
        for name in ("learning_rate", "weight_decay", "label_smoothing"):
            # 1 and 1.0 are one training, and so are 0.0 and -0.0.
            object.__setattr__(self, name, float(getattr(self, name)) + 0.0)
        if self.epochs < 1 or self.batch_size < 1:
            raise UsageError(f"epochs and batch_size are at least 1, got {self.epochs} and {self.batch_size}")
        if self.train_images < 0:
            raise UsageError(f"train_images is at least 1, or 0 for all, got {self.train_images}")
        if not (0 < self.learning_rate < inf and 0 <= self.weight_decay < inf):
            rates = f"{self.learning_rate} and {self.weight_decay}"
            raise UsageError(f"learning_rate is above 0 and weight_decay at least 0, both finite, got {rates}")
        if not 0 <= self.label_smoothing < 1:
            raise UsageError(f"label_smoothing is at least 0 and below 1, got {self.label_smoothing}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise UsageError(f"{name} is one of {', '.join(allowed)}, got {getattr(self, name)!r}")

    def config(self) -> dict[str, Any]:
        """Return the configuration as plain JSON types."""
        return {**asdict(self), "augment": list(self.augment)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TrainConfig:
        """Rebuild the configuration that :meth:`config` described; raise UsageError for anything else."""
        check_training(config)
        return cls(**{**config, "augment": tuple(config["augment"])})


Split = Literal["test", "validation", "validation_measured"]


@dataclass(frozen=True, eq=False)
class Cell:
    """One point of a grid: everything that decides its result, and nothing else.

    Its id is the start of the sha256 of its canonical configuration, defaults included, so equal cells have
    equal ids on every machine. ``measure`` holds the task's own options. ``split`` says which images the cell
    is judged on: the test images, or a validation part of the training images (tuning), either by accuracy and loss
    alone ("validation") or with all measures of the task ("validation_measured"). ``version`` is the
    benchmark's: it grows when a measure changes its meaning.
    """

    benchmark: str
    dataset: Component
    architecture: Component
    pool: Component
    head: Component
    variant: str
    seed: int
    train: TrainConfig
    padding_mode: str = "zeros"
    measure: Options = field(default_factory=dict)
    split: Split = "test"
    version: int = 1

    def config(self) -> dict[str, Any]:
        """Return the full configuration as plain JSON types."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        components = {name: plain[name].config() for name in COMPONENTS}
        return {**plain, **components, "train": self.train.config(), "measure": _sorted(self.measure)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Cell:
        """Rebuild the cell that :meth:`config` described; raise UsageError for anything else."""
        check_cell(config, get_args(Split))
        # Sorted as everywhere: the label of a cell must not depend on who wrote the file.
        components = {name: Component(config[name]["name"], _sorted(config[name]["options"])) for name in COMPONENTS}
        own = {"train": TrainConfig.from_config(config["train"]), "measure": _sorted(config["measure"])}
        return cls(**{**config, **components, **own})

    @cached_property
    def id(self) -> str:
        return _digest(self.config())

    @cached_property
    def group(self) -> str:
        """Id of the comparison group: the cell without its seed."""
        return _digest({key: value for key, value in self.config().items() if key != "seed"})

    @property
    def fields(self) -> dict[str, Scalar]:
        """What cells are selected, grouped and compared by: the axes, then every option.

        Options of the architecture and of the training have their own names ("width", "learning_rate"), those of
        the data set, the pool, the head and the measure a prefix ("data.canvas", "pool.p").
        """
        prefixed = {"data": self.dataset.options, "pool": self.pool.options, "head": self.head.options}
        return {
            **{name: getattr(self, name).name for name in ("dataset", "architecture")},
            "variant": self.variant,
            "pool": self.pool.name,
            "head": self.head.name,
            "padding_mode": self.padding_mode,
            **self.architecture.options,
            **asdict(self.train),
            "augment": "+".join(self.train.augment) or "none",
            **{
                f"{prefix}.{name}": value
                for prefix, options in {**prefixed, "measure": self.measure}.items()
                for name, value in options.items()
            },
        }

    @property
    def label(self) -> str:
        """One line for people: the axes, the options of architecture, pool and head, and the amount of training."""
        own = {"pool": self.pool.options, "head": self.head.options}
        options = {f"{kind}.{name}": value for kind, given in own.items() for name, value in given.items()}
        options |= {**self.architecture.options, "padding_mode": self.padding_mode, "epochs": self.train.epochs}
        options |= {"train_images": self.train.train_images} if self.train.train_images else {}
        axes = [self.benchmark, self.dataset.name, self.architecture.name, self.pool.name, self.head.name, self.variant]
        return " ".join([*axes, *(f"{name}={value}" for name, value in options.items()), f"seed={self.seed}"])

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Cell) and self.id == other.id


def _digest(config: Mapping[str, Any]) -> str:
    canonical = json.dumps(config, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


FROM_0_TO_1 = (0.0, 1.0)
NOT_NEGATIVE = (0.0, inf)


@dataclass(frozen=True)
class Metric:
    """A number that a cell yields.

    ``higher_is_better`` is None where neither direction is good. ``tolerance`` is the difference, in the metric's unit,
    that nobody would act on: the margin of the gate and of claims. ``gated`` metrics may raise an alarm of the gate.
    ``share`` marks numbers from 0 to 1 that count images or positions. ``bounds`` are the least and the greatest value
    there can be: intervals end there (those of a share at 0 and 1). ``scale`` "log" is for skewed metrics that are
    positive by nature: means, intervals and comparisons are those of logarithms; values below ``floor`` (above 0)
    count as ``floor``. ``per_image`` names the values per image of which the metric is the mean or root mean square, as
    "table.column" ("answers.correct" exists in every cell); intervals then cover the choice of images, too.
    ``folds`` is that of the benchmark, which sets it: its seeds are folds of a cross-validation (0: they are not).
    Raises ValueError for "log" without a floor, a logarithmic share, a share with other bounds, bounds out of order, a
    gated metric without direction or tolerance, and another form of ``per_image``.
    """

    name: str
    title: str
    higher_is_better: bool | None = None
    tolerance: float = 0.0
    unit: str = ""
    headline: bool = True
    scale: Literal["linear", "log"] = "linear"
    floor: float = 0.0
    per_image: str = ""
    gated: bool = False
    share: bool = False
    bounds: tuple[float, float] = (-inf, inf)
    folds: int = 0

    def __post_init__(self) -> None:
        if self.scale == "log" and self.floor <= 0:
            raise ValueError(f"metric {self.name} is logarithmic and needs a floor above 0, got {self.floor}")
        if self.scale == "log" and self.share:
            raise ValueError(f"metric {self.name} is a share and therefore not logarithmic")
        if self.share:
            if self.bounds not in ((-inf, inf), FROM_0_TO_1):
                raise ValueError(f"metric {self.name} is a share: its bounds are 0 and 1, got {self.bounds}")
            object.__setattr__(self, "bounds", FROM_0_TO_1)
        if not self.bounds[0] < self.bounds[1]:
            raise ValueError(f"bounds of metric {self.name} are the least and the greatest value, got {self.bounds}")
        if self.gated and (self.higher_is_better is None or self.tolerance <= 0):
            raise ValueError(f"metric {self.name} is gated and needs a direction and a tolerance above 0")
        if self.per_image and not all(self.per_image.partition(".")):
            raise ValueError(f"per_image of metric {self.name} is 'table.column', got '{self.per_image}'")

    @property
    def sign(self) -> int:
        """1 if higher is better, else -1: times it, larger is better."""
        return 1 if self.higher_is_better else -1


COST_METRICS = (
    Metric("cost_parameters", "parameters", bounds=NOT_NEGATIVE),
    Metric("cost_flops", "FLOPs of a forward pass", unit="16 images", bounds=NOT_NEGATIVE),
    Metric("cost_forward_ms", "forward", unit="ms, 16 images", bounds=NOT_NEGATIVE),
    Metric("cost_train_ms", "forward and backward", unit="ms, 16 images", bounds=NOT_NEGATIVE),
    Metric("cost_peak_mb", "peak memory", unit="MB, 16 images", bounds=NOT_NEGATIVE),
)
"""Cost metrics that every cell reports in addition to the metrics of its task (see ``measures.cost``)."""


@dataclass(frozen=True)
class Measurement:
    """Return value of ``measure``: metrics, tables and arrays."""

    metrics: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    arrays: Mapping[str, np.ndarray[Any, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class DataLocation:
    """Where data sets lie on disk, and whether a missing one may be downloaded."""

    folder: str
    download: bool = False


Status = Literal["finished", "failed", "skipped", "damaged", "running", "pending"]


@dataclass(frozen=True)
class Result:
    """State and results of one cell, as stored in the ledger.

    ``history`` holds one row per epoch with ``epoch``, ``time`` (seconds since 1970) and metrics;
    ``metrics`` the final numbers; ``facts`` everything else that was observed: seconds, environment,
    data digest, chance, share of the commonest decision. ``analysis.learning.judged`` adds "learned".
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

    @property
    def brief(self) -> str:
        """The first line of the reason."""
        return next(iter(self.reason.splitlines()), "no reason is known")

    @property
    def seconds(self) -> float:
        """Seconds of loading, training and measuring of an ended cell.

        Not from start to end where it finished: a resumed cell has waited, and stacked cells have shared their time.
        """
        if self.status == "finished":
            return float(sum(self.facts.get(f"seconds_{stage}", 0.0) for stage in ("load", "fit", "measure")))
        return (self.ended or 0.0) - (self.started or 0.0) if self.ended else 0.0
