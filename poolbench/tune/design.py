"""What a study searches for: objectives, limits, seeds per trial. With the group they identify it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Literal

from poolbench.core import COST_METRICS, Cell, Metric, Split, UsageError
from poolbench.registry import benchmarks, closest
from poolbench.task import Benchmark

VALIDATED = ("accuracy", "loss")
"""Metrics that every cell has on validation images without the measure of its task."""
FIRST_SEED = 2000
"""Of trials. Their seeds are used for nothing else, so the weights and orders of later runs are new."""
FIRST_CONFIRMATION_SEED = 3000
CONFIRMATION_SEEDS = 5


@dataclass(frozen=True)
class Budget:
    """What a study may spend in all: trials, and seconds of their cells (None: no limit).

    The seconds of all processes count. A trial that has begun is completed.
    """

    trials: int
    seconds: float | None = None


@dataclass(frozen=True)
class Design:
    """The objectives of a study (metrics), its limits {metric: worst allowed value}, and the seeds of a trial.

    A trial has the mean over its seeds as its value. With one objective a trial stops early when it is behind.
    """

    objectives: Sequence[str] = ("accuracy",)
    limits: Mapping[str, float] = field(default_factory=dict)
    seeds: int = 3

    def check(self, benchmark: Benchmark) -> None:
        """Raise UsageError for a benchmark of folds, and for objectives and limits without a direction."""
        if benchmark.folds:
            raise UsageError(
                f"{benchmark.name} cannot be tuned: its seeds are folds, which test all images and leave none for it"
            )
        if not self.objectives:
            raise UsageError("give at least one objective, like --objective accuracy")
        directed = {metric.name: metric for metric in benchmark.metrics if metric.higher_is_better is not None}
        for name in self.objectives:
            if name not in directed:
                raise closest(f"objective of {benchmark.name}", name, directed)
        for name, limit in self.limits.items():
            limited(benchmark, name)
            if not isfinite(limit):
                raise UsageError(f"a limit is a finite number, got {name}={limit}")
        if len(set(self.objectives)) != len(self.objectives):
            raise UsageError(f"each objective once, got {','.join(self.objectives)}")

    @property
    def is_single(self) -> bool:
        """Whether there is one objective, and therefore one winner."""
        return len(self.objectives) == 1

    @property
    def trial_seeds(self) -> range:
        """The seeds of every trial."""
        return range(FIRST_SEED, FIRST_SEED + self.seeds)

    @property
    def split(self) -> Split:
        """The split of the cells: with all measures of the task only if an objective or a limit needs them."""
        named = {*self.objectives, *self.limits} - {metric.name for metric in COST_METRICS}
        return "validation" if named <= set(VALIDATED) else "validation_measured"

    def config(self) -> dict[str, Any]:
        """Return the design as plain JSON types."""
        return {"objectives": list(self.objectives), "limits": dict(self.limits), "seeds": self.seeds}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Design:
        """Rebuild the design that :meth:`config` described."""
        return cls(tuple(config["objectives"]), dict(config["limits"]), config["seeds"])


def directions(cell: Cell, design: Design) -> list[Literal["maximize", "minimize"]]:
    """Return the direction of each objective, as Optuna names them."""
    benchmark: Benchmark = benchmarks.get(cell.benchmark)()
    return ["maximize" if benchmark.metric(name).higher_is_better else "minimize" for name in design.objectives]


def limited(benchmark: Benchmark, name: str) -> Metric:
    """Return the metric of a limit; raise UsageError for one that is unknown or has no direction. Costs go down."""
    known = {metric.name: metric for metric in benchmark.metrics if metric.higher_is_better is not None}
    known |= {metric.name: metric for metric in COST_METRICS}
    if name not in known:
        raise closest(f"limit of {benchmark.name}", name, known)
    return known[name]


def study_id(cell: Cell, design: Design, space: Mapping[str, str]) -> str:
    """Return the id of the study of the cell's group: it changes with the design and with the search space."""
    content = {"group": cell.group, "design": design.config(), "space": dict(space)}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]
