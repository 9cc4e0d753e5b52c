"""What is wrong with the tuning studies of a work folder, and how it is mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from poolbench.files import DamagedFile, reading
from poolbench.runner.examine import Finding, examine_ledger, move_aside
from poolbench.runner.ledger import Ledger
from poolbench.tune.record import JOURNAL, NAME, StudyRecord

AGAIN = "it is moved to 'damaged'; the 'tune' command writes it anew from the cells, which it does not train again"


def examine_studies(out: Path) -> Iterator[Finding]:
    """Yield what is wrong with the journal, the records and the cells of all studies."""
    journal = out / "tuning" / JOURNAL
    try:
        if journal.exists():
            _read_journal(journal)
    except DamagedFile as damaged:
        yield Finding(f"the journal of the studies: {damaged.reason}", AGAIN, lambda: move_aside(journal, out))
    for folder in sorted(path.parent for path in out.glob("tuning/*/cells")):
        record = folder / NAME
        try:
            if record.exists():
                StudyRecord.read(folder)
        except DamagedFile as damaged:
            yield Finding(f"study {folder.name}: {damaged.reason}", AGAIN, partial(move_aside, record, out))
        yield from examine_ledger(Ledger(folder))


def _read_journal(path: Path) -> None:
    """Raise DamagedFile for a line that is no operation of Optuna's; a killed process may have left half a last one."""
    with reading(path):
        whole = path.read_bytes().rpartition(b"\n")[0]
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            json.loads(line)["op_code"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DamagedFile(path, f"line {number} is no operation ({type(error).__name__})") from error
