"""The results of an advice on disk: one file per remedy and seed, so that the same command goes on where it stopped."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from poolbench import __version__
from poolbench.files import storage, write_atomically
from poolbench.own_model.fine_tuning import Kept
from poolbench.own_model.remedies import Remedy


@dataclass(frozen=True)
class Trials:
    """A folder of results. ``setting`` is what all of them depend on: weights, images, options.

    Methods that write raise StorageError if the folder cannot be written.
    """

    folder: Path
    setting: Mapping[str, Any]

    def key(self, remedy: Remedy, seed: int | None = None) -> str:
        """Return the digest of all that decides on the result of a remedy."""
        content = {"setting": self.setting, "remedy": asdict(remedy), "seed": seed, "version": __version__}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def read(self, remedy: Remedy, seed: int | None = None) -> pd.DataFrame | None:
        """Return the table (one row per judged image) of a remedy, None where there is none or it is damaged."""
        try:
            return pd.read_parquet(self._path(remedy, seed), engine="pyarrow")
        except (OSError, ValueError):
            # pyarrow's errors for damaged files are ValueErrors or OSErrors; the remedy is tried again.
            return None

    def write(self, remedy: Remedy, seed: int | None, table: pd.DataFrame) -> None:
        """Store the table of a remedy; its checkpoint is deleted."""
        content = BytesIO()
        table.to_parquet(content)
        path = self._path(remedy, seed)
        with storage(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(path, content.getvalue())
            path.with_suffix(".pt").unlink(missing_ok=True)

    def kept(self, remedy: Remedy, seed: int) -> Kept:
        """Return where the training of a remedy keeps its state."""
        path = self._path(remedy, seed).with_suffix(".pt")

        def write(content: bytes) -> None:
            with storage(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
                write_atomically(path, content)

        def read() -> bytes | None:
            try:
                return path.read_bytes()
            except FileNotFoundError:
                return None

        return Kept(self.key(remedy, seed), read, write)

    def _path(self, remedy: Remedy, seed: int | None) -> Path:
        return self.folder / f"{self.key(remedy, seed)}.parquet"
