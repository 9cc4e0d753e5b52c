"""The evaluation of a user's model in MLflow: a run with its files, and a logged model that the Models tab can rank.

No weights are uploaded: a logged model here is a name with parameters and metrics.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from pathlib import Path

from poolbench.analysis.statistics import Interval
from poolbench.own_model.answers import answers, warnings
from poolbench.own_model.results import Evaluation
from poolbench_tracking.mlflow_errors import reported
from poolbench_tracking.mlflow_store import Store
from poolbench_tracking.own_model_report import IMAGES, NUMBERS, PAGE

EXPERIMENT = "own models"
NOTE = (
    "One run per evaluation of a model of yours (`poolbench evaluate`), with its page as an artifact. The Models tab "
    "ranks the models; compare only those with the same data set. flips: share of steps that change a decision."
)
FORBIDDEN = re.compile(r"[/:.%\"']")  # in names of logged models


def log_evaluation(found: Evaluation, folder: Path, uri: str | None) -> str:
    """Write the run and the logged model of an evaluation whose files are in ``folder``; return the run's id.

    ``uri`` is the store, None for the one in the folder. Raises TrackingUnavailable.
    """
    store = Store(folder, uri)
    with reported(store.uri):
        experiment = store.experiment(EXPERIMENT, NOTE)
        note = "\n".join(f"- {sentence}" for sentence in (*warnings(found), *answers(found)))
        tags = {"poolbench.kind": "own model", "mlflow.note.content": note, "mlflow.source.name": "poolbench evaluate"}
        run_id = str(store.client.create_run(experiment, tags=tags, run_name=found.model.spec).info.run_id)
        try:
            _fill(store, experiment, run_id, found, folder)
        except BaseException:
            store.client.set_terminated(run_id, "FAILED")
            raise
        store.client.set_terminated(run_id, "FINISHED")
    return run_id


def _fill(store: Store, experiment: str, run_id: str, found: Evaluation, folder: Path) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelOutput, LoggedModelStatus, Metric, Param

    client, data, params = store.client, found.data, _params(found)
    name = Path(data.folder).resolve().name
    entry = Dataset(name, data.digest, "local", json.dumps({"uri": str(Path(data.folder).resolve())}))
    client.log_inputs(run_id, [DatasetInput(entry, [InputTag("mlflow.data.context", "evaluation")])])
    model = client.create_logged_model(
        experiment, FORBIDDEN.sub("_", found.model.spec), run_id, params=dict(params), model_type="image classifier"
    )
    now = int(time.time() * 1000)
    points = [
        Metric(key, value, now, 0, model_id=model.model_id, dataset_name=name, dataset_digest=data.digest)
        for key, value in metrics_of(found).items()
    ]
    client.log_batch(run_id, metrics=points, params=[Param(key, value) for key, value in params.items()])
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, 0)])
    for file in (PAGE, NUMBERS, IMAGES):
        client.log_artifact(run_id, str(folder / file))


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
