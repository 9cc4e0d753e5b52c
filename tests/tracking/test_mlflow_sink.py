"""MLflow as a projection of the ledger: complete, repeatable, rebuilt from nothing, mended after a crash."""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from poolbench.analysis.learning import judged
from poolbench.core import Cell
from poolbench.runner.ledger import Ledger

mlflow = pytest.importorskip("mlflow")

from poolbench_tracking import mlflow_sink  # noqa: E402
from poolbench_tracking.mlflow_sink import COMMANDS, MlflowSink, TrackingUnavailable, default_uri  # noqa: E402

Run = Callable[..., Any]


def found_in(ledger: Ledger, name: str = "tiny") -> list[Any]:
    client = mlflow.MlflowClient(tracking_uri=default_uri(ledger.folder))
    experiment = client.get_experiment_by_name(name)
    return list(client.search_runs([experiment.experiment_id])) if experiment else []


def runs(ledger: Ledger) -> list[Any]:
    return [run for name in ("tiny", COMMANDS) for run in found_in(ledger, name)]


def of_kind(ledger: Ledger, kind: str, **tags: str) -> list[Any]:
    wanted = {"kind": kind, **tags}
    return [
        run
        for run in runs(ledger)
        if all(run.data.tags.get(f"poolbench.{name}") == value for name, value in wanted.items())
    ]


def kinds(ledger: Ledger) -> Counter[tuple[str, str]]:
    return Counter((run.data.tags["poolbench.kind"], run.info.status) for run in runs(ledger))


EXPECTED = {
    ("seed", "FINISHED"): 4, ("seed", "FAILED"): 1, ("group", "FINISHED"): 2, ("group", "FAILED"): 1,
    ("command", "FAILED"): 1,
}  # fmt: skip


def test_every_cell_is_one_run_however_often_it_is_projected(filled: Ledger) -> None:
    assert MlflowSink(filled.folder).sync([filled]) == 5
    assert kinds(filled) == EXPECTED
    before = {run.info.run_id: run.to_dictionary() for run in runs(filled)}
    assert MlflowSink(filled.folder).sync([filled]) == 0
    assert {run.info.run_id: run.to_dictionary() for run in runs(filled)} == before


def test_seeds_hang_below_their_group(filled: Ledger, cells: list[Cell]) -> None:
    MlflowSink(filled.folder).sync([filled])
    for cell in cells:
        (group,) = of_kind(filled, "group", group=cell.group)
        (seed,) = of_kind(filled, "seed", cell=cell.id)
        assert seed.data.tags["mlflow.parentRunId"] == group.info.run_id
        assert (group.info.run_name, seed.info.run_name) == (cell.pool.name, f"seed {cell.seed}")
        # What varies is a parameter, what does not is a tag.
        assert (group.data.params["pool"], group.data.tags["batch_size"]) == (cell.pool.name, "20")
        assert "batch_size" not in group.data.params


def test_a_group_has_means_and_curves(filled: Ledger, cells: list[Cell]) -> None:
    MlflowSink(filled.folder).sync([filled])
    results = judged([filled.result(cell) for cell in cells[:2]])
    (group,) = of_kind(filled, "group", group=cells[0].group)
    learned = [result for result in results if result.facts["learned"]]
    metrics = group.data.metrics
    assert (metrics["n"], metrics["learned"]) == (len(learned), len(learned) / 2)
    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    if learned:  # whether these networks have, after two epochs, is up to the machine
        assert metrics["accuracy"] == pytest.approx(np.mean([result.metrics["accuracy"] for result in learned]))
        curve = client.get_metric_history(group.info.run_id, "curve/train_loss")
        assert [point.step for point in curve] == [1, 2]
        first = np.mean([result.history[0]["train_loss"] for result in learned])
        assert curve[0].value == pytest.approx(first)
    assert {item.path for item in client.list_artifacts(group.info.run_id)} >= {"tables"}
    path = client.download_artifacts(group.info.run_id, "tables/layers.csv")
    table = pd.read_csv(path)
    assert table["seed"].tolist() == [0, 0, 1, 1]
    assert [d.dataset.name for d in group.inputs.dataset_inputs] == ["tiny"]


def test_a_group_that_gets_a_seed_is_written_anew(filled: Ledger, cells: list[Cell], run_cells: Run) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    (before,) = of_kind(filled, "group", group=cells[0].group)
    others = {run.info.run_id for run in of_kind(filled, "group")} - {before.info.run_id}
    run_cells([replace(cells[0], seed=7)], filled)
    assert sink.sync([filled]) == 1
    (after,) = of_kind(filled, "group", group=cells[0].group)
    assert after.info.run_id != before.info.run_id
    seeds = of_kind(filled, "seed", group=cells[0].group)
    assert {run.data.params["seed"] for run in seeds} == {"0", "1", "7"}
    assert {run.data.tags["mlflow.parentRunId"] for run in seeds} == {after.info.run_id}
    assert {run.info.run_id for run in of_kind(filled, "group")} - {after.info.run_id} == others


def test_settings_that_begin_to_vary_become_parameters(filled: Ledger, cells: list[Cell], run_cells: Run) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    run_cells([replace(cells[0], train=replace(cells[0].train, batch_size=10))], filled)
    sink.sync([filled])
    groups = of_kind(filled, "group")
    assert {run.data.params["batch_size"] for run in groups} == {"10", "20"}
    assert "max · batch_size=10" in {run.info.run_name for run in groups}


def test_whether_a_network_has_learned_follows_the_other_results(
    filled: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch
) -> None:
    def tag(cell: Cell) -> str:
        (run,) = of_kind(filled, "seed", cell=cell.id)
        return str(run.data.tags["poolbench.learned"])

    # The accuracies are made up; whether the decisions vary must not depend on the tiny trainings.
    found = [replace(r, facts={**r.facts, "commonest": 0.5}) for r in filled.results()]
    sink = MlflowSink(filled.folder)
    monkeypatch.setattr(Ledger, "survey", lambda self: (found, []))
    sink.sync([filled])
    assert (tag(cells[0]), tag(cells[1])) == ("True", "True")
    # A better network shows what there is to learn.
    better = [replace(r, metrics={**r.metrics, "accuracy": 2.5}) if r.cell.id == cells[0].id else r for r in found]
    monkeypatch.setattr(Ledger, "survey", lambda self: (better, []))
    sink.sync([filled])
    assert (tag(cells[0]), tag(cells[1])) == ("True", "False")


def test_a_run_holds_what_the_ledger_holds(filled: Ledger, cells: list[Cell]) -> None:
    MlflowSink(filled.folder).sync([filled])
    result = filled.result(cells[1])
    (run,) = of_kind(filled, "seed", cell=cells[1].id)
    (command,) = of_kind(filled, "command")
    assert result.started is not None
    assert result.ended is not None
    assert run.info.start_time == int(result.started * 1000)
    assert run.info.end_time == int(result.ended * 1000)
    assert run.data.tags["poolbench.invocation"] == command.data.tags["poolbench.invocation"]
    assert run.data.tags["env.torch"] == result.facts["environment"]["torch"]
    assert run.data.tags["env.device"] == command.data.tags["env.device"] == "cpu"
    assert (run.data.params["pool"], run.data.params["seed"]) == ("max", "1")
    (group,) = of_kind(filled, "group", group=cells[1].group)
    assert (group.data.tags["epochs"], group.data.tags["width"]) == ("2", "2")
    assert run.data.metrics["accuracy"] == 0.99
    assert run.data.metrics["cost/parameters"] == result.metrics["cost_parameters"]
    assert not any("odd" in key for key in run.data.metrics)  # not a number
    assert command.data.metrics["cells_finished"] == 4
    assert command.data.metrics["cells_failed"] == 1

    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    history = client.get_metric_history(run.info.run_id, "curve/train_loss")
    assert [(point.step, point.value) for point in history] == [
        (row["epoch"], row["train_loss"]) for row in result.history
    ]
    assert [point.timestamp for point in history] == [int(row["time"] * 1000) for row in result.history]
    (failed,) = [run for run in of_kind(filled, "seed") if run.info.status == "FAILED"]
    assert [item.path for item in client.list_artifacts(failed.info.run_id)] == ["traceback.txt"]
    assert failed.data.tags["poolbench.reason"] == "RuntimeError: broken on purpose"
    assert "accuracy" not in failed.data.metrics


def test_maps_are_images_by_seed(filled: Ledger, cells: list[Cell]) -> None:
    MlflowSink(filled.folder).sync([filled])
    (group,) = of_kind(filled, "group", group=cells[0].group)
    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    paths = [item.path for item in client.list_artifacts(group.info.run_id, "images")]
    names = sorted(path for path in paths if path.endswith(".png"))
    expected = [["images/map", "step", str(cell.seed)] for cell in cells[:2]]
    assert [name.split("+")[:3] for name in names] == expected
    assert group.data.tags["mlflow.loggedImages"] == "True"
    with Image.open(client.download_artifacts(group.info.run_id, names[0])) as image:
        # A map of 3x3, ones on the diagonal: squares of 86 px.
        assert image.size == (258, 258)
        red, blue = image.getpixel((10, 10)), image.getpixel((250, 10))
    assert red[0] > 2 * red[2]
    assert blue[2] > 2 * blue[0]


@pytest.mark.parametrize(("seconds", "expected"), [(31.0, {"gpu_memory_mb", "gpu_utilization"}), (29.0, set())])
def test_the_state_of_a_gpu_is_shown_for_long_trainings(
    filled: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, seconds: float, expected: set[str]
) -> None:
    found = filled.results()
    state = {"gpu_memory_mb": 100.0, "gpu_utilization": 90.0}
    on_gpu = [
        replace(r, history=[{**row, **state} for row in r.history], facts={**r.facts, "seconds_fit": seconds})
        for r in found
    ]
    monkeypatch.setattr(Ledger, "survey", lambda self: (on_gpu, []))
    MlflowSink(filled.folder).sync([filled])
    (seed,) = of_kind(filled, "seed", cell=cells[0].id)
    (group,) = of_kind(filled, "group", group=cells[0].group)
    assert {key.removeprefix("system/") for key in seed.data.metrics if key.startswith("system/")} == expected
    assert not any("gpu" in key for key in group.data.metrics)


def test_another_store_is_filled_with_the_same(
    filled: Ledger, migrated: Path, tmp_path: Path, content_of: Callable[[str], list[Any]]
) -> None:
    MlflowSink(filled.folder).sync([filled])
    # A lost database is made anew elsewhere: within one process MLflow keeps a store open.
    other = tmp_path / "other.db"
    shutil.copy(migrated, other)
    assert MlflowSink(filled.folder, f"sqlite:///{other}").sync([filled]) == 5

    assert content_of(f"sqlite:///{other}") == content_of(default_uri(filled.folder))


@pytest.mark.parametrize("function", ["create_cell_run", "fill_group_run", "add_params"])
def test_a_projection_cut_short_is_completed(
    filled: Ledger, cells: list[Cell], run_cells: Run, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    if function == "add_params":  # of seeds that exist already
        MlflowSink(filled.folder).sync([filled])
        run_cells([replace(cells[0], seed=7)], filled)
    calls = []

    def dies(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = getattr(mlflow_sink, function)
    with monkeypatch.context() as patch:
        patch.setattr(mlflow_sink, function, dies)
        with pytest.raises(KeyboardInterrupt):
            MlflowSink(filled.folder).sync([filled])
    assert kinds(filled)["group", "RUNNING"] == 1
    MlflowSink(filled.folder).sync([filled])
    more = 1 if function == "add_params" else 0
    assert kinds(filled) == {**EXPECTED, ("seed", "FINISHED"): 4 + more}
    parents = {run.info.run_id for run in of_kind(filled, "group")}
    assert {run.data.tags["mlflow.parentRunId"] for run in of_kind(filled, "seed")} == parents


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
    found = kinds(filled)
    assert (found["seed", "FINISHED"], found["seed", "FAILED"]) == (5, 1)
    assert (found["group", "FINISHED"], found["group", "FAILED"]) == (3, 0)


def test_a_cell_is_to_be_seen_while_its_command_runs(
    ledger: Ledger, cells: list[Cell], run_cells: Run, migrated: Path
) -> None:
    shutil.copy(migrated, ledger.folder / "mlflow.db")
    invocation = ledger.open_invocation("poolbench run tiny", "quick")
    log = run_cells(cells[:1], ledger, invocation.id)
    sink = MlflowSink(ledger.folder)
    for _ in range(2):
        sink.project(log.results[0], invocation)
    assert kinds(ledger) == {("seed", "FINISHED"): 1, ("group", "RUNNING"): 1, ("command", "RUNNING"): 1}
    sink.sync([ledger])
    assert kinds(ledger) == {("seed", "FINISHED"): 1, ("group", "FINISHED"): 1, ("command", "RUNNING"): 1}
    # Its process has died.
    invocation.lock.release(force=True)
    MlflowSink(ledger.folder).sync([ledger])
    assert kinds(ledger)["command", "KILLED"] == 1


def test_the_run_of_a_command_has_the_report(filled: Ledger, tmp_path: Path) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    (tmp_path / "report" / "figures").mkdir(parents=True)
    (tmp_path / "report" / "report.html").write_text("here")
    (invocation,) = filled.invocations()
    sink.publish(invocation, tmp_path / "report")
    (command,) = of_kind(filled, "command")
    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    assert "report/report.html" in {item.path for item in client.list_artifacts(command.info.run_id, "report")}
    assert kinds(filled) == EXPECTED


def test_views_are_small_json_and_follow_the_settings(filled: Ledger) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    tags = client.get_experiment_by_name("tiny").tags
    groups, seeds = (
        json.loads(tags[f"mlflow.sharedViewState.{name}"]) for name in ("poolbench-groups", "poolbench-seeds")
    )
    assert max(map(len, tags.values())) < 20_000
    assert groups["searchFilter"] == "tags.`poolbench.kind` = 'group'"
    assert groups["orderByKey"] == "metrics.`accuracy`"
    assert {"params.`pool`", "metrics.`half_width/accuracy`"} <= set(groups["selectedColumns"])
    assert seeds["orderByKey"] == "attributes.start_time"
    assert [chart["type"] for chart in groups["compareRunCharts"]] == ["BAR", "SCATTER", "LINE", "IMAGE", "IMAGE"]
    assert "Does it run?" in tags["mlflow.note.content"]
    link = sink.views("http://here")["tiny"]
    assert link.startswith("http://here/#/experiments/")
    assert link.endswith("/runs?workflowType=machine_learning&viewStateShareKey=poolbench-groups")


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
    assert set(links.runs) == {cell.id for cell in cells}
    ids = {run.data.tags.get("poolbench.cell"): run.info.run_id for run in runs(filled)}
    assert all(link.endswith(f"/runs/{ids[cell]}") for cell, link in links.runs.items())
    assert set(links.views["tiny"]) == {"groups", "seeds"}


def test_figures_that_cannot_be_drawn_keep_no_run_back(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    from poolbench_tracking import figures

    def broken(*_: object) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(figures, "cell_figures", broken)
    assert MlflowSink(filled.folder).sync([filled]) == 5
    assert kinds(filled) == EXPECTED
    client = mlflow.MlflowClient(tracking_uri=default_uri(filled.folder))
    for run in of_kind(filled, "group"):
        if run.info.status == "FINISHED":
            assert "figures/failed.txt" in {item.path for item in client.list_artifacts(run.info.run_id, "figures")}


def test_the_ledger_is_read_when_no_other_sync_runs(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    # An older reading that is written later would take away the seeds that are new since then.
    sink, seen = MlflowSink(filled.folder), []
    read = mlflow_sink.read_evidence

    def watched(ledger: Ledger) -> Any:
        seen.append(sink.sync_lock.is_locked)
        return read(ledger)

    monkeypatch.setattr(mlflow_sink, "read_evidence", watched)
    sink.sync([filled])
    assert seen == [True]
    assert not sink.sync_lock.is_locked
