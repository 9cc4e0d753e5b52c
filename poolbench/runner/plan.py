"""From names, a preset and selectors to the list of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from poolbench.core import Benchmark, Cell, Grid, UsageError
from poolbench.registry import architectures, benchmarks, check_architecture, closest, datasets, heads, pools

PRESETS = ("smoke", "quick", "paper")
SIZES = {"width", "hidden"}  # model options that only say how large a network is


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
                cells.setdefault(cell.id, cell)
    if not cells:
        raise UsageError(
            f"no cell is left: preset '{selection.preset}' of {', '.join(selection.names)} does not use "
            f"{', '.join(selection.architectures or ())}; 'poolbench plan' shows what it uses"
        )
    return list(cells.values())


def _expand(given: Sequence[str] | None, allowed: list[str], check: object) -> Sequence[str] | None:
    if given is None:
        return None
    if "all" in given:
        return allowed
    assert callable(check)
    return [check(name) for name in given]


def _with_architectures(grids: Sequence[Grid], wanted: Sequence[str] | None) -> list[Grid]:
    """Keep the wanted architectures; one that no grid has takes the place of the first of its variant.

    Model options belong to an architecture, so a new one starts without them. A variant that is made
    by a model option (a sigmoid, a number of pooling layers) therefore has no other architecture.
    """
    if wanted is None:
        return list(grids)
    kept = [replace(grid, architectures=[name for name in grid.architectures if name in wanted]) for grid in grids]
    known = {name for grid in grids for name in grid.architectures}
    new = [name for name in wanted if name not in known]
    first = {(grid.variant, *grid.datasets): grid for grid in reversed(grids) if set(grid.model) <= SIZES}
    return kept + [replace(grid, architectures=new, model={}) for grid in first.values() if new]
