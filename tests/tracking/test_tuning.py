"""Studies of a tuning in MLflow and in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import exp
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, distribution_to_json

from poolbench import registry
from poolbench.choice import Choice
from poolbench.core import Cell, Result
from poolbench.runner.ledger import Ledger
from poolbench.task import Benchmark
from poolbench.tune.design import Budget, Design
from poolbench.tune.record import Confirmation, StudyRecord, Trial
from poolbench_tracking.mlflow_sink import MlflowSink
from poolbench_tracking.mlflow_studies import experiment_name
from poolbench_tracking.optuna_figures import as_study, study_figures
from poolbench_tracking.report import write_report

RANGES = {
    "learning_rate": distribution_to_json(FloatDistribution(1e-4, 1.0, log=True)),
    "batch_size": distribution_to_json(CategoricalDistribution((32, 64))),
}


def trial(number: int, accuracy: float, state: Any = "complete", **parameters: Any) -> Trial:
    values = {"accuracy": [accuracy, accuracy + 0.02]} if state != "infeasible" else {}
    reason = "<script>alert(1)</script>" if state == "infeasible" else ""
    parameters = {"learning_rate": 1e-3 * (number + 1), "batch_size": 32, **parameters}
    return Trial(number, state, parameters, values, 3.0, 1000.0 + number, 1003.0 + number, reason)


def study_of(cell: Cell, name: str, rate: float = 5e-3) -> StudyRecord:
    default = {"learning_rate": cell.train.learning_rate, "batch_size": cell.train.batch_size}
    best = {"learning_rate": rate, "batch_size": 32}
    trials = [trial(0, 0.5, **default), trial(1, 0.7, **best), trial(2, 0.4, "pruned"), trial(3, 0.0, "infeasible")]
    confirmed = [
        Confirmation(0, True, default, {"accuracy": [0.50, 0.52, 0.51, 0.53, 0.50]}),
        Confirmation(1, False, best, {"accuracy": [0.70, 0.71, 0.69, 0.72, 0.70]}),
    ]
    return StudyRecord(name, cell, Design(seeds=2), RANGES, Budget(4), trials, confirmed, best, 12.0)


def write(ledger: Ledger, record: StudyRecord) -> None:
    folder = ledger.folder / "tuning" / record.id
    folder.mkdir(parents=True, exist_ok=True)
    record.write(folder)


def runs_of(sink: MlflowSink, record: StudyRecord) -> dict[str, Any]:
    experiment = sink.store.find_experiment(experiment_name(record))
    assert experiment is not None
    found = list(sink.store.runs(experiment.experiment_id, study=record.id))
    named = {run.info.run_name: run for run in found}
    assert len(named) == len(found)
    return named


@pytest.fixture
def cell(study: Benchmark, cell_of: Callable[..., Cell]) -> Cell:
    return cell_of("max", 0)


def test_each_trial_is_one_run_with_a_step_per_seed(ledger: Ledger, cell: Cell) -> None:
    record = study_of(cell, "abcdef123456")
    write(ledger, record)
    sink = MlflowSink(ledger.folder)
    sink.sync([ledger])
    found = runs_of(sink, record)
    assert {name: run.info.status for name, run in found.items()} == {
        "trial 0": "FINISHED", "trial 1": "FINISHED", "trial 2": "KILLED", "trial 3": "FAILED", "study": "FINISHED",
    }  # fmt: skip
    best = found["trial 1"]
    assert best.data.metrics["accuracy"] == pytest.approx(0.71)
    assert best.data.metrics["seconds"] == 3.0
    assert best.data.params == {"learning_rate": "0.005", "batch_size": "32"}
    assert best.info.start_time, best.info.end_time == (1001000, 1004000)
    history = sink.store.client.get_metric_history(best.info.run_id, "seed/accuracy")
    assert [(point.step, round(point.value, 6)) for point in history] == [(0, 0.7), (1, 0.72)]
    assert found["trial 3"].data.tags["poolbench.reason"] == "<script>alert(1)</script>"
    whole = found["study"]
    assert whole.data.metrics["accuracy"] == pytest.approx(0.704)
    assert whole.data.metrics["default/accuracy"] == pytest.approx(0.512)
    figures = {file.path for file in sink.store.client.list_artifacts(whole.info.run_id, "figures")}
    assert figures == {"figures/history.png", "figures/slices.png"}  # three trials: too few for importances
    note = sink.store.find_experiment(experiment_name(record)).tags["mlflow.note.content"]  # type: ignore[union-attr]
    assert "| winner | 0.704 | learning_rate=0.005, batch_size=32 |" in note


def test_a_second_sync_writes_nothing_and_new_trials_are_added(
    ledger: Ledger, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = study_of(cell, "abcdef123456")
    going_on = replace(record, trials=record.trials[:2], confirmed=(), best=None)
    write(ledger, going_on)
    sink = MlflowSink(ledger.folder)
    sink.sync([ledger])
    before = {name: run.info.run_id for name, run in runs_of(sink, record).items()}
    assert set(before) == {"trial 0", "trial 1"}
    write(ledger, record)
    MlflowSink(ledger.folder).sync([ledger])
    after = {name: run.info.run_id for name, run in runs_of(sink, record).items()}
    assert len(after) == 5
    assert {name: after[name] for name in before} == before
    created: list[Any] = []
    monkeypatch.setattr(sink.store.client, "create_run", lambda *given, **named: created.append(given))
    sink.sync([ledger])
    assert not created


def test_a_run_that_was_cut_short_is_written_again(ledger: Ledger, cell: Cell, monkeypatch: pytest.MonkeyPatch) -> None:
    record = study_of(cell, "abcdef123456")
    write(ledger, record)
    sink = MlflowSink(ledger.folder)
    ended = sink.store.client.set_terminated

    def fails_once(*given: Any, **named: Any) -> None:
        monkeypatch.setattr(sink.store.client, "set_terminated", ended)
        raise KeyboardInterrupt

    monkeypatch.setattr(sink.store.client, "set_terminated", fails_once)
    with pytest.raises(KeyboardInterrupt):
        sink.sync([ledger])
    MlflowSink(ledger.folder).sync([ledger])
    assert {run.info.status for run in runs_of(sink, record).values()} == {"FINISHED", "KILLED", "FAILED"}


def importance(record: StudyRecord, figure: str) -> dict[str, float]:
    """Return the importances as the figure shows them, read from its bars."""
    axes = study_figures(record)[figure].axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    widths = [bar.get_width() for bar in axes.patches]
    return dict(zip(labels, widths, strict=True))


@pytest.mark.parametrize("objectives", [("accuracy",), ("accuracy", "loss")])
def test_importances_explain_good_values(cell: Cell, objectives: tuple[str, ...]) -> None:
    # High accuracies come from a narrow range of learning rates; low ones from one batch size, at any rate.
    trials = []
    for number in range(60):
        rate, batch = exp(-9 + 9 * (number % 30) / 30), 32 if number < 30 else 64
        good = abs(number % 30 - 15) < 2
        accuracy = 0.9 - abs(number % 30 - 15) / 1000 if good else 0.1 if batch == 64 else 0.5
        values = {"accuracy": [accuracy], "loss": [1 - accuracy]}
        trials.append(Trial(number, "complete", {"learning_rate": rate, "batch_size": batch}, values, 1.0, 0.0, 1.0))
    record = StudyRecord("abc", cell, Design(objectives), RANGES, Budget(60), trials)
    names = ["importances"] if len(objectives) == 1 else ["importances_accuracy", "importances_loss"]
    for name in names:
        found = importance(record, name)
        assert found["learning_rate"] > 0.9, name
    if len(objectives) > 1:
        assert "pareto_front" in study_figures(record)


def test_the_study_in_memory_is_that_of_the_record(cell: Cell) -> None:
    study = as_study(study_of(cell, "abc"))
    assert [round(one.value or 0, 6) for one in study.trials] == [0.51, 0.71, 0.41]
    assert study.best_trial.params == {"learning_rate": 5e-3, "batch_size": 32}


def test_the_report_compares_default_and_tuned(
    ledger: Ledger,
    study: Benchmark,
    store: Callable[..., Result],
    cell_of: Callable[..., Cell],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    chosen = replace(study, choices=(Choice("pool", "Accuracy", "avg", ("accuracy",)),))
    monkeypatch.setitem(registry.benchmarks._entries, "study", registry.Entry("study", lambda: chosen))
    for pool, before, after in (("max", 0.70, 0.80), ("avg", 0.60, 0.90)):
        record = study_of(cell_of(pool, 0), pool * 4, rate=0.01)
        write(ledger, record)
        assert record.tuned is not None
        for seed in range(5):
            noise = 0.001 * (seed % 3)
            store(pool, seed, before + noise)
            store(pool, seed, after + noise, train=record.tuned.train)
    path = write_report(ledger, ledger.folder / "report")
    page, markdown = path.read_text(), path.with_name("report.md").read_text()
    for text in (page, markdown):
        assert "Tuned against default" in text
    assert "| max | 0.701 ± 0.002 | 0.801 ± 0.002 | +0.100" in markdown
    assert "| reverses the order |" in markdown
    assert "Reversed: avg over max." in page
    assert "Unequal budgets" not in page
    assert "2 in full, 1 stopped early, 1 infeasible" in page
    assert "12 s + 12 s" in page


def test_unequal_budgets_and_damaged_records_are_said(ledger: Ledger, cell: Cell, cell_of: Callable[..., Cell]) -> None:
    write(ledger, study_of(cell, "abc"))
    short = study_of(cell_of("avg", 0), "def")
    write(ledger, replace(short, trials=short.trials[:2]))
    write(ledger, study_of(cell_of("blur", 0), "xyz"))
    (ledger.folder / "tuning" / "xyz" / "study.json").write_text('{"cell": {')
    markdown = write_report(ledger, ledger.folder / "report").with_name("report.md").read_text()
    assert "Unequal budgets: the studies have 2 to 4 trials" in markdown
    assert "study.json' is damaged" in markdown


def test_a_default_that_cannot_be_trained_is_said(ledger: Ledger, cell: Cell) -> None:
    record = study_of(cell, "abc")
    (best,) = [one for one in record.confirmed if not one.is_default]
    first = replace(record.trials[0], state="infeasible", reason="too large")
    write(ledger, replace(record, confirmed=[best], trials=[first, *record.trials[1:]]))
    write(ledger, replace(study_of(cell, "def"), confirmed=[], best=None, failure="no trial was feasible: too large"))
    markdown = write_report(ledger, ledger.folder / "report").with_name("report.md").read_text()
    assert "default, infeasible" in markdown
    assert "| winner | 0.704" in markdown
    assert "no trial was feasible: too large" in markdown
    sink = MlflowSink(ledger.folder)
    sink.sync([ledger])
    assert "default/accuracy" not in runs_of(sink, record)["study"].data.metrics


def test_a_study_without_runs_and_one_that_goes_on(ledger: Ledger, cell: Cell, tmp_path: Path) -> None:
    record = study_of(cell, "abc")
    write(ledger, replace(record, confirmed=(), best=None))
    markdown = write_report(ledger, tmp_path / "report").with_name("report.md").read_text()
    assert "No comparison on test images" in markdown
    assert "going on" in markdown
