"""What is wrong with the tuning studies of a work folder, and how it is mended."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from poolbench.files import DamagedFile, read_file, reading, storage
from poolbench.runner.examine import Finding, examine_ledger, move_aside
from poolbench.runner.ledger import Ledger
from poolbench.tune.record import JOURNAL, NAME, StudyRecord

AGAIN = (
    "it is moved to 'damaged'; end running tuners first; the 'tune' command writes it anew and trains no finished cell "
    "again"
)


def examine_studies(out: Path) -> Iterator[Finding]:
    """Yield what is wrong with the journal, the records and the cells of all studies."""
    journal = out / "tuning" / JOURNAL
    try:
        if journal.exists():
            _read_journal(journal)
    except DamagedFile as damaged:
        yield Finding(f"the journal of the studies: {damaged.reason}", AGAIN, partial(_move_journal, journal, out))
    for folder in sorted(path for path in out.glob("tuning/*") if path.is_dir()):
        record = folder / NAME
        try:
            if record.exists():
                StudyRecord.read(folder)
        except DamagedFile as damaged:
            yield Finding(f"study {folder.name}: {damaged.reason}", AGAIN, partial(move_aside, out, record))
        yield from examine_ledger(Ledger(folder))


def _read_journal(path: Path) -> None:
    """Raise DamagedFile for a journal that Optuna cannot read; a killed process may have left half a last line."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    with reading(path):
        whole = read_file(path)
    with TemporaryDirectory() as folder:
        copy = Path(folder) / JOURNAL
        copy.write_bytes(whole[: whole.rfind(b"\n") + 1])
        try:
            JournalStorage(JournalFileBackend(str(copy)))
        except Exception as error:  # damaged bytes can make Optuna raise anything
            raise DamagedFile(path, f"it holds no studies ({type(error).__name__})") from error


def _move_journal(path: Path, out: Path) -> None:
    # The lock under which tuners read and write it.
    with storage(out), FileLock(path.with_suffix(".lock"), is_singleton=True):
        move_aside(out, path)
