"""Hand groups of cells to places that execute them beside each other, and try again where one dies.

A place is a worker process on this machine or a task on a cluster. Progress is read from the event logs of the running
cells, so a place that dies leaves no half-sent message.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from typing import Protocol

from filelock import Timeout

from poolbench.core import Cell
from poolbench.registry import origins
from poolbench.runner.attempt import Settings
from poolbench.runner.group import Listener
from poolbench.runner.ledger import Ledger

POLL_SECONDS = 0.2  # how often the event logs of running cells are read
MAX_DEATHS = 2  # a cell fails when its worker died this often


class Place(Protocol):
    """Executes one group of cells at a time; after a death it takes the next group all the same."""

    def submit(self, cells: Sequence[Cell], wait: bool) -> Future[list[Cell]]:
        """Return the future of ``execute_group``; it raises BrokenExecutor if the process that trains dies."""

    def stop(self) -> None:
        """End what is running, and wait for it."""


class Dispatch:
    """Hands groups of cells to idle places until every cell has a result.

    A cell whose worker dies is tried once more; a second death fails it. Replicas are halved first.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Cell]],
        places: Sequence[Place],
        ledger: Ledger,
        settings: Settings,
        listener: Listener,
    ) -> None:
        self.ledger, self.settings, self.listener = ledger, settings, listener
        self.idle = list(places)
        self.waiting = deque((group, False) for group in groups)
        self.running: dict[Future[list[Cell]], Assignment] = {}
        self.ended: list[Assignment] = []
        self.deaths: Counter[Cell] = Counter()

    def run(self) -> None:
        """Return when nothing is waiting or running; raise what a place raised, StorageError for one."""
        while self.waiting or self.running or self.ended:
            # New work first, because a listener may be slow and workers must not wait for it.
            self._assign()
            self._report()
            for future in wait(self.running, POLL_SECONDS, FIRST_COMPLETED).done:
                assignment = self.running.pop(future)
                self.idle.append(assignment.place)
                death = future.exception()
                if isinstance(death, BrokenExecutor):
                    self._try_again(assignment, death)
                else:
                    passed_over = future.result()
                    self.waiting.extend(([cell], True) for cell in passed_over)
                    assignment.cells = [cell for cell in assignment.cells if cell not in passed_over]
                    self.ended.append(assignment)

    def _assign(self) -> None:
        while self.waiting and self.idle:
            assignment = Assignment(*self.waiting.popleft(), self.idle.pop(), self.ledger)
            self.running[assignment.place.submit(assignment.cells, assignment.wait)] = assignment
            for cell in assignment.cells:
                self.listener.cell_started(cell)

    def _report(self) -> None:
        """Tell the listener about new epochs and results."""
        for assignment in [*self.running.values(), *self.ended]:
            assignment.report(self.listener)
        ended, self.ended = self.ended, []
        for assignment in ended:
            for cell in assignment.cells:
                self.listener.cell_ended(self.ledger.result(cell))

    def _try_again(self, assignment: Assignment, death: BrokenExecutor) -> None:
        """Queue the cells of a worker that died, replicas in halves; a single cell fails after its last death."""
        if len(assignment.cells) > 1:
            half = len(assignment.cells) // 2
            self.waiting.extendleft((part, False) for part in (assignment.cells[half:], assignment.cells[:half]))
            return
        (cell,) = assignment.cells
        self.deaths[cell] += 1
        if self.deaths[cell] == MAX_DEATHS and _fail(cell, self.ledger, self.settings, death):
            self.ended.append(assignment)
        else:
            self.waiting.appendleft((assignment.cells, assignment.wait))


class Assignment:
    """A group of cells given to one place, and how far their event logs were read."""

    def __init__(self, cells: Sequence[Cell], wait: bool, place: Place, ledger: Ledger) -> None:
        self.cells, self.wait, self.place, self.ledger = cells, wait, place, ledger
        self.positions = {cell: ledger.record(cell.id).epochs(0)[1] for cell in cells}

    def report(self, listener: Listener) -> None:
        """Tell the listener about the epochs that ended since the last call."""
        for cell in self.cells:
            rows, self.positions[cell] = self.ledger.record(cell.id).epochs(self.positions[cell])
            for row in rows:
                listener.epoch_ended(cell, row)


def _fail(cell: Cell, ledger: Ledger, settings: Settings, death: BrokenExecutor) -> bool:
    """Record that the workers of the cell died; return False if another launcher is executing it by now."""
    record = ledger.record(cell.id)
    try:
        with record.lock.acquire(blocking=False):
            if record.is_finished:
                return True
            # Where it died before it began, the environment is not known here: it may be another machine's.
            if ledger.result(cell).facts.get("invocation") != settings.invocation:
                record.begin(cell, {"invocation": settings.invocation, "plugins": origins(cell)})
            record.append(
                "failed",
                reason=f"its worker process died {MAX_DEATHS} times (killed from outside, or out of memory)",
                traceback=f"none: the process was gone before Python could write one\n{death}",
            )
    except Timeout:
        return False
    return True
