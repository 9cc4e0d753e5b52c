"""From names, a preset and selectors to the list of cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from poolbench.core import Cell, UsageError
from poolbench.registry import architectures, benchmarks, check_architecture, closest, datasets, heads, pools
from poolbench.task import Benchmark, Grid

PRESETS = ("smoke", "quick", "paper")
SIZES = {"width", "hidden"}  # model options that only say how large a network is
SHARED = {"padding_mode"}  # model options that every architecture has


@dataclass(frozen=True)
class Selection:
    """What a user asked for; None keeps the preset's own choice, ``("all",)`` takes every entry."""

    names: Sequence[str] = ("all",)
    preset: str = "quick"
    pools: Sequence[str] | None = None
    heads: Sequence[str] | None = None
    architectures: Sequence[str] | None = None
    datasets: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    epochs: int | None = None
    where: Mapping[str, str] = field(default_factory=dict)


def parse_conditions(given: Sequence[str]) -> dict[str, str]:
    """Return {field: value} of texts like "num_pooling=1"; raise UsageError for anything else."""
    conditions: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals and value):
            raise UsageError(f"a condition is FIELD=VALUE, like num_pooling=1 or variant=plain, got '{text}'")
        conditions[name] = value
    return conditions


def parse_seeds(text: str) -> tuple[int, ...]:
    """Return the seeds of "3", "0-4" or "0,2,5-7"; raise UsageError for anything else."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if not first.isdecimal() or (last and not last.isdecimal()) or part.strip().endswith("-"):
            raise UsageError(f"seeds are like 3, 0-4 or 0,2,5-7, got '{text}'")
        low, high = int(first), int(last or first)
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
    """Return the selected cells, each once, benchmark by benchmark; imports no torch.

    Raises UsageError for unknown names and where nothing is left.
    """
    if selection.preset not in PRESETS:
        raise closest("preset", selection.preset, PRESETS)
    axes = {
        "pools": _expand(selection.pools, pools.names(), pools.check),
        "heads": _expand(selection.heads, heads.names(), heads.check),
        "datasets": _expand(selection.datasets, datasets.names(), datasets.check),
    }
    wanted = _expand(selection.architectures, architectures.names(), check_architecture)
    cells: dict[str, Cell] = {}
    for benchmark in chosen_benchmarks(selection.names):
        seeds = selection.seeds or range(benchmark.seeds[selection.preset])
        for grid in _with_architectures(benchmark.presets[selection.preset], wanted):
            grid = grid.select(**axes)
            if selection.epochs is not None:
                grid = replace(grid, train=replace(grid.train, epochs=selection.epochs))
            for cell in grid.cells(benchmark.name, benchmark.version, seeds):
                if _fulfils(cell, selection.where):
                    cells.setdefault(cell.id, cell)
    if not cells:
        wanted_fields = [f"{name}={value}" for name, value in selection.where.items()]
        raise UsageError(
            f"no cell is left: preset '{selection.preset}' of {', '.join(selection.names)} does not use "
            f"{', '.join([*(selection.architectures or ()), *wanted_fields])}; 'poolbench plan' shows what it uses"
        )
    return list(cells.values())


def _fulfils(cell: Cell, where: Mapping[str, str]) -> bool:
    """Return whether the fields and model options of a cell have the given values."""
    fields = {"variant": cell.variant, "dataset": cell.dataset, "pool": cell.pool, "head": cell.head, **cell.model}
    return all(name in fields and str(fields[name]) == value for name, value in where.items())


def _expand(given: Sequence[str] | None, allowed: list[str], check: object) -> Sequence[str] | None:
    if given is None:
        return None
    if "all" in given:
        return allowed
    assert callable(check)
    return [check(name) for name in given]


def _with_architectures(grids: Sequence[Grid], wanted: Sequence[str] | None) -> list[Grid]:
    """Keep the wanted architectures; one that no grid has takes the place of the first of its variant.

    Model options belong to an architecture, so a new one starts without them; all take a padding mode.
    A variant that is made by a model option (a sigmoid, a number of pooling layers) therefore has no
    other architecture.
    """
    if wanted is None:
        return list(grids)
    kept = [replace(grid, architectures=[name for name in grid.architectures if name in wanted]) for grid in grids]
    known = {name for grid in grids for name in grid.architectures}
    new = [name for name in wanted if name not in known]
    if not new:
        return kept
    first: dict[tuple[str, ...], Grid] = {}
    for grid in grids:
        if set(grid.model) <= {*SIZES, *SHARED}:
            options = {name: value for name, value in grid.model.items() if name in SHARED}
            key = (grid.variant, *grid.datasets, *map(str, options.values()))
            first.setdefault(key, replace(grid, architectures=new, model=options))
    return kept + list(first.values())
