"""The ledger: one folder per cell on disk. MLflow and the report are derived from it.

    cells/<id>/config.json     the cell
    cells/<id>/events.jsonl    append-only log: started, resumed, epoch, failed, skipped; flushed to disk
    cells/<id>/checkpoint.pt   the state of an unfinished training
    cells/<id>/result.json     metrics and facts; the cell is finished when this file exists
    cells/<id>/*.parquet, arrays.npz, weights.pt
    invocations/<id>.json      one per command that executed cells

Files are written aside, flushed and renamed, so they are whole or absent. A truncated last event is ignored.
"""

from __future__ import annotations

import json
import math
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from poolbench.core import Cell, Result
from poolbench.files import storage, write_atomically, write_json
from poolbench.runner.left_out import KnownNames, explanations
from poolbench.runner.record import ARRAYS, CHECKPOINT, RESULT, Append, Change, Delete, Record, Write

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd


EVENTS = "events.jsonl"


def is_held(lock: FileLock) -> bool:
    """Return whether this or another process holds the lock."""
    if lock.is_locked:
        return True
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True


@dataclass(frozen=True)
class CellRecord(Record):
    """The folder of one cell."""

    cell_id: str
    folder: Path

    @property
    def lock(self) -> FileLock:
        """The lock of the process that executes the cell; the system releases it when the process dies."""
        return FileLock(self.folder / "lock", is_singleton=True)

    @property
    def is_finished(self) -> bool:
        """Whether the cell has its result, which is the last of its files to be written."""
        return (self.folder / RESULT).exists()

    @property
    def progress(self) -> int:
        """The epoch that the last attempt has reached, 0 without one."""
        reached = 0
        for event in self._events():
            if event["event"] in ("started", "resumed", "epoch"):
                reached = event.get("epoch", 0)
        return reached

    def change(self, change: Change) -> None:
        """Apply a change to the folder and flush it to disk; raise StorageError if that is impossible."""
        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            match change:
                case Append(line):
                    self._append(line)
                case Write(name, content):
                    write_atomically(self.folder / name, content)
                case Delete(name):
                    (self.folder / name).unlink(missing_ok=True)

    def checkpoint(self) -> bytes | None:
        """Return the last checkpoint, None without one; delete partial files of a killed process."""
        for torn in self.folder.glob(".*.tmp"):
            torn.unlink(missing_ok=True)
        path = self.folder / CHECKPOINT
        return path.read_bytes() if path.exists() else None

    def _append(self, line: bytes) -> None:
        with open(self.folder / EVENTS, "a+b") as file:
            # A line truncated by a crash must not swallow the next one.
            if file.tell() and self._last_byte(file) != b"\n":
                line = b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _last_byte(file: Any) -> bytes:
        file.seek(-1, os.SEEK_END)
        last: bytes = file.read(1)
        return last

    def table(self, name: str) -> pd.DataFrame:
        """Return a stored table; raise FileNotFoundError if the cell has none of that name."""
        import pandas as pd

        return pd.read_parquet(self.folder / f"{name}.parquet")

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a stored array; raise KeyError or FileNotFoundError if there is none of that name."""
        import numpy as np

        with np.load(self.folder / ARRAYS) as arrays:
            array: np.ndarray[Any, Any] = arrays[name]
            return array

    def _events(self) -> list[dict[str, Any]]:
        path = self.folder / EVENTS
        return _parse(path.read_bytes()) if path.exists() else []

    def epochs(self, start: int) -> tuple[list[dict[str, Any]], int]:
        """Return the epochs in the complete lines of the event log from byte ``start``, and the byte after them."""
        path = self.folder / EVENTS
        if not path.exists():
            return [], start
        with open(path, "rb") as file:
            file.seek(start)
            new = file.read()
        whole = new[: new.rfind(b"\n") + 1]
        return [row for row in _parse(whole) if row.pop("event") == "epoch"], start + len(whole)

    def result(self, cell: Cell) -> Result:
        """Return the state of ``cell``, whose folder this is, from its last attempt."""
        started: float | None = None
        facts: dict[str, Any] = {}
        history: list[dict[str, float]] = []
        last: dict[str, Any] = {}
        for last in self._events():
            content = {k: v for k, v in last.items() if k not in ("event", "time")}
            if last["event"] == "started":
                started, facts, history = last["time"], content, []
            elif last["event"] == "resumed":
                after = content.pop("epoch")
                changed = facts.get("environment_changed") or facts.get("environment") != content.get("environment")
                facts = {**content, "resumed_after": after, **({"environment_changed": True} if changed else {})}
                history = [row for row in history if row["epoch"] <= after]
            elif last["event"] == "epoch":
                history.append({**content, "time": last["time"]})
        if started is None:
            return Result(cell, "pending")
        finished = self.folder / RESULT
        if finished.exists():
            stored = json.loads(finished.read_text())
            metrics = {k: math.nan if v is None else v for k, v in stored["metrics"].items()}
            return Result(cell, "finished", started, stored["ended"], history, metrics, {**facts, **stored["facts"]})
        if last["event"] in ("failed", "skipped"):
            return Result(
                cell, last["event"], started, last["time"], history, {}, facts,
                last["reason"], last.get("traceback", ""),
            )  # fmt: skip
        return Result(cell, "running" if is_held(self.lock) else "pending", started, None, history, {}, facts)


def _parse(log: bytes) -> list[dict[str, Any]]:
    """Return the events of a log; truncated lines are ignored."""
    events = []
    for line in log.splitlines():
        try:
            events.append(json.loads(line))
        except ValueError:
            continue
    return events


class Ledger:
    """The cells and invocations of a work folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def create(self) -> Ledger:
        """Create the folders; raise StorageError if they cannot be written."""
        with storage(self.folder):
            for name in ("cells", "invocations"):
                (self.folder / name).mkdir(parents=True, exist_ok=True)
            probe = self.folder / ".writable"
            write_atomically(probe, b"")
            probe.unlink(missing_ok=True)  # another launcher may have deleted it
        return self

    def record(self, cell_id: str) -> CellRecord:
        return CellRecord(cell_id, self.folder / "cells" / cell_id)

    def result(self, cell: Cell) -> Result:
        """Return the state of a planned cell, "pending" if it was never started."""
        return self.record(cell.id).result(cell)

    def results(self) -> list[Result]:
        """Return the states of all cells that were ever started, oldest first.

        Cells whose benchmark or components are not registered here are left out (see :meth:`left_out`).
        """
        known = KnownNames()
        found = [self.result(cell) for cell in self._cells() if cell is not None and not known.missing(cell)]
        return sorted(found, key=lambda result: (result.started or 0.0, result.cell.id))

    def left_out(self) -> list[str]:
        """Return a line per kind of cells that :meth:`results` leaves out: how many, and how to get them back."""
        known = KnownNames()
        cells = list(self._cells())
        results = [self.result(cell) for cell in cells if cell is not None and known.missing(cell)]
        return explanations(results, unreadable=cells.count(None))

    def _cells(self) -> Iterator[Cell | None]:
        for path in sorted(self.folder.glob("cells/*/config.json")):
            try:
                cell = Cell.from_config(json.loads(path.read_text()))
            except (TypeError, KeyError, ValueError):
                cell = None
            # With fields that were added since, the same settings have another id.
            yield cell if cell is not None and cell.id == path.parent.name else None

    def invocations(self) -> list[Invocation]:
        """Return all invocations, oldest first."""
        found = [Invocation(path) for path in self.folder.glob("invocations/*.json")]
        return sorted(found, key=lambda invocation: (invocation.content["started"], invocation.id))

    def open_invocation(self, command: str, preset: str) -> Invocation:
        """Record that a command begins to execute cells."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = self.folder / "invocations" / f"{stamp}-{uuid.uuid4().hex[:6]}.json"
        with storage(self.folder):
            write_json(path, {"command": command, "preset": preset, "started": time.time(), "ended": None})
        invocation = Invocation(path)
        invocation.lock.acquire()
        return invocation


class Invocation:
    """One command that executed cells: its text, preset, times, and whether it is still running.

    As a context manager it is closed at the end with ``outcome``; after an exception, as "interrupted" or "failed".
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.stem
        self.outcome = "finished"
        # Kept, because a lock is released with its last reference.
        self.lock = FileLock(path.with_suffix(".lock"), is_singleton=True)

    def __enter__(self) -> Invocation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.outcome = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        self.close(self.outcome)

    @property
    def content(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.path.read_text())
        return content

    def close(self, outcome: str) -> None:
        """Record how it ended: "finished", "failed" or "interrupted"."""
        with storage(self.path.parent):
            write_json(self.path, {**self.content, "ended": time.time(), "outcome": outcome})
        self.lock.release(force=True)

    def is_running(self) -> bool:
        """Return whether the process that opened it is alive and has not closed it."""
        return self.content["ended"] is None and is_held(self.lock)
