"""Execute cells, in this process or in workers. Each result is in the ledger before its ``cell_ended`` is called."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from poolbench.core import Cell
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups
from poolbench.runner.group import Listener, Silent, execute_group
from poolbench.runner.ledger import Ledger
from poolbench.runner.workers import execute_in_workers

__all__ = ["Executor", "Listener", "LocalExecutor", "Silent", "execute"]


class Executor(Protocol):
    """Executes cells on a "cpu" or "cuda" device, at most ``places`` groups of replicas at once."""

    @property
    def device(self) -> str: ...

    @property
    def places(self) -> int: ...

    def execute(self, cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener) -> None:
        """Execute the cells as :func:`execute` does."""


@dataclass(frozen=True)
class LocalExecutor:
    """The executor on this machine: one worker process for each of ``devices``, all of the kind ``device``."""

    device: str
    devices: Sequence[str]

    @property
    def places(self) -> int:
        return len(self.devices)

    def execute(self, cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener) -> None:
        """Execute the cells in worker processes, in this process if one is enough."""
        execute(cells, ledger, settings, listener, self.devices[: len(cells)])


def execute(
    cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener, devices: Sequence[str] = ()
) -> None:
    """Execute the cells, one worker process per device; with fewer than two devices, in order in this process.

    A cell that another process has locked is skipped at first. At the end, wait for it; if the other process died,
    execute the cell here. A failed cell does not stop the others. Raises StorageError for a folder that cannot be
    written.
    """
    if len(devices) > 1:
        execute_in_workers(cells, ledger, settings, listener, devices)
        return
    passed_over: list[Cell] = []
    for group in replica_groups(cells, settings):
        passed_over += execute_group(group, ledger, settings, listener, wait=False)
    for cell in passed_over:
        execute_group([cell], ledger, settings, listener, wait=True)
