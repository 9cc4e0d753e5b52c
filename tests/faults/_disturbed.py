"""Commands in a forked process that is killed at the n-th call of one of several functions."""

from __future__ import annotations

import os
import pickle
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

from click.testing import Result

EVERYTHING = os.environ.get("POOLBENCH_MATRIX") == "all"

Place = tuple[Any, str]
"""An object and the name of a function in it."""

FILES: tuple[Place, ...] = ((os, "fsync"), (os, "replace"), (os, "rename"))


@contextmanager
def disturbed(places: Sequence[Place], disturb: Callable[[int], None]) -> Iterator[list[int]]:
    """Call ``disturb(n)`` before the n-th call of any of these functions, from 1; yield a list with the count."""
    count = [0]

    def wrap(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            count[0] += 1
            disturb(count[0])
            return real(*arguments, **options)

        return call

    patches = [patch.object(owner, name, wrap(getattr(owner, name))) for owner, name in places]
    for one in patches:
        one.start()
    try:
        yield count
    finally:
        for one in patches:
            one.stop()


def forked(action: Callable[[], Any]) -> Any:
    """Run an action in a forked process; return what it returned, or the number of the signal that killed it, < 0."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # threads of libraries, which hold no lock here
        process = os.fork()
    if not process:
        try:
            answer = pickle.dumps((action(), ""))
        except BaseException:
            answer = pickle.dumps((None, traceback.format_exc()))
        with os.fdopen(sender, "wb") as file:
            file.write(answer)
        os._exit(0)
    os.close(sender)
    with os.fdopen(receiver, "rb") as file:
        answer = file.read()
    _, status = os.waitpid(process, 0)
    if os.WIFSIGNALED(status):
        return -os.WTERMSIG(status)
    value, failure = pickle.loads(answer)
    assert not failure, failure
    return value


def count_calls(places: Sequence[Place], command: Callable[[], Result]) -> int:
    """Return how often an undisturbed command, which runs in a process of its own, calls the functions."""

    def counting() -> int:
        with disturbed(places, lambda number: None) as count:
            done = command()
        assert done.exit_code == 0, done.output
        return count[0]

    count: int = forked(counting)
    return count


def kill_at(number: int, places: Sequence[Place], command: Callable[[], Result]) -> None:
    """Run a command in a process that dies by SIGKILL before the n-th call of the functions."""

    def die(count: int) -> None:
        if count == number:
            os.kill(os.getpid(), signal.SIGKILL)

    def dying() -> int:
        with disturbed(places, die):
            return command().exit_code

    ended = forked(dying)
    assert ended == -signal.SIGKILL, f"it ended with {ended} before call {number}"


def chosen(count: int, most: int) -> list[int]:
    """Return the numbers of the calls to disturb: at most ``most`` of ``count``, all with POOLBENCH_MATRIX=all."""
    if EVERYTHING or count <= most:
        return list(range(1, count + 1))
    return sorted({1 + round(index * (count - 1) / (most - 1)) for index in range(most)})


def empty_store(out: Path) -> None:
    """Give a work folder a new MLflow store without runs."""

    def create() -> None:
        from poolbench_tracking.mlflow_store import Store

        Store(out)

    shutil.rmtree(out / "mlartifacts")
    (out / "mlflow.db").unlink()
    # Libraries keep connections to a database: this process must not see it exchanged.
    forked(create)
