"""Bring ledgers together: cells and invocations of several work folders copied into one.

A cell is copied aside and flushed, then its files are renamed, the result last. So it is finished in the target only
when it is whole, and a merge that was killed is completed by the next one. The sources are only read.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from poolbench.analysis.identity import COSTS
from poolbench.core import UsageError
from poolbench.files import DamagedFile, open_file, read_file, reading, storage, write_atomically
from poolbench.runner.attempt_log import EVENTS
from poolbench.runner.cell_record import LOCK, OWN, CellRecord
from poolbench.runner.ledger import Ledger
from poolbench.runner.record import CONFIG
from poolbench.runner.stored import RESULT, read_stored

COPIES = "merging"
"""The folder inside the target where cells are copied to before they are renamed."""
LAST = (EVENTS, CONFIG, RESULT)
"""The files that say how far a cell is, in the order in which they are put in place."""


@dataclass
class Merged:
    """What a merge did: cells ``copied`` and ``kept`` (the target has the same or more), and lines on the others.

    ``differing`` cells are finished in two folders with different results; ``running`` and ``damaged`` ones were left
    out.
    """

    copied: int = 0
    kept: int = 0
    differing: list[str] = field(default_factory=list)
    running: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def merge(source: Ledger, target: Ledger) -> Merged:
    """Copy into ``target`` the cells of ``source`` that it lacks or has less of, and the invocations that ended.

    A finished cell replaces an unfinished or damaged one, and of two unfinished ones the one with more epochs stays. Of
    two finished ones the target's stays. Raises UsageError while another merge writes the target, StorageError if it
    cannot be written.
    """
    found = Merged()
    aside = target.folder / COPIES
    with _alone(target), storage(target.folder):
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir()
        for record in source.records():
            _merge_cell(record, target.record(record.cell_id), aside, found)
        for invocation in source.invocations():
            if invocation.path.with_suffix(".lock").exists() and invocation.is_running():
                continue
            path = target.folder / "invocations" / invocation.path.name
            if not path.exists():
                write_atomically(path, read_file(invocation.path))
        shutil.rmtree(aside)
    return found


@contextmanager
def _alone(target: Ledger) -> Iterator[None]:
    """Hold the target against other merges; raise UsageError if one is running."""
    try:
        with FileLock(target.folder / "merge.lock", blocking=False):
            yield
    except Timeout:
        raise UsageError(f"another merge writes to '{target.folder}'; wait for its end") from None


def _merge_cell(ours: CellRecord, theirs: CellRecord, aside: Path, found: Merged) -> None:
    """Bring one cell from the source, ``ours``, to the target, ``theirs``, unless that has the same or more."""
    for record in (ours, theirs):
        if damage := _obstacle(record) or (record is ours and _damage(record)):
            found.damaged.append(f"{_label(record)}: {damage} in '{_folder(record)}'")
            return
    if theirs.is_finished and not _damage(theirs):
        if ours.is_finished and (difference := difference_of(ours, theirs)):
            found.differing.append(f"{_label(ours)}: {difference} in '{_folder(ours)}' and '{_folder(theirs)}'")
        else:
            found.kept += 1
        return
    theirs.folder.mkdir(exist_ok=True)
    with ExitStack() as locks:
        for record in (ours, theirs):
            # A finished cell of the source does not change any more, and one without a lock was never executed there.
            if record is theirs or (not record.is_finished and (record.folder / LOCK).exists()):
                try:
                    locks.enter_context(record.lock.acquire(blocking=False))
                except Timeout:
                    found.running.append(f"{_label(ours)}: is running in '{_folder(record)}'")
                    return
        if _damage(theirs):
            theirs.set_aside()
        begun = (theirs.folder / CONFIG).exists()
        if begun and not ours.is_finished and ours.progress <= theirs.progress:
            found.kept += 1
            return
        _replace(ours.folder, theirs.folder, aside)
        found.copied += 1


def _obstacle(record: CellRecord) -> str:
    """Return what keeps the files of a cell from being copied or replaced, "" if nothing does.

    A link in the folder of a stranger could lead to any file of this machine.
    """
    if record.folder.is_symlink():
        return "its folder is a link"
    try:
        for path in record.folder.iterdir() if record.folder.exists() else ():
            if path.is_symlink():
                return f"{path.name} is a link"
            if path.is_file() or path.name in (*OWN, LOCK):
                with reading(path):
                    open_file(path).close()
    except DamagedFile as damaged:
        return damaged.brief
    except OSError as error:
        return f"its folder cannot be read ({error.strerror})"
    return ""


def _damage(record: CellRecord) -> str:
    return record.damage(weights=True)


def _replace(source: Path, target: Path, aside: Path) -> None:
    """Copy the files of a cell aside, move the target's own away, and move the copies in, the result last."""
    copy, old = aside / source.name, aside / f"{source.name}.old"
    copy.mkdir()
    old.mkdir()
    for path in source.iterdir():
        if path.is_file() and path.name != LOCK and not path.name.endswith(".tmp"):
            with open(shutil.copy2(path, copy / path.name), "rb") as file:
                os.fsync(file.fileno())
    for path in target.iterdir():
        if path.name != LOCK:
            os.rename(path, old / path.name)
    for path in sorted(copy.iterdir(), key=lambda path: LAST.index(path.name) if path.name in LAST else -1):
        os.rename(path, target / path.name)


def difference_of(ours: CellRecord, theirs: CellRecord) -> str:
    """Return what differs most between the results of two finished records of one cell, "" if nothing does.

    Metrics are compared to the last bit, tables value by value. Measured times and memory do not count.
    """
    mine, other = (_metrics(record) for record in (ours, theirs))
    unequal = {name: (mine.get(name), other.get(name)) for name in {*mine, *other} if mine.get(name) != other.get(name)}
    if unequal:
        name = max(sorted(unequal), key=lambda name: _distance(*unequal[name]))
        one, two = unequal[name]
        by = f" (by {abs(one - two):.3g})" if one is not None and two is not None else ""
        more = f", and {len(unequal) - 1} more metrics differ" if len(unequal) > 1 else ""
        return f"{name} is {one} and {two}{by}{more}"
    tables = [{path.stem for path in record.folder.glob("*.parquet")} for record in (ours, theirs)]
    for name in sorted(tables[0] | tables[1]):
        if name not in tables[0] & tables[1] or not ours.table(name).equals(theirs.table(name)):
            return f"table {name} differs"
    return ""


def _metrics(record: CellRecord) -> Mapping[str, float | None]:
    stored = read_stored(record.folder)
    assert stored is not None
    # Undefined values are equal to each other.
    return {name: None if math.isnan(value) else value for name, value in stored.metrics.items() if name not in COSTS}


def _distance(one: float | None, two: float | None) -> float:
    """Return the difference relative to the larger of two values, infinity if one is absent or undefined."""
    if one is None or two is None:
        return math.inf
    return abs(one - two) / max(abs(one), abs(two))


def _label(record: CellRecord) -> str:
    """Return the line that describes a cell, its id if another version of poolbench wrote it."""
    try:
        cell = record.cell()
    except DamagedFile:
        return record.cell_id
    return cell.label if cell else record.cell_id


def _folder(record: CellRecord) -> Path:
    """Return the work folder of a record."""
    return record.folder.parents[1]
