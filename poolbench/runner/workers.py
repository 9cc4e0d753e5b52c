"""Execute cells in worker processes: one per slot, each with torch imported once.

Every worker has an executor of its own. Workers of one shared pool also share its locks and its fate:
one that is killed while it starts or holds a lock takes the others along. Here it breaks its own
executor, at whatever moment it dies, and that one is replaced. Progress needs no channel either: the
launcher reads it from the event logs of the running cells, so nothing can be left half-sent.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection

from filelock import Timeout

from poolbench.core import Cell, UsageError
from poolbench.plugins import load_plugins
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups
from poolbench.runner.environment import environment
from poolbench.runner.execute import Listener, Silent, execute_group
from poolbench.runner.ledger import Ledger

POLL_SECONDS = 0.2  # how often the event logs of running cells are read
DEATHS = 2  # of its worker before a cell counts as failed: the first may be an accident


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
    """Execute the cells in as many processes as there are devices; else as ``execute`` does.

    A cell whose worker dies is begun again once; a second death fails it. Replicas are halved first. The
    workers end with this call and with this process, however it ends; the next call goes on from there.
    """
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    workers = [Worker(ledger, replace(settings, device=device), receiver) for device in devices]
    idle = list(workers)
    waiting = deque((group, False) for group in replica_groups(cells, workers[0].settings))
    running: dict[Future[list[Cell]], Turn] = {}
    ended: list[Turn] = []
    deaths: Counter[Cell] = Counter()
    try:
        while waiting or running or ended:
            # First new work for the workers, then word of what they did: a listener may take its time.
            while waiting and idle:
                turn = Turn(*waiting.popleft(), idle.pop(), ledger)
                running[turn.worker.submit(turn)] = turn
                for cell in turn.cells:
                    listener.cell_started(cell)
            for turn in [*running.values(), *ended]:
                turn.report(listener)
            for turn in ended:
                for cell in turn.cells:
                    listener.cell_ended(ledger.result(cell))
            ended = []
            for future in wait(running, POLL_SECONDS, FIRST_COMPLETED).done:
                turn = running.pop(future)
                idle.append(turn.worker)
                if not isinstance(future.exception(), BrokenProcessPool):
                    passed_over = future.result()
                    waiting.extend(([cell], True) for cell in passed_over)
                    turn.cells = [cell for cell in turn.cells if cell not in passed_over]
                    ended.append(turn)
                elif len(turn.cells) > 1:
                    half = len(turn.cells) // 2
                    waiting.extendleft((part, False) for part in (turn.cells[half:], turn.cells[:half]))
                else:
                    (cell,) = turn.cells
                    deaths[cell] += 1
                    if deaths[cell] == DEATHS and _fail(cell, ledger, turn.worker.settings):
                        ended.append(turn)
                    else:
                        waiting.appendleft((turn.cells, turn.wait))
    finally:
        sender.close()
        for worker in workers:
            worker.stop()


class Worker:
    """A process that executes one group of cells at a time on one device, replaced when it died."""

    def __init__(self, ledger: Ledger, settings: Settings, line: Connection) -> None:
        self.ledger, self.settings, self.line = ledger, settings, line
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, get_context("spawn"), _prepare, (self.line, self.settings.plugins))

    def submit(self, turn: Turn) -> Future[list[Cell]]:
        """Return the future of ``execute_group`` in the process: BrokenProcessPool where it dies over it."""
        with _unheard_interrupts():
            try:
                return self._submit(turn)
            except BrokenProcessPool:
                self._executor = self._start()
                return self._submit(turn)

    def _submit(self, turn: Turn) -> Future[list[Cell]]:
        return self._executor.submit(execute_group, turn.cells, self.ledger, self.settings, Silent(), turn.wait)

    def stop(self) -> None:
        """Wait for the end of the process, which its line's end has ended."""
        self._executor.shutdown()


class Turn:
    """A group of cells in one worker's hands, and how far their event logs were read."""

    def __init__(self, cells: Sequence[Cell], wait: bool, worker: Worker, ledger: Ledger) -> None:
        self.cells, self.wait, self.worker, self.ledger = cells, wait, worker, ledger
        self.positions = {cell: ledger.record(cell.id).epochs(0)[1] for cell in cells}

    def report(self, listener: Listener) -> None:
        """Hand on the epochs that ended since the last time."""
        for cell in self.cells:
            rows, self.positions[cell] = self.ledger.record(cell.id).epochs(self.positions[cell])
            for row in rows:
                listener.epoch_ended(cell, row)


def _prepare(line: Connection, plugins: Sequence[str]) -> None:
    """Prepare a new worker: end with the launcher, know the plugins."""
    threading.Thread(target=_end_with_the_launcher, args=(line,), daemon=True).start()
    load_plugins(plugins)


def _end_with_the_launcher(line: Connection) -> None:
    """End this process at once when the launcher closes the line or dies: only it holds the other end."""
    line.poll(None)
    os._exit(1)


@contextmanager
def _unheard_interrupts() -> Iterator[None]:
    """A process that is started here never gets Ctrl-C, which a terminal sends to all of them."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _fail(cell: Cell, ledger: Ledger, settings: Settings) -> bool:
    """Record that the cell killed its workers; return False where another launcher took it up meanwhile."""
    record = ledger.record(cell.id)
    try:
        with record.lock.acquire(blocking=False):
            record.begin(cell, {"invocation": settings.invocation, "environment": environment(settings.device)})
            record.append(
                "failed",
                reason=f"its worker process died {DEATHS} times (killed from outside, or out of memory)",
                traceback="none: the process was gone before Python could write one",
            )
    except Timeout:
        return False
    return True
