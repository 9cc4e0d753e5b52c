"""The record of a cell that is being executed: every change to its files, in order, wherever the files are."""

from __future__ import annotations

import json
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from poolbench.core import Cell, Measurement
from poolbench.files import json_bytes

CONFIG, CHECKPOINT, WEIGHTS, ARRAYS, RESULT = "config.json", "checkpoint.pt", "weights.pt", "arrays.npz", "result.json"


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


Change = Append | Write | Delete


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

    def resume(self, epoch: int, facts: Mapping[str, Any]) -> None:
        """Continue an attempt after ``epoch``; logged epochs after it no longer count."""
        self.append("resumed", epoch=epoch, **facts)

    def append(self, event: str, **content: Any) -> None:
        """Log one event with its time."""
        self.change(Append((json.dumps({"event": event, "time": time.time(), **content}) + "\n").encode()))

    def save_checkpoint(self, content: bytes) -> None:
        """Replace the checkpoint. If that raises StorageError, the previous one is kept."""
        self.change(Write(CHECKPOINT, content))

    def finish(self, measurement: Measurement, facts: Mapping[str, Any], weights: bytes) -> None:
        """Store the result: tables, arrays and weights first, result.json, which marks the cell as finished, last."""
        for name, table in measurement.tables.items():
            content = BytesIO()
            table.to_parquet(content)
            self.change(Write(f"{name}.parquet", content.getvalue()))
        if measurement.arrays:
            import numpy as np

            content = BytesIO()
            np.savez_compressed(content, allow_pickle=False, **measurement.arrays)
            self.change(Write(ARRAYS, content.getvalue()))
        self.change(Write(WEIGHTS, weights))
        metrics = {k: v if math.isfinite(v) else None for k, v in measurement.metrics.items()}
        self.change(Write(RESULT, json_bytes({"metrics": metrics, "facts": facts, "ended": time.time()})))
        self.change(Delete(CHECKPOINT))
