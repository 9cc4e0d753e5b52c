"""The search space of one comparison group, from what its task, its pool and its head declare."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import ceil, floor
from typing import TYPE_CHECKING, Any

from poolbench.core import NO_COMPONENT, Cell, Component, Scalar, TrainConfig, UsageError
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
        """Return the search space of the cell's group. Imports torch, because pools and heads declare their part.

        Raises UsageError for a declaration that names no option, that does not fit the default, or that is empty.
        """
        benchmark: Benchmark = benchmarks.get(cell.benchmark)()
        searches: dict[str, Search] = dict(benchmark.search)
        for prefix, registry in OPERATORS.items():
            component: Component = getattr(cell, prefix)
            if component != NO_COMPONENT:
                own = registry.get(component.name).searched(component.options)
                searches |= {f"{prefix}.{name}": search for name, search in own.items()}
        if not searches:
            raise UsageError(f"nothing of {cell.label} is declared to be tuned: give the benchmark a search")
        for name, search in searches.items():
            _check(cell, name, search)
        return cls(searches, {name: cell.fields[name] for name in searches})

    def suggest(self, trial: optuna.Trial) -> Parameters:
        """Return the hyperparameters that the study proposes for a trial."""
        return {name: _suggest(trial, name, search, self.default[name]) for name, search in self.searches.items()}

    def config(self) -> dict[str, str]:
        """Return the space as plain JSON types, for comparison and display."""
        return {name: repr(search) for name, search in self.searches.items()}


def _check(cell: Cell, name: str, search: Search) -> None:
    """Raise UsageError unless a search fits the field of the cell: its type, its default, its allowed values."""
    where = f"the search of '{name}' ({search!r}) does not fit {cell.label}"
    if name not in cell.fields:
        raise UsageError(f"{where}: there is no such field")
    default: Any = cell.fields[name]
    if isinstance(search, OneOf):
        for value in search.values:
            try:
                changed = applied(cell, {name: value})
            except UsageError as error:
                raise UsageError(f"{where}: {error}") from error
            for prefix, registry in OPERATORS.items():
                component: Component = getattr(changed, prefix)
                if component != NO_COMPONENT:
                    registry.resolve(component.name, component.options)
    elif isinstance(search, Interval | Factor):
        if isinstance(default, bool) or not isinstance(default, int | float):
            raise UsageError(f"{where}: the default is {default!r}, not a number")
        if default <= 0 and (isinstance(search, Factor) or search.log):
            raise UsageError(f"{where}: the default is {default}, and a logarithmic search needs one above 0")
    else:
        raise UsageError(f"{where}: a search is an Interval, a Factor or a OneOf")


def _suggest(trial: optuna.Trial, name: str, search: Search, default: Any) -> Scalar:
    match search:
        case OneOf(values):
            choices = values if default in values else (default, *values)
            return trial.suggest_categorical(name, choices)
        case Interval(low, high, log):
            low, high = min(low, default), max(high, default)
        case Factor(factor):
            low, high, log = default / factor, default * factor, True
    if isinstance(default, int):
        return trial.suggest_int(name, max(ceil(low), 1) if log else ceil(low), floor(high), log=log)
    return trial.suggest_float(name, low, high, log=log)


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
