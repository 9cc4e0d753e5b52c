"""The ledger: one folder per cell on disk. MLflow and the report are derived from it.

    cells/<id>/config.json     the cell
    cells/<id>/events.jsonl    append-only log: started, resumed, epoch, failed, skipped; flushed to disk
    cells/<id>/checkpoint.pt   the state of an unfinished training
    cells/<id>/*.parquet, arrays.npz, weights.pt
    cells/<id>/result.json     metrics, facts, and the checksums of all files; the cell is finished when it exists
    invocations/<id>.json      one per command that executed cells
    damaged/                   files that were not as they were written, moved away

Files are written aside, flushed and renamed, so they are whole or absent. A truncated last event is ignored.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from poolbench.core import Cell, Result
from poolbench.files import DamagedFile, storage, write_atomically
from poolbench.runner.attempt_log import EVENTS
from poolbench.runner.cell_record import CellRecord
from poolbench.runner.invocation import Invocation
from poolbench.runner.left_out import KnownNames, explanations
from poolbench.runner.record import CONFIG
from poolbench.runner.stored import RESULT


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

    def records(self) -> Iterator[CellRecord]:
        """Yield the records of all cells that were ever started."""
        for path in sorted(self.folder.glob("cells/*")):
            try:
                names = os.listdir(path)
            except OSError:
                names = [CONFIG]  # no folder, or one that may not be read: it has to be reported
            if not {CONFIG, EVENTS, RESULT}.isdisjoint(names):
                yield self.record(path.name)

    def result(self, cell: Cell) -> Result:
        """Return the state of a planned cell, "pending" if it was never started."""
        return self.record(cell.id).result(cell)

    def results(self) -> list[Result]:
        """Return the states of all cells that were ever started, oldest first.

        Cells whose benchmark or components are not registered here are left out, and those whose configuration cannot
        be read (see :meth:`left_out`).
        """
        return self.survey()[0]

    def left_out(self) -> list[str]:
        """Return a line per damaged cell and command, and per kind of cells that :meth:`results` leaves out."""
        return self.survey()[1]

    def survey(self) -> tuple[list[Result], list[str]]:
        """Return :meth:`results` and :meth:`left_out`, for which every file is read once."""
        known = KnownNames()
        results, unregistered, damaged, others = [], [], [], 0
        for record, cell in self._cells():
            if cell is None:
                others += 1
                continue
            if isinstance(cell, DamagedFile):
                damaged.append(_damage_line(record.cell_id, cell.brief))
                continue
            result = record.result(cell)
            if known.missing(cell):
                unregistered.append(result)
                continue
            results.append(result)
            if result.status == "damaged":
                damaged.append(_damage_line(f"{cell.label} ({record.cell_id})", result.reason))
        damaged += [str(found) for found in self._read_invocations() if isinstance(found, DamagedFile)]
        results.sort(key=lambda result: (result.started or 0.0, result.cell.id))
        return results, damaged + explanations(unregistered, unreadable=others)

    def _cells(self) -> Iterator[tuple[CellRecord, Cell | DamagedFile | None]]:
        """Yield each record with its cell, with None for one of another version, or with what is damaged."""
        for record in self.records():
            try:
                yield record, record.cell()
            except DamagedFile as damaged:
                yield record, damaged

    def invocations(self) -> list[Invocation]:
        """Return all invocations that can be read, oldest first."""
        found = [one for one in self._read_invocations() if not isinstance(one, DamagedFile)]
        return [invocation for _, invocation in sorted(found, key=lambda one: (one[0], one[1].id))]

    def _read_invocations(self) -> Iterator[tuple[float, Invocation] | DamagedFile]:
        """Yield each invocation with the time of its start, or with what is damaged."""
        for path in sorted(self.folder.glob("invocations/*.json")):
            invocation = Invocation(path)
            try:
                yield float(invocation.content["started"]), invocation
            except DamagedFile as damaged:
                yield damaged

    def open_invocation(self, command: str, preset: str) -> Invocation:
        """Record that a command begins to execute cells."""
        return Invocation.open(self.folder / "invocations", command, preset)


def _damage_line(cell: str, damage: str) -> str:
    return f"damaged and left out: {cell}: {damage}; its 'run' command sets it aside and executes it again"
