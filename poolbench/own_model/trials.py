"""The results of an advice on disk: one file per remedy and seed, so that the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from poolbench import __version__
from poolbench.files import Checksum, DamagedFile, read_file, reading, storage, write_atomically
from poolbench.own_model.fine_tuning import Kept
from poolbench.own_model.remedies import Remedy

COLUMNS: Mapping[str, str] = {"flips": "f", "change": "f", "decision": "i"}
"""The columns of a result with the kinds of their types, as numpy names them."""


@dataclass(frozen=True)
class Trials:
    """A folder of results. ``setting`` is what all of them depend on: weights, images, options, the number "judged".

    The name of a file ends with a digest of its content, which tells whether it is as it was written. Methods that
    write raise StorageError if the folder cannot be written.
    """

    folder: Path
    setting: Mapping[str, Any]

    def key(self, remedy: Remedy, seed: int | None = None) -> str:
        """Return the digest of all that decides on the result of a remedy."""
        content = {"setting": self.setting, "remedy": asdict(remedy), "seed": seed, "version": __version__}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def read(self, remedy: Remedy, seed: int | None = None) -> pd.DataFrame | None:
        """Return the table (one row per judged image) of a remedy, None where there is none.

        Raises DamagedFile for one that is not as it was written, or that is of other images.
        """
        damage = None
        for path in self._stored(remedy, seed):
            try:
                return self._table(path)
            except DamagedFile as damaged:
                damage = damaged
        if damage is not None:
            raise damage
        return None

    def write(self, remedy: Remedy, seed: int | None, table: pd.DataFrame) -> None:
        """Store the table of a remedy in place of damaged ones; its checkpoint is deleted."""
        buffer = BytesIO()
        table.to_parquet(buffer, engine="pyarrow")
        content = buffer.getvalue()
        path = self.folder / f"{self.key(remedy, seed)}-{_digest(content)}.parquet"
        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content)
            for other in self._stored(remedy, seed):
                if other != path:
                    other.unlink(missing_ok=True)
            self._checkpoint(remedy, seed).unlink(missing_ok=True)

    def kept(self, remedy: Remedy, seed: int) -> Kept:
        """Return where the training of a remedy keeps its state."""
        path = self._checkpoint(remedy, seed)

        def write(content: bytes) -> None:
            with storage(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)

        def read() -> bytes | None:
            try:
                return read_file(path)
            except (FileNotFoundError, DamagedFile):
                return None

        return Kept(self.key(remedy, seed), read, write)

    def _checkpoint(self, remedy: Remedy, seed: int | None) -> Path:
        return self.folder / f"{self.key(remedy, seed)}.pt"

    def _stored(self, remedy: Remedy, seed: int | None) -> list[Path]:
        """Return the files with a result of a remedy: one, or several after a kill or damage."""
        return sorted(self.folder.glob(f"{self.key(remedy, seed)}-*.parquet"))

    def _table(self, path: Path) -> pd.DataFrame:
        """Return the table in a file; raise DamagedFile if it is not as it was written."""
        with reading(path):
            content = read_file(path)
        if not path.stem.endswith(f"-{_digest(content)}"):
            raise DamagedFile(path, "its content has changed (SHA-256)")
        try:
            table = pd.read_parquet(BytesIO(content), engine="pyarrow")
        except Exception as error:  # bytes of a stranger can make pyarrow raise anything
            raise DamagedFile(path, f"it holds no table ({type(error).__name__})") from error
        if not self._fits(table):
            raise DamagedFile(path, f"it does not have {', '.join(COLUMNS)} of {self.setting['judged']} images")
        return table

    def _fits(self, table: pd.DataFrame) -> bool:
        """Return whether a table has the columns of a result, finite, and a row per judged image."""
        return (
            list(table.columns) == list(COLUMNS)
            and len(table) == self.setting["judged"]
            and all(table[name].dtype.kind == kind for name, kind in COLUMNS.items())
            and bool(np.isfinite(table.to_numpy(dtype="float64")).all())
        )


def _digest(content: bytes) -> str:
    return Checksum.of(content).sha256[:16]
