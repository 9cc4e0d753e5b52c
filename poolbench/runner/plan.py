"""From names, a preset and selectors to the list of cells."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from poolbench.core import NO_COMPONENT, Cell, Component, Options, Scalar, TrainConfig, UsageError
from poolbench.declared import Option
from poolbench.registry import Registry, architectures, benchmarks, closest, datasets, heads, pools, split_component
from poolbench.task import Benchmark, Grid

PRESETS = ("smoke", "quick", "nightly", "paper")
SIZES = {"width", "hidden"}  # options that only say how large a network is


@dataclass(frozen=True)
class Selection:
    """What a user asked for; None keeps the preset's own choice, ``("all",)`` takes every entry.

    ``train`` holds changed fields of the TrainConfig, ``where`` fields that a cell must have (``Cell.fields``).
    """

    names: Sequence[str] = ("all",)
    preset: str = "quick"
    pools: Sequence[str] | None = None
    heads: Sequence[str] | None = None
    architectures: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    train: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, str] = field(default_factory=dict)


def protocol(selection: Selection) -> str:
    """Return the preset whose way of training the selected cells have, "" if the user changed it."""
    return "" if selection.train else selection.preset


def parse_conditions(given: Sequence[str]) -> dict[str, str]:
    """Return {field: value} of texts like "num_pooling=1"; raise UsageError for anything else."""
    return dict(_pair(text, "a condition is FIELD=VALUE, like num_pooling=1 or variant=plain") for text in given)


def parse_train(given: Sequence[str]) -> dict[str, Any]:
    """Return the changed training options of texts like "optimizer=sgd" or "augment=shift+flip"; raise UsageError."""
    declared = {f.name: Option(f.name, str(f.type), None) for f in fields(TrainConfig)}
    changes: dict[str, Any] = {}
    for text in given:
        name, value = _pair(text, "a training option is NAME=VALUE, like optimizer=sgd or learning_rate=0.1")
        if name not in declared:
            raise closest("training option", name, declared)
        try:
            changes[name] = parse_augment(value) if name == "augment" else declared[name].parse(value)
        except TypeError:
            kind = declared[name].annotation
            raise UsageError(f"training option '{name}' is of type {kind}, got '{value}'") from None
    # Out of range values are refused here, before any cell is planned.
    TrainConfig(**{"epochs": 1, **changes})
    return changes


def parse_augment(text: str) -> tuple[str, ...]:
    """Return the augmentations of a text such as "flip+shift" or "none"."""
    return () if text == "none" else tuple(text.split("+"))


def _pair(text: str, usage: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{usage}, got '{text}'")
    return name, value


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of "3", "0-4" or "0,2,5-7"; raise UsageError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"(\d{1,9})(?:-(\d{1,9}))?", part.strip(), re.ASCII)
        if not found:
            raise UsageError(f"seeds are like 3, 0-4 or 0,2,5-7, of at most 9 digits, got '{text}'")
        low, high = int(found[1]), int(found[2] or found[1])
        if high < low or high - low >= 10_000:
            raise UsageError(f"a range of seeds runs upwards over at most 10000 seeds, got '{part.strip()}'")
        seeds.extend(range(low, high + 1))
    return tuple(dict.fromkeys(seeds))


def chosen_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """Return the benchmarks of these names, all of them for "all"; raise UsageError for unknown ones."""
    allowed = benchmarks.names()
    for name in names:
        if name != "all" and name not in allowed:
            raise closest("benchmark", name, [*allowed, "all"])
    wanted = allowed if "all" in names else list(dict.fromkeys(names))
    return [benchmarks.get(name)() for name in wanted]


def plan(selection: Selection) -> list[Cell]:
    """Return the selected cells, each once, benchmark by benchmark. Imports no torch unless a timm model is named.

    Raises UsageError for unknown names and options, and where nothing is left.
    """
    if selection.preset not in PRESETS:
        raise closest("preset", selection.preset, PRESETS)
    axes = {
        "pools": _expand(selection.pools, pools),
        "heads": _expand(selection.heads, heads),
        "datasets": _expand(selection.datasets, datasets),
    }
    wanted = _expand(selection.architectures, architectures)
    cells: dict[str, Cell] = {}
    known: set[str] = set()
    for benchmark in chosen_benchmarks(selection.names):
        if selection.preset not in benchmark.presets:
            # A plugin's task may lack a preset, which is an error only if it was asked for by name.
            if benchmark.name in selection.names:
                raise closest(f"preset of {benchmark.name}", selection.preset, benchmark.presets)
            continue
        seeds = selection.seeds or range(benchmark.seeds[selection.preset])
        chosen = [grid.select(**axes) for grid in _with_architectures(benchmark.presets[selection.preset], wanted)]
        for grid in _with_fitting_datasets(chosen):
            grid = replace(grid, train=replace(grid.train, **selection.train))
            for cell in grid_cells(benchmark, grid, seeds):
                known |= cell.fields.keys()
                if _fulfils(cell, selection.where):
                    cells.setdefault(cell.id, cell)
    for name in selection.where:
        if known and name not in known:
            raise closest("field", name, known)
    if not cells:
        conditions = [f"{name}={value}" for name, value in selection.where.items()]
        raise UsageError(
            f"no cell is left: preset '{selection.preset}' of {', '.join(selection.names)} has none with "
            f"{', '.join([*(selection.architectures or ()), *conditions])}; 'poolbench plan' shows what it has"
        )
    return list(cells.values())


def grid_cells(benchmark: Benchmark, grid: Grid, seeds: Sequence[int]) -> Iterator[Cell]:
    """Yield the cells of a grid, seeds innermost, so that a group is complete as early as possible.

    Raises UsageError for options that an architecture or data set does not have.
    """
    measure = benchmark.measure_options(grid)
    for dataset, architecture, pool, head in itertools.product(
        [_with_options(datasets, name, grid.data, benchmark) for name in grid.datasets],
        [_with_options(architectures, name, grid.model, benchmark) for name in grid.architectures],
        [NO_COMPONENT if name == NO_COMPONENT.name else pools.parse(name) for name in grid.pools],
        [NO_COMPONENT if name == NO_COMPONENT.name else heads.parse(name) for name in grid.heads],
    ):
        for seed in seeds:
            yield Cell(
                benchmark.name, dataset, architecture, pool, head, grid.variant, seed, grid.train,
                grid.padding_mode, measure, version=benchmark.version,
            )  # fmt: skip


def _with_options(registry: Registry[Any], text: str, given: Options, benchmark: Benchmark) -> Component:
    """Return the component with a grid's options; raise UsageError if it does not have one of them."""
    name = split_component(text)[0]
    missing = [option for option in given if option not in registry.options(name)]
    if missing:
        lacks = f"it has no option {', '.join(missing)}"
        raise UsageError(f"{registry.kind} '{name}' does not fit {benchmark.name}: {lacks}; choose another")
    return registry.parse(text, given)


def _with_fitting_datasets(grids: Sequence[Grid]) -> list[Grid]:
    """Leave a data set out of the grids that set an option which it does not have, unless it fits none of them."""

    def fits(text: str, grid: Grid) -> bool:
        return set(grid.data) <= set(datasets.options(split_component(text)[0]))

    fitting = {text for grid in grids for text in grid.datasets if fits(text, grid)}
    return [
        replace(grid, datasets=[text for text in grid.datasets if fits(text, grid) or text not in fitting])
        for grid in grids
    ]


def _fulfils(cell: Cell, where: Mapping[str, str]) -> bool:
    """Return whether the fields of a cell have the given values, however they are spelt (3 or 3.0, true or True)."""
    known = cell.fields
    return all(name in known and _spells(value, name, known[name]) for name, value in where.items())


def _spells(text: str, name: str, value: Scalar) -> bool:
    """Return whether a text such as "3", "true", "none" or "shift+flip" stands for the value of a field."""
    if name == "augment":
        return sorted(text.split("+")) == sorted(str(value).split("+"))
    if value is None or text == str(value):
        return text.lower() == str(value).lower()
    try:
        return Option(name, type(value).__name__, None).parse(text) == value
    except TypeError:
        return False


def _expand(given: Sequence[str] | None, registry: Registry[Any]) -> Sequence[str] | None:
    """Return the given names, every name for "all"; raise UsageError for unknown names and options."""
    if given is None:
        return None
    if "all" in given:
        return registry.names()
    for text in given:
        registry.parse(text)
    return given


def _with_architectures(grids: Sequence[Grid], wanted: Sequence[str] | None) -> list[Grid]:
    """Keep the wanted architectures; one that no grid has takes the place of the first of its variant.

    Options of a grid belong to its architecture, so a new one starts with its defaults. A variant that is made by
    an option (a sigmoid, a number of pooling layers) therefore has no other architecture.
    """
    if wanted is None:
        return list(grids)
    kept = [replace(grid, architectures=_kept(grid.architectures, wanted)) for grid in grids]
    known = {split_component(text)[0] for grid in grids for text in grid.architectures}
    new = [text for text in wanted if split_component(text)[0] not in known]
    if not new:
        return kept
    first: dict[tuple[str, ...], Grid] = {}
    for grid in grids:
        if set(grid.model) <= SIZES:
            key = (grid.variant, *grid.datasets, grid.padding_mode)
            first.setdefault(key, replace(grid, architectures=new, model={}))
    return kept + list(first.values())


def _kept(texts: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Return the wanted ones among the architectures of a grid; one without options keeps those of the grid."""
    kept = []
    for asked in wanted:
        name, options = split_component(asked)
        own = [text for text in texts if split_component(text)[0] == name]
        kept += [asked] if own and options else own
    return kept
