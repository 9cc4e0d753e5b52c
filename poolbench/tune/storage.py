"""Where Optuna keeps the studies of a work folder: a journal file that survives kills, or a database."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from poolbench.core import UsageError
from poolbench.files import DamagedFile, open_file, reading, storage
from poolbench.tune.record import JOURNAL

if TYPE_CHECKING:
    import optuna

HEARTBEAT_SECONDS = 20
"""How often a running trial reports to a database. It is lost when it has been silent for three times as long."""

FURTHER_ATTEMPTS = 3
FORM = "give one like postgresql+psycopg://user@host/name, or leave --storage out for a file in the work folder"

Lost = Callable[["optuna.Study", "optuna.trial.FrozenTrial"], None]


class KillSafeLock(JournalFileOpenLock):
    """A lock on the journal that the system releases when its process dies; Optuna's own waits for 30 s then.

    Who acquires it removes the incomplete line that a killed process left at the end. Optuna cannot read past one.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._lock = FileLock(journal.with_suffix(".lock"), is_singleton=True)

    def acquire(self) -> bool:
        self._lock.acquire()
        with open(self._journal, "r+b") as file:
            content = file.read()
            whole = content.rfind(b"\n") + 1
            if whole != len(content):
                file.truncate(whole)
        return True

    def release(self) -> None:
        self._lock.release()


def open_storage(folder: Path, url: str | None, lost: Lost) -> BaseStorage:
    """Return the journal in the folder, or the database at a URL such as postgresql+psycopg://user@host/name.

    ``lost`` is called for trials of a database whose process died. Raises UsageError for a database that cannot be
    opened.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    if url is None:
        journal = folder / JOURNAL
        with storage(folder):
            journal.touch()
        with reading(journal):
            open_file(journal).close()
        try:
            return JournalStorage(JournalFileBackend(str(journal), KillSafeLock(journal)))
        except Exception as error:  # damaged bytes can make Optuna raise anything
            raise DamagedFile(journal, f"it holds no studies ({type(error).__name__})") from error
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except ArgumentError:
        # The text may hold a password.
        raise UsageError(f"--storage is no URL of a database; {FORM}") from None
    # Processes that make the tables of a new database at the same time fail.
    for _ in range(FURTHER_ATTEMPTS):
        with suppress(Exception):
            return _open_database(url, lost)
        time.sleep(1)
    try:
        return _open_database(url, lost)
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(f"the database {shown} cannot be opened ({reason}); {FORM}") from error


def _open_database(url: str, lost: Lost) -> BaseStorage:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # heartbeats are experimental
        return RDBStorage(
            url,
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=3 * HEARTBEAT_SECONDS,
            heartbeat_stale_trial_callback=lost,
        )
