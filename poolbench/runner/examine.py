"""What is wrong in the ledger of a work folder, and how it is mended."""

from __future__ import annotations

import math
import os
import re
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from filelock import Timeout

from poolbench.core import UsageError
from poolbench.files import DamagedFile, storage
from poolbench.runner.cell_record import ASIDE, CellRecord, new_aside
from poolbench.runner.invocation import Invocation
from poolbench.runner.ledger import Ledger
from poolbench.runner.standing import withdraw

PARTIAL = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # what files.write_atomically writes before it renames
PARTIAL_SECONDS = 3600.0
"""Age of a file that a process began to write and did not rename, after which nobody writes it any more."""


@dataclass(frozen=True)
class Finding:
    """Something that is wrong: ``what``, ``remedy``, and the function that applies it, None where a user has to."""

    what: str
    remedy: str
    fix: Callable[[], object] | None


def examine_ledger(ledger: Ledger) -> Iterator[Finding]:
    """Yield what is wrong with the cells and the commands of a ledger; every file is read."""
    for record in ledger.records():
        yield from _examine_cell(record)
    for path in sorted(ledger.folder.glob("invocations/*.json")):
        yield from _examine_invocation(Invocation(path), ledger.folder)


def _examine_cell(record: CellRecord) -> Iterator[Finding]:
    name = f"cell {record.cell_id}"
    if record.folder.is_symlink() or not record.folder.is_dir():
        yield Finding(f"{name}: '{record.folder}' is no folder, or a link", "move it away", None)
        return
    try:
        finished, damage = record.is_finished, record.damage(weights=True)
        cell = record.cell()
        name = f"{name} ({cell.label})" if cell else name
    except DamagedFile as damaged:
        damage = damage or damaged.brief
    except OSError as error:
        yield Finding(f"{name}: its folder cannot be read ({error.strerror})", "make it readable for this user", None)
        return
    if damage and finished:
        remedy = "its files are moved to 'damaged'; its command executes it again"
        yield Finding(f"{name}: {damage}", remedy, partial(_set_aside, record))
    elif damage:
        yield Finding(f"{name}, not finished: {damage}", "its command mends it and goes on with the cell", None)


def _set_aside(record: CellRecord) -> None:
    """Move the files of a cell aside if they still are damaged; raise UsageError while a process executes it."""
    with storage(record.folder):
        try:
            with record.lock.acquire(blocking=False):
                if record.damage(weights=True):
                    record.set_aside()
        except Timeout:
            raise UsageError("a process is executing it; try again later") from None


def _examine_invocation(invocation: Invocation, work: Path) -> Iterator[Finding]:
    try:
        content = invocation.content
        if content["ended"] is None and not invocation.is_running():
            yield Finding(
                f"command {invocation.id} ({content['command']}) was killed",
                "it is recorded as interrupted",
                partial(_close, invocation),
            )
    except DamagedFile as damaged:
        yield Finding(
            f"command {invocation.id}: {damaged.reason}",
            "its file is moved to 'damaged'; its cells are not concerned",
            partial(move_aside, work, invocation.path),
        )


def _close(invocation: Invocation) -> None:
    invocation.close("interrupted")
    withdraw(invocation)


def examine_partial_files(work: Path) -> Iterator[Finding]:
    """Yield the files of a work folder that processes began to write before they were killed."""
    before = time.time() - PARTIAL_SECONDS
    found = [path for path in _partial_files(work) if _written(path) < before]
    if found:
        what = f"{len(found)} file{'s' if len(found) != 1 else ''} that killed processes began to write"
        yield Finding(f"{what}, like '{found[0]}'", "they are moved to 'damaged'", partial(move_aside, work, *found))


def _partial_files(work: Path) -> Iterator[Path]:
    for folder, names, files in os.walk(work):
        names[:] = [name for name in names if Path(folder, name) != work / ASIDE]
        yield from (Path(folder, name) for name in files if PARTIAL.fullmatch(name))


def _written(path: Path) -> float:
    """Return when a file was last written, infinity if it is gone or no file."""
    try:
        found = path.lstat()
    except OSError:
        return math.inf
    return found.st_mtime if stat.S_ISREG(found.st_mode) else math.inf


def move_aside(work: Path, *paths: Path) -> None:
    """Move those of the files that exist to the damaged files of a work folder; raise StorageError where impossible."""
    with storage(work):
        aside = new_aside(work, paths[0].stem.lstrip("."))
        for number, path in enumerate(paths):
            if path.exists():
                # Partial files of several cells have one name.
                name = path.name if not (aside / path.name).exists() else f"{number}-{path.name}"
                shutil.move(path, aside / name)
