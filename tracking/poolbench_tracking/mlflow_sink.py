"""The ledger projected into MLflow: an experiment per task, a run per comparison group, a child run per seed.

Commands have runs of their own, in an experiment of their own. Runs are found by their tags, so a second projection
changes nothing. The digest of a group covers its seeds: where it agrees, the seeds are not even read. Metrics cannot be
taken back in MLflow. So a group that got seeds is written as a new run, its children get the new parent, and the old
run is deleted.

Several work folders can share a server. A folder takes over the runs of the cells that it holds. It leaves alone the
runs of other cells and their groups: a group whose seeds lie in two folders has a run for each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from poolbench.analysis.groups import AXES
from poolbench.core import Result
from poolbench.registry import benchmarks
from poolbench.runner.evidence import read_evidence
from poolbench.runner.invocation import Invocation
from poolbench.runner.ledger import Ledger
from poolbench.tune.record import StudyRecord, records
from poolbench_tracking.links import Links
from poolbench_tracking.mlflow_errors import TrackingUnavailable, reported
from poolbench_tracking.mlflow_members import members_of
from poolbench_tracking.mlflow_names import split_settings
from poolbench_tracking.mlflow_notes import experiment_note, group_notes
from poolbench_tracking.mlflow_runs import (
    ATTEMPT,
    CELL,
    CLOSED,
    DIGEST,
    GROUP,
    KIND,
    LEARNED,
    NOTE,
    PARENT,
    Members,
    add_params,
    attempt_of,
    changes_of,
    close_invocation_run,
    create_cell_run,
    create_group_run,
    create_invocation_run,
    fill_group_run,
    is_sealed,
    learned_of,
    seal_group_run,
)
from poolbench_tracking.mlflow_store import Store, default_uri, writing_lock
from poolbench_tracking.mlflow_studies import experiment_name, write_study
from poolbench_tracking.mlflow_views import GROUPS, SEEDS, TRIALS, view_link, views

if TYPE_CHECKING:
    from mlflow.entities import Run

__all__ = ["MlflowSink", "TrackingUnavailable", "default_uri"]

COMMANDS = "poolbench commands"
COMMANDS_NOTE = "One run per command that executed cells: what became of them, the report, and where it ran."


class MlflowSink:
    """Projects results into one MLflow store.

    Every method raises TrackingUnavailable if the store fails. A lock in the work folder keeps concurrent
    launchers from projecting the same cell twice, another from syncing at once.
    """

    def __init__(self, folder: Path, uri: str | None = None) -> None:
        self.lock = writing_lock(folder)
        self.sync_lock = FileLock(folder / "sync.lock", is_singleton=True)
        self.uri = uri or default_uri(folder)
        self._parents: dict[str, str] = {}
        with self._writing():
            self.store = Store(folder, self.uri)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        with reported(self.uri), self.lock:
            yield

    def sync(self, ledgers: Sequence[Ledger], on_group: Callable[[int, int], None] = lambda done, total: None) -> int:
        """Project everything that is missing; return the number of new runs of seeds.

        ``on_group(done, total)`` is called after each group.
        """
        # Whoever writes last has read last: an older reading must not replace a newer one.
        with self.sync_lock:
            return self._sync(ledgers, on_group)

    def _sync(self, ledgers: Sequence[Ledger], on_group: Callable[[int, int], None]) -> int:
        found = [read_evidence(ledger) for ledger in ledgers]
        groups, written, done = members_of(found), 0, 0
        notes = {group: note for one in found for group, note in group_notes(one).items()}
        total = sum(map(len, groups.values()))
        for experiment, members in groups.items():
            for one in self._sync_experiment(experiment, members, notes):
                written, done = written + one, done + 1
                on_group(done, total)
        for ledger, evidence in zip(ledgers, found, strict=True):
            for invocation in ledger.invocations():
                self._sync_invocation(invocation, evidence.results)
        for ledger in ledgers:
            for record in records(ledger.folder):
                self.project_study(record)
        self._parents.clear()
        return written

    def project_study(self, record: StudyRecord) -> None:
        """Write the missing runs of a tuning study."""
        if not record.unregistered:
            with self._writing():
                write_study(self.store, record)

    def project(self, result: Result, invocation: Invocation) -> None:
        """Write the run of a cell that has just ended, so that it is to be seen while its command runs.

        The run of its group has no numbers yet if it is new; :meth:`sync` completes it.
        """
        if result.status not in ("finished", "failed") or result.cell.benchmark not in benchmarks.names():
            return
        # What varies is not known before all results are: the name has all axes.
        axes = [name for name in AXES if name in result.cell.fields]
        members = Members(benchmarks.get(result.cell.benchmark)(), [result], axes)
        with self._writing():
            experiment, group = self._experiment(members), result.cell.group
            if group not in self._parents:
                groups = self.store.runs(experiment, kind="group", group=group)
                existing = next((run for run in groups if self.store.owns(run)), None)
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
        runs: dict[str, str] = {}
        address = self.store.address
        with reported(self.uri):
            experiments = self._experiments()
            for experiment in experiments:
                for run in self.store.runs(experiment, kind="seed"):
                    if run.info.status == "FINISHED":
                        # The newest comes first.
                        link = f"{address}/#/experiments/{experiment}/runs/{run.info.run_id}"
                        runs.setdefault(run.data.tags[CELL], link)
        return Links(runs, {name: _views(address, key) for key, name in experiments.items()})

    def views(self, address: str) -> dict[str, str]:
        """Return {experiment: link to its groups, or to the trials of a study} for a UI at an address."""
        with reported(self.uri):
            found = {name: view_link(address, key, GROUPS) for key, name in self._experiments().items()}
            for record in records(self.store.folder):
                study = self.store.find_experiment(experiment_name(record))
                if study is not None and study.lifecycle_stage == "active":
                    found[study.name] = view_link(address, study.experiment_id, TRIALS)
        return found

    def _experiments(self) -> dict[str, str]:
        """Return {id: name} of the experiments of tasks, in the order of the tasks."""
        found = {}
        for name in benchmarks.names():
            experiment = self.store.find_experiment(name)
            if experiment is not None and experiment.lifecycle_stage == "active":
                found[experiment.experiment_id] = experiment.name
        return found

    def _experiment(self, members: Members) -> str:
        """Return the id of a group's experiment, which is made with its description and views if it does not exist."""
        return self.store.experiment(members.benchmark.name, experiment_note(members.benchmark), _views_of([members]))

    def _sync_experiment(self, name: str, groups: Sequence[Members], notes: Mapping[str, str]) -> Iterator[int]:
        """Complete an experiment, group by group; yield the number of new runs of seeds of each."""
        with self._writing():
            experiment = self._experiment(groups[0])
            existing: dict[str, list[Run]] = {}
            for run in self.store.runs(experiment, kind="group"):
                existing.setdefault(run.data.tags[GROUP], []).append(run)
        for members in groups:
            with self._writing():
                note = notes.get(members.cell.group, "")
                written = self._sync_group(experiment, members, note, existing.get(members.cell.group, []))
            yield written
        self._sweep(experiment, {members.cell.group for members in groups})
        with self._writing():
            tags = {NOTE: experiment_note(groups[0].benchmark), **_views_of(groups)}
            self.store.set_experiment_tags(name, tags)

    def _sync_group(self, experiment: str, members: Members, note: str, listed: Sequence[Run]) -> int:
        """Complete the run of a group and the runs of its seeds; return how many of these are new.

        ``listed`` are the runs of the group when the experiment was read. Another launcher may have written since
        then, so they are read again before anything is changed.
        """
        if len(listed) == 1 and is_sealed(listed[0], members) and not changes_of(listed[0], members, note):
            return 0
        runs = list(self.store.runs(experiment, kind="group", group=members.cell.group))
        current = next((run for run in runs if is_sealed(run, members)), None)
        if current is None:
            return self._write_group(experiment, members, note, runs)
        if len(runs) > 1:
            self._clear([run for run in runs if run is not current], self._children(experiment, members)[1])
        changes_of(current, members, note).write(self.store, current)
        return 0

    def _write_group(self, experiment: str, members: Members, note: str, old: Sequence[Run]) -> int:
        """Write the run of a group anew, with the runs of its seeds; return how many of these are new.

        If the run of another folder covers all of these seeds, as after a merge of folders, nothing is written.
        """
        known, foreign = self._children(experiment, members)
        keys = [(result.cell.id, attempt_of(result)) for result in members.results]
        above = {known[key].data.tags[PARENT] if key in known else "" for key in keys}
        if any(above == {run.info.run_id} and run.data.tags.get(DIGEST) and not self.store.owns(run) for run in old):
            return 0
        parent = create_group_run(self.store, experiment, members)
        for run in known.values():
            self.store.client.set_tag(run.info.run_id, PARENT, parent)
        written = 0
        for result in members.results:
            seed = known.get((result.cell.id, attempt_of(result)))
            if seed is None:
                create_cell_run(self.store, experiment, members, result, parent)
                written += 1
                continue
            if seed.data.tags.get(LEARNED) != learned_of(result):
                self.store.client.set_tag(seed.info.run_id, LEARNED, learned_of(result))
            add_params(self.store, seed, split_settings(result.cell.fields, members.varying)[0])
        fill_group_run(self.store, parent, members)
        if note:
            self.store.client.set_tag(parent, NOTE, note)
        self._clear(old, foreign)
        seal_group_run(self.store, parent, members)
        return written

    def _clear(self, groups: Sequence[Run], foreign: Set[str]) -> None:
        """Delete runs of a group, but those above ``foreign`` cells or that another folder is writing."""
        for run in groups:
            is_in_use = run.info.status == "RUNNING" and not self.store.owns(run)
            if run.info.run_id not in foreign and not is_in_use:
                self._delete(run)

    def _children(self, experiment: str, members: Members) -> tuple[dict[tuple[str, str], Run], set[str]]:
        """Return the runs of seeds of a group by (cell, attempt): those that have ended, one for each attempt.

        Also return the parents of runs whose cells only other folders hold. Deletes what is no result: repeated runs,
        runs that another launcher was writing when it died, and finished ones that the ledger does not know (any more).
        Failed attempts stay.
        """
        wanted = {(result.cell.id, attempt_of(result)) for result in members.results}
        cells = {cell for cell, _ in wanted}
        found: dict[tuple[str, str], Run] = {}
        foreign: set[str] = set()
        for run in list(self.store.runs(experiment, kind="seed", group=members.cell.group)):
            key = run.data.tags[CELL], run.data.tags.get(ATTEMPT, "")
            if key[0] not in cells and not self.store.owns(run):
                foreign.add(run.data.tags[PARENT])
            elif run.info.status == "RUNNING":
                if self.store.owns(run):
                    self._delete(run)
            elif key in found or (run.info.status == "FINISHED" and key not in wanted):
                self._delete(run)
            else:
                found[key] = run
        return found, foreign

    def _sweep(self, experiment: str, groups: Set[str]) -> None:
        """Delete what lost answers of a server left: a request was repeated, and a run that nobody knows was created.

        The runs of ``groups`` have been written and have ended. Those of other groups belong to a concurrent launcher.
        """
        with self._writing():
            for run in [run for run in self.store.unfinished(experiment) if self.store.owns(run)]:
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


def _views(address: str, experiment: str) -> dict[str, str]:
    return {name: view_link(address, experiment, view) for name, view in (("groups", GROUPS), ("seeds", SEEDS))}


def _views_of(groups: Sequence[Members]) -> dict[str, str]:
    """Return the saved views of an experiment as tags."""
    first = groups[0]
    params, _ = split_settings(first.cell.fields, first.varying)
    return views(first.benchmark, list(dict.fromkeys([*first.varying, *params])))
