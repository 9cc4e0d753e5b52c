"""The ledger projected into MLflow: one experiment per task, a parent run per invocation, a child per cell.

Every write is keyed by tags (cell, end of the attempt, invocation), so projecting again changes
nothing, and a projection cut short is thrown away and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from poolbench.core import Result
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Invocation, Ledger
from poolbench.task import Benchmark

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from mlflow.entities import Run

CELL, ATTEMPT, INVOCATION, CLOSED, FOLDER = (
    "poolbench.cell", "poolbench.attempt", "poolbench.invocation", "poolbench.closed", "poolbench.folder",
)  # fmt: skip
BATCH_LIMIT = 1000
LARGEST_CSV = 1_000_000


class TrackingUnavailable(Exception):
    """MLflow is not installed, or its store cannot be reached; the ledger keeps everything meanwhile."""


def default_uri(folder: Path) -> str:
    """Return the address of the SQLite store inside a work folder."""
    return f"sqlite:///{folder.resolve()}/mlflow.db"


@contextmanager
def _reported() -> Iterator[None]:
    """Turn whatever MLflow, its store or a figure raises into TrackingUnavailable: a run must survive it."""
    try:
        yield
    except Exception as error:
        first_line = (str(error).strip() or "no message").splitlines()[0]
        raise TrackingUnavailable(f"{type(error).__name__}: {first_line[:160]}") from error


class MlflowSink:
    """Projects results into one MLflow store.

    Raises TrackingUnavailable from every method when the store fails; a lock in the work folder keeps
    concurrent launchers from projecting the same cell twice.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        # Without these a dead server is retried for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        # stdout is for data.
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        try:
            import mlflow
        except ImportError as error:
            raise TrackingUnavailable(f"mlflow is not installed ({error})") from error
        self.folder = folder
        self.uri = uri or default_uri(folder)
        # On a server that several work folders share, each mends only what it left behind itself.
        self.folder_id = hashlib.sha256(f"{platform.node()}:{folder.resolve()}".encode()).hexdigest()[:16]
        self.lock = FileLock(folder / "mlflow.lock", is_singleton=True)
        self._experiments: dict[str, str] = {}
        self._parents: dict[tuple[str, str], str] = {}
        with self.lock, _reported():
            self.client = mlflow.MlflowClient(tracking_uri=self.uri)
            self.client.search_experiments(max_results=1)

    def sync(self, ledgers: Sequence[Ledger], on_cell: Callable[[], None] = lambda: None) -> int:
        """Project everything that is not there yet; return the number of new cell runs."""
        written = 0
        for ledger in ledgers:
            invocations = {invocation.id: invocation for invocation in ledger.invocations()}
            results = ledger.results()
            for result in results:
                invocation = invocations.get(str(result.facts.get("invocation")))
                written += self.project(ledger, result, invocation)
                on_cell()
            for invocation in invocations.values():
                self.close(ledger, invocation, results)
        return written

    def project(self, ledger: Ledger, result: Result, invocation: Invocation | None) -> bool:
        """Make the run of a finished or failed cell unless it exists; return whether it was made."""
        if result.status not in ("finished", "failed"):
            return False
        benchmark = benchmarks.get(result.cell.benchmark)()
        with self.lock, _reported():
            experiment = self._experiment(benchmark)
            attempt = f"{result.ended:.6f}"
            for run in self._search(experiment, CELL, result.cell.id):
                if run.info.status == "RUNNING" and run.data.tags.get(FOLDER) == self.folder_id:
                    self.client.delete_run(run.info.run_id)
                elif run.data.tags.get(ATTEMPT) == attempt:
                    return False
            parent = self._parent(benchmark, invocation) if invocation else None
            run_id = self._create(benchmark, result, experiment, parent, attempt)
            self._log_artifacts(benchmark, ledger, result, run_id)
            state = "FINISHED" if result.status == "finished" else "FAILED"
            self.client.set_terminated(run_id, state, end_time=_milliseconds(result.ended))
        return True

    def close(self, ledger: Ledger, invocation: Invocation, results: Sequence[Result]) -> None:
        """End the parent runs of an invocation that has ended, with its summary; a dead one is KILLED."""
        if invocation.is_running():
            return
        content = invocation.content
        own = [result for result in results if result.facts.get("invocation") == invocation.id]
        states = {"finished": "FINISHED", "failed": "FAILED"}
        # All tasks, not those of its results: a cell that was retried belongs to another invocation now.
        for name in benchmarks.names():
            benchmark = benchmarks.get(name)()
            with self.lock, _reported():
                experiment = self.client.get_experiment_by_name(name)
                parents = self._search(experiment.experiment_id, INVOCATION, invocation.id) if experiment else []
                if not parents or parents[0].data.tags.get(CLOSED) == str(content["ended"]):
                    continue
                run_id = parents[0].info.run_id
                self._log_summary(ledger, benchmark, own, run_id)
                self.client.set_tag(run_id, CLOSED, str(content["ended"]))
                last = content["ended"] or max((result.ended or 0 for result in own), default=0) or content["started"]
                state = states.get(content.get("outcome", ""), "KILLED")
                self.client.set_terminated(run_id, state, end_time=_milliseconds(last))

    def links(self) -> dict[str, str]:
        """Return {cell id: address in the MLflow UI} of all finished runs."""
        base = self.uri.rstrip("/") if self.uri.startswith("http") else "http://127.0.0.1:5000"
        found = {}
        with _reported():
            for name in benchmarks.names():
                experiment = self.client.get_experiment_by_name(name)
                for run in self._all_runs(experiment.experiment_id) if experiment else ():
                    if run.info.status == "FINISHED" and CELL in run.data.tags:
                        link = f"{base}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
                        found[run.data.tags[CELL]] = link
        return found

    def _all_runs(self, experiment: str) -> Iterator[Run]:
        token = None
        while True:
            page = self.client.search_runs([experiment], max_results=1000, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _search(self, experiment: str, tag: str, value: str) -> list[Run]:
        return list(self.client.search_runs([experiment], filter_string=f"tags.`{tag}` = '{value}'"))

    def _experiment(self, benchmark: Benchmark) -> str:
        if benchmark.name not in self._experiments:
            existing = self.client.get_experiment_by_name(benchmark.name)
            if existing is None:
                # A local store keeps its artifacts beside itself; a server decides for itself.
                local = self.uri.startswith("sqlite:")
                place = (self.folder / "mlartifacts" / benchmark.name).resolve().as_uri() if local else None
                tags = {
                    "mlflow.experimentKind": "custom_model_development",
                    "mlflow.note.content": f"{benchmark.question}\n\n{benchmark.protocol}",
                }
                self._experiments[benchmark.name] = self.client.create_experiment(benchmark.name, place, tags)
            else:
                self._experiments[benchmark.name] = existing.experiment_id
        return self._experiments[benchmark.name]

    def _parent(self, benchmark: Benchmark, invocation: Invocation) -> str:
        key = (benchmark.name, invocation.id)
        if key not in self._parents:
            experiment = self._experiment(benchmark)
            found = self._search(experiment, INVOCATION, invocation.id)
            if found:
                self._parents[key] = found[0].info.run_id
            else:
                content = invocation.content
                run = self.client.create_run(
                    experiment,
                    start_time=_milliseconds(content["started"]),
                    run_name=f"{content['command']} ({invocation.id})",
                    tags={
                        INVOCATION: invocation.id,
                        "mlflow.source.name": content["command"],
                        "mlflow.note.content": "All cells that this command executed; their runs are its children.",
                    },
                )
                self.client.log_batch(run.info.run_id, params=_params({"preset": content["preset"]}))
                self._parents[key] = run.info.run_id
        return self._parents[key]

    def _create(self, benchmark: Benchmark, result: Result, experiment: str, parent: str | None, attempt: str) -> str:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        cell, facts = result.cell, result.facts
        environment = dict(facts.get("environment", {}))
        tags = {
            CELL: cell.id,
            ATTEMPT: attempt,
            FOLDER: self.folder_id,
            "poolbench.group": cell.group,
            "poolbench.split": cell.split,
            "poolbench.learned": str(facts.get("learned", "")),
            "mlflow.source.name": "poolbench",
            "mlflow.source.git.commit": environment.pop("git_commit", ""),
            "mlflow.note.content": f"{benchmark.question}\n\n`{cell.label}`",
            **{f"env.{key}": str(value) for key, value in environment.items()},
        }
        if result.reason:
            tags["poolbench.reason"] = result.reason[:1000]
        if parent:
            tags["mlflow.parentRunId"] = parent
        name = cell.label.partition(" ")[2]
        run = self.client.create_run(experiment, _milliseconds(result.started), tags, name)
        run_id: str = run.info.run_id
        metrics = _metrics(result)
        self.client.log_batch(
            run_id,
            metrics=metrics[:BATCH_LIMIT],
            params=_params({"seed": cell.seed, "split": cell.split, "version": cell.version, **cell.fields}),
        )
        for start in range(BATCH_LIMIT, len(metrics), BATCH_LIMIT):
            self.client.log_batch(run_id, metrics=metrics[start : start + BATCH_LIMIT])
        if "data" in facts:
            data = facts["data"]
            entry = Dataset(data["name"], data["digest"][:36], "local", json.dumps({"source": data["source"]}))
            self.client.log_inputs(run_id, [DatasetInput(entry, [InputTag("mlflow.data.context", "training")])])
        return run_id

    def _log_artifacts(self, benchmark: Benchmark, ledger: Ledger, result: Result, run_id: str) -> None:
        from poolbench_tracking.figures import cell_figures

        record = ledger.record(result.cell.id)
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            if result.traceback:
                (place / "traceback.txt").write_text(result.traceback)
            if result.status == "finished":
                _write_figures(place / "figures", lambda: cell_figures(benchmark, result, record))
                for path in record.folder.glob("*.parquet"):
                    content = record.table(path.stem).to_csv(index=False).encode()
                    # The UI shows a CSV as a table; a long one stays compact.
                    if len(content) <= LARGEST_CSV:
                        (place / f"{path.stem}.csv").write_bytes(content)
                    else:
                        (place / path.name).write_bytes(path.read_bytes())
                rows = [f"{name},{value}" for name, value in result.metrics.items()]
                (place / "metrics.csv").write_text("\n".join(["metric,value", *rows]) + "\n")
            self.client.log_artifacts(run_id, folder)

    def _log_summary(self, ledger: Ledger, benchmark: Benchmark, results: Sequence[Result], run_id: str) -> None:
        from mlflow.entities import Metric

        from poolbench.analysis.frames import results_frame
        from poolbench_tracking.figures import summary_figures

        finished = [r for r in results if r.status == "finished" and r.cell.benchmark == benchmark.name]
        failed = [r for r in results if r.status == "failed" and r.cell.benchmark == benchmark.name]
        stamp = max((_milliseconds(r.ended) or 0 for r in [*finished, *failed]), default=0)
        counts = {"cells_finished": len(finished), "cells_failed": len(failed)}
        self.client.log_batch(run_id, metrics=[Metric(key, float(n), stamp, 0) for key, n in counts.items()])
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            results_frame(finished).to_csv(place / "results.csv", index=False)
            if finished:
                _write_figures(place / "figures", lambda: summary_figures(benchmark, finished, ledger))
            self.client.log_artifacts(run_id, folder)


def _write_figures(folder: Path, draw: Callable[[], Mapping[str, Figure]]) -> None:
    """Write figures as PNG; one that cannot be drawn must not keep all later runs from MLflow."""
    from poolbench.plots.style import to_png

    folder.mkdir()
    try:
        for name, figure in draw().items():
            (folder / f"{name}.png").write_bytes(to_png(figure))
    except Exception:
        (folder / "failed.txt").write_text(traceback.format_exc())


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds * 1000)


def _params(values: Mapping[str, Any]) -> list[Any]:
    from mlflow.entities import Param

    return [Param(key, str(value)) for key, value in values.items()]


def _metrics(result: Result) -> list[Any]:
    """Per-epoch metrics at their steps and times, then the final ones that no epoch has."""
    from mlflow.entities import Metric

    found, series = [], set()
    for row in result.history:
        for name, value in row.items():
            if name not in ("epoch", "time") and isfinite(value):
                series.add(name)
                found.append(Metric(name, value, int(row["time"] * 1000), int(row["epoch"])))
    end = _milliseconds(result.ended) or 0
    facts = {name: result.facts[name] for name in ("seconds_fit", "seconds_measure") if name in result.facts}
    for name, value in {**result.metrics, **facts}.items():
        if name not in series and isfinite(value):
            found.append(Metric(name, float(value), end, len(result.history)))
    return found
