"""One study: its trials in Optuna's storage, their cells in a ledger, their locks, its record."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import optuna
from filelock import FileLock
from optuna.distributions import distribution_to_json
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from poolbench.core import Cell, Scalar, derive_seed
from poolbench.files import DamagedFile, storage
from poolbench.registry import benchmarks
from poolbench.runner.ledger import Ledger
from poolbench.runner.locks import is_held
from poolbench.task import Benchmark
from poolbench.tune.design import Budget, Design, directions, limited, study_id
from poolbench.tune.record import NAME, State, StudyRecord, Trial
from poolbench.tune.space import Space

ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
"""A failed trial is one that was lost or interrupted. It is repeated and does not count."""
STARTUP_TRIALS = 6
"""Trials before the sampler models what it saw. Optuna's default of 10 would be half of a small budget."""
PRUNE_BELOW = 0.26
"""A trial stops when it is behind the best on its first two seeds: the p of Wilcoxon's test is .25 then."""
DEFAULT = "default"  # user attribute of a queued default
QUEUED = "fixed_params"  # system attribute in which Optuna keeps the hyperparameters that a trial was queued with
OUTCOME = "outcome"  # user attribute of a trial that ended: what a record.Trial holds beyond Optuna's own fields


class Study:
    """The study of a comparison group in a work folder, shared by all processes that tune it.

    ``cell`` is any cell of the group, ``worker`` the number of this process among the local ones.
    """

    def __init__(
        self, out: Path, cell: Cell, design: Design, budget: Budget, where: BaseStorage, worker: int = 0
    ) -> None:
        self.cell, self.design, self.budget, self.storage, self.worker = cell, design, budget, where, worker
        self.space = Space.of(cell)
        self.id = study_id(cell, design, self.space.config())
        self.folder = out / "tuning" / self.id
        self.ledger = Ledger(self.folder).create()
        self.asking = FileLock(self.folder / "asking.lock", is_singleton=True)
        # Processes with a database need not have a folder in common, so two may ask at once: they must not propose
        # the same. A killed study of a database makes other proposals therefore.
        self.own = secrets.token_hex(8) if isinstance(where, optuna.storages.RDBStorage) else ""
        with storage(self.folder):
            (self.folder / "running").mkdir(exist_ok=True)
            with self.asking:
                self.optuna = self._open()

    def _open(self) -> optuna.Study:
        name = f"{self.cell.benchmark} {self.cell.variant} {self.cell.pool.name} {self.cell.head.name} {self.id[:8]}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the pruner and names of objectives are experimental
            study = optuna.create_study(
                study_name=name,
                storage=self.storage,
                directions=directions(self.cell, self.design),
                pruner=optuna.pruners.WilcoxonPruner(p_threshold=PRUNE_BELOW),
                load_if_exists=True,
            )
            if study.metric_names is None:
                study.set_metric_names(list(self.design.objectives))
        return study

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in these states, all without any."""
        return self.optuna.get_trials(deepcopy=False, states=states or None)

    def seconds(self) -> float:
        """Return the seconds of the cells of all trials that ended."""
        return sum(float(trial.user_attrs[OUTCOME]["seconds"]) for trial in self.trials(*ENDED))

    def best_accuracy(self) -> float:
        """Return the best accuracy of a network in all trials that ended, 0 without any."""
        return max((float(trial.user_attrs[OUTCOME]["best_accuracy"]) for trial in self.trials(*ENDED)), default=0.0)

    def may_start(self) -> bool:
        """Return whether the budget has room for one more trial beside those that ended or are running."""
        ended, running = len(self.trials(*ENDED)), len(self.trials(TrialState.RUNNING))
        in_time = self.budget.seconds is None or not ended or self.seconds() < self.budget.seconds
        return ended + running < self.budget.trials and in_time

    def is_settled(self) -> bool:
        """Return whether the budget is spent and no trial is running."""
        return not self.trials(TrialState.RUNNING) and not self.may_start()

    def prepare(self) -> None:
        """Queue the default unless it was tried, and seed the sampler; the caller holds ``asking``."""
        known = self.trials()
        default = dict(self.space.default)
        alive = [trial for trial in known if trial.state != TrialState.FAIL]
        if not any(trial.params == default or trial.state == TrialState.WAITING for trial in alive):
            self.optuna.enqueue_trial(default, user_attrs={DEFAULT: True})
        # By what is known: a constant seed would repeat its first proposals. Lost trials do not count, so a study in a
        # folder that was killed makes the same proposals as one that was not.
        seed = derive_seed(len(alive), f"{self.id}/{self.worker}{self.own}") % 2**32
        self.optuna.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)

    def is_surplus(self, number: int) -> bool:
        """Return whether a trial is beyond the budget, or a second default.

        That happens only where processes without a common folder ask at the same time.
        """
        before = [trial for trial in self.trials() if trial.number < number and trial.state != TrialState.FAIL]
        twice = DEFAULT in self.trials()[number].user_attrs and any(DEFAULT in trial.user_attrs for trial in before)
        return twice or sum(trial.state != TrialState.WAITING for trial in before) >= self.budget.trials

    def trial_lock(self, number: int) -> FileLock:
        """Return the lock of a running trial; the system releases it when the process dies."""
        return FileLock(self.folder / "running" / f"{number}.lock", is_singleton=True)

    def repeat_lost(self) -> None:
        """Fail the running trials whose process died, and queue their hyperparameters again."""
        if isinstance(self.storage, optuna.storages.RDBStorage):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # heartbeats are experimental
                optuna.storages.fail_stale_trials(self.optuna)
            return
        with self.asking:
            for trial in self.trials(TrialState.RUNNING):
                if not is_held(self.trial_lock(trial.number)):
                    # Queued first: a kill in between repeats a proposal but loses none.
                    self.repeat(trial.number)
                    self.optuna.tell(trial.number, state=TrialState.FAIL)

    def repeat(self, number: int) -> None:
        """Queue the hyperparameters of a lost or interrupted trial again, if it had all of them.

        One that was lost while they were drawn has run nothing, and the same seed draws them again.
        """
        trial = self.trials()[number]
        if QUEUED in trial.system_attrs or trial.params.keys() == self.space.searches.keys():
            queue_again(self.optuna, trial)

    def write(self, record: StudyRecord) -> None:
        """Write the record of a study."""
        with FileLock(self.folder / "record.lock", is_singleton=True), storage(self.folder):
            record.write(self.folder)

    def write_trials(self) -> StudyRecord:
        """Write the record of the trials so far, and return it.

        A complete one of as many trials stays: another process may have confirmed them meanwhile.
        """
        with FileLock(self.folder / "record.lock", is_singleton=True):
            record = self.record()
            if not self._is_complete(record):
                self.write(record)
        return record

    def _is_complete(self, record: StudyRecord) -> bool:
        if not (self.folder / NAME).exists():
            return False
        try:
            stored = StudyRecord.read(self.folder)
        except DamagedFile:
            return False
        return stored.is_ended and len(stored.trials) >= len(record.trials)

    def record(self) -> StudyRecord:
        """Return the record of the trials that ended; nothing is confirmed in it."""
        ended = sorted(self.trials(*ENDED), key=lambda trial: trial.number)
        found = [_trial(trial) for trial in ended]
        # The study may have had a larger budget before.
        budget = replace(self.budget, trials=max(self.budget.trials, len(ended)))
        ranges = {name: distribution_to_json(one) for trial in ended for name, one in trial.distributions.items()}
        return StudyRecord(self.id, self.cell, self.design, ranges, budget, found)

    def ended(self, number: int) -> Trial:
        """Return a trial that ended."""
        return _trial(self.optuna.trials[number])

    def excess(self, values: Mapping[str, Sequence[float]]) -> dict[str, float]:
        """Return by how much the means of a trial break each limit; 0 or less where it is kept."""
        benchmark: Benchmark = benchmarks.get(self.cell.benchmark)()
        return {
            name: limited(benchmark, name).sign * (limit - fmean(values[name]))
            for name, limit in self.design.limits.items()
        }


def queue_again(study: optuna.Study, trial: FrozenTrial) -> None:
    """Queue the hyperparameters of a trial that was lost or interrupted, if it had any."""
    parameters = trial.system_attrs.get(QUEUED, trial.params)
    if parameters:
        study.enqueue_trial(parameters)


def _trial(trial: FrozenTrial) -> Trial:
    outcome = trial.user_attrs[OUTCOME]
    state: State = "infeasible" if outcome["reason"] else "complete" if trial.state == TrialState.COMPLETE else "pruned"
    parameters: dict[str, Scalar] = dict(trial.params)
    assert trial.datetime_start is not None
    assert trial.datetime_complete is not None
    # The clock may have been set back.
    started, ended = trial.datetime_start, max(trial.datetime_start, trial.datetime_complete)
    return Trial(
        trial.number, state, parameters, outcome["values"], outcome["seconds"], started.timestamp(), ended.timestamp(),
        outcome["reason"],
    )  # fmt: skip
