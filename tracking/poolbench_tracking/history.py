"""The history of nights as one file of a folder: appended to by every night, never half written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import pandas as pd
from filelock import FileLock

from poolbench.analysis.history import COLUMNS
from poolbench.analysis.incidents import Incident
from poolbench.core import FIRST_RESERVE_SEED, Result, UsageError
from poolbench.files import storage, write_atomically
from poolbench.runner.examine import Finding

NAME = "history.parquet"


class History:
    """The file ``history.parquet`` of a folder, with the columns of ``poolbench.analysis.history.COLUMNS``.

    Several processes may append at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / NAME

    def create(self) -> History:
        """Make the folder unless it exists, and return the history. Raises StorageError where that fails."""
        with storage(self.folder, "--history"):
            self.folder.mkdir(parents=True, exist_ok=True)
        return self

    def read(self) -> pd.DataFrame:
        """Return all rows, in order of night; none if there is no file.

        Raises UsageError for a file that cannot be read or lacks a column.
        """
        try:
            if not self.path.exists():
                return pd.DataFrame(columns=list(COLUMNS)).astype(dict(COLUMNS))
            frame = pd.read_parquet(self.path, engine="pyarrow", page_checksum_verification=True)
            missing = [name for name in COLUMNS if name not in frame.columns]
            if missing:
                raise ValueError(f"it lacks the columns {', '.join(missing)}")
            return frame.astype(dict(COLUMNS))
        # Which type of error it is depends on the byte that is damaged.
        except Exception as error:
            reason = " ".join(str(error).split())
            raise UsageError(
                f"the history '{self.path}' is damaged: {reason}; restore it from a copy, or move it away to start anew"
            ) from error

    def append(self, rows: pd.DataFrame) -> None:
        """Add rows. Nights that the file has already are replaced whole, so appending twice changes nothing.

        After a crash the file is as it was before or after. Raises UsageError for a damaged file, which is left as it
        is, and StorageError where the folder cannot be written. Columns beyond ``COLUMNS`` are kept.
        """
        further = [name for name in rows.columns if name not in COLUMNS]
        new = rows[[*COLUMNS, *further]].astype(dict(COLUMNS))
        self.create()
        with storage(self.folder, "--history"), FileLock(self.folder / "history.lock"):
            old = self.read()
            kept = old[~old["night"].isin(new["night"])]
            both = [frame for frame in (kept, new) if not frame.empty]
            if not both:
                return
            frame = pd.concat(both, ignore_index=True).sort_values("night", kind="stable", ignore_index=True)
            for torn in self.folder.glob(f".{NAME}.*.tmp"):
                torn.unlink(missing_ok=True)
            content = BytesIO()
            frame.to_parquet(content, engine="pyarrow", compression="zstd", index=False, write_page_checksum=True)
            write_atomically(self.path, content.getvalue())


def examine_history(folder: Path) -> Iterator[Finding]:
    """Yield what is wrong with the history in a folder."""
    try:
        History(folder).read()
    except UsageError as error:
        yield Finding(str(error), "restore the file from a copy, or move it away", None)


def night_of(results: Sequence[Result]) -> str:
    """Return the UTC time, in ISO format, at which the last of the results was finished."""
    ended = max(result.ended or 0.0 for result in results)
    return datetime.fromtimestamp(ended, UTC).isoformat(timespec="seconds")


def night_rows(results: Sequence[Result], frame: pd.DataFrame, incidents: Sequence[Incident]) -> pd.DataFrame:
    """Return the rows of a night for a history: every metric of the judged groups, without reserve seeds.

    ``frame`` is the results frame of the finished ``results``. Groups that the gate has no verdict for are left out.
    """
    judged = {found.group: found for found in incidents}
    environments = {result.cell.id: result.facts.get("environment", {}) for result in results}
    rows = frame[frame["group"].isin(judged.keys()) & (frame["seed"] < FIRST_RESERVE_SEED)]
    names = {"commit": "git_commit", "machine": "device_name"}
    known = {
        column: [str(environments[cell].get(names.get(column, column), "")) for cell in rows["cell"]]
        for column in ("commit", "poolbench", "torch", "numpy", "machine", "cpu_capability")
    }
    return rows[["benchmark", "group", "metric", "seed", "value", "learned", "fingerprint"]].assign(
        night=night_of(results),
        label=[judged[group].label for group in rows["group"]],
        verdict=[judged[group].verdict for group in rows["group"]],
        **known,
    )
