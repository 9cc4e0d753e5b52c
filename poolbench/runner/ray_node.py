"""A group of cells on a node of a Ray cluster.

Nothing is stored on the node: every change to the record of a cell travels to the driver.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

from poolbench import __version__
from poolbench.core import Cell, UsageError
from poolbench.plugins import Parcel, unpack_plugins
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import run_cells
from poolbench.runner.record import CHECKPOINT, Change, Delete, Record, Write


@dataclass(frozen=True)
class Order:
    """Cells that differ only by seed, their checkpoints, and what a node needs to train them.

    ``version`` is the driver's version of poolbench.
    """

    cells: Sequence[Cell]
    checkpoints: Sequence[bytes | None]
    settings: Settings
    plugins: Sequence[Parcel]
    version: str = __version__


@dataclass(frozen=True)
class Sent:
    """A change to the record of one cell."""

    cell_id: str
    change: Change


class SentRecord(Record):
    """A record that is kept elsewhere; only the last checkpoint stays at hand."""

    def __init__(self, cell_id: str, checkpoint: bytes | None, queue: SimpleQueue[Sent | None]) -> None:
        self.cell_id, self.queue = cell_id, queue
        self._checkpoint = checkpoint

    def change(self, change: Change) -> None:
        match change:
            case Write(name, content) if name == CHECKPOINT:
                self._checkpoint = content
            case Delete(name) if name == CHECKPOINT:
                self._checkpoint = None
        self.queue.put(Sent(self.cell_id, change))

    def checkpoint(self) -> bytes | None:
        return self._checkpoint


def run_order(order: Order) -> Iterator[list[Sent]]:
    """Execute the cells with ``run_cells``; yield the changes to their records while they happen, in order.

    Raises UsageError for a node with another version of poolbench or without a plugin.
    """
    if order.version != __version__:
        raise UsageError(
            f"node {socket.gethostname()} has poolbench {__version__}, the driver {order.version}: install the same"
        )
    unpack_plugins(order.plugins)
    queue: SimpleQueue[Sent | None] = SimpleQueue()
    records = [
        SentRecord(cell.id, content, queue) for cell, content in zip(order.cells, order.checkpoints, strict=True)
    ]
    # A thread, because training reports by calls and a generator has to wait for them.
    with ThreadPoolExecutor(1) as thread:
        training = thread.submit(run_cells, order.cells, records, order.settings, lambda cell, row: None)
        training.add_done_callback(lambda _: queue.put(None))
        yield from _batches(queue)
        training.result()


def _batches(queue: SimpleQueue[Sent | None]) -> Iterator[list[Sent]]:
    """Yield what the queue holds whenever it holds something, until it yields None."""
    while True:
        batch = [queue.get()]
        while not queue.empty():
            batch.append(queue.get())
        if sent := [one for one in batch if one is not None]:
            yield sent
        if None in batch:
            return
