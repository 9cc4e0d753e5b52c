"""Worker processes: the same results as without, and real ones killed at every moment."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from poolbench.core import Cell, DataLocation, UsageError
from poolbench.files import StorageError
from poolbench.runner.attempt import Settings
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench.runner.workers import execute_in_workers, slots, usable_cores

SELECTION = ["shift_robustness", "--preset", "smoke", "--pool", "max", "--arch", "shape_net", "--device", "cpu"]
SETTINGS = Settings(DataLocation("data"), "cpu", "an invocation")


def some_cells(epochs: int) -> list[Cell]:
    return plan(Selection(("shift_robustness",), "smoke", pools=("max",), seeds=(0, 1), train={"epochs": epochs}))[:2]


def attempts(ledger: Ledger, cell: Cell) -> int:
    return (ledger.record(cell.id).folder / "events.jsonl").read_text().count('"started"')


@pytest.fixture
def log(run_cells: Callable[..., Any], ledger: Ledger) -> Any:
    """A listener that records its calls."""
    return run_cells([], ledger)


def kill_the_worker() -> None:
    for worker in multiprocessing.active_children():
        worker.kill()


def test_results_do_not_depend_on_the_number_of_jobs(
    ledger: Ledger, log: Any, tmp_path: Path, run_cells: Callable[..., Any]
) -> None:
    cells = some_cells(epochs=1)
    execute_in_workers(cells, ledger, SETTINGS, log, ["cpu", "cpu"])
    assert sorted(log.started) == sorted(cell.id for cell in cells)
    assert log.epochs == 2
    assert {result.status for result in log.results} == {"finished"}
    assert {result.facts["invocation"] for result in log.results} == {"an invocation"}
    here = Ledger(tmp_path / "here").create()
    run_cells(cells, here)
    for cell in cells:
        first, second = ((one.record(cell.id).folder / "weights.pt").read_bytes() for one in (ledger, here))
        assert first == second
        metrics = [
            {name: value for name, value in one.result(cell).metrics.items() if not name.endswith("_ms")}
            for one in (ledger, here)
        ]
        assert metrics[0] == metrics[1]
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("moment", ["cell_started", "epoch_ended"])
def test_a_killed_worker_costs_its_cell_one_retry(ledger: Ledger, log: Any, moment: str) -> None:
    """Killed while it starts up or in the middle of the training, but only once."""
    cells = some_cells(epochs=20)
    recorded, kills = getattr(log, moment), []

    def kill_once(*arguments: Any) -> None:
        recorded(*arguments)
        if not kills:
            kills.append(arguments[0])
            kill_the_worker()

    setattr(log, moment, kill_once)
    execute_in_workers(cells, ledger, SETTINGS, log, ["cpu"])
    assert kills == cells[:1]
    assert [result.status for result in log.results] == ["finished", "finished"]
    assert log.started == [cells[0].id, cells[0].id, cells[1].id]
    assert attempts(ledger, cells[0]) == (2 if moment == "epoch_ended" else 1)
    assert attempts(ledger, cells[1]) == 1


def test_a_cell_whose_worker_dies_twice_has_failed(ledger: Ledger, log: Any) -> None:
    cells = some_cells(epochs=1)
    recorded = log.cell_started

    def kill(cell: Cell) -> None:
        recorded(cell)
        if cell == cells[0]:
            kill_the_worker()

    log.cell_started = kill
    execute_in_workers(cells, ledger, SETTINGS, log, ["cpu"])
    failed, finished = log.results
    assert (failed.cell, failed.status) == (cells[0], "failed")
    assert "its worker process died 2 times" in failed.reason
    assert failed.facts["invocation"] == "an invocation"
    assert failed.traceback
    assert (finished.cell, finished.status) == (cells[1], "finished")


def test_replicas_whose_worker_dies_are_halved(ledger: Ledger, log: Any) -> None:
    cells = [replace(some_cells(epochs=1)[0], seed=seed) for seed in range(3)]
    recorded = log.cell_started

    def kill(cell: Cell) -> None:
        recorded(cell)
        if cell == cells[2]:
            kill_the_worker()

    log.cell_started = kill
    execute_in_workers(cells, ledger, replace(SETTINGS, replicas=3), log, ["cpu"])
    assert {result.cell.seed: result.status for result in log.results} == {0: "finished", 1: "finished", 2: "failed"}
    # All three; the first; the other two; the second; the third twice.
    assert log.started == [cells[i].id for i in (0, 1, 2, 0, 1, 2, 1, 2, 2)]


def test_a_folder_that_cannot_be_written_stops_all(ledger: Ledger, log: Any) -> None:
    cells = some_cells(epochs=1)
    ledger.record(cells[0].id).folder.write_text("in the way")
    with pytest.raises(StorageError, match="cannot write to"):
        execute_in_workers(cells, ledger, SETTINGS, log, ["cpu"])
    assert not multiprocessing.active_children()


class Launcher:
    """``poolbench run`` with two workers in a session of its own, as on a terminal of its own."""

    def __init__(self, folder: Path, epochs: int) -> None:
        command = ["run", *SELECTION, "--no-mlflow", "--jobs", "2", "--epochs", str(epochs)]
        self.out = folder / "poolbench-out"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "poolbench.cli", *command],
            cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def wait_until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 120
        while not condition():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def epochs(self) -> list[int]:
        return [path.read_text().count('"epoch"') // 2 for path in self.out.glob("cells/*/events.jsonl")]

    def workers(self) -> list[psutil.Process]:
        found = []
        for child in psutil.Process(self.process.pid).children():
            with suppress(psutil.NoSuchProcess):  # others that come and go
                if "spawn_main" in " ".join(child.cmdline()):
                    found.append(child)
        return found


def all_gone(processes: list[psutil.Process], seconds: float) -> bool:
    return not psutil.wait_procs(processes, timeout=seconds)[1]


def test_ctrl_c_ends_the_workers_and_says_so_in_one_line(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, epochs=1000)
    launcher.wait_until(lambda: sum(count > 0 for count in launcher.epochs()) == 2)
    workers = launcher.workers()
    assert len(workers) == 2
    os.killpg(launcher.process.pid, signal.SIGINT)
    _, errors = launcher.process.communicate(timeout=60)
    assert launcher.process.returncode == 130, errors
    assert "interrupted; finished cells are kept" in errors
    assert "Traceback" not in errors
    assert "KeyboardInterrupt" not in errors
    assert all_gone(workers, 0)
    outcome = [json.loads(path.read_text())["outcome"] for path in launcher.out.glob("invocations/*.json")]
    assert outcome == ["interrupted"]


def test_ctrl_c_while_the_workers_start_makes_no_noise(tmp_path: Path) -> None:
    launcher = Launcher(tmp_path, epochs=1000)
    launcher.wait_until(lambda: len(launcher.workers()) == 2)
    os.killpg(launcher.process.pid, signal.SIGINT)
    _, errors = launcher.process.communicate(timeout=60)
    assert launcher.process.returncode == 130, errors
    assert "Traceback" not in errors


def test_a_killed_launcher_leaves_no_worker_behind(tmp_path: Path, poolbench: Callable[..., Any]) -> None:
    launcher = Launcher(tmp_path, epochs=1000)
    launcher.wait_until(lambda: sum(count > 0 for count in launcher.epochs()) == 2)
    workers = launcher.workers()
    launcher.process.kill()
    launcher.process.communicate()
    assert all_gone(workers, 10)
    assert poolbench("status").stdout.splitlines()[1].split() == ["shift_robustness", "0", "0", "0", "0", "2"]


def test_two_launchers_share_the_work(tmp_path: Path) -> None:
    launchers = [Launcher(tmp_path, epochs=3) for _ in range(2)]
    errors = [launcher.process.communicate(timeout=240)[1] for launcher in launchers]
    assert [launcher.process.returncode for launcher in launchers] == [0, 0], errors
    logs = list((tmp_path / "poolbench-out").glob("cells/*/events.jsonl"))
    assert [path.read_text().count('"started"') for path in logs] == [1] * 4
    assert all((path.parent / "result.json").exists() for path in logs)


def test_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    assert slots("cpu", 3, 1) == ["cpu"] * 3
    assert slots("cpu", None, 1) == ["cpu"] * usable_cores()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert slots("cuda", None, 1) == ["cuda:0", "cuda:1"]
    assert slots("cuda", 3, 2) == ["cuda:0", "cuda:1", "cuda:0"]
    assert slots("cuda:1", None, 2) == ["cuda:1", "cuda:1"]
    with pytest.raises(UsageError, match="--jobs 3 does not fit 2 GPUs with 1 slots each; raise --slots-per-gpu"):
        slots("cuda", 3, 1)
