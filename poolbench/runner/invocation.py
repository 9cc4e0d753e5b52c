"""Commands that executed cells, a file each."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock

from poolbench.files import DamagedFile, read_file, reading, storage, write_json
from poolbench.runner.facts import is_seconds
from poolbench.runner.locks import is_held

TEXTS = ("command", "preset")


class Invocation:
    """One command that executed cells: its text, preset, times, and whether it is still running.

    As a context manager it is closed at the end with ``outcome``; after an exception, as "interrupted" or "failed".
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.id = path.stem
        self.outcome = "finished"
        self._opened: Mapping[str, Any] | None = None  # what this process wrote at the start
        # Kept, because a lock is released with its last reference.
        self.lock = FileLock(path.with_suffix(".lock"), is_singleton=True)

    @classmethod
    def open(cls, folder: Path, command: str, preset: str) -> Invocation:
        """Record in a folder that a command begins to execute cells."""
        stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        path = folder / f"{stamp}-{uuid.uuid4().hex[:6]}.json"
        invocation = cls(path)
        invocation._opened = {"command": command, "preset": preset, "started": time.time(), "ended": None}
        with storage(folder):
            write_json(path, invocation._opened)
            invocation.lock.acquire()
        return invocation

    def __enter__(self) -> Invocation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self.outcome = "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
        self.close(self.outcome)

    @property
    def content(self) -> dict[str, Any]:
        """What the file holds: command, preset, started, ended and outcome; raise DamagedFile if it does not."""
        with reading(self.path):
            text = read_file(self.path)
        try:
            content: dict[str, Any] = json.loads(text)
            _check(content)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise DamagedFile(self.path, f"it holds no command ({type(error).__name__})") from error
        return content

    def close(self, outcome: str) -> None:
        """Record how it ended: "finished", "failed" or "interrupted"; raise StorageError if that is impossible."""
        try:
            content: Mapping[str, Any] = self.content
        except DamagedFile:
            if self._opened is None:
                raise
            content = self._opened
        # The clock may have been set back.
        ended = max(time.time(), content["started"])
        with storage(self.path.parent):
            write_json(self.path, {**content, "ended": ended, "outcome": outcome})
        self.lock.release(force=True)

    def is_running(self) -> bool:
        """Return whether the process that opened it is alive and has not closed it."""
        return self.content["ended"] is None and is_held(self.lock)


def _check(content: Any) -> None:
    """Raise TypeError or KeyError unless a content has the fields of an invocation."""
    if not all(isinstance(content[name], str) for name in TEXTS):
        raise TypeError("a text is missing")
    if not is_seconds(content["started"]) or not (content["ended"] is None or is_seconds(content["ended"])):
        raise TypeError("a time is missing")
    if not isinstance(content.get("outcome", ""), str):
        raise TypeError("the outcome is no text")
