"""The connection to an MLflow store: opening it, finding runs, and one error for all that can fail."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run

PAGE = 1000
LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where ``poolbench ui`` serves a local store unless told otherwise."""


class TrackingUnavailable(Exception):
    """MLflow is not installed or its store failed. No result is lost: the ledger has them all."""


def default_uri(folder: Path) -> str:
    """Return the URI of the SQLite store inside a work folder."""
    return f"sqlite:///{folder.resolve()}/mlflow.db"


@contextmanager
def reported() -> Iterator[None]:
    """Turn any exception of MLflow or its store into TrackingUnavailable, which does not stop a run."""
    try:
        yield
    except TrackingUnavailable:
        raise
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise TrackingUnavailable(f"{type(error).__name__}: {first_line[:160]}") from error


class Store:
    """One MLflow store, used from one work folder.

    Raises TrackingUnavailable if MLflow is not installed or the store cannot be opened; other methods
    raise what MLflow raises (see :func:`reported`).
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        # Without these, MLflow retries an unreachable server for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # stdout is for data.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        # Nor are lines about the making of tables between those of a run.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            import mlflow
        except ImportError as error:
            raise TrackingUnavailable(f"mlflow is not installed ({error})") from error
        self.folder = folder
        self.uri = uri or default_uri(folder)
        # Several work folders can share a server; each removes only its own unfinished runs.
        self.folder_id = hashlib.sha256(f"{platform.node()}:{folder.resolve()}".encode()).hexdigest()[:16]
        self._experiments: dict[str, str] = {}
        with reported():
            self.client = mlflow.MlflowClient(tracking_uri=self.uri)
            self.client.search_experiments(max_results=1)

    def experiment(self, name: str, description: str) -> str:
        """Return the id of an experiment, which is made with this description if it does not exist."""
        if name not in self._experiments:
            existing = self.find_experiment(name)
            made = self._create_experiment(name, description) if existing is None else existing.experiment_id
            self._experiments[name] = made
        return self._experiments[name]

    def find_experiment(self, name: str) -> Experiment | None:
        """Return the experiment of that name, None if there is none."""
        return self.client.get_experiment_by_name(name)

    def _create_experiment(self, name: str, description: str) -> str:
        # A local store keeps its artifacts next to it; a server decides where they go.
        local = self.uri.startswith("sqlite:")
        place = (self.folder / "mlartifacts" / name.replace(" ", "-")).resolve().as_uri() if local else None
        tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": description}
        return self.client.create_experiment(name, place, tags)

    def set_experiment_tags(self, name: str, tags: Mapping[str, str]) -> None:
        """Set those tags of an existing experiment that have another value."""
        experiment = self.find_experiment(name)
        assert experiment is not None
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)

    def runs(self, experiment: str, **tags: str) -> Iterator[Run]:
        """Yield the runs of an experiment that have these values of the tags "poolbench.NAME", page by page."""
        conditions = " and ".join(f"tags.`poolbench.{name}` = '{value}'" for name, value in tags.items())
        token = None
        while True:
            page = self.client.search_runs([experiment], conditions, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    @property
    def address(self) -> str:
        """The address of the UI: the server's, or that of ``poolbench ui`` for a local store."""
        return self.uri.rstrip("/") if self.uri.startswith("http") else LOCAL_SERVER


def milliseconds(seconds: float | None) -> int | None:
    """Return seconds since 1970 as MLflow counts time, None for None."""
    return None if seconds is None else int(seconds * 1000)
