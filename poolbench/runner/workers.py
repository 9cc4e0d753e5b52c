"""Execute cells in worker processes, one per device slot; each imports torch once.

Every worker has an executor with a single process. In a shared pool, a process that is killed while it starts or holds
a lock breaks the whole pool; here it breaks only its own executor, which is replaced.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.connection import Connection

from poolbench.core import Cell, UsageError
from poolbench.plugins import load_plugins
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups
from poolbench.runner.dispatch import Dispatch
from poolbench.runner.group import Listener, Silent, execute_group
from poolbench.runner.ledger import Ledger
from poolbench.runner.lifeline import end_with_the_launcher, starting_processes


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

    The workers end with this call or with this process, even if it is killed.
    """
    receiver, sender = get_context("spawn").Pipe(duplex=False)
    workers = [Worker(ledger, replace(settings, device=device), receiver) for device in devices]
    try:
        Dispatch(replica_groups(cells, workers[0].settings), workers, ledger, settings, listener).run()
    finally:
        sender.close()
        for worker in workers:
            worker.stop()


class Worker:
    """A process that executes one group of cells at a time on one device; a dead one is replaced."""

    def __init__(self, ledger: Ledger, settings: Settings, line: Connection) -> None:
        self.ledger, self.settings, self.line = ledger, settings, line
        self._executor = self._start()

    def _start(self) -> ProcessPoolExecutor:
        # Its locks start a process of their own, the resource tracker.
        with starting_processes():
            return ProcessPoolExecutor(1, get_context("spawn"), _prepare, (self.line, self.settings.plugins))

    def submit(self, cells: Sequence[Cell], wait: bool) -> Future[list[Cell]]:
        """Return the future of ``execute_group`` in the process; it raises BrokenProcessPool if the process dies."""
        with starting_processes():
            try:
                return self._submit(cells, wait)
            except BrokenProcessPool:
                self._executor = self._start()
                return self._submit(cells, wait)

    def _submit(self, cells: Sequence[Cell], wait: bool) -> Future[list[Cell]]:
        return self._executor.submit(execute_group, cells, self.ledger, self.settings, Silent(), wait)

    def stop(self) -> None:
        """Wait for the end of the process, which ends when its line is closed."""
        self._executor.shutdown()


def _prepare(line: Connection, plugins: Sequence[str]) -> None:
    """Prepare a new worker: end it with the launcher, load the plugins."""
    end_with_the_launcher(line)
    load_plugins(plugins)
