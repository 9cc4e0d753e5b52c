"""Locks of files, which the system releases when their process dies."""

from __future__ import annotations

import fcntl
from pathlib import Path

from filelock import FileLock, Timeout

from poolbench.files import DamagedFile, open_file


def is_held(lock: FileLock) -> bool:
    """Return whether this or another process holds the lock."""
    if lock.is_locked:
        return True
    try:
        with lock.acquire(blocking=False):
            return False
    except Timeout:
        return True
    except OSError:
        return _is_locked(Path(lock.lock_file))


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the lock of a file that may only be read here; False where there is no file."""
    try:
        with open_file(path) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except (OSError, DamagedFile):
        return False
    return False
