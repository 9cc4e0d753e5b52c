"""Evaluations of and advice on a user's model in MLflow: a run with its files, and logged models to be ranked.

No weights are uploaded: a logged model here is a name with parameters and metrics.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from poolbench.analysis.statistics import Interval
from poolbench.own_model.advice import Advice, Outcome
from poolbench.own_model.answers import answers, warnings
from poolbench.own_model.results import DataFacts, Evaluation, ModelFacts
from poolbench_tracking.advice_report import NUMBERS as ADVICE_NUMBERS
from poolbench_tracking.advice_report import PAGE as ADVICE_PAGE
from poolbench_tracking.mlflow_errors import reported
from poolbench_tracking.mlflow_runs import FOLDER, KIND
from poolbench_tracking.mlflow_store import Store, writing_lock
from poolbench_tracking.own_model_report import IMAGES, NUMBERS, PAGE
from poolbench_tracking.report import markdown_text

EXPERIMENT = "own models"
NOTE = (
    "One run per `poolbench evaluate` or `poolbench advise` of a model of yours, with its page as an artifact. The "
    "Models tab ranks the models; compare only those with the same data set. "
    "flips: share of steps that change a decision."
)
FORBIDDEN = re.compile(r"[/:.%\"']")  # in names of logged models


def log_evaluation(found: Evaluation, folder: Path, uri: str | None) -> str:
    """Write the run and the logged model of an evaluation whose files are in ``folder``; return the run's id.

    ``uri`` is the store, None for the one in the folder. Raises TrackingUnavailable.
    """
    store, note = Store(folder, uri), [*warnings(found), *answers(found)]
    params = _params(found)
    with _run(store, found.model, note, "poolbench evaluate") as run:
        run.log_data(found.data)
        run.log_model(found.model.spec, params, metrics_of(found), found.data)
        run.log_files(params, [folder / name for name in (PAGE, NUMBERS, IMAGES)])
    return run.id


def log_advice(found: Advice, folder: Path, uri: str | None) -> str:
    """Write the run of an advice whose files are in ``folder``, with a logged model per remedy; return the run's id.

    ``uri`` is the store, None for the one in the folder. Raises TrackingUnavailable.
    """
    store = Store(folder, uri)
    params = {"model": found.model.spec, "weights": found.model.weights, "epochs": str(found.epochs)}
    with _run(store, found.model, found.sentences, "poolbench advise") as run:
        run.log_data(found.data)
        for one in found.outcomes:
            own = {**params, "remedy": one.name, "dominated_by": one.dominated_by or "none"}
            run.log_model(f"{one.name}, {found.model.spec}", own, _advice_metrics(one, found.data), found.data)
        run.log_files(params, [folder / name for name in (ADVICE_PAGE, ADVICE_NUMBERS)])
    return run.id


def _advice_metrics(one: Outcome, data: DataFacts) -> dict[str, float]:
    right = "accuracy" if data.is_labelled else "agreement"
    values: dict[str, float] = {"cost/latency_ms": one.trial.time.timing.median_ms}
    for key, interval in (("flips", one.flips), (right, one.right)):
        values |= {key: interval.mean, f"low/{key}": interval.low, f"high/{key}": interval.high}
    return values


@contextmanager
def _run(store: Store, model: ModelFacts, note: Sequence[str], command: str) -> Iterator[_Run]:
    """Give a new run, which ends FINISHED, or FAILED after an exception.

    What a killed process left unfinished is closed before: only one process of a folder writes at a time.
    """
    with reported(store.uri), writing_lock(store.folder):
        experiment = store.experiment(EXPERIMENT, NOTE)
        for left in [run for run in store.unfinished(experiment) if run.data.tags.get(FOLDER) == store.folder_id]:
            _close_failed(store, experiment, left.info.run_id)
        content = "\n".join(f"- {markdown_text(sentence)}" for sentence in note)
        own = {KIND: "own model", FOLDER: store.folder_id}
        tags = {**own, "mlflow.note.content": content, "mlflow.source.name": command}
        run_id = str(store.client.create_run(experiment, tags=tags, run_name=model.spec).info.run_id)
        try:
            yield _Run(store, experiment, run_id)
        except BaseException:
            _close_failed(store, experiment, run_id)
            raise
        store.client.set_terminated(run_id, "FINISHED")


def _close_failed(store: Store, experiment: str, run_id: str) -> None:
    """End a run that is not complete, and delete its logged models: the next run has them again."""
    for model in list(store.client.search_logged_models([experiment], f"source_run_id = '{run_id}'")):
        store.client.delete_logged_model(model.model_id)
    store.client.set_terminated(run_id, "FAILED")


@dataclass(frozen=True)
class _Run:
    """A run in the making."""

    store: Store
    experiment: str
    id: str

    def log_data(self, data: DataFacts) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        entry = Dataset(_name(data), data.digest, "local", json.dumps({"uri": str(Path(data.folder).resolve())}))
        self.store.client.log_inputs(self.id, [DatasetInput(entry, [InputTag("mlflow.data.context", "evaluation")])])

    def log_model(self, name: str, params: Mapping[str, str], metrics: Mapping[str, float], data: DataFacts) -> None:
        """Log a model that the Models tab ranks by its metrics on a data set."""
        from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric

        client = self.store.client
        model = client.create_logged_model(
            self.experiment, FORBIDDEN.sub("_", name), self.id, params=dict(params), model_type="image classifier"
        )
        now = int(time.time() * 1000)
        points = [
            Metric(key, value, now, 0, model_id=model.model_id, dataset_name=_name(data), dataset_digest=data.digest)
            for key, value in metrics.items()
        ]
        client.log_batch(self.id, metrics=points)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        client.log_outputs(self.id, [LoggedModelOutput(model.model_id, 0)])

    def log_files(self, params: Mapping[str, str], files: Sequence[Path]) -> None:
        from mlflow.entities import Param

        self.store.client.log_batch(self.id, params=[Param(key, value) for key, value in params.items()])
        for file in files:
            self.store.client.log_artifact(self.id, str(file))


def _name(data: DataFacts) -> str:
    return Path(data.folder).resolve().name


def metrics_of(found: Evaluation) -> dict[str, float]:
    """Return {key: value} of what models are ranked by, with the bounds of intervals as "low/KEY" and "high/KEY"."""
    steps = found.steps[0]
    intervals: dict[str, Interval | None] = {
        "accuracy": found.accuracy,
        "flips": steps.flips,
        "flipped_images": steps.flipped,
        "probability_change": steps.change,
        "worst_accuracy": steps.worst,
        "exact_consistency": found.exact.consistency,
        "published_consistency": found.published.agreement,
    }
    values: dict[str, float] = {}
    for key, interval in intervals.items():
        if interval is not None:
            values |= {key: interval.mean, f"low/{key}": interval.low, f"high/{key}": interval.high}
    if found.calibration is not None:
        values["calibration_error"] = found.calibration.error
    single = found.cost.timings[0]
    costs = {"parameters": found.model.parameters, "flops": found.cost.flops, "latency_ms": single.median_ms}
    return values | {f"cost/{key}": float(value) for key, value in costs.items()}


def _params(found: Evaluation) -> Mapping[str, str]:
    model = found.model
    return {
        "model": model.spec,
        "weights": model.weights,
        "preprocessing": model.preprocessing,
        "images": str(found.data.images),
        "largest_effect": found.causes[0].path if found.causes else "none",
    }
