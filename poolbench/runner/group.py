"""Execute one group of replicas under the locks of their cells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Protocol

from filelock import Timeout

from poolbench.core import Cell, Result
from poolbench.files import storage
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import run_cells
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.ledger import Ledger


class Listener(Protocol):
    """Callbacks for the progress of an execution."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None: ...

    def cell_ended(self, result: Result) -> None: ...


class Silent:
    """A listener that does nothing."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None: ...

    def cell_ended(self, result: Result) -> None: ...


class Run(Protocol):
    """``run_cells``, or what has it called on another machine."""

    def __call__(
        self,
        cells: Sequence[Cell],
        records: Sequence[CellRecord],
        settings: Settings,
        on_epoch: Callable[[Cell, dict[str, float]], None],
    ) -> None: ...


def execute_group(
    cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener, wait: bool, run: Run = run_cells
) -> list[Cell]:
    """Execute the replicas that are not finished; return the cells that another process has locked.

    The files of damaged ones are set aside first.
    With ``wait``, block until the lock is free and return []. Use it with a single cell only: two processes that each
    hold a cell and wait for the other's would deadlock.
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
        todo = []
        for cell in held:
            status = ledger.result(cell).status
            if status == "damaged":
                ledger.record(cell.id).set_aside()
            if status != "finished":
                todo.append(cell)
        for cell in todo:
            listener.cell_started(cell)
        if todo:
            run(todo, [ledger.record(cell.id) for cell in todo], settings, listener.epoch_ended)
    for cell in held:
        listener.cell_ended(ledger.result(cell))
    return passed_over
