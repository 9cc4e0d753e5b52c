"""The studies of a tuning in MLflow: an experiment per study, a run per trial, one run with Optuna's figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from poolbench.analysis.text import rounded
from poolbench.core import Scalar
from poolbench.registry import benchmarks
from poolbench.tune.design import CONFIRMATION_SEEDS
from poolbench.tune.record import Confirmation, StudyRecord, Trial
from poolbench_tracking.mlflow_files import artifacts
from poolbench_tracking.mlflow_runs import DIGEST, FOLDER, KIND, NOTE, log, point
from poolbench_tracking.mlflow_store import Store, milliseconds
from poolbench_tracking.mlflow_views import study_view
from poolbench_tracking.report import markdown_text

if TYPE_CHECKING:
    from mlflow.entities import Run

STUDY, TRIAL = "poolbench.study", "poolbench.trial"
STATES = {"complete": "FINISHED", "pruned": "KILLED", "infeasible": "FAILED"}
"""How MLflow calls the states of a trial."""
HOW_TO_READ = (
    "A run is a trial; its metric is the mean over its seeds on validation images, `seed/...` has a step per seed. "
    "Killed: it was behind the best trial on its first two seeds and stopped. Failed: its network cannot be built or "
    "trained, or it breaks a limit. The run `study` has the confirmation on fresh seeds and Optuna's figures."
)


def experiment_name(record: StudyRecord) -> str:
    """Return the name of a study's experiment: the task and what tells it from other studies."""
    cell = record.cell
    return f"{cell.benchmark} (tuning) {cell.variant} {cell.pool.name} {cell.head.name} {record.id[:6]}"


def write_study(store: Store, record: StudyRecord) -> int:
    """Write the runs of a study that are missing or out of date; return the number of new runs of trials."""
    name = experiment_name(record)
    note, benchmark = _note(record), benchmarks.get(record.cell.benchmark)()
    first = benchmark.metric(record.design.objectives[0])
    view = study_view(record.design.objectives, list(record.distributions), bool(first.higher_is_better))
    experiment = store.experiment(name, note, view)
    store.set_experiment_tags(name, {NOTE: note, **view})
    known: dict[str, Run] = {}
    for run in list(store.runs(experiment, study=record.id)):
        if store.owns(run) and run.data.tags[TRIAL] in known:
            store.client.delete_run(run.info.run_id)  # a request was repeated
        known.setdefault(run.data.tags[TRIAL], run)
    written = 0
    for trial in record.trials:
        written += _write(store, experiment, record, known.get(str(trial.number)), str(trial.number), trial)
    if record.confirmed:
        _write(store, experiment, record, known.get("study"), "study", None)
    return written


def _write(
    store: Store, experiment: str, record: StudyRecord, existing: Run | None, name: str, trial: Trial | None
) -> bool:
    """Write one run unless it is there and complete; return whether it was written."""
    content = json.dumps(asdict(record) if trial is None else asdict(trial), sort_keys=True, default=str)
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    if existing is not None:
        if existing.data.tags.get(DIGEST) == digest:
            return False
        store.client.delete_run(existing.info.run_id)
    tags = {KIND: "trial" if trial else "study", STUDY: record.id, TRIAL: name, FOLDER: store.folder_id}
    title = f"trial {name}" if trial else "study"
    started, ended = (trial.started, trial.ended) if trial else _span(record)
    run = store.client.create_run(experiment, milliseconds(started), tags, title)
    if trial:
        _fill_trial(store, run.info.run_id, record, trial)
    else:
        _fill_study(store, run.info.run_id, record)
    state = STATES[trial.state] if trial else "FINISHED"
    store.client.set_terminated(run.info.run_id, state, end_time=milliseconds(ended))
    # Last: a run without its digest is written again.
    store.client.set_tag(run.info.run_id, DIGEST, digest)
    return True


def _span(record: StudyRecord) -> tuple[float, float]:
    return min(trial.started for trial in record.trials), max(trial.ended for trial in record.trials)


def _fill_trial(store: Store, run: str, record: StudyRecord, trial: Trial) -> None:
    # The UI shows all digits. The values of the seeds are complete.
    points = [*_seeds(trial, trial.ended), point("seconds", round(trial.seconds, 2), trial.ended)]
    points += [point(name, _rounded(trial.mean(name)), trial.ended) for name in trial.values]
    log(store, run, points, {name: _text(value) for name, value in trial.parameters.items()})
    store.client.set_tag(run, "state", trial.state)
    if trial.reason:
        store.client.set_tag(run, "poolbench.reason", trial.reason[:1000])


def _fill_study(store: Store, run: str, record: StudyRecord) -> None:
    _, ended = _span(record)
    points = [point("trials", len(record.trials), ended), point("seconds", round(record.seconds), ended)]
    best = _chosen(record)
    for one, prefix in ((record.default, "default/"), (best, "")):
        if one is not None:
            points += [point(f"{prefix}{name}", _rounded(one.mean(name)), ended) for name in one.values]
    log(store, run, points, {name: _text(value) for name, value in (record.best or {}).items()})
    with artifacts(store, run) as folder:
        _write_figures(folder, record)


def _write_figures(folder: Path, record: StudyRecord) -> None:
    from poolbench_tracking.optuna_figures import as_png, study_figures

    (folder / "figures").mkdir()
    for name, figure in study_figures(record).items():
        (folder / "figures" / f"{name}.png").write_bytes(as_png(figure))
    (folder / "study.json").write_text(json.dumps([asdict(one) for one in record.confirmed], indent=1))


def _seeds(trial: Trial, ended: float) -> Iterator[Any]:
    for name, values in trial.values.items():
        for step, value in enumerate(values):
            yield point(f"seed/{name}", value, ended, step)


def _chosen(record: StudyRecord) -> Confirmation | None:
    return next((one for one in record.confirmed if one.parameters == record.best), None)


def _note(record: StudyRecord) -> str:
    """Return the description of the experiment: what was searched, what won, what it cost."""
    benchmark = benchmarks.get(record.cell.benchmark)()
    named = markdown_text(", ".join(record.design.objectives))
    lines = [f"Tuning of {markdown_text(record.cell.label)}.", HOW_TO_READ, f"Objectives: {named}."]
    if record.confirmed:
        objectives = record.design.objectives
        rows = [
            f"| | {' | '.join(map(markdown_text, objectives))} | hyperparameters |",
            "|---" * (len(objectives) + 2) + "|",
        ]
        for one in record.confirmed:
            values = [rounded(one.mean(name), benchmark.metric(name)) for name in objectives]
            chosen = ", ".join(f"{name}={_text(value)}" for name, value in one.parameters.items())
            rows.append(f"| {markdown_text(record.role(one))} | {' | '.join(values)} | {markdown_text(chosen)} |")
        lines += [f"On {CONFIRMATION_SEEDS} fresh seeds:", "\n".join(rows)]
    return "\n\n".join(lines)


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def _text(value: Scalar) -> str:
    """Return a value with four digits: Optuna proposes numbers with sixteen."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
