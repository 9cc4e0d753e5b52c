"""A disk that becomes full before any of the writes of a command: one line, and afterwards the command completes.

A part of the moments is taken by default; POOLBENCH_MATRIX=all takes every one.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from poolbench.core import Cell
from poolbench.plugins import import_code
from poolbench.runner.ledger import Ledger

disturbed = import_code(str(Path(__file__).with_name("_disturbed.py")))

ARTIFACTS = ((shutil, "copyfile"), (shutil, "copy2"))
"""What MLflow copies files with."""
FULL = os.strerror(errno.ENOSPC)
RUN = ("run", "tiny", "--preset", "smoke", "--jobs", "1", "--out", "OUT")
COMMANDS: dict[str, tuple[tuple[str, ...], int]] = {
    "run": ((*RUN, "--no-mlflow"), 6),
    "run-mlflow": (RUN, 3),
    "report": (("report", "--export", "--no-mlflow", "--out", "OUT"), 4),
    "sync": (("sync", "--out", "OUT"), 3),
    "tune": (("tune", "tiny", "--preset", "smoke", "--pool", "avg", "--trials", "2", "--trial-seeds", "2",
              "--no-mlflow", "--out", "OUT"), 5),
}  # fmt: skip


def full(number: int) -> Callable[[int], None]:
    """Return what lets every write from the n-th on fail."""

    def refuse(count: int) -> None:
        if count >= number:
            raise OSError(errno.ENOSPC, FULL)

    return refuse


def accuracies(out: Path, cells: list[Cell]) -> dict[str, Any]:
    results = [Ledger(out).result(cell) for cell in cells]
    return {one.cell.id: (one.status, one.metrics.get("accuracy"), len(one.history)) for one in results}


@pytest.mark.parametrize("command", COMMANDS)
def test_the_disk_becomes_full(work: Any, tmp_path: Path, command: str) -> None:
    arguments, most = COMMANDS[command]
    if command == "sync":
        shutil.rmtree(work.out / "tuning")
        disturbed.empty_store(work.out)
    before = tmp_path / "before"
    shutil.copytree(work.out, before)
    expected = {cell.id: ("finished", 1.0 - cell.seed / 100, 2) for cell in [*work.finished, work.unfinished]}
    # What MLflow cannot write does not stop a run.
    codes = {"run-mlflow": (0, 2), "sync": (1,)}.get(command, (2,))
    places = (*disturbed.FILES, *(ARTIFACTS if command in ("run-mlflow", "sync") else ()))

    def full_from(number: int) -> tuple[int, str, str]:
        with disturbed.disturbed(places, full(number)):
            return outcome(work.run(*arguments))

    def again() -> None:
        done = work.run(*arguments)
        assert done.exit_code == 0, (done.output, done.exception)
        if command.startswith("run"):
            assert accuracies(work.out, [*work.finished, work.unfinished]) == expected
        elif command == "tune":
            studies = [json.loads(path.read_text()) for path in work.out.glob("tuning/*/study.json")]
            assert sorted(len(study["trials"]) for study in studies) == [2, 2]
            assert all(study["confirmed"] for study in studies)

    count = disturbed.count_calls(places, lambda: work.run(*arguments))
    assert count > 3
    for number in disturbed.chosen(count, most):
        shutil.rmtree(work.out)
        shutil.copytree(before, work.out)
        code, output, error = disturbed.forked(partial(full_from, number))
        assert error.startswith(("None", "SystemExit")), (number, error, output)
        assert code in codes, (number, output)
        assert "Traceback" not in output
        said = [line.partition(":")[0] for line in output.splitlines() if FULL in line]
        # One line for the work folder, one for MLflow where it is another.
        assert len(said) == len(set(said)) >= 1, (number, output)
        disturbed.forked(again)


def outcome(done: Result) -> tuple[int, str, str]:
    """Return the exit code, what was said on stderr, and the exception of a command."""
    return done.exit_code, done.stderr, repr(done.exception)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return the function that mounts a file system of a size, or gives a mounted one another size."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = []

    def resize(size: str) -> Path:
        options = f"size={size}" + (",remount" if mounted else "")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
        mounted.append(size)
        return folder

    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root mounts file systems")
    try:
        yield resize
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("size", ["8k", "256k", "1100k"])
def test_a_disk_that_is_really_full(work: Any, cells: list[Cell], small_disk: Callable[[str], Path], size: str) -> None:
    """Without room for the first cell; for MLflow's new database; for all runs in it."""
    work.out = small_disk(size) / "out"

    def run() -> tuple[int, str, str]:
        return outcome(work.run(*RUN))

    code, output, error = disturbed.forked(run)
    assert "Traceback" not in output
    assert error.startswith("SystemExit"), (error, output)
    assert code == 2, output
    assert FULL in output.splitlines()[-1]
    small_disk("100m")
    code, output, _ = disturbed.forked(run)
    assert code == 0, output
    assert accuracies(work.out, cells) == {cell.id: ("finished", 1.0 - cell.seed / 100, 2) for cell in cells}
    done = disturbed.forked(lambda: work.run("sync", "--out", "OUT").stderr)
    assert done.splitlines()[-1].startswith("MLflow is up to date")
