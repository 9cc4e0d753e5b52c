"""States that a crash, a lost answer, a second launcher or a user leaves in MLflow, and that the next sync mends."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poolbench.analysis.effects import group_interval
from poolbench.analysis.groups import Group
from poolbench.analysis.images import NO_IMAGES
from poolbench.core import Cell, Metric, Result
from poolbench.runner.ledger import Ledger

mlflow = pytest.importorskip("mlflow")

from poolbench_tracking.mlflow_errors import TrackingUnavailable, without_user  # noqa: E402
from poolbench_tracking.mlflow_runs import _interval, create_invocation_run  # noqa: E402
from poolbench_tracking.mlflow_sink import COMMANDS, MlflowSink  # noqa: E402

EXPECTED = Counter({("seed", "FINISHED"): 4, ("seed", "FAILED"): 1, ("group", "FINISHED"): 2, ("group", "FAILED"): 1})


def runs(sink: MlflowSink, **tags: str) -> list[Any]:
    experiment = sink.store.find_experiment("tiny")
    return [] if experiment is None else list(sink.store.runs(experiment.experiment_id, **tags))


def kinds(sink: MlflowSink) -> Counter[tuple[str, str]]:
    return Counter((run.data.tags["poolbench.kind"], run.info.status) for run in runs(sink))


def is_whole(sink: MlflowSink, ledger: Ledger) -> None:
    """Sync, and check that everything is there once, below its group, and that a second sync writes nothing."""
    sink.sync([ledger])
    assert kinds(sink) == EXPECTED
    groups = {run.data.tags["poolbench.group"]: run.info.run_id for run in runs(sink, kind="group")}
    for seed in runs(sink, kind="seed"):
        assert seed.data.tags["mlflow.parentRunId"] == groups[seed.data.tags["poolbench.group"]]
        assert seed.info.status == "FAILED" or "accuracy" in seed.data.metrics
    before = [run.to_dictionary() for run in runs(sink)]
    assert sink.sync([ledger]) == 0
    assert [run.to_dictionary() for run in runs(sink)] == before


def repeating(sink: MlflowSink, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each request that creates a run be repeated, as after a lost answer."""
    create = sink.store.client.create_run

    def twice(*arguments: Any) -> Any:
        create(*arguments)
        return create(*arguments)

    monkeypatch.setattr(sink.store.client, "create_run", twice)


def test_lost_answers_in_a_run(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MlflowSink(filled.folder)
    with monkeypatch.context() as patch:
        repeating(sink, patch)
        for result in filled.results():
            sink.project(result, filled.invocations()[0])
    assert kinds(sink)["seed", "RUNNING"] == 5
    is_whole(sink, filled)


def test_a_command_killed_before_its_parameters(filled: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of the command is there, and nothing in it."""
    sink, (command, *_) = MlflowSink(filled.folder), filled.invocations()
    experiment = sink.store.experiment(COMMANDS, "")

    def killed(*arguments: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sink.store.client, "log_batch", killed)
        with pytest.raises(KeyboardInterrupt):
            create_invocation_run(sink.store, experiment, command)
    sink.sync([filled])
    (run,) = sink.store.runs(experiment)
    assert run.data.params == {"preset": command.content["preset"]}


def test_runs_deleted_in_the_ui(filled: Ledger) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    group = runs(sink, kind="group")[0]
    sink.store.client.delete_run(group.info.run_id)
    is_whole(sink, filled)
    # A seed comes back with its group.
    seed = runs(sink, kind="seed")[0]
    sink.store.client.delete_run(seed.info.run_id)
    for run in runs(sink, kind="group", group=seed.data.tags["poolbench.group"]):
        sink.store.client.delete_run(run.info.run_id)
    is_whole(sink, filled)


def test_an_experiment_deleted_in_the_ui(filled: Ledger) -> None:
    MlflowSink(filled.folder).sync([filled])
    sink = MlflowSink(filled.folder)
    experiment = sink.store.find_experiment("tiny")
    assert experiment is not None
    sink.store.client.delete_experiment(experiment.experiment_id)
    is_whole(MlflowSink(filled.folder), filled)


def test_two_launchers_at_once(filled: Ledger) -> None:
    first, second = MlflowSink(filled.folder), MlflowSink(filled.folder)
    first.sync([filled], lambda done, total: second.sync([filled]) and None)
    is_whole(first, filled)


def test_a_half_written_run_is_no_result(filled: Ledger) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    seed = runs(sink, kind="seed")[0]
    client = sink.store.client
    tags = {**seed.data.tags, "poolbench.folder": "of another time"}
    client.create_run(seed.info.experiment_id, None, tags, "seed 0")
    client.delete_run(seed.info.run_id)
    client.delete_run(tags["mlflow.parentRunId"])
    is_whole(sink, filled)


def test_a_cell_that_ran_again_has_one_run_and_the_link_leads_to_it(
    filled: Ledger, cells: list[Cell], run_cells: Callable[..., Any]
) -> None:
    sink = MlflowSink(filled.folder)
    sink.sync([filled])
    (before,) = runs(sink, kind="seed", cell=cells[0].id)
    shutil.rmtree(filled.folder / "cells" / cells[0].id)
    run_cells(cells[:1], filled)
    is_whole(sink, filled)
    (after,) = runs(sink, kind="seed", cell=cells[0].id)
    assert after.info.run_id != before.info.run_id
    assert sink.links().runs[cells[0].id].endswith(after.info.run_id)


def test_the_half_width_of_a_share_is_the_longer_side(cells: list[Cell]) -> None:
    values = (1.0, 0.98, 1.0, 0.97, 0.99, 1.0)
    results = [
        Result(replace(cells[0], seed=seed), "finished", metrics={"kept": value}) for seed, value in enumerate(values)
    ]
    group = Group(cells[0].group, cells[0].fields, results)
    found = _interval(group, Metric("kept", "kept", True, 0.01, share=True), "kept", NO_IMAGES)
    interval = group_interval(group, Metric("kept", "kept", True, 0.01, share=True))
    assert interval is not None
    # It ends at 1, nearer to the mean than its other end.
    assert interval.high == 1.0
    assert found["half_width/kept"] == pytest.approx(interval.mean - interval.low, abs=1e-3)
    assert found["half_width/kept"] > interval.half_width + 0.001
    # Nothing becomes 0 by rounding.
    tiny = replace(group, results=[replace(r, metrics={"kept": 1e-9}) for r in results])
    assert _interval(tiny, Metric("kept", "kept", True, 0.01), "kept", NO_IMAGES)["kept"] == 1e-9


def test_a_database_that_cannot_be_opened_is_one_line_at_once(ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(TrackingUnavailable) as error:
        MlflowSink(ledger.folder, f"sqlite:///{tmp_path}/folder")
    assert "unable to open database file" in str(error.value)


def test_a_lock_that_cannot_be_taken_is_one_line(ledger: Ledger) -> None:
    (ledger.folder / "mlflow.lock").mkdir()
    with pytest.raises(TrackingUnavailable):
        MlflowSink(ledger.folder)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("http://ann:it's@host:1/x", "http://host:1/x"),
        ("http://host:1/a/b@c", "http://host:1/a/b@c"),
        ("postgresql://host/db?password=secret&x=1", "postgresql://host/db?password=***&x=1"),
        ("see https://a:b@host and c@d", "see https://host and c@d"),
    ],
)
def test_no_password_is_shown(given: str, shown: str) -> None:
    assert without_user(given) == shown
