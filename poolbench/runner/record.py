"""The record of a cell that is being executed: every change to its files, in order, wherever the files are."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from poolbench.core import Cell, Measurement
from poolbench.files import Checksum, json_bytes
from poolbench.runner.facts import is_finite

CONFIG, CHECKPOINT, WEIGHTS, ARRAYS = "config.json", "checkpoint.pt", "weights.pt", "arrays.npz"


@dataclass(frozen=True)
class Append:
    """Add a line to the event log."""

    line: bytes


@dataclass(frozen=True)
class Write:
    """Write a whole file, or replace it."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Delete:
    """Delete a file if it is there."""

    name: str


@dataclass(frozen=True)
class Finish:
    """Store the result, which marks the cell as finished. ``files`` are the checksums of what was written for it."""

    result: Mapping[str, Any]
    files: Mapping[str, Checksum]


Change = Append | Write | Delete | Finish


class Record(ABC):
    """What the execution of a cell writes, as changes to files; a subclass applies them."""

    @abstractmethod
    def change(self, change: Change) -> None:
        """Apply one change, after all earlier ones."""

    @abstractmethod
    def checkpoint(self) -> bytes | None:
        """Return the last checkpoint, None without one."""

    def begin(self, cell: Cell, facts: Mapping[str, Any]) -> None:
        """Start an attempt: store the configuration, log the facts about the run."""
        self.change(Write(CONFIG, json_bytes(cell.config())))
        self.append("started", **facts)

    def resume(
        self, cell: Cell, epoch: int, facts: Mapping[str, Any], rows: Sequence[Mapping[str, float]] = ()
    ) -> None:
        """Continue an attempt after ``epoch``; logged epochs after it no longer count.

        ``rows`` are the epochs up to it: configuration and log may have been damaged while the checkpoint was not.
        """
        self.change(Write(CONFIG, json_bytes(cell.config())))
        self.append("resumed", epoch=epoch, rows=list(rows), **facts)

    def append(self, event: str, **content: Any) -> None:
        """Log one event with its time."""
        self.change(Append((json.dumps({"event": event, "time": time.time(), **content}) + "\n").encode()))

    def save_checkpoint(self, content: bytes) -> None:
        """Replace the checkpoint. If that raises StorageError, the previous one is kept."""
        self.change(Write(CHECKPOINT, content))

    def finish(self, measurement: Measurement, facts: Mapping[str, Any], weights: bytes) -> None:
        """Store tables, arrays and weights, then the result, which marks the cell as finished."""
        files = {}
        for name, content in _files(measurement, weights):
            self.change(Write(name, content))
            files[name] = Checksum.of(content)
        metrics = {k: float(v) if is_finite(float(v)) else None for k, v in measurement.metrics.items()}
        self.change(Finish({"metrics": metrics, "facts": facts, "ended": time.time()}, files))
        self.change(Delete(CHECKPOINT))


def _files(measurement: Measurement, weights: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of each file of a measurement."""
    for name, table in measurement.tables.items():
        content = BytesIO()
        table.to_parquet(content, engine="pyarrow")
        yield f"{name}.parquet", content.getvalue()
    if measurement.arrays:
        import numpy as np

        content = BytesIO()
        np.savez_compressed(content, allow_pickle=False, **measurement.arrays)
        yield ARRAYS, content.getvalue()
    yield WEIGHTS, weights
