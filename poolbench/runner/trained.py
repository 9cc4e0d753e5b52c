"""What a finished cell left behind: which one it is, the data it was trained and judged on, and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from poolbench.core import Cell, DataLocation, Result, UsageError
from poolbench.files import DamagedFile
from poolbench.registry import benchmarks
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.ledger import Ledger
from poolbench.runner.record import WEIGHTS
from poolbench.task import Benchmark

if TYPE_CHECKING:
    from torch import Tensor

    from poolbench.data import Dataset

NAMED = 3
"""Ids that a message lists, at most."""


def find_cell(results: Sequence[Result], start: str, ledger: Ledger) -> Result:
    """Return the finished cell of a ledger whose id starts so; raise UsageError where none or several do."""
    if not start:
        raise UsageError("the id of a cell is empty; give the id of a cell or its first characters")
    found = [result for result in results if result.cell.id.startswith(start)]
    finished = [result for result in found if result.status == "finished"]
    if len(finished) == 1:
        return finished[0]
    if finished:
        ids = ", ".join(result.cell.id for result in finished[:NAMED])
        raise UsageError(f"{len(finished)} cells begin with '{start}' ({ids}); give more characters of the id")
    if found:
        why = f" ({found[0].reason})" if found[0].status == "damaged" else ""
        raise UsageError(f"cell {found[0].cell.id} is {found[0].status}{why}, not finished; run its command again")
    known = [result.cell.id for result in results if result.status == "finished"]
    has = f"it has {len(known)} finished cells, like {known[0]}" if known else "it has no finished cell"
    raise UsageError(f"'{ledger.folder}' has no cell '{start}' ({has}); give the id of a cell or its first characters")


def cell_data(cell: Cell, location: DataLocation, device: str) -> Dataset:
    """Return the data set that a cell is trained and judged on: its fold, and its validation part where it is tuned.

    Raises MissingData without the data, UsageError for data that have no folds where the benchmark asks for them.
    """
    from poolbench.data import load_dataset
    from poolbench.data.folds import fold

    benchmark: Benchmark = benchmarks.get(cell.benchmark)()
    if benchmark.load is not None:
        data = benchmark.load(cell, location, device)
    else:
        data = load_dataset(cell.dataset, location, device)
    if benchmark.folds:
        data = fold(data, benchmark.folds, cell.seed)
    return data.for_tuning() if cell.split != "test" else data


def cell_weights(record: CellRecord) -> dict[str, Tensor]:
    """Return the state dict of a finished cell; raise DamagedFile for weights that are not as they were written."""
    import torch

    content = record.weights()
    try:
        state: dict[str, Tensor] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes can make the unpickler raise anything
        raise DamagedFile(record.folder / WEIGHTS, f"it holds no state dict ({type(error).__name__})") from error
    return state
