"""The states of a ledger's cells, read again and again: what has ended is not read twice, files are not verified."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from poolbench.core import Cell, Status
from poolbench.files import DamagedFile, read_file
from poolbench.runner.attempt_log import EVENTS, read_attempt
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.invocation import Invocation
from poolbench.runner.ledger import Ledger
from poolbench.runner.locks import is_held
from poolbench.runner.record import CONFIG
from poolbench.runner.standing import Standing, published


@dataclass(frozen=True)
class RunningCell:
    """A cell that is being executed, and the last epoch that it has trained."""

    label: str
    epoch: int
    epochs: int


@dataclass(frozen=True)
class View:
    """The number of cells by benchmark and status, the running cells, and each running command with its standing."""

    counts: Mapping[str, Counter[Status]]
    cells: Sequence[RunningCell]
    commands: Sequence[tuple[str, Standing | None]]

    @property
    def is_over(self) -> bool:
        """Whether nothing runs."""
        return not self.cells and not self.commands


class Watch:
    """Looks at a ledger repeatedly. A look costs a listing, and reading the cells and commands that have not ended."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._finished: dict[str, str] = {}
        self._ended: dict[str, tuple[tuple[int, int], Status]] = {}
        self._closed: set[str] = set()

    def look(self) -> View:
        """Return what the ledger holds now."""
        counts: dict[str, Counter[Status]] = {}
        running = []
        with os.scandir(self.ledger.folder / "cells") as folders:
            names = sorted(folder.name for folder in folders)
        for name in names:
            if name in self._finished:
                counts.setdefault(self._finished[name], Counter())["finished"] += 1
                continue
            record = self.ledger.record(name)
            try:
                benchmark = str(json.loads(read_file(record.folder / CONFIG))["benchmark"])
                status = self._status(record, benchmark)
                if status == "running" and (cell := record.cell()) is not None:
                    running.append(_running(record, cell))
            except (OSError, ValueError, TypeError, KeyError, RecursionError):
                continue  # not written yet, or not readable, which 'status' and 'doctor' say
            counts.setdefault(benchmark, Counter())[status] += 1
        return View(dict(sorted(counts.items())), running, self._commands())

    def _status(self, record: CellRecord, benchmark: str) -> Status:
        """Return the state of a cell, and remember it if the cell has ended."""
        if record.is_finished:
            self._finished[record.cell_id] = benchmark
            return "finished"
        stat = os.stat(record.folder / EVENTS)
        version = stat.st_mtime_ns, stat.st_size
        before = self._ended.get(record.cell_id)
        if before is not None and before[0] == version:
            return before[1]
        attempt = read_attempt(record.folder)
        if attempt.failure is not None:
            self._ended[record.cell_id] = version, attempt.failure.status
            return attempt.failure.status
        return "running" if is_held(record.lock) else "pending"

    def _commands(self) -> list[tuple[str, Standing | None]]:
        """Return the text of each running command with its standing."""
        found = []
        for path in sorted(self.ledger.folder.glob("invocations/*.json")):
            invocation = Invocation(path)
            if invocation.id in self._closed:
                continue
            try:
                if invocation.content["ended"] is not None:
                    self._closed.add(invocation.id)
                elif invocation.is_running():
                    found.append((str(invocation.content["command"]), published(invocation)))
            except DamagedFile:
                continue
        return found


def _running(record: CellRecord, cell: Cell) -> RunningCell:
    return RunningCell(cell.label, record.progress, cell.train.epochs)
