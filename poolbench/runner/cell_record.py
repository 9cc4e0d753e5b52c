"""The folder of one cell: its files, applied changes, and whether they are still as they were written."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from poolbench.core import Cell, Result
from poolbench.files import Checksum, DamagedFile, compare, read_file, reading, storage, verify, write_atomically
from poolbench.runner.attempt_log import EVENTS, LoggedAttempt, read_attempt, read_epochs
from poolbench.runner.locks import is_held
from poolbench.runner.record import ARRAYS, CHECKPOINT, CONFIG, WEIGHTS, Append, Change, Delete, Finish, Record, Write
from poolbench.runner.stored import RESULT, StoredResult, read_stored, sealed

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

ASIDE = "damaged"
"""The folder inside a work folder that damaged files are moved to."""
LOCK = "lock"
OWN = (CONFIG, EVENTS, CHECKPOINT, WEIGHTS, ARRAYS, RESULT)
"""The files of a cell, beside its tables."""


@dataclass(frozen=True)
class CellRecord(Record):
    """The folder of one cell."""

    cell_id: str
    folder: Path

    @property
    def lock(self) -> FileLock:
        """The lock of the process that executes the cell; the system releases it when the process dies."""
        return FileLock(self.folder / LOCK, is_singleton=True)

    @property
    def is_finished(self) -> bool:
        """Whether the cell has its result, which is the last of its files to be written, damaged or not."""
        return (self.folder / RESULT).exists()

    @property
    def progress(self) -> int:
        """The epoch that the last attempt has reached, 0 without one."""
        return read_attempt(self.folder).reached

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
                case Finish(result, files):
                    own = {name: Checksum.of(read_file(self.folder / name)) for name in (CONFIG, EVENTS)}
                    write_atomically(self.folder / RESULT, sealed(result, {**own, **files}))

    def checkpoint(self) -> bytes | None:
        """Return the last checkpoint, None without one; delete partial files of a killed process.

        A checkpoint that cannot be read is moved aside.
        """
        path = self.folder / CHECKPOINT
        with storage(self.folder):
            for torn in self.folder.glob(".*.tmp"):
                if not torn.is_dir():
                    torn.unlink(missing_ok=True)
            try:
                return read_file(path)
            except FileNotFoundError:
                return None
            except (OSError, DamagedFile):
                work = self.folder.parents[1]
                os.rename(path, new_aside(work, self.cell_id) / CHECKPOINT)
                return None

    def _append(self, line: bytes) -> None:
        with open(self.folder / EVENTS, "a+b") as file:
            # A line truncated by a crash must not swallow the next one.
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read(1) == b"\n" else b"\n" + line
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def cell(self) -> Cell | None:
        """Return the cell; None if another version of poolbench wrote it; raise DamagedFile for its config.json."""
        path = self.folder / CONFIG
        with reading(path):
            content = read_file(path)
        try:
            config = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise DamagedFile(path, f"it is no JSON ({type(error).__name__})") from error
        with suppress(TypeError, KeyError, ValueError, AttributeError, RecursionError):
            cell = Cell.from_config(config)
            # With fields that were added since, the same settings have another id.
            if cell.id == self.cell_id:
                return cell
        stored = read_stored(self.folder)
        if stored and CONFIG in stored.files:
            verify(path, stored.files[CONFIG])
        return None

    def table(self, name: str) -> pd.DataFrame:
        """Return a stored table.

        Raises FileNotFoundError if the cell has none of that name, DamagedFile if it is not as it was written.
        """
        import pandas as pd

        content = self._content(f"{name}.parquet")
        try:
            return pd.read_parquet(BytesIO(content), engine="pyarrow")
        except Exception as error:  # damaged bytes can make pyarrow raise anything
            raise DamagedFile(self.folder / f"{name}.parquet", f"it holds no table ({type(error).__name__})") from error

    def array(self, name: str) -> np.ndarray[Any, Any]:
        """Return a stored array.

        Raises KeyError or FileNotFoundError if there is none of that name, DamagedFile if it is not as it was written.
        """
        return self._arrays()[name]

    def _arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        import numpy as np

        content = self._content(ARRAYS)
        try:
            with np.load(BytesIO(content), allow_pickle=False) as arrays:
                return dict(arrays)
        except Exception as error:  # damaged bytes can make zipfile and numpy raise anything
            raise DamagedFile(self.folder / ARRAYS, f"it holds no arrays ({type(error).__name__})") from error

    def weights(self) -> bytes:
        """Return the file of the state dict; raise DamagedFile if it is not as it was written."""
        with reading(self.folder / WEIGHTS):
            return self._content(WEIGHTS)

    def _content(self, name: str) -> bytes:
        """Return a file of the cell, checked; raise FileNotFoundError if the cell has none, DamagedFile if damaged."""
        stored, path = read_stored(self.folder), self.folder / name
        if stored is None or name not in stored.files:
            return read_file(path)
        with reading(path):
            content = read_file(path)
        compare(path, Checksum.of(content), stored.files[name])
        return content

    def epochs(self, start: int) -> tuple[list[dict[str, Any]], int]:
        """Return the epochs in the complete lines of the event log from byte ``start``, and the byte after them."""
        return read_epochs(self.folder, start)

    def damage(self, weights: bool = False) -> str:
        """Return which file of a finished cell is not as it was written, and how; "" if all are as written.

        Weights, which are large and seldom read, have to have their size; ``weights`` reads their content as well.
        """
        try:
            self._whole(read_attempt(self.folder), weights)
        except DamagedFile as damaged:
            return damaged.brief
        return ""

    def _whole(self, attempt: LoggedAttempt, weights: bool = False) -> StoredResult | None:
        """Return the result, None without one; raise DamagedFile if a file of the cell is not as it was written.

        ``attempt`` is the last one in its log.
        """
        stored = read_stored(self.folder)
        if stored is None:
            return None
        for name, checksum in stored.files.items():
            verify(self.folder / name, checksum, contents=weights or name != WEIGHTS)
        if not stored.files:
            self._open_unsealed()
        if attempt.started is None:
            raise DamagedFile(self.folder / EVENTS, "it does not tell when the cell was started")
        return stored

    def _open_unsealed(self) -> None:
        """Raise DamagedFile for a table or array that cannot be opened: the only check without checksums."""
        for path in self.folder.glob("*.parquet"):
            self.table(path.stem)
        if (self.folder / ARRAYS).exists():
            self._arrays()
        if not self.weights():
            raise DamagedFile(self.folder / WEIGHTS, "it is empty")

    def result(self, cell: Cell) -> Result:
        """Return the state of ``cell``, whose folder this is, from its last attempt."""
        attempt = LoggedAttempt()
        try:
            attempt = read_attempt(self.folder)
            stored = self._whole(attempt)
        except DamagedFile as damaged:
            return Result(cell, "damaged", attempt.started, None, attempt.history, {}, attempt.facts, damaged.brief)
        history, facts = attempt.history, attempt.facts
        if attempt.started is None:
            return Result(cell, "pending")
        if stored is not None:
            facts = {**facts, **stored.facts}
            ended = attempt.in_order(stored.ended)
            return Result(cell, "finished", attempt.started, ended, history, stored.metrics, facts)
        if attempt.failure is not None:
            end = attempt.failure
            return Result(
                cell, end.status, attempt.started, end.time, history, {}, facts, end.reason, end.traceback
            )  # fmt: skip
        return Result(cell, "running" if is_held(self.lock) else "pending", attempt.started, None, history, {}, facts)

    def is_blocked(self) -> bool:
        """Return whether what is in the place of the cell's folder cannot be used: a link, a file, or no permission."""
        if not os.path.lexists(self.folder):
            return False
        needed, effective = os.R_OK | os.W_OK | os.X_OK, os.access in os.supports_effective_ids
        usable = self.folder.is_dir() and os.access(self.folder, needed, effective_ids=effective)
        return self.folder.is_symlink() or not usable

    def set_aside(self) -> Path:
        """Move the files of the cell into a new folder below "damaged", and return it; the caller holds the lock.

        The lock stays where it is: other processes may be waiting for it. Raises StorageError if that is impossible,
        and for a folder that is a link: its files may belong to another work folder.
        """
        work = self.folder.parents[1]
        with storage(work):
            if self.folder.is_symlink():
                raise OSError(f"'{self.folder}' is a link; remove it")
            aside = new_aside(work, self.cell_id)
            # The result first: without it, the cell is not finished, whatever a kill leaves behind.
            for path in sorted(self.folder.iterdir(), key=lambda path: path.name != RESULT):
                if path.name in OWN or path.suffix == ".parquet":
                    # The cells may be on another disk.
                    shutil.move(path, aside / path.name)
        return aside


def new_aside(work: Path, name: str) -> Path:
    """Return a new empty folder for damaged files of a work folder."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    aside = work / ASIDE / f"{name}-{stamp}-{secrets.token_hex(2)}"
    aside.mkdir(parents=True)
    return aside
