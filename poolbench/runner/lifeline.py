"""Processes that end with the one that started them, even if it is killed, and that a Ctrl-C does not reach."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection

SAFE_PATH = "PYTHONSAFEPATH"
"""Keeps Python from adding the current folder to its search path."""


def end_with_the_launcher(line: Connection) -> None:
    """Exit this process when the launcher closes its end of the pipe or dies; no other process may hold that end."""
    threading.Thread(target=_exit_at_the_end_of, args=(line,), daemon=True).start()


def _exit_at_the_end_of(line: Connection) -> None:
    line.poll(None)
    os._exit(1)


@contextmanager
def starting_processes() -> Iterator[None]:
    """Block SIGINT in processes that are started in this context: a terminal sends Ctrl-C to all of them.

    They import nothing from the current folder before they have the search path of this process: Python would look
    there first, also for modules of its own library.
    """
    with _installed_code_alone(), _interrupts_blocked():
        yield


@contextmanager
def _installed_code_alone() -> Iterator[None]:
    before = os.environ.get(SAFE_PATH)
    os.environ[SAFE_PATH] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SAFE_PATH]
        else:
            os.environ[SAFE_PATH] = before


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    # It unblocks SIGINT at its start, which the first process would bring about otherwise.
    resource_tracker.ensure_running()
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@contextmanager
def interrupts_ignored() -> Iterator[None]:
    """Ignore SIGINT and SIGTERM in this process, in whose main thread this has to be called."""
    previous = {one: signal.signal(one, signal.SIG_IGN) for one in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for one, handler in previous.items():
            signal.signal(one, handler)
