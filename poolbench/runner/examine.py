"""What is wrong in the ledger of a work folder, and how it is mended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import Timeout

from poolbench.files import DamagedFile, storage
from poolbench.runner.cell_record import CellRecord, new_aside
from poolbench.runner.invocation import Invocation
from poolbench.runner.ledger import Ledger

PARTIAL_SECONDS = 3600.0
"""Age of a file that a process began to write and did not rename, after which nobody writes it any more."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: ``what``, ``remedy``, and the function that applies it, None where a user has to."""

    what: str
    remedy: str
    fix: Callable[[], object] | None


def examine_ledger(ledger: Ledger) -> Iterator[Finding]:
    """Yield what is wrong with the cells, the commands and the partial files of a ledger; every file is read."""
    for record in ledger.records():
        yield from _examine_cell(record)
    for path in sorted(ledger.folder.glob("invocations/*.json")):
        yield from _examine_invocation(Invocation(path), ledger.folder)
    yield from _partial_files(ledger.folder)


def _examine_cell(record: CellRecord) -> Iterator[Finding]:
    name = f"cell {record.cell_id}"
    try:
        finished, damage = record.is_finished, record.damage(weights=True)
        cell = record.cell()
        name = f"{name} ({cell.label})" if cell else name
    except DamagedFile as damaged:
        damage = damage or f"{damaged.path.name}: {damaged.reason}"
    except OSError as error:
        yield Finding(f"{name}: its folder cannot be read ({error.strerror})", "make it readable for this user", None)
        return
    if damage and finished:
        remedy = "its files are moved to 'damaged'; its 'run' command executes it again"
        yield Finding(f"{name}: {damage}", remedy, partial(_set_aside, record))
    elif damage:
        yield Finding(f"{name}, not finished: {damage}", "its 'run' command mends it and goes on with the cell", None)


def _set_aside(record: CellRecord) -> None:
    """Move the files of a cell aside unless a process executes it at this moment or has just done so."""
    try:
        with storage(record.folder), record.lock.acquire(blocking=False):
            if record.damage(weights=True):
                record.set_aside()
    except Timeout:
        return


def _examine_invocation(invocation: Invocation, work: Path) -> Iterator[Finding]:
    try:
        content = invocation.content
        if content["ended"] is None and not invocation.is_running():
            yield Finding(
                f"command {invocation.id} ({content['command']}) was killed",
                "it is recorded as interrupted",
                partial(invocation.close, "interrupted"),
            )
    except DamagedFile as damaged:
        yield Finding(
            f"command {invocation.id}: {damaged.reason}",
            "its file is moved to 'damaged'; its cells are not concerned",
            partial(move_aside, invocation.path, work),
        )


def _partial_files(folder: Path) -> Iterator[Finding]:
    """Yield the files below a folder that killed processes have begun."""
    before = time.time() - PARTIAL_SECONDS
    found = [path for path in folder.rglob(".*.tmp") if path.stat().st_mtime < before]
    if found:
        size = sum(path.stat().st_size for path in found) / 1e6
        what = f"{len(found)} partial files of killed processes ({size:.1f} MB) below '{folder}'"
        yield Finding(what, "they are deleted", partial(_delete, found))


def _delete(paths: Sequence[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def move_aside(path: Path, work: Path) -> None:
    """Move a file to the damaged files of a work folder; raise StorageError if that is impossible."""
    with storage(work):
        os.rename(path, new_aside(work, path.stem) / path.name)
