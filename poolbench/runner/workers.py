"""Execute cells in worker processes, one per device slot; each imports torch once.

Every worker has an executor with a single process. In a shared pool, a process that is killed while it starts or holds
a lock breaks the whole pool; here it breaks only its own executor, which is replaced. Progress is read from the event
logs of the running cells, so a killed worker leaves no half-sent message.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection

from filelock import Timeout

from poolbench.core import Cell, UsageError
from poolbench.plugins import load_plugins
from poolbench.runner.attempt import Settings, attempt_facts
from poolbench.runner.cell import replica_groups
from poolbench.runner.group import Listener, Silent, execute_group
from poolbench.runner.ledger import Ledger
from poolbench.runner.lifeline import end_with_the_launcher, interrupts_blocked

POLL_SECONDS = 0.2  # how often the event logs of running cells are read
MAX_DEATHS = 2  # a cell fails when its worker died this often


def slots(device: str, jobs: int | None, slots_per_gpu: int) -> list[str]:
    """Return the device of each worker: ``jobs`` of them, by default one per usable core or GPU slot.

    "cuda" means all GPUs, "cuda:1" that one. Raises UsageError for more jobs than GPU slots.
    """
    if device == "cpu":
        return ["cpu"] * (jobs or usable_cores())
    import torch

    gpus = [device] if ":" in device else [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    places = gpus * slots_per_gpu
    if jobs is not None and jobs > len(places):
        raise UsageError(
            f"--jobs {jobs} does not fit {len(gpus)} GPUs with {slots_per_gpu} slots each; raise --slots-per-gpu"
        )
    return places[:jobs]


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def execute_in_workers(
    cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener, devices: Sequence[str]
) -> None:
    """Execute the cells in one worker process per device, otherwise as :func:`poolbench.runner.execute.execute` does.

    A cell whose worker dies is tried once more; a second death fails it. Replicas are halved first. The workers end
    with this call or with this process, even if it is killed.
    """
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    workers = [Worker(ledger, replace(settings, device=device), receiver) for device in devices]
    try:
        Dispatch(replica_groups(cells, workers[0].settings), workers, ledger, listener).run()
    finally:
        sender.close()
        for worker in workers:
            worker.stop()


class Dispatch:
    """Hands groups of cells to idle workers until every cell has a result."""

    def __init__(
        self, groups: Sequence[Sequence[Cell]], workers: Sequence[Worker], ledger: Ledger, listener: Listener
    ) -> None:
        self.ledger, self.listener = ledger, listener
        self.idle = list(workers)
        self.waiting = deque((group, False) for group in groups)
        self.running: dict[Future[list[Cell]], Assignment] = {}
        self.ended: list[Assignment] = []
        self.deaths: Counter[Cell] = Counter()

    def run(self) -> None:
        """Return when nothing is waiting or running; raise what a worker raised, StorageError for one."""
        while self.waiting or self.running or self.ended:
            # New work first, because a listener may be slow and workers must not wait for it.
            self._assign()
            self._report()
            for future in wait(self.running, POLL_SECONDS, FIRST_COMPLETED).done:
                assignment = self.running.pop(future)
                self.idle.append(assignment.worker)
                if isinstance(future.exception(), BrokenProcessPool):
                    self._try_again(assignment)
                else:
                    passed_over = future.result()
                    self.waiting.extend(([cell], True) for cell in passed_over)
                    assignment.cells = [cell for cell in assignment.cells if cell not in passed_over]
                    self.ended.append(assignment)

    def _assign(self) -> None:
        while self.waiting and self.idle:
            assignment = Assignment(*self.waiting.popleft(), self.idle.pop(), self.ledger)
            self.running[assignment.worker.submit(assignment)] = assignment
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

    def _try_again(self, assignment: Assignment) -> None:
        """Queue the cells of a worker that died, replicas in halves; a single cell fails after its last death."""
        if len(assignment.cells) > 1:
            half = len(assignment.cells) // 2
            self.waiting.extendleft((part, False) for part in (assignment.cells[half:], assignment.cells[:half]))
            return
        (cell,) = assignment.cells
        self.deaths[cell] += 1
        if self.deaths[cell] == MAX_DEATHS and _fail(cell, self.ledger, assignment.worker.settings):
            self.ended.append(assignment)
        else:
            self.waiting.appendleft((assignment.cells, assignment.wait))


class Worker:
    """A process that executes one group of cells at a time on one device; a dead one is replaced."""

    def __init__(self, ledger: Ledger, settings: Settings, line: Connection) -> None:
        self.ledger, self.settings, self.line = ledger, settings, line
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"), _prepare, (self.line, self.settings.plugins))

    def submit(self, assignment: Assignment) -> Future[list[Cell]]:
        """Return the future of ``execute_group`` in the process; it raises BrokenProcessPool if the process dies."""
        with interrupts_blocked():
            try:
                return self._submit(assignment)
            except BrokenProcessPool:
                self._executor = self._start()
                return self._submit(assignment)

    def _submit(self, assignment: Assignment) -> Future[list[Cell]]:
        return self._executor.submit(
            execute_group, assignment.cells, self.ledger, self.settings, Silent(), assignment.wait
        )

    def stop(self) -> None:
        """Wait for the end of the process, which ends when its line is closed."""
        self._executor.shutdown()


class Assignment:
    """A group of cells given to one worker, and how far their event logs were read."""

    def __init__(self, cells: Sequence[Cell], wait: bool, worker: Worker, ledger: Ledger) -> None:
        self.cells, self.wait, self.worker, self.ledger = cells, wait, worker, ledger
        self.positions = {cell: ledger.record(cell.id).epochs(0)[1] for cell in cells}

    def report(self, listener: Listener) -> None:
        """Tell the listener about the epochs that ended since the last call."""
        for cell in self.cells:
            rows, self.positions[cell] = self.ledger.record(cell.id).epochs(self.positions[cell])
            for row in rows:
                listener.epoch_ended(cell, row)


def _prepare(line: Connection, plugins: Sequence[str]) -> None:
    """Prepare a new worker: end it with the launcher, load the plugins."""
    end_with_the_launcher(line)
    load_plugins(plugins)


def _fail(cell: Cell, ledger: Ledger, settings: Settings) -> bool:
    """Record that the workers of the cell died; return False if another launcher is executing it by now."""
    record = ledger.record(cell.id)
    try:
        with record.lock.acquire(blocking=False):
            record.begin(cell, attempt_facts(cell, settings))
            record.append(
                "failed",
                reason=f"its worker process died {MAX_DEATHS} times (killed from outside, or out of memory)",
                traceback="none: the process was gone before Python could write one",
            )
    except Timeout:
        return False
    return True
