"""A task as frozen data: its grids, its metrics, the function that measures a network, and its figures.

Importing this module imports neither torch nor matplotlib, so planning and listing stay fast.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from poolbench.core import Cell, Claim, DataLocation, Measurement, Metric, Options, Result, TrainConfig

if TYPE_CHECKING:
    import matplotlib.figure
    from torch import nn

    from poolbench.data import Dataset
    from poolbench.plots.scene import Record, Scene


@dataclass(frozen=True)
class Grid:
    """A product of axes that share one variant and one way of training.

    ``pools`` or ``heads`` of ``("none",)`` mean that the axis does not exist here (no local pooling
    layers, say); selectors leave such an axis alone.
    """

    datasets: Sequence[str]
    architectures: Sequence[str]
    pools: Sequence[str]
    heads: Sequence[str]
    train: TrainConfig
    variant: str = "default"
    model: Options = field(default_factory=dict)
    data: Options = field(default_factory=dict)
    measure: Options = field(default_factory=dict)

    def select(self, **axes: Sequence[str] | None) -> Grid:
        """Return the grid with the named axes replaced; an axis given as None stays."""
        changes = {
            name: tuple(values) for name, values in axes.items() if values and tuple(getattr(self, name)) != ("none",)
        }
        return replace(self, **changes)  # type: ignore[arg-type]

    def cells(self, benchmark: str, version: int, seeds: Sequence[int]) -> Iterator[Cell]:
        """Yield the cells, seeds innermost, so that a group is complete as early as possible."""
        for dataset, architecture, pool, head, seed in itertools.product(
            self.datasets, self.architectures, self.pools, self.heads, seeds
        ):
            yield Cell(
                benchmark, dataset, architecture, pool, head, self.variant, seed,
                self.train, self.model, self.data, self.measure, version=version,
            )  # fmt: skip


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
class Benchmark:
    """A task, as data: what it asks, what it runs, and two functions.

    ``load(cell, location, device)`` gives the data set, ``measure(cell, model, data, seed)`` the
    numbers of one trained network. Every benchmark has a metric called ``accuracy``: robustness
    never appears without it.
    """

    name: str
    title: str
    question: str
    protocol: str
    metrics: Sequence[Metric]
    presets: Mapping[str, Sequence[Grid]]
    seeds: Mapping[str, int]
    load: Callable[[Cell, DataLocation, str], Dataset]
    measure: Callable[[Cell, nn.Module, Dataset], Measurement]
    claims: Sequence[Claim] = ()
    figures: Sequence[Figure] = ()
    version: int = 1

    def metric(self, name: str) -> Metric:
        """Return the metric of that name; raise KeyError where there is none."""
        return {metric.name: metric for metric in self.metrics}[name]
