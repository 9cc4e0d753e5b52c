"""The ledger projected into MLflow: an experiment per task, a run per comparison group, a child run per seed.

Commands have runs of their own, in an experiment of their own. Runs are found by their tags, so a second projection
changes nothing. The digest of a group covers its seeds: where it agrees, the seeds are not even read. Metrics cannot be
taken back in MLflow. So a group that got seeds is written as a new run, its children get the new parent, and the old
run is deleted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from filelock import FileLock

from poolbench.analysis.frames import varying_fields
from poolbench.core import Result
from poolbench.registry import benchmarks
from poolbench.runner.evidence import Evidence, read_evidence
from poolbench.runner.ledger import Invocation, Ledger
from poolbench.task import Benchmark
from poolbench_tracking.links import Links
from poolbench_tracking.mlflow_errors import TrackingUnavailable, reported
from poolbench_tracking.mlflow_names import split_settings
from poolbench_tracking.mlflow_notes import experiment_note, group_notes
from poolbench_tracking.mlflow_runs import (
    ATTEMPT,
    CELL,
    CLOSED,
    DIGEST,
    FOLDER,
    GROUP,
    KIND,
    LEARNED,
    PARENT,
    Members,
    add_params,
    attempt_of,
    close_invocation_run,
    create_cell_run,
    create_group_run,
    create_invocation_run,
    fill_group_run,
    learned_of,
    seal_group_run,
    update_group_run,
)
from poolbench_tracking.mlflow_store import Store, default_uri
from poolbench_tracking.mlflow_views import GROUPS, SEEDS, view_link, views

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["MlflowSink", "TrackingUnavailable", "default_uri"]

COMMANDS = "poolbench commands"
COMMANDS_NOTE = "One run per command that executed cells: what became of them, the report, and where it ran."


class MlflowSink:
    """Projects results into one MLflow store.

    Every method raises TrackingUnavailable if the store fails. A lock in the work folder keeps concurrent
    launchers from projecting the same cell twice.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.lock = FileLock(folder / "mlflow.lock", is_singleton=True)
        self.uri = uri or default_uri(folder)
        self._parents: dict[str, str] = {}
        with self._writing():
            self.store = Store(folder, self.uri)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with self.lock, reported(self.uri):
            yield

    def sync(self, ledgers: Sequence[Ledger], on_group: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Project everything that is missing; return the number of new runs of seeds.

        ``on_group(done, total)`` is called after each group.
        """
        written = 0
        for ledger in ledgers:
            found = read_evidence(ledger)
            groups = _members(found.results)
            notes = group_notes(found)
            done, total = 0, sum(map(len, groups.values()))
            for experiment, members in groups.items():
                for one in self._sync_experiment(experiment, members, found, notes):
                    written, done = written + one, done + 1
                    on_group(done, total)
            for invocation in ledger.invocations():
                self._sync_invocation(invocation, found.results)
        self._parents.clear()
        return written

    def project(self, result: Result, invocation: Invocation) -> None:
        """Write the run of a cell that has just ended, so that it is to be seen while its command runs.

        The run of its group has no numbers yet if it is new; :meth:`sync` completes it.
        """
        if result.status not in ("finished", "failed") or result.cell.benchmark not in benchmarks.names():
            return
        # What varies is not known before all results are.
        members = Members(benchmarks.get(result.cell.benchmark)(), [result], ())
        with self._writing():
            experiment = self._experiment(_experiment_name(result), members.benchmark)
            group = result.cell.group
            if group not in self._parents:
                existing = next(self.store.runs(experiment, kind="group", group=group), None)
                self._parents[group] = (
                    existing.info.run_id if existing else create_group_run(self.store, experiment, members)
                )
            self._open_invocation(invocation)
            seeds = self.store.runs(experiment, kind="seed", cell=result.cell.id)
            if all(run.data.tags.get(ATTEMPT) != attempt_of(result) for run in seeds):
                create_cell_run(self.store, experiment, members, result, self._parents[group])

    def publish(self, invocation: Invocation, folder: Path) -> None:
        """Log the files of a report with the run of the command that made it."""
        with self._writing():
            self.store.client.log_artifacts(self._open_invocation(invocation), str(folder), "report")

    def links(self) -> Links:
        """Return where the finished runs and the views are in the UI: a server's, or the one of ``poolbench ui``."""
        runs, address = {}, self.store.address
        with reported(self.uri):
            experiments = self._experiments()
            for experiment in experiments:
                for run in self.store.runs(experiment, kind="seed"):
                    if run.info.status == "FINISHED":
                        runs[run.data.tags[CELL]] = f"{address}/#/experiments/{experiment}/runs/{run.info.run_id}"
        return Links(runs, {name: _views(address, key) for key, name in experiments.items()})

    def views(self, address: str) -> dict[str, str]:
        """Return {experiment: link to its groups} for a UI at an address."""
        with reported(self.uri):
            return {name: view_link(address, key, GROUPS) for key, name in self._experiments().items()}

    def _experiments(self) -> dict[str, str]:
        """Return {id: name} of the experiments of tasks, in the order of the tasks."""
        found = {}
        for name in benchmarks.names():
            for suffix in ("", TUNING):
                experiment = self.store.find_experiment(name + suffix)
                if experiment is not None and experiment.lifecycle_stage == "active":
                    found[experiment.experiment_id] = experiment.name
        return found

    def _experiment(self, name: str, benchmark: Benchmark) -> str:
        return self.store.experiment(name, experiment_note(benchmark))

    def _sync_experiment(
        self, name: str, groups: Sequence[Members], found: Evidence, notes: Mapping[str, str]
    ) -> Iterator[int]:
        """Complete an experiment, group by group; yield the number of new runs of seeds of each."""
        benchmark = groups[0].benchmark
        with self._writing():
            experiment = self._experiment(name, benchmark)
            existing: dict[str, list[Run]] = {}
            for run in self.store.runs(experiment, kind="group"):
                existing.setdefault(run.data.tags[GROUP], []).append(run)
        for members in groups:
            with self._writing():
                runs = existing.get(members.cell.group, [])
                current = next((run for run in runs if run.data.tags.get(DIGEST) == members.digest), None)
                written = 0
                if current is None:
                    written = self._write_group(experiment, members, found, runs, notes)
                else:
                    update_group_run(self.store, current, members, notes.get(members.cell.group, ""))
            yield written
        self._sweep(experiment, {members.cell.group for members in groups})
        params, _ = split_settings(groups[0].cell.fields, groups[0].varying)
        with self._writing():
            self.store.set_experiment_tags(name, views(benchmark, [*groups[0].varying, *params]))

    def _write_group(
        self, experiment: str, members: Members, found: Evidence, old: Sequence[Run], notes: Mapping[str, str]
    ) -> int:
        """Write the run of a group anew, with the runs of its seeds; return how many of these are new."""
        parent = create_group_run(self.store, experiment, members)
        children = list(self.store.runs(experiment, kind="seed", group=members.cell.group)) if old else []
        written, attempts = 0, {run.data.tags.get(ATTEMPT): run for run in children}
        for run in children:
            # A run that another launcher of this folder was writing when it died.
            if run.info.status == "RUNNING" and run.data.tags.get(FOLDER) == self.store.folder_id:
                self._delete(run)
                del attempts[run.data.tags.get(ATTEMPT)]
            else:
                self.store.client.set_tag(run.info.run_id, PARENT, parent)
        for result in members.results:
            known = attempts.get(attempt_of(result))
            if known is None or known.data.tags.get(CELL) != result.cell.id:
                create_cell_run(self.store, experiment, members, result, parent)
                written += 1
                continue
            if known.data.tags.get(LEARNED) != learned_of(result):
                self.store.client.set_tag(known.info.run_id, LEARNED, learned_of(result))
            add_params(self.store, known, split_settings(result.cell.fields, members.varying)[0])
        records = {result.cell.id: found.record(result.cell.id) for result in members.results}
        fill_group_run(self.store, parent, members, found.images, records)
        if note := notes.get(members.cell.group):
            self.store.client.set_tag(parent, "mlflow.note.content", note)
        for run in old:
            self._delete(run)
        seal_group_run(self.store, parent, members)
        return written

    def _sweep(self, experiment: str, groups: Set[str]) -> None:
        """Delete what lost answers of a server left: a request was repeated, and a run that nobody knows was created.

        The runs of ``groups`` have been written and have ended. Those of other groups belong to a concurrent launcher.
        """
        with self._writing():
            for run in list(self.store.unfinished(experiment)):
                if run.data.tags[KIND] == "seed" or run.data.tags[GROUP] in groups:
                    self._delete(run)

    def _delete(self, run: Run) -> None:
        if run.info.status == "RUNNING":
            self.store.client.set_terminated(run.info.run_id, "KILLED")
        self.store.client.delete_run(run.info.run_id)

    def _open_invocation(self, invocation: Invocation) -> str:
        """Return the id of the run of a command, which is created if it does not exist."""
        experiment = self.store.experiment(COMMANDS, COMMANDS_NOTE)
        if invocation.id not in self._parents:
            existing = next(self.store.runs(experiment, invocation=invocation.id), None)
            self._parents[invocation.id] = (
                existing.info.run_id if existing else create_invocation_run(self.store, experiment, invocation)
            )
        return self._parents[invocation.id]

    def _sync_invocation(self, invocation: Invocation, results: Sequence[Result]) -> None:
        """Complete the run of a command that has ended."""
        if invocation.is_running():
            return
        with self._writing():
            experiment = self.store.experiment(COMMANDS, COMMANDS_NOTE)
            closed, known = str(invocation.content["ended"]), self._parents.get(invocation.id)
            found = list(self.store.runs(experiment, invocation=invocation.id))
            found.sort(key=lambda run: (run.data.tags.get(CLOSED) != closed, run.info.run_id != known))
            for repeated in found[1:]:
                self._delete(repeated)
            if found and found[0].data.tags.get(CLOSED) == closed:
                return
            members = [result for result in results if result.facts.get("invocation") == invocation.id]
            close_invocation_run(self.store, self._open_invocation(invocation), invocation, members)


TUNING = " (tuning)"


def _views(address: str, experiment: str) -> dict[str, str]:
    return {name: view_link(address, experiment, view) for name, view in (("groups", GROUPS), ("seeds", SEEDS))}


def _experiment_name(result: Result) -> str:
    """Return the name of a cell's experiment: trials of tuning, judged on validation images, have one of their own."""
    return result.cell.benchmark + ("" if result.cell.split == "test" else TUNING)


def _members(results: Sequence[Result]) -> dict[str, list[Members]]:
    """Return the groups of all finished and failed cells of known tasks, by experiment, from judged results."""
    found: dict[str, dict[str, list[Result]]] = {}
    known = set(benchmarks.names())
    for result in results:
        if result.status in ("finished", "failed") and result.cell.benchmark in known:
            found.setdefault(_experiment_name(result), {}).setdefault(result.cell.group, []).append(result)
    return {
        name: [
            Members(
                benchmarks.get(members[0].cell.benchmark)(), sorted(members, key=lambda r: r.cell.seed), varying
            )
            for members in groups.values()
        ]
        for name, groups in found.items()
        for varying in [_varying(groups)]
    }  # fmt: skip


def _varying(groups: Mapping[str, Sequence[Result]]) -> list[str]:
    """Return the fields that vary between the groups of an experiment."""
    return varying_fields(pd.DataFrame([members[0].cell.fields for members in groups.values()]))
