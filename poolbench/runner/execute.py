"""Execute cells one after another; each outcome is in the ledger before the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Protocol

from filelock import Timeout

from poolbench.core import Cell, Result
from poolbench.runner.cell import Settings, run_cell
from poolbench.runner.environment import prepare_process
from poolbench.runner.ledger import Ledger, storage


class Listener(Protocol):
    """Who wants to know how the execution goes."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None: ...

    def cell_ended(self, result: Result) -> None: ...


class Silent:
    """A listener that shows nothing."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None: ...

    def cell_ended(self, result: Result) -> None: ...


def execute(cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener) -> None:
    """Execute the cells in order; every outcome is in the ledger when its ``cell_ended`` is called.

    A cell that another process is working on is passed over, and waited for at the end: if that process
    dies, it is executed here. A failed cell does not stop the others. Raises StorageError for a folder
    that cannot be written.
    """
    prepare_process()
    passed_over = [cell for cell in cells if not execute_cell(cell, ledger, settings, listener, wait=False)]
    for cell in passed_over:
        execute_cell(cell, ledger, settings, listener, wait=True)


def execute_cell(cell: Cell, ledger: Ledger, settings: Settings, listener: Listener, wait: bool) -> bool:
    """Execute a cell unless it is finished; return False where another process holds it and we do not wait."""
    record = ledger.record(cell.id)
    with storage(record.folder):
        record.folder.mkdir(parents=True, exist_ok=True)
    try:
        with record.lock.acquire(blocking=wait):
            if ledger.result(cell).status != "finished":
                listener.cell_started(cell)
                run_cell(cell, record, settings, partial(listener.epoch_ended, cell))
    except Timeout:
        return False
    listener.cell_ended(ledger.result(cell))
    return True
