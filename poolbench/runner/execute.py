"""Execute cells one after another; each outcome is in the ledger before the next begins."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Protocol

from filelock import Timeout

from poolbench.core import Cell, Result
from poolbench.files import storage
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups, run_cells
from poolbench.runner.ledger import Ledger


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
    passed_over: list[Cell] = []
    for group in replica_groups(cells, settings):
        passed_over += execute_group(group, ledger, settings, listener, wait=False)
    for cell in passed_over:
        execute_group([cell], ledger, settings, listener, wait=True)


def execute_group(
    cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener, wait: bool
) -> list[Cell]:
    """Execute replicas that are not finished; return those that others hold, none where we ``wait``.

    Who waits does so with a single cell: two that each hold what the other waits for would wait for ever.
    """
    held, passed_over = [], []
    with ExitStack() as locks:
        for cell in cells:
            record = ledger.record(cell.id)
            with storage(record.folder):
                record.folder.mkdir(parents=True, exist_ok=True)
            try:
                locks.enter_context(record.lock.acquire(blocking=wait))
                held.append(cell)
            except Timeout:
                passed_over.append(cell)
        todo = [cell for cell in held if ledger.result(cell).status != "finished"]
        for cell in todo:
            listener.cell_started(cell)
        if todo:
            run_cells(todo, [ledger.record(cell.id) for cell in todo], settings, listener.epoch_ended)
    for cell in held:
        listener.cell_ended(ledger.result(cell))
    return passed_over
