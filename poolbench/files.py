"""Writing files: whole or not at all, and one clear line where it fails."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from poolbench.core import UsageError


class StorageError(UsageError):
    """A folder that cannot be written."""


@contextmanager
def storage(folder: Path, option: str = "--out") -> Iterator[None]:
    """Turn an OSError of a write below ``folder``, which ``option`` names, into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot write to '{folder}': {error.strerror or error}; free space or choose another folder with {option} "
            "(finished cells are kept)"
        ) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file aside, flush it to disk and rename it: after a crash it is whole or absent."""
    # Not the process id: two machines that share a folder can have the same.
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with open(aside, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def text_bytes(text: str) -> bytes:
    """Return a text as the content of a file, in UTF-8; what is no Unicode (from names of files) as escapes."""
    return text.encode("utf-8", "backslashreplace")


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return a mapping as the content of a JSON file; raise ValueError for NaN."""
    return json.dumps(content, indent=1, allow_nan=False).encode()


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a mapping as JSON, atomically."""
    write_atomically(path, json_bytes(content))
