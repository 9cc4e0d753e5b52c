"""A task as frozen data: its grids, its metrics, the function that measures a network, and its figures.

Importing this module imports neither torch nor matplotlib, so planning and listing stay fast.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

from poolbench.choice import Choice
from poolbench.claim import Claim
from poolbench.core import (
    NO_COMPONENT,
    Cell,
    DataLocation,
    Measurement,
    Metric,
    Options,
    Result,
    Scalar,
    TrainConfig,
)
from poolbench.declared import Option, written
from poolbench.names import file_name
from poolbench.search import TRAINING, Search

if TYPE_CHECKING:
    import matplotlib.figure
    from torch import nn

    from poolbench.data import Dataset
    from poolbench.plots.scene import Record, Scene


@dataclass(frozen=True)
class Grid:
    """A product of axes that share one variant and one way of training.

    Names may carry options: "gem_local:p=4". ``model`` and ``data`` are options of all the grid's architectures
    and data sets; an option that is left out has its default. ``measure`` is an instance of the task's option
    class. ``pools`` or ``heads`` of ``("none",)`` mean that the axis does not exist here (no local pooling
    layers, say); selectors leave such an axis alone.
    """

    datasets: Sequence[str]
    architectures: Sequence[str]
    pools: Sequence[str]
    heads: Sequence[str]
    train: TrainConfig
    variant: str = "default"
    padding_mode: str = "zeros"
    model: Options = field(default_factory=dict)
    data: Options = field(default_factory=dict)
    measure: Any = None

    def select(self, **axes: Sequence[str] | None) -> Grid:
        """Return the grid with the named axes replaced; an axis given as None stays."""
        changes = {
            name: tuple(values)
            for name, values in axes.items()
            if values and tuple(getattr(self, name)) != (NO_COMPONENT.name,)
        }
        return replace(self, **changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Figure:
    """One figure of a task: its name, title and caption, and the functions that draw it.

    ``draw_summary(scene)`` draws all finished cells, ``draw_cell(result, record)`` a single one. Both return
    None if their data is missing. A figure without one of them is left out of the report or of the cell's run.
    """

    name: str
    title: str
    caption: str
    draw_summary: Callable[[Scene], matplotlib.figure.Figure | None] | None = None
    draw_cell: Callable[[Result, Record], matplotlib.figure.Figure | None] | None = None


@dataclass(frozen=True)
class DeferredFunction:
    """A function given by its module and name; calling it imports the module."""

    module: str
    name: str

    def resolve(self) -> Callable[..., Any]:
        """Import the module and return the function; raise AttributeError if the module has no such function."""
        function = getattr(importlib.import_module(self.module), self.name, None)
        if not callable(function):
            raise AttributeError(f"module '{self.module}' has no function '{self.name}'")
        return function  # type: ignore[no-any-return]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self.resolve()(*arguments, **options)


class DeferredModule:
    """A module whose functions are reached as attributes without importing it."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __getattr__(self, name: str) -> DeferredFunction:
        # Python asks for special attributes (copying, pickling) that are no functions of the module.
        if name.startswith("__"):
            raise AttributeError(name)
        return DeferredFunction(self._module, name)


def deferred(module: str) -> DeferredModule:
    """Return a stand-in for a module: ``deferred("a.b").draw`` is a callable that imports ``a.b`` when called.

    A task names its drawing functions this way, so that planning and listing import no matplotlib. A name that
    the module lacks raises AttributeError when it is called.
    """
    return DeferredModule(module)


@dataclass(frozen=True)
class NoOptions:
    """The options of a task that has none."""


@dataclass(frozen=True)
class Benchmark:
    """A task, as data: its question, its grids, its metrics, and one function that measures a trained network.

    ``measure(cell, options, model, data)`` returns the numbers of one network; ``options`` is an instance of
    the dataclass ``options``, built from ``cell.measure``. Every benchmark has a metric named ``accuracy``, so
    that robustness never appears without it. ``load(cell, location, device)`` returns the data set; None loads
    the registered data set unchanged. The report starts with the ``choices`` and with the sentences that
    ``answers(scene)`` returns. It shows the first figures at full size and folds the others. ``maps`` names stored
    arrays (h, w) between 0 and 1 that MLflow shows as images, seed by seed. With ``folds`` the seeds are folds of a
    repeated cross-validation over all stored images (see ``data.folds``); no metric then has values per image, since
    every seed is judged on others. ``search`` says where tuning looks, by the fields of the TrainConfig; pools and
    heads declare their own (``tunable``).

    Raises UsageError for names of the task, its maps, presets and figures that could not be those of files, ValueError
    for a search of another field, for a choice without metrics, or by one that is unknown or has no
    direction, for a single fold, and for values per image in folds.
    """

    name: str
    title: str
    question: str
    protocol: str
    metrics: Sequence[Metric]
    presets: Mapping[str, Sequence[Grid]]
    seeds: Mapping[str, int]
    measure: Callable[[Cell, Any, nn.Module, Dataset], Measurement]
    options: type[Any] = NoOptions
    load: Callable[[Cell, DataLocation, str], Dataset] | None = None
    claims: Sequence[Claim] = ()
    choices: Sequence[Choice] = ()
    answers: Callable[[Scene], Sequence[str]] | None = None
    figures: Sequence[Figure] = ()
    maps: Sequence[str] = ()
    folds: int = 0
    search: Mapping[str, Search] = field(default_factory=lambda: TRAINING)
    version: int = 1

    def __post_init__(self) -> None:
        for name in (self.name, *self.maps, *self.presets, *(figure.name for figure in self.figures)):
            file_name(name, f"in benchmark {self.name!r} the name")
        if self.folds:
            if self.folds == 1 or any(metric.per_image for metric in self.metrics):
                raise ValueError(f"benchmark {self.name} needs two folds or more, and metrics without values per image")
            object.__setattr__(self, "metrics", tuple(replace(metric, folds=self.folds) for metric in self.metrics))
        if unknown := sorted(self.search.keys() - {f.name for f in fields(TrainConfig)}):
            raise ValueError(f"benchmark {self.name} has a search for {', '.join(unknown)}: not of the TrainConfig")
        if not all(choice.metrics for choice in self.choices):
            raise ValueError(f"benchmark {self.name} has a choice without metrics")
        directed = {metric.name for metric in self.metrics if metric.higher_is_better is not None}
        for name in (name for choice in self.choices for name in choice.metrics):
            if name not in directed:
                raise ValueError(f"benchmark {self.name} has a choice by '{name}', which is no metric with a direction")

    def metric(self, name: str) -> Metric:
        """Return the metric of that name; raise KeyError where there is none."""
        return {metric.name: metric for metric in self.metrics}[name]

    def measure_options(self, grid: Grid) -> dict[str, Scalar]:
        """Return a value for each option of the measure: the grid's or the default, an int for a float as a float.

        Raises TypeError for an instance of another class and for a value of another type.
        """
        given = self.options() if grid.measure is None else grid.measure
        if not isinstance(given, self.options):
            raise TypeError(f"measure options of {self.name} are {self.options.__name__}, got {type(given).__name__}")
        return {
            f.name: Option(f.name, written(f.type), None).check(getattr(given, f.name)) for f in fields(self.options)
        }
