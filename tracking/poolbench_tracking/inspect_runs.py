"""The files of an inspected cell as artifacts of the cell's run in MLflow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from poolbench.core import Cell
from poolbench_tracking.mlflow_errors import reported
from poolbench_tracking.mlflow_store import Store, default_uri

ARTIFACTS = "inspect"


def log_inspection(cell: Cell, files: Sequence[Path], folder: Path, uri: str | None) -> str | None:
    """Log files as artifacts of the run of a cell of a work folder; return the run's id, None if it has no run.

    ``uri`` is the store, None for the one in the folder, which is not made. Raises TrackingUnavailable.
    """
    if uri in (None, default_uri(folder)) and not (folder / "mlflow.db").exists():
        return None
    store = Store(folder, uri)
    with reported(store.uri):
        experiment = store.find_experiment(cell.benchmark)
        if experiment is None:
            return None
        runs = store.runs(experiment.experiment_id, kind="seed", cell=cell.id)
        run = next((run for run in runs if store.owns(run)), None)
        if run is None:
            return None
        for file in files:
            store.client.log_artifact(run.info.run_id, str(file), ARTIFACTS)
        return str(run.info.run_id)
