"""Files: written whole or not at all, checked when they are read, and one clear line where either fails."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BufferedReader
from pathlib import Path
from typing import Any

from poolbench.core import UsageError


class StorageError(UsageError):
    """A folder that cannot be written."""


ADVICE: Mapping[int, str] = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space or "),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable for this user or "),
}


@contextmanager
def storage(folder: Path, option: str = "--out") -> Iterator[None]:
    """Turn an OSError of a write below ``folder``, which ``option`` names, into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        advice = ADVICE.get(error.errno or 0, "")
        raise StorageError(
            f"cannot write to '{folder}': {error.strerror or error}; {advice}choose another folder with {option} "
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


NO_FILE = "it is no file"
DOCTOR = "'poolbench doctor --fix' sets damaged files aside"


class DamagedFile(UsageError):
    """A file that is not as it was written; ``reason`` says how, ``advice`` what to do."""

    def __init__(self, path: Path, reason: str, advice: str = DOCTOR) -> None:
        super().__init__(f"'{path}' is damaged: {reason}; {advice}")
        self.path, self.reason, self.advice = path, reason, advice

    @property
    def brief(self) -> str:
        """The name of the file and the reason, for a line that says to which cell it belongs."""
        return f"{self.path.name}: {self.reason}"

    def __reduce__(self) -> tuple[type[DamagedFile], tuple[Path, str, str]]:
        return DamagedFile, (self.path, self.reason, self.advice)


@dataclass(frozen=True)
class Checksum:
    """The size in bytes and the SHA-256 of the content of a file."""

    size: int
    sha256: str

    def __post_init__(self) -> None:
        if type(self.size) is not int or type(self.sha256) is not str:
            raise TypeError("a checksum is a number of bytes and a text")

    @classmethod
    def of(cls, content: bytes) -> Checksum:
        return cls(len(content), hashlib.sha256(content).hexdigest())


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an OSError of reading a file that ought to be there into a DamagedFile."""
    try:
        yield
    except FileNotFoundError as error:
        raise DamagedFile(path, "it is gone") from error
    except OSError as error:
        raise DamagedFile(path, f"it cannot be read ({error.strerror or error})") from error


def open_file(path: Path) -> BufferedReader:
    """Open a regular file for reading; raise DamagedFile for anything else, OSError as ``open`` does.

    A named pipe in its place, which a work folder of a stranger may hold, would be waited for.
    """
    return open(path, "rb", opener=_regular)


def read_file(path: Path, start: int = 0) -> bytes:
    """Return the content of a regular file from byte ``start``; raise DamagedFile for anything else, and OSError."""
    with open_file(path) as file:
        file.seek(start)
        return file.read()


def _regular(path: str, flags: int) -> int:
    """Return the descriptor of a regular file; raise DamagedFile for anything else."""
    try:
        number = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        if error.errno != errno.ENXIO:  # of a socket
            raise
        raise DamagedFile(Path(path), NO_FILE) from error
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise DamagedFile(Path(path), NO_FILE)
    return number


def verify(path: Path, expected: Checksum, contents: bool = True) -> None:
    """Raise DamagedFile unless a file has the expected size and, with ``contents``, the expected SHA-256.

    A file that has not changed since the last call is not read again.
    """
    with reading(path):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise DamagedFile(path, f"{NO_FILE}, or a link")
        to_read = contents and found.st_size == expected.size
        sha256 = _sha256(str(path), found.st_ino, found.st_ctime_ns) if to_read else expected.sha256
    compare(path, Checksum(found.st_size, sha256), expected)


def compare(path: Path, found: Checksum, expected: Checksum) -> None:
    """Raise DamagedFile, which says what differs, unless the checksum of a file is the expected one."""
    if found.size != expected.size:
        raise DamagedFile(path, f"it has {found.size:,} bytes instead of {expected.size:,}")
    if found.sha256 != expected.sha256:
        raise DamagedFile(path, "its content has changed (SHA-256)")


@lru_cache(maxsize=100_000)
def _sha256(path: str, inode: int, changed: int) -> str:
    # Of a text: paths that are kept take more memory.
    with open_file(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
