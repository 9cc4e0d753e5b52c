"""The content of result.json: what a finished cell gave, with a checksum of each of its files and of itself."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from poolbench.files import Checksum, DamagedFile, json_bytes, read_file, reading
from poolbench.runner.facts import is_finite, is_mapping, is_seconds, wrong

RESULT = "result.json"
SEAL = "sha256"


@dataclass(frozen=True)
class StoredResult:
    """What result.json holds; ``files`` is empty where a version without checksums wrote it."""

    metrics: Mapping[str, float]
    facts: Mapping[str, Any]
    ended: float
    files: Mapping[str, Checksum]


def sealed(result: Mapping[str, Any], files: Mapping[str, Checksum]) -> bytes:
    """Return the content of result.json."""
    content = {**result, "files": {name: asdict(checksum) for name, checksum in files.items()}}
    return json_bytes({**content, SEAL: _seal(content)})


def read_stored(folder: Path) -> StoredResult | None:
    """Return the result of the cell in a folder, None without one; raise DamagedFile if it is not as it was written."""
    path = folder / RESULT
    with reading(path):
        try:
            text = read_file(path)
        except FileNotFoundError:
            return None
    try:
        content = json.loads(text)
        _check(content)
        seal = content.pop(SEAL, None)
        # Versions without checksums wrote neither.
        is_whole = seal == (_seal(content) if "files" in content else None)
        stored = StoredResult(
            {name: math.nan if value is None else float(value) for name, value in content["metrics"].items()},
            content["facts"],
            float(content["ended"]),
            {_plain(name): Checksum(**checksum) for name, checksum in content.get("files", {}).items()},
        )
    # Which type of error it is depends on the byte that is damaged.
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise DamagedFile(path, f"it holds no result ({type(error).__name__})") from error
    if not is_whole:
        raise DamagedFile(path, "its content has changed (SHA-256)")
    return stored


def _check(content: Mapping[str, Any]) -> None:
    """Raise TypeError or KeyError for values of other types."""
    if not is_mapping(content["facts"]) or not is_mapping(content["metrics"], _is_metric):
        raise TypeError("facts and metrics are objects, and metrics are finite numbers or null")
    if name := wrong(content["facts"]):
        raise TypeError(f"the fact '{name}' is of another type")
    if not is_seconds(content["ended"]):
        raise TypeError("the end is no time")


def _is_metric(value: object) -> bool:
    return value is None or is_finite(value)


def _plain(name: str) -> str:
    """Return the name of a file; raise ValueError for one that could lead out of its folder."""
    if not name or name != Path(name).name or "\0" in name:
        raise ValueError(f"'{name}' is no name of a file")
    return name


def _seal(content: Mapping[str, Any]) -> str:
    # As it is read again: keys are text, tuples are lists.
    plain = json.loads(json.dumps(content))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
