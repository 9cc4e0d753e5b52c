"""The ledger projected into MLflow: an experiment per benchmark, a parent run per command, a child run per cell.

Runs are found by their tags (cell and end of its attempt; invocation), so a second projection changes
nothing. A cell's run that was interrupted while it was written is deleted and written again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from poolbench.analysis.learning import judged
from poolbench.core import Result
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Invocation, Ledger
from poolbench.task import Benchmark
from poolbench_tracking.mlflow_runs import (
    ATTEMPT,
    CELL,
    CLOSED,
    FOLDER,
    INVOCATION,
    LEARNED,
    attempt_of,
    create_cell_run,
    create_parent_run,
    learned_of,
    log_cell_artifacts,
    log_summary,
)
from poolbench_tracking.mlflow_store import Store, TrackingUnavailable, default_uri, milliseconds, reported

__all__ = ["MlflowSink", "TrackingUnavailable", "default_uri"]


class MlflowSink:
    """Projects results into one MLflow store.

    Every method raises TrackingUnavailable if the store fails. A lock in the work folder keeps concurrent
    launchers from projecting the same cell twice.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.lock = FileLock(folder / "mlflow.lock", is_singleton=True)
        self._parents: dict[tuple[str, str], str] = {}
        with self._writing():
            self.store = Store(folder, uri)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self.lock, reported():
            yield

    def sync(self, ledgers: Sequence[Ledger], on_cell: Callable[[], None] = lambda: None) -> int:
        """Project everything that is missing; return the number of new cell runs."""
        written = 0
        for ledger in ledgers:
            invocations = {invocation.id: invocation for invocation in ledger.invocations()}
            results = judged(ledger.results())
            for result in results:
                invocation = invocations.get(str(result.facts.get("invocation")))
                written += self.project(ledger, result, invocation)
                on_cell()
            for invocation in invocations.values():
                self.close(ledger, invocation, results)
        return written

    def project(self, ledger: Ledger, result: Result, invocation: Invocation | None) -> bool:
        """Write the run of a finished or failed cell unless it exists; return whether it was written.

        Whether a network has learned depends on the other results, so the tag of an existing run is corrected if
        the result says otherwise now.
        """
        if result.status not in ("finished", "failed") or result.cell.benchmark not in benchmarks.names():
            return False
        benchmark = benchmarks.get(result.cell.benchmark)()
        with self._writing():
            for run in self.store.tagged(self.store.experiment(benchmark), CELL, result.cell.id):
                if run.info.status == "RUNNING" and run.data.tags.get(FOLDER) == self.store.folder_id:
                    self.store.client.delete_run(run.info.run_id)
                elif run.data.tags.get(ATTEMPT) == attempt_of(result):
                    if "learned" in result.facts and run.data.tags.get(LEARNED) != learned_of(result):
                        self.store.client.set_tag(run.info.run_id, LEARNED, learned_of(result))
                    return False
            parent = self._parent(benchmark, invocation) if invocation else None
            run_id = create_cell_run(self.store, benchmark, result, parent)
            log_cell_artifacts(self.store, benchmark, ledger.record(result.cell.id), result, run_id)
            state = "FINISHED" if result.status == "finished" else "FAILED"
            self.store.client.set_terminated(run_id, state, end_time=milliseconds(result.ended))
        return True

    def close(self, ledger: Ledger, invocation: Invocation, results: Sequence[Result]) -> None:
        """End the parent runs of a command that has ended, with a summary; KILLED if its process died."""
        if invocation.is_running():
            return
        content = invocation.content
        members = [result for result in judged(results) if result.facts.get("invocation") == invocation.id]
        states = {"finished": "FINISHED", "failed": "FAILED"}
        # All benchmarks, not those of the members: a cell that was retried now belongs to a later invocation.
        for name in benchmarks.names():
            with self._writing():
                experiment = self.store.find_experiment(name)
                parents = self.store.tagged(experiment.experiment_id, INVOCATION, invocation.id) if experiment else []
                if not parents or parents[0].data.tags.get(CLOSED) == str(content["ended"]):
                    continue
                run_id = parents[0].info.run_id
                log_summary(self.store, ledger, benchmarks.get(name)(), members, run_id)
                self.store.client.set_tag(run_id, CLOSED, str(content["ended"]))
                last = content["ended"] or max((r.ended or 0 for r in members), default=0) or content["started"]
                state = states.get(content.get("outcome", ""), "KILLED")
                self.store.client.set_terminated(run_id, state, end_time=milliseconds(last))

    def links(self) -> dict[str, str]:
        """Return {cell id: URL in the MLflow UI} of all finished runs."""
        uri = self.store.uri
        base = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
        found = {}
        with reported():
            for name in benchmarks.names():
                experiment = self.store.find_experiment(name)
                for run in self.store.runs(experiment.experiment_id) if experiment else ():
                    if run.info.status == "FINISHED" and CELL in run.data.tags:
                        link = f"{base}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
                        found[run.data.tags[CELL]] = link
        return found

    def _parent(self, benchmark: Benchmark, invocation: Invocation) -> str:
        """Return the id of an invocation's parent run, which is created if it does not exist."""
        key = (benchmark.name, invocation.id)
        if key not in self._parents:
            found = self.store.tagged(self.store.experiment(benchmark), INVOCATION, invocation.id)
            self._parents[key] = found[0].info.run_id if found else create_parent_run(self.store, benchmark, invocation)
        return self._parents[key]
