"""The scenes of a live page from finished cells of a work folder."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from poolbench.analysis.learning import judged
from poolbench.core import Cell, Component, DataLocation, MissingData, Result, Scalar, UsageError
from poolbench.inspect.live import about_objects, build_scene, describe_network
from poolbench.inspect.live_scene import LiveNetwork, LiveScene
from poolbench.runner.ledger import Ledger
from poolbench.runner.trained import cell_data, cell_weights, find_cell

if TYPE_CHECKING:
    from torch import nn

    from poolbench.data import Dataset

EMBEDDED = ("shapes", "mnist_sample", "fashion_mnist_sample")
"""Data sets that need no files: those of the page beside a report."""
LARGEST_NETWORK = 20_000  # parameters of a network on the page beside a report
LARGEST_PAGE = 75_000  # parameters of all of them: 400 kB
SUGGESTED = 3  # cells that a message names
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


def cell_scenes(ledger: Ledger, wanted: Sequence[str], location: DataLocation) -> list[LiveScene]:
    """Return the scenes of finished cells, given by unique starts of their ids: one per data set.

    Raises UsageError for a start that names no finished cell or several, and for a network that a page cannot
    evaluate, naming cells that it can; MissingData where their data set is absent.
    """
    results = judged(ledger.results())
    found = {result.cell.id: result for result in (find_cell(results, start, ledger) for start in wanted)}
    for result in found.values():
        if reason := _obstacle(result, ledger, location):
            raise UsageError(f"cell {result.cell.id}: {reason}; {_suggestions(results, ledger, location)}")
    return _scenes(found.values(), ledger, location)


def report_scenes(ledger: Ledger) -> list[LiveScene]:
    """Return scenes for the page beside a report, few and small; none where no cells suit.

    Per embedded data set those cells that differ in nothing but pool and head, the first seed of each that has learned:
    of several such sets the one with the most cells.
    """
    chosen: list[Result] = []
    for results in _sets(judged(ledger.results())):
        for result in results:
            spent = sum(_parameters(one) for one in chosen)
            if spent + _parameters(result) <= LARGEST_PAGE:
                chosen.append(result)
    location = DataLocation("")
    # A layer that has no step costs its network, not the page.
    suited = [result for result in chosen if not _obstacle(result, ledger, location)]
    return _scenes(suited, ledger, location) if suited else []


def _sets(results: Sequence[Result]) -> list[list[Result]]:
    """Return the largest set of comparable cells of each embedded data set, a result per group, two or more each."""
    suited = [
        result
        for result in sorted(results, key=lambda result: result.cell.seed)
        if result.facts.get("learned")
        and result.cell.dataset.name in EMBEDDED
        and _parameters(result) <= LARGEST_NETWORK
        and not _unseen(result.cell)
    ]
    firsts = [group[0] for group in _grouped(suited, lambda result: result.cell.group).values()]
    sets = [found for found in _grouped(firsts, lambda result: _shared(result.cell)).values() if len(found) > 1]
    by_data = _grouped(sets, lambda found: found[0].cell.dataset.name)
    # Small networks first, so that large ones do not use up the page.
    return sorted((max(found, key=len) for found in by_data.values()), key=lambda found: _parameters(found[0]))


def _shared(cell: Cell) -> str:
    """Return what a cell has in common with those that differ in pool, head and seed only."""
    return replace(cell, pool=Component("any"), head=Component("any"), seed=0).id


def _grouped(items: Iterable[T], key: Callable[[T], K]) -> dict[K, list[T]]:
    groups: dict[K, list[T]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups


def _parameters(result: Result) -> float:
    return result.metrics.get("cost_parameters", float("inf"))


def _unseen(cell: Cell) -> str:
    """Return why a page would show a cell's network other images than it was trained for; "" if it would not."""
    if cell.train.mask != "none":
        return f"it was trained with mask={cell.train.mask}, which a page does not apply"
    return "it was judged on validation images" if cell.split != "test" else ""


def _obstacle(result: Result, ledger: Ledger, location: DataLocation) -> str:
    """Return why a page cannot show a cell, "" if it can."""
    from poolbench.inspect.program import export_program

    if reason := _unseen(result.cell):
        return reason
    data = cell_data(result.cell, location, "cpu")
    if data.in_shape[0] not in (1, 3):
        return f"its images have {data.in_shape[0]} channels, and a page shows 1 or 3"
    try:
        export_program(_model(result.cell, data, ledger), data.in_shape)
    except UsageError as error:
        return str(error)
    return ""


def _suggestions(results: Sequence[Result], ledger: Ledger, location: DataLocation) -> str:
    """Say which cells of the ledger would do, one of each group."""
    found: dict[str, Result] = {}
    for result in results:
        if len(found) == SUGGESTED:
            break
        if result.status != "finished" or result.cell.group in found:
            continue
        with suppress(MissingData):
            if not _obstacle(result, ledger, location):
                found[result.cell.group] = result
    if not found:
        return "no finished cell of the folder would do: leave CELLs out to train small networks"
    names = (f"{one.cell.id} ({one.cell.architecture.name} {one.cell.pool.name})" for one in found.values())
    return f"of this folder would do, for example: {', '.join(names)}"


def _model(cell: Cell, data: Dataset, ledger: Ledger) -> nn.Module:
    """Return the trained network of a cell; raise UsageError for weights that cannot be read."""
    from poolbench.engine import build_model

    model = build_model(cell, data, "cpu")
    state = cell_weights(ledger.record(cell.id))
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"its weights do not fit: {reason}") from error
    return model.eval()


def _scenes(results: Iterable[Result], ledger: Ledger, location: DataLocation) -> list[LiveScene]:
    scenes = []
    for members in _grouped(results, lambda result: result.cell.dataset).values():
        # Seeds that are folds have different test images.
        data_of = [cell_data(result.cell, location, "cpu") for result in members]
        data = data_of[0]
        models = [_model(result.cell, own, ledger) for result, own in zip(members, data_of, strict=True)]
        names = names_of([result.cell for result in members])
        networks: list[LiveNetwork] = []
        for (name, head), result, model, own in zip(names, members, models, data_of, strict=True):
            detail = f"cell {result.cell.id}: {result.cell.label}"
            networks.append(describe_network(name, head, model, own, bool(result.facts.get("learned")), detail))
        note = f"The networks are finished cells of a work folder. {about_objects(data)}"
        scenes.append(build_scene(data.name.replace("_", " "), data, networks, models, note))
    return scenes


def names_of(cells: Sequence[Cell]) -> list[tuple[str, str]]:
    """Return (name, head) of each cell: the shortest name that tells cells of one head apart.

    Where all pools are the same, heads are the names, and all cells are in one group "".
    """
    many_pools = len({cell.pool for cell in cells}) > 1
    many_heads = len({cell.head for cell in cells}) > 1
    groups = [cell.head.name if many_pools and many_heads else "" for cell in cells]
    firsts = [cell.head.name if many_heads and not many_pools else cell.pool.name for cell in cells]
    names = []
    for cell, group, first in zip(cells, groups, firsts, strict=True):
        alike = [other for other, g, f in zip(cells, groups, firsts, strict=True) if (g, f) == (group, first)]
        fields = {one.id: {**one.fields, "seed": one.seed} for one in alike}
        differing = [
            field for field, value in _items(fields[cell.id]) if any(f.get(field) != value for f in fields.values())
        ]
        names.append((", ".join([first, *(f"{field}={fields[cell.id][field]}" for field in differing)]), group))
    return names


def _items(fields: dict[str, Scalar]) -> list[tuple[str, Scalar]]:
    """Return the fields in order, without the head, which the page shows apart."""
    return [(name, value) for name, value in fields.items() if name != "head"]
