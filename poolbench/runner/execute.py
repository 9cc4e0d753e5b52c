"""Execute cells, in this process or in workers. Each result is in the ledger before its ``cell_ended`` is called."""

from __future__ import annotations

from collections.abc import Sequence

from poolbench.core import Cell
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import replica_groups
from poolbench.runner.group import Listener, Silent, execute_group
from poolbench.runner.ledger import Ledger
from poolbench.runner.workers import execute_in_workers

__all__ = ["Listener", "Silent", "execute"]


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
