"""The search space of one comparison group, from what its task, its pool and its head declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from poolbench.core import NO_COMPONENT, Cell, Component, Scalar, TrainConfig
from poolbench.registry import Registry, benchmarks, heads, pools
from poolbench.runner.plan import parse_augment
from poolbench.search import Factor, Interval, OneOf, Search
from poolbench.task import Benchmark

if TYPE_CHECKING:
    import optuna

Parameters = Mapping[str, Scalar]
"""Hyperparameters by the names of ``Cell.fields``: "learning_rate", "augment" (as text), "pool.p"."""

TRAINING_FIELDS = frozenset(f.name for f in fields(TrainConfig))
OPERATORS: Mapping[str, Registry[Any]] = {"pool": pools, "head": heads}


@dataclass(frozen=True)
class Space:
    """What is tuned: the declared search and the default of each hyperparameter."""

    searches: Mapping[str, Search]
    default: Parameters

    @classmethod
    def of(cls, cell: Cell) -> Space:
        """Return the search space of the cell's group. Imports torch, because pools and heads declare their part."""
        benchmark: Benchmark = benchmarks.get(cell.benchmark)()
        searches: dict[str, Search] = dict(benchmark.search)
        for prefix, registry in OPERATORS.items():
            component: Component = getattr(cell, prefix)
            if component != NO_COMPONENT:
                own = registry.get(component.name).tunable
                searches |= {f"{prefix}.{name}": search for name, search in own.items()}
        return cls(searches, {name: cell.fields[name] for name in searches})

    def suggest(self, trial: optuna.Trial) -> Parameters:
        """Return the hyperparameters that the study proposes for a trial."""
        return {name: _suggest(trial, name, search, self.default[name]) for name, search in self.searches.items()}

    def config(self) -> dict[str, str]:
        """Return the space as plain JSON types, for comparison and display."""
        return {name: repr(search) for name, search in self.searches.items()}


def _suggest(trial: optuna.Trial, name: str, search: Search, default: Any) -> Scalar:
    match search:
        case Interval(low, high, log):
            return trial.suggest_float(name, min(low, default), max(high, default), log=log)
        case Factor(factor):
            return trial.suggest_float(name, default / factor, default * factor, log=True)
        case OneOf(values):
            choices = values if default in values else (default, *values)
            return trial.suggest_categorical(name, choices)


def applied(cell: Cell, parameters: Parameters) -> Cell:
    """Return the cell with these hyperparameters in its training, its pool and its head."""
    training: dict[str, Any] = {name: value for name, value in parameters.items() if name in TRAINING_FIELDS}
    if "augment" in training:
        training["augment"] = parse_augment(training["augment"])
    components: dict[str, Any] = {
        prefix: Component(component.name, {**component.options, **_options(parameters, prefix)})
        for prefix in OPERATORS
        if (component := getattr(cell, prefix)) != NO_COMPONENT
    }
    return replace(cell, train=replace(cell.train, **training), **components)


def _options(parameters: Parameters, prefix: str) -> dict[str, Scalar]:
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in parameters.items() if name.startswith(start)}
