"""Bring studies to their budgets, in one process of several: trials first, then confirmations."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import optuna
from optuna.exceptions import StorageInternalError

from poolbench.core import Cell, Result, UsageError
from poolbench.files import storage
from poolbench.runner.attempt import Settings
from poolbench.runner.execute import execute
from poolbench.runner.group import Silent
from poolbench.tune.confirmation import confirm
from poolbench.tune.design import Budget, Design
from poolbench.tune.record import StudyRecord, Trial
from poolbench.tune.storage import open_storage
from poolbench.tune.study import Study, queue_again
from poolbench.tune.trial import RunCells, run_trial

POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Plan:
    """What to tune: a cell of each group, the design and budget of each study, the work folder and the storage."""

    cells: Sequence[Cell]
    design: Design
    budget: Budget
    out: Path
    url: str | None = None


class Listener(Protocol):
    """Callbacks for the progress of tuning."""

    def trial_ended(self, record: StudyRecord, trial: Trial) -> None: ...

    def study_ended(self, record: StudyRecord) -> None: ...


def groups_of(cells: Sequence[Cell]) -> list[Cell]:
    """Return one cell per comparison group, the one with the lowest seed."""
    chosen: dict[str, Cell] = {}
    for cell in cells:
        if cell.group not in chosen or cell.seed < chosen[cell.group].seed:
            chosen[cell.group] = cell
    return list(chosen.values())


def tune(plan: Plan, settings: Settings, listener: Listener, worker: int = 0) -> list[StudyRecord]:
    """Bring every study of the plan to its budget, confirm its best trials, and return the records.

    Several processes may tune one plan, each with a ``worker`` number of its own: a trial runs in one of them, and lost
    trials are repeated. The first pass takes trials as long as there are any, the second waits for those of others.
    Raises MissingData for absent data, StorageError for a folder that cannot be written, UsageError for a database that
    is gone.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with storage(plan.out):
            return _tune(plan, settings, listener, worker)
    except StorageInternalError as error:
        reason = str(error).strip().partition("\n")[0]
        raise UsageError(
            f"the database of --storage failed ({reason}); when it is back, the same command goes on"
        ) from error


def _tune(plan: Plan, settings: Settings, listener: Listener, worker: int) -> list[StudyRecord]:
    where = open_storage(plan.out / "tuning", plan.url, queue_again)
    studies = [Study(plan.out, cell, plan.design, plan.budget, where, worker) for cell in plan.cells]
    runs = [_runner(study, settings) for study in studies]
    for study, run in zip(studies, runs, strict=True):
        _take_trials(study, run, listener)
    return [_finish(study, run, listener) for study, run in zip(studies, runs, strict=True)]


def _take_trials(study: Study, run: RunCells, listener: Listener) -> None:
    study.repeat_lost()
    while trial := run_trial(study, run):
        record = study.write_trials()
        listener.trial_ended(record, trial)


def _finish(study: Study, run: RunCells, listener: Listener) -> StudyRecord:
    while not study.is_settled():
        _take_trials(study, run, listener)
        if not study.is_settled():
            time.sleep(POLL_SECONDS)
    record = confirm(study, run)
    study.write(record)
    listener.study_ended(record)
    return record


def _runner(study: Study, settings: Settings) -> RunCells:
    """Return the function that executes cells into the ledger of the study."""

    def run(cells: Sequence[Cell]) -> list[Result]:
        execute(cells, study.ledger, settings, Silent())
        return [study.ledger.result(cell) for cell in cells]

    return run
