"""What local workers and Ray have in common: the same results as without, and real processes killed at every moment."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from poolbench.core import Cell, DataLocation
from poolbench.files import StorageError
from poolbench.plugins import import_code
from poolbench.runner.attempt import Settings
from poolbench.runner.execute import Executor, LocalExecutor
from poolbench.runner.group import Listener
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan
from poolbench.runner.workers import execute_in_workers

nodes = import_code(str(Path(__file__).with_name("_ray_nodes.py")))

SETTINGS = Settings(DataLocation("data"), "cpu", "an invocation")


class OneWorker(LocalExecutor):
    """A worker process, also for a single device."""

    def execute(self, cells: Sequence[Cell], ledger: Ledger, settings: Settings, listener: Listener) -> None:
        execute_in_workers(cells, ledger, settings, listener, self.devices)


@dataclass
class Stage:
    """Executors of one kind, and how their workers are killed."""

    one: Executor
    two: Executor
    kill: Callable[[], None]
    workers: Callable[[], list[Any]]


def kill_all(processes: Sequence[Any]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()


@pytest.fixture(scope="module")
def local() -> Stage:
    return Stage(
        OneWorker("cpu", ["cpu"]),
        OneWorker("cpu", ["cpu", "cpu"]),
        lambda: kill_all(multiprocessing.active_children()),
        multiprocessing.active_children,
    )


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if find_spec("ray") is None:
        pytest.skip("ray is not installed")
    from poolbench.runner.ray_cluster import RayCluster, ray_cluster

    this = psutil.Process(os.getpid())

    def kill() -> None:
        nodes.wait_until(lambda: nodes.training(this))
        kill_all(nodes.training(this))

    with ray_cluster(None, "cpu", None, 1) as cluster:
        one = RayCluster("cpu", 1, 1)
        yield Stage(one, cluster, kill, lambda: nodes.training(this))


@pytest.fixture(params=["local", pytest.param("ray", marks=[pytest.mark.slow, pytest.mark.ray])])
def stage(request: pytest.FixtureRequest) -> Stage:
    found: Stage = request.getfixturevalue(request.param)
    return found


def some_cells(epochs: int) -> list[Cell]:
    return plan(Selection(("shift_robustness",), "smoke", pools=("max",), seeds=(0, 1), train={"epochs": epochs}))[:2]


def attempts(ledger: Ledger, cell: Cell) -> int:
    return (ledger.record(cell.id).folder / "events.jsonl").read_text().count('"started"')


@pytest.fixture
def log(run_cells: Callable[..., Any], ledger: Ledger) -> Any:
    """A listener that records its calls."""
    return run_cells([], ledger)


def test_results_do_not_depend_on_the_number_of_jobs(
    ledger: Ledger, log: Any, tmp_path: Path, run_cells: Callable[..., Any], stage: Stage
) -> None:
    cells = some_cells(epochs=1)
    stage.two.execute(cells, ledger, SETTINGS, log)
    assert sorted(log.started) == sorted(cell.id for cell in cells)
    assert log.epochs == 2
    assert {result.status for result in log.results} == {"finished"}
    assert {result.facts["invocation"] for result in log.results} == {"an invocation"}
    here = Ledger(tmp_path / "here").create()
    run_cells(cells, here)
    for cell in cells:
        first, second = (one.record(cell.id).folder for one in (ledger, here))
        assert {path.name for path in first.iterdir()} == {path.name for path in second.iterdir()}
        assert (first / "weights.pt").read_bytes() == (second / "weights.pt").read_bytes()
        metrics = [
            {name: value for name, value in one.result(cell).metrics.items() if not name.endswith("_ms")}
            for one in (ledger, here)
        ]
        assert metrics[0] == metrics[1]
        assert ledger.result(cell).facts["environment"] == here.result(cell).facts["environment"]
    nodes.wait_until(lambda: not stage.workers())


@pytest.mark.parametrize("moment", ["cell_started", "epoch_ended"])
def test_a_killed_worker_costs_its_cell_one_retry(ledger: Ledger, log: Any, moment: str, stage: Stage) -> None:
    """Killed while it starts up or in the middle of the training, but only once."""
    cells = some_cells(epochs=20)
    recorded, kills = getattr(log, moment), []

    def kill_once(*arguments: Any) -> None:
        recorded(*arguments)
        if not kills:
            kills.append(arguments[0])
            stage.kill()

    setattr(log, moment, kill_once)
    stage.one.execute(cells, ledger, SETTINGS, log)
    assert kills == cells[:1]
    assert [result.status for result in log.results] == ["finished", "finished"]
    assert log.started == [cells[0].id, cells[0].id, cells[1].id]
    # A worker of Ray that is up already may begin before it is killed.
    assert attempts(ledger, cells[0]) in ((2,) if moment == "epoch_ended" else (1, 2))
    assert attempts(ledger, cells[1]) == 1


def test_a_cell_whose_worker_dies_twice_has_failed(ledger: Ledger, log: Any, stage: Stage) -> None:
    cells = some_cells(epochs=1)
    recorded = log.cell_started

    def kill(cell: Cell) -> None:
        recorded(cell)
        if cell == cells[0]:
            stage.kill()

    log.cell_started = kill
    stage.one.execute(cells, ledger, SETTINGS, log)
    failed, finished = log.results
    assert (failed.cell, failed.status) == (cells[0], "failed")
    assert "its worker process died 2 times" in failed.reason
    assert failed.facts["invocation"] == "an invocation"
    assert failed.traceback
    assert (finished.cell, finished.status) == (cells[1], "finished")


def test_replicas_whose_worker_dies_are_halved(ledger: Ledger, log: Any, stage: Stage) -> None:
    cells = [replace(some_cells(epochs=1)[0], seed=seed) for seed in range(3)]
    recorded = log.cell_started

    def kill(cell: Cell) -> None:
        recorded(cell)
        if cell == cells[2]:
            stage.kill()

    log.cell_started = kill
    stage.one.execute(cells, ledger, replace(SETTINGS, replicas=3), log)
    assert {result.cell.seed: result.status for result in log.results} == {0: "finished", 1: "finished", 2: "failed"}
    # All three; the first; the other two; the second; the third twice.
    assert log.started == [cells[i].id for i in (0, 1, 2, 0, 1, 2, 1, 2, 2)]


def test_a_folder_that_cannot_be_written_stops_all(ledger: Ledger, log: Any, stage: Stage) -> None:
    cells = some_cells(epochs=1)
    ledger.record(cells[0].id).folder.write_text("in the way")
    with pytest.raises(StorageError, match="cannot write to"):
        stage.one.execute(cells, ledger, SETTINGS, log)
    nodes.wait_until(lambda: not stage.workers())
