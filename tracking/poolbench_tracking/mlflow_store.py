"""The connection to an MLflow store, a database or a server: opening it, finding experiments and runs."""

from __future__ import annotations

import logging
import os
import re
import sqlite3
import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING
from urllib.parse import quote

from filelock import FileLock

from poolbench.files import write_atomically
from poolbench.runner.examine import Finding, move_aside
from poolbench_tracking.mlflow_errors import TrackingUnavailable, reported, without_user

if TYPE_CHECKING:
    from mlflow.entities import Experiment, Run

PAGE = 1000
DATABASE, ARTIFACTS = "mlflow.db", "mlartifacts"
LOCAL_SERVER = "http://127.0.0.1:5000"
"""Where ``poolbench ui`` serves a local store unless told otherwise."""


def default_uri(folder: Path) -> str:
    """Return the URI of the SQLite store inside a work folder."""
    return _sqlite_uri(folder.resolve() / DATABASE)


def _sqlite_uri(path: Path) -> str:
    """Return the URI of a SQLite database, in which SQLAlchemy decodes "%41", and "?" begins the options."""
    plain = str(path)
    quoted = plain.replace("%", "%25").replace("?", "%3F")
    # Without a driver in the URI, MLflow makes the folder that the path names as it stands in the URI, quoted.
    return f"{'sqlite' if quoted == plain else 'sqlite+pysqlite'}:///{quoted}"


def writing_lock(folder: Path) -> FileLock:
    """Return the lock of a work folder for whoever writes to its store: no other process of the folder does then."""
    return FileLock(folder / "mlflow.lock", is_singleton=True)


def is_server(uri: str) -> bool:
    """Return whether a URI is that of a server, which has a UI and keeps artifacts; else it is a database's."""
    return uri.startswith(("http://", "https://"))


def folder_name(experiment: str) -> str:
    """Return the name of the folder of an experiment's artifacts; parts of its name may be a stranger's."""
    return re.sub(r"[^\w()-]+", "-", experiment, flags=re.ASCII)[:100]


class Store:
    """One MLflow store, used from one work folder.

    Raises TrackingUnavailable if MLflow is not installed or the store cannot be opened; other methods
    raise what MLflow raises (see :func:`reported`).
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        # Without these, MLflow waits for a server that does not answer for a quarter of an hour.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # Whoever sets MLFLOW_TRACKING_INSECURE_TLS knows; the warning would come with every request.
        warnings.filterwarnings("ignore", "Unverified HTTPS request")
        # stdout is for data, and stderr for the progress of a run, warnings and errors.
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.ERROR)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        try:
            import mlflow
        except ImportError as error:
            raise TrackingUnavailable(f"mlflow is not installed ({error})") from error
        self.folder = folder
        self.uri = uri or default_uri(folder)
        self._experiments: dict[str, str] = {}
        with reported(self.uri):
            if self.uri == default_uri(folder):
                _check_path(folder.resolve() / DATABASE)
                _create_database(folder / DATABASE)
                _correct_artifact_places(folder)
            if not is_server(self.uri):
                _check_database(self.uri)
            self.client = mlflow.MlflowClient(tracking_uri=self.uri)
            self.client.search_experiments(max_results=1)
        self.folder_id = _folder_id(folder)

    def experiment(self, name: str, description: str, tags: Mapping[str, str] = MappingProxyType({})) -> str:
        """Return the id of an experiment, which is made with this description and tags if it does not exist."""
        if name not in self._experiments:
            existing = self.find_experiment(name)
            made = self._create_experiment(name, description, tags) if existing is None else existing.experiment_id
            if existing is not None and existing.lifecycle_stage == "deleted":
                self.client.restore_experiment(made)
            self._experiments[name] = made
        return self._experiments[name]

    def find_experiment(self, name: str) -> Experiment | None:
        """Return the experiment of that name, None if there is none."""
        return self.client.get_experiment_by_name(name)

    def _create_experiment(self, name: str, description: str, more: Mapping[str, str]) -> str:
        from mlflow.exceptions import MlflowException

        # A local store keeps its artifacts next to it; a server decides where they go.
        place = f"{_artifacts(self.folder)}{quote(folder_name(name))}" if self.uri.startswith("sqlite") else None
        tags = {"mlflow.experimentKind": "custom_model_development", "mlflow.note.content": description, **more}
        try:
            return self.client.create_experiment(name, place, tags)
        except MlflowException as error:
            # Another work folder on the same server was faster.
            if error.error_code != "RESOURCE_ALREADY_EXISTS" or (existing := self.find_experiment(name)) is None:
                raise
            return existing.experiment_id

    def set_experiment_tags(self, name: str, tags: Mapping[str, str]) -> None:
        """Set those tags of an existing experiment that have another value."""
        experiment = self.find_experiment(name)
        assert experiment is not None
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)

    def runs(self, experiment: str, **tags: str) -> Iterator[Run]:
        """Yield the runs of an experiment that have these values of the tags "poolbench.NAME", page by page."""
        yield from self._search(experiment, [f"tags.`poolbench.{name}` = '{value}'" for name, value in tags.items()])

    def unfinished(self, experiment: str) -> Iterator[Run]:
        """Yield the runs that are RUNNING, page by page."""
        yield from self._search(experiment, ["attributes.status = 'RUNNING'"])

    def owns(self, run: Run) -> bool:
        """Return whether a run is of this work folder. Several folders can share a server, none a local store."""
        return not is_server(self.uri) or run.data.tags.get("poolbench.folder") == self.folder_id

    def _search(self, experiment: str, conditions: Sequence[str]) -> Iterator[Run]:
        token, query = None, " and ".join(conditions)
        while True:
            page = self.client.search_runs([experiment], query, max_results=PAGE, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    @property
    def address(self) -> str:
        """The address of the UI: the server's, or that of ``poolbench ui`` for a local store."""
        return without_user(self.uri).rstrip("/") if is_server(self.uri) else LOCAL_SERVER


def _check_path(path: Path) -> None:
    """Raise TrackingUnavailable for a path that SQLAlchemy would read otherwise, or that MLflow cannot store."""
    from sqlalchemy.engine import make_url

    # SQLAlchemy 2.0 does not decode "%3F". MLflow stores Unicode only, which names of folders need not be.
    if make_url(_sqlite_uri(path)).database != str(path).encode(errors="replace").decode():
        raise TrackingUnavailable(f"MLflow cannot have a store at '{path}'; choose another --out")


def _create_database(path: Path) -> None:
    """Create the SQLite store of a work folder unless it exists: whole, also if this process is killed meanwhile."""
    import mlflow

    with writing_lock(path.parent):
        if path.exists():
            return
        for torn in path.parent.glob(f".{DATABASE}.*.tmp*"):
            torn.unlink(missing_ok=True)
        aside = path.with_name(f".{DATABASE}.{uuid.uuid4().hex[:8]}.tmp")
        # MLflow makes its tables one by one. It cannot use a store that has only some of them.
        mlflow.MlflowClient(tracking_uri=_sqlite_uri(aside.resolve())).search_experiments(max_results=1)
        os.replace(aside, path)


def _artifacts(folder: Path) -> str:
    """Return the start of the URIs of artifacts in a work folder."""
    return f"{folder.resolve().as_uri()}/{ARTIFACTS}/"


def _correct_artifact_places(folder: Path) -> None:
    """Let the runs of the store of a work folder that was copied or moved have their artifacts in this folder.

    MLflow keeps absolute places: a copy would write into the original.
    """
    with writing_lock(folder), closing(sqlite3.connect(folder / DATABASE)) as database, database:
        found = database.execute("SELECT experiment_id, artifact_location FROM experiments").fetchall()
        for experiment, place in found:
            _, separator, name = (place or "").rpartition(f"/{ARTIFACTS}/")
            here = f"{_artifacts(folder)}{name}"
            if separator and place != here:
                database.execute(
                    "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                    "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                    (here, len(place) + 1, experiment, len(place) + 1, f"{place}/"),
                )
                database.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here, experiment)
                )


def examine_store(folder: Path) -> Iterator[Finding]:
    """Yield what is wrong with the SQLite store of a work folder; nothing if it has none."""
    path = folder / DATABASE
    if not path.exists():
        return
    what = f"the MLflow store '{path}'"
    try:
        if (state := _state_of(path)) != "ok":
            parts = [path, *(path.with_name(path.name + suffix) for suffix in ("-journal", "-wal", "-shm"))]
            remedy = "it is moved to 'damaged'; 'poolbench sync' writes it anew"
            yield Finding(f"{what}: {state}", remedy, partial(move_aside, folder, *parts))
    except sqlite3.Error as error:
        # In use, or not readable for this user: nothing is known about its content.
        yield Finding(f"{what} cannot be checked: {error}", "end what uses it, or make it readable", None)


def _state_of(path: Path) -> str:
    """Return "ok" or how a database is damaged; raise sqlite3.Error if that cannot be told."""
    try:
        # Not read-only: what a killed process left half done is undone first.
        with closing(sqlite3.connect(f"file:{quote(str(path.resolve()))}?mode=rw", uri=True)) as database:
            (state,) = database.execute("PRAGMA quick_check(1)").fetchone()
            if state == "ok":
                (revisions,) = database.execute("SELECT count(*) FROM alembic_version").fetchone()
                state = "ok" if revisions else "its tables are incomplete"
            return str(state)
    except sqlite3.Error as error:
        # SQLITE_ERROR: a table is missing.
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise
        return str(error)


def _check_database(uri: str) -> None:
    """Connect once: MLflow tries again for two minutes, with warnings. Raises what the database's driver raises."""
    from sqlalchemy import create_engine

    engine = create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def _folder_id(folder: Path) -> str:
    """Return the id of a work folder, which stays when it is moved or the host gets another name."""
    path = folder / "folder.id"
    if not path.exists():
        write_atomically(path, uuid.uuid4().hex[:16].encode())
    return path.read_text()


def milliseconds(seconds: float | None) -> int | None:
    """Return seconds since 1970 as MLflow counts time, None for None."""
    return None if seconds is None else int(seconds * 1000)
