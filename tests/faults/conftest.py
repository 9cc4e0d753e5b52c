"""A work folder with everything that commands write, made once per process and copied for each fault."""

from __future__ import annotations

import ctypes
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from poolbench.cli import main
from poolbench.core import Cell, DataLocation
from poolbench.runner.attempt import Settings
from poolbench.runner.execute import execute
from poolbench.runner.ledger import Ledger

_made: list[Path] = []


class Interrupting:
    """A listener that interrupts a cell at the end of its second epoch; the first left a checkpoint."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    def cell_ended(self, result: Any) -> None: ...


class Work:
    """A copy of the folder: ``out`` is the work folder, ``baseline`` and ``history`` lie beside it."""

    def __init__(self, folder: Path, cells: list[Cell]) -> None:
        self.folder, self.out = folder, folder / "out"
        self.finished, self.unfinished = cells[:3], cells[3]

    def file(self, pattern: str) -> Path:
        """Return the first file of a pattern in which FINISHED and UNFINISHED stand for folders of cells."""
        for word, cell in (("UNFINISHED", self.unfinished), ("FINISHED", self.finished[0])):
            pattern = pattern.replace(word, f"out/cells/{cell.id}")
        return sorted(self.folder.glob(pattern))[0]

    def run(self, *arguments: str) -> Result:
        """Run a command in this process, with OUT, BASE, HISTORY, MERGED and CELL replaced in its arguments."""
        places = {
            "OUT": self.out, "BASE": self.folder / "baseline", "HISTORY": self.folder / "history",
            "MERGED": self.folder / "merged", "CELL": self.finished[0].id,
        }  # fmt: skip
        return CliRunner().invoke(main, [str(places.get(one, one)) for one in arguments], prog_name="poolbench")


def ok(result: Result) -> None:
    assert result.exit_code == 0, (result.output, result.exception)


def make(folder: Path, cells: list[Cell]) -> None:
    """Fill a folder: three finished cells, one interrupted, a study, an MLflow store, a report, a baseline, a night."""
    work = Work(folder, cells)
    ok(work.run("run", "tiny", "--preset", "smoke", "--jobs", "1", "--pool", "max", "--out", "OUT"))
    ok(work.run("run", "tiny", "--preset", "smoke", "--jobs", "1", "--seeds", "0", "--out", "OUT"))
    ledger = Ledger(work.out)
    settings = Settings(DataLocation("data"), "cpu", checkpoint_seconds=0.0)
    with pytest.raises(KeyboardInterrupt), ledger.open_invocation("poolbench run tiny", "smoke") as invocation:
        execute(
            [work.unfinished],
            ledger,
            replace(settings, invocation=invocation.id),
            Interrupting(),
        )
    tune = ("tune", "tiny", "--preset", "smoke", "--pool", "max", "--trials", "2", "--trial-seeds", "2", "--out", "OUT")
    ok(work.run(*tune))
    ok(work.run("baseline", "accept", "BASE", "--out", "OUT"))
    ok(work.run("regress", "--baseline", "BASE", "--history", "HISTORY", "--no-confirm", "--out", "OUT"))
    ok(work.run("report", "--out", "OUT"))


@pytest.fixture
def work(cells: list[Cell]) -> Iterator[Work]:
    """A copy of the folder that every user may enter."""
    if not _made:
        _made.append(Path(tempfile.mkdtemp(prefix="poolbench-faults-")))
        make(_made[0], cells)
    folder = Path(tempfile.mkdtemp(prefix="poolbench-fault-"))
    folder.chmod(0o755)
    try:
        shutil.copytree(_made[0], folder, dirs_exist_ok=True)
        yield Work(folder, cells)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _clean() -> Iterator[None]:
    yield
    for folder in _made:
        shutil.rmtree(folder, ignore_errors=True)


class Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class Sets(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


@contextmanager
def ordinary_user() -> Iterator[None]:
    """Let root obey the permissions of files, as its owner: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH.

    Another user would not do: the environment of the tests may lie in a folder that only root may enter.
    """
    libc, header, sets = ctypes.CDLL(None, use_errno=True), Header(0x20080522, 0), (Sets * 2)()

    def call(function: Any) -> None:
        if function(ctypes.byref(header), sets):
            raise OSError(ctypes.get_errno(), "capabilities cannot be changed")

    call(libc.capget)
    before = sets[0].effective
    sets[0].effective = before & ~0b110
    call(libc.capset)
    try:
        yield
    finally:
        sets[0].effective = before
        call(libc.capset)


@pytest.fixture
def unprivileged() -> Callable[[], Any]:
    """Return the context in which this process is an ordinary user. Root could read everything."""
    return nullcontext if os.geteuid() else ordinary_user
