"""MLflow as a projection of the ledger: complete, repeatable, rebuilt from nothing, mended after a crash."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poolbench.analysis.learning import judged
from poolbench.core import Cell
from poolbench.runner.ledger import Ledger

mlflow = pytest.importorskip("mlflow")

from poolbench_tracking import mlflow_sink  # noqa: E402
from poolbench_tracking.mlflow_sink import MlflowSink, TrackingUnavailable, default_uri  # noqa: E402

Run = Callable[..., Any]


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with its tables: making one takes seconds, copying it nothing."""
    folder = tmp_path_factory.mktemp("migrated")
    MlflowSink(folder)
    # One file, whatever is still in the write-ahead log.
    with sqlite3.connect(folder / "mlflow.db") as source, sqlite3.connect(folder / "copy.db") as copy:
        source.backup(copy)
    return folder / "copy.db"


@pytest.fixture
def filled(ledger: Ledger, cells: list[Cell], run_cells: Run, migrated: Path) -> Ledger:
    """Four finished cells and a failed one of one closed invocation."""
    shutil.copy(migrated, ledger.folder / "mlflow.db")
    invocation = ledger.open_invocation("poolbench run tiny", "quick")
    run_cells([*cells, replace(cells[0], variant="broken")], ledger, invocation.id)
    invocation.close("failed")
    return ledger


def runs(ledger: Ledger) -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=default_uri(ledger.folder))
    experiment = client.get_experiment_by_name("tiny")
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def kinds(ledger: Ledger) -> Counter[tuple[str, str]]:
    return Counter(("cell" if "poolbench.cell" in run.data.tags else "parent", run.info.status) for run in runs(ledger))


EXPECTED = {("cell", "FINISHED"): 4, ("cell", "FAILED"): 1, ("parent", "FAILED"): 1}


def test_every_cell_is_one_run_however_often_it_is_projected(filled: Ledger) -> None:
    assert MlflowSink(filled.folder).sync([filled]) == 5
    assert kinds(filled) == EXPECTED
    before = {run.info.run_id for run in runs(filled)}
    assert MlflowSink(filled.folder).sync([filled]) == 0
    assert {run.info.run_id for run in runs(filled)} == before


def test_whether_a_network_has_learned_follows_the_other_results(filled: Ledger, cells: list[Cell]) -> None:
    def tag(cell: Cell) -> str:
        found = next(run for run in runs(filled) if run.data.tags.get("poolbench.cell") == cell.id)
        return str(found.data.tags["poolbench.learned"])

    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    # The accuracies are made up; whether the decisions vary must not depend on the tiny trainings.
    found = [filled.result(cell) for cell in cells]
    results = [replace(result, facts={**result.facts, "commonest": 0.5}) for result in found]
    for result in judged(results):
        assert not sink.project(filled, result, None)
    assert tag(cells[1]) == "True"
    # A better network shows what there is to learn.
    better = replace(results[0], metrics={**results[0].metrics, "accuracy": 2.5})
    for result in judged([better, *results[1:]]):
        assert not sink.project(filled, result, None)
    assert (tag(cells[0]), tag(cells[1])) == ("True", "False")


def test_a_run_holds_what_the_ledger_holds(filled: Ledger, cells: list[Cell]) -> None:
    MlflowSink(filled.folder).sync([filled])
    result = filled.result(cells[1])
    run = next(run for run in runs(filled) if run.data.tags.get("poolbench.cell") == cells[1].id)
    parent = next(run for run in runs(filled) if "poolbench.cell" not in run.data.tags)
    assert result.started is not None
    assert result.ended is not None
    assert run.info.start_time == int(result.started * 1000)
    assert run.info.end_time == int(result.ended * 1000)
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert run.data.tags["env.torch"] == result.facts["environment"]["torch"]
    assert run.data.tags["env.device"] == "cpu"
    assert f"tiny {run.info.run_name}" == cells[1].label
    assert run.data.params["pool"] == "max"
    assert run.data.params["seed"] == "1"
    assert run.data.params["epochs"] == "2"
    assert run.data.params["width"] == "2"
    assert run.data.metrics["accuracy"] == 0.99
    assert "odd" not in run.data.metrics  # not a number
    assert [d.dataset.name for d in run.inputs.dataset_inputs] == ["tiny"]
    assert result.facts["data"]["digest"].startswith(run.inputs.dataset_inputs[0].dataset.digest)

    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    history = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(point.step, point.value) for point in history] == [
        (row["epoch"], row["train_loss"]) for row in result.history
    ]
    assert [point.timestamp for point in history] == [int(row["time"] * 1000) for row in result.history]
    names = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert {"metrics.csv", "layers.csv"} <= names
    failed = next(run for run in runs(filled) if run.info.status == "FAILED" and "poolbench.cell" in run.data.tags)
    assert [item.path for item in client.list_artifacts(failed.info.run_id)] == ["traceback.txt"]
    assert failed.data.tags["poolbench.reason"] == "RuntimeError: broken on purpose"
    assert "accuracy" not in failed.data.metrics


def test_another_store_is_filled_with_the_same(filled: Ledger, migrated: Path, tmp_path: Path) -> None:
    MlflowSink(filled.folder).sync([filled])
    # A lost database is made anew elsewhere: within one process MLflow keeps a store open.
    other = tmp_path / "other.db"
    shutil.copy(migrated, other)
    assert MlflowSink(filled.folder, f"sqlite:///{other}").sync([filled]) == 5

    def content(uri: str) -> list[tuple[Any, ...]]:
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("tiny")
        found = client.search_runs([experiment.experiment_id])
        return sorted(
            (r.info.run_name, r.info.status, r.info.start_time, str(r.data.params), str(sorted(r.data.metrics.items())))
            for r in found
        )

    assert content(f"sqlite:///{other}") == content(default_uri(filled.folder))


def test_a_projection_cut_short_is_made_again(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MlflowSink(filled.folder)

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mlflow_sink, "log_cell_artifacts", dies)
        with pytest.raises(KeyboardInterrupt):
            sink.sync([filled])
    assert kinds(filled)["cell", "RUNNING"] == 1
    assert MlflowSink(filled.folder).sync([filled]) == 5
    assert kinds(filled) == EXPECTED


def test_a_retried_cell_is_a_new_run_and_the_failure_stays(
    filled: Ledger, cells: list[Cell], run_cells: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    MlflowSink(filled.folder).sync([filled])
    from poolbench import registry

    entry = registry.benchmarks._entries["tiny"]
    benchmark = entry.target()
    mended = replace(benchmark, measure=lambda cell, *rest: benchmark.measure(cells[0], *rest))
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", replace(entry, target=lambda: mended))
    run_cells([replace(cells[0], variant="broken")], filled)
    assert MlflowSink(filled.folder).sync([filled]) == 1
    assert kinds(filled) == {**EXPECTED, ("cell", "FINISHED"): 5}


def test_the_parent_of_a_dead_invocation_is_killed(
    ledger: Ledger, cells: list[Cell], run_cells: Run, migrated: Path
) -> None:
    shutil.copy(migrated, ledger.folder / "mlflow.db")
    invocation = ledger.open_invocation("poolbench run tiny", "quick")
    log = run_cells(cells[:1], ledger, invocation.id)
    sink = MlflowSink(ledger.folder)
    sink.project(ledger, log.results[0], invocation)
    sink.close(ledger, invocation, ledger.results())
    assert kinds(ledger) == {("cell", "FINISHED"): 1, ("parent", "RUNNING"): 1}
    invocation.lock.release(force=True)
    MlflowSink(ledger.folder).sync([ledger])
    assert kinds(ledger) == {("cell", "FINISHED"): 1, ("parent", "KILLED"): 1}


def test_a_store_out_of_reach_is_one_line(ledger: Ledger) -> None:
    with pytest.raises(TrackingUnavailable) as error:
        MlflowSink(ledger.folder, "http://127.0.0.1:9")
    assert "\n" not in str(error.value)


def test_mlflow_that_is_not_installed_is_one_line(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(TrackingUnavailable, match=r"^mlflow is not installed"):
        MlflowSink(ledger.folder)


def test_a_store_that_is_no_database_is_one_line(ledger: Ledger) -> None:
    (ledger.folder / "mlflow.db").write_bytes(b"not a database" * 100)
    with pytest.raises(TrackingUnavailable):
        MlflowSink(ledger.folder)


def test_links_lead_to_finished_runs(filled: Ledger, cells: list[Cell]) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    links = sink.links()
    assert set(links) == {cell.id for cell in cells}
    ids = {run.data.tags.get("poolbench.cell"): run.info.run_id for run in runs(filled)}
    assert all(link.endswith(f"/runs/{ids[cell]}") for cell, link in links.items())


def test_figures_that_cannot_be_drawn_keep_no_run_back(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolbench_tracking import figures

    def broken(*_: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(figures, "cell_figures", broken)
    monkeypatch.setattr(figures, "summary_figures", broken)
    assert MlflowSink(filled.folder).sync([filled]) == 5
    assert kinds(filled) == EXPECTED
    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    for run in runs(filled):
        if "poolbench.cell" not in run.data.tags or run.info.status == "FINISHED":
            assert "figures/failed.txt" in {item.path for item in client.list_artifacts(run.info.run_id, "figures")}
