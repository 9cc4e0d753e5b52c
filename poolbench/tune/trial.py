"""One trial: hyperparameters from the study, one cell per seed, values back to the study."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from math import isfinite, nan
from statistics import fmean

import optuna
from optuna.trial import TrialState

from poolbench.analysis.learning import judged
from poolbench.core import Cell, MissingData, Result
from poolbench.runner.lifeline import interrupts_ignored
from poolbench.tune.design import Design
from poolbench.tune.record import Trial
from poolbench.tune.space import Parameters, applied
from poolbench.tune.study import ENDED, OUTCOME, Study

RunCells = Callable[[Sequence[Cell]], Sequence[Result]]
"""Executes cells into the ledger of the study and returns their results in the same order."""
SEEDS_BEFORE_PRUNING = 2


class Infeasible(Exception):
    """A proposal whose network cannot be built, trained or measured. The message is one line."""


class Surplus(Exception):
    """A trial that is one too many (see ``Study.is_surplus``)."""


class Interrupted(Exception):
    """A KeyboardInterrupt during a trial."""


@dataclass
class Outcome:
    """What the seeds of a trial have given so far: {metric: values}, seconds, why it cannot go on, best accuracy."""

    values: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    reason: str = ""
    best_accuracy: float = 0.0

    def add(self, result: Result, design: Design) -> None:
        """Add one seed; raise Infeasible for a failed cell or a metric that is not finite, MissingData for no data."""
        self.seconds += result.seconds
        if result.status == "skipped":
            raise MissingData(result.reason)
        if result.status != "finished":
            raise Infeasible(result.reason.partition("\n")[0] or f"its cell is {result.status}")
        self.best_accuracy = max(self.best_accuracy, result.metrics["accuracy"])
        for name in (*design.objectives, *design.limits):
            value = result.metrics.get(name, nan)
            if not isfinite(value):
                raise Infeasible(f"{name} is {value}")
            self.values.setdefault(name, []).append(value)


def run_trial(study: Study, run: RunCells) -> Trial | None:
    """Ask the study for a trial, run it, and return it; None where the budget has no room.

    An interrupted trial is queued again. Raises MissingData for absent data, StorageError for a folder that cannot be
    written.
    """
    begun: list[int] = []
    with ExitStack() as stack:
        # Held until the trial's own lock is, so that a running trial never looks lost.
        study.asking.acquire()
        stack.callback(study.asking.release, force=True)
        if not study.may_start():
            return None
        study.prepare()

        def objective(trial: optuna.Trial) -> Sequence[float]:
            begun.append(trial.number)
            parameters = study.space.suggest(trial)
            stack.enter_context(study.trial_lock(trial.number))
            study.asking.release(force=True)
            if study.is_surplus(trial.number):
                raise Surplus
            try:
                return _objective(study, trial, parameters, run)
            except KeyboardInterrupt as error:
                # A second one would hit Optuna while it writes the state of the trial.
                stack.enter_context(interrupts_ignored())
                raise Interrupted from error

        try:
            study.optuna.optimize(objective, n_trials=1, catch=(Surplus, Interrupted))
        except BaseException:
            if begun:
                study.repeat(begun[0])
            raise
        if study.optuna.trials[begun[0]].state == TrialState.FAIL and not study.is_surplus(begun[0]):
            study.repeat(begun[0])
            raise KeyboardInterrupt
    ended = study.optuna.trials[begun[0]]
    return study.ended(begun[0]) if ended.state in ENDED else None


def _objective(study: Study, trial: optuna.Trial, parameters: Parameters, run: RunCells) -> Sequence[float]:
    """Run the seeds of a trial; return the mean of each objective. Raises TrialPruned where it stops early."""
    outcome, design = Outcome(), study.design
    finished: list[Result] = []
    try:
        for results in _by_seed(applied(study.cell, parameters), design, run):
            finished += results
            for result in results:
                outcome.add(result, design)
                if design.is_single:
                    trial.report(outcome.values[design.objectives[0]][-1], step=result.cell.seed)
            if design.is_single and results[-1].cell.seed != design.trial_seeds[-1] and trial.should_prune():
                raise optuna.TrialPruned
        if design.objectives != ("accuracy",):
            _check_learned(study, finished)
        for name, excess in study.excess(outcome.values).items():
            trial.set_constraint(name, excess)
            if excess > 0:
                outcome.reason = f"{name} is beyond its limit"
    except Infeasible as error:
        outcome.reason = str(error)
        trial.set_constraint("trains", 1.0)
        raise optuna.TrialPruned from error
    finally:
        trial.set_user_attr(OUTCOME, asdict(outcome))
    return [fmean(outcome.values[name]) for name in design.objectives]


def _check_learned(study: Study, results: Sequence[Result]) -> None:
    """Raise Infeasible if most networks have not learned: a constant answer is consistent and worth nothing."""
    best = max(study.best_accuracy(), *(result.metrics["accuracy"] for result in results))
    cell = results[0].cell
    known = judged(results, {(cell.benchmark, cell.dataset.name, cell.variant): best})
    learned = sum(bool(result.facts["learned"]) for result in known)
    if learned <= len(results) / 2:
        raise Infeasible(f"{len(results) - learned} of {len(results)} networks have not learned")


def _by_seed(cell: Cell, design: Design, run: RunCells) -> Iterator[Sequence[Result]]:
    """Yield the results of the cell's seeds: all together, or as many at a time as pruning lets pass.

    Seeds that run together may train as one stacked network.
    """
    seeds = seeded(cell, design, design.trial_seeds)
    if not design.is_single:
        yield run(seeds)
        return
    yield run(seeds[:SEEDS_BEFORE_PRUNING])
    for one in seeds[SEEDS_BEFORE_PRUNING:]:
        yield run([one])


def seeded(cell: Cell, design: Design, seeds: Sequence[int]) -> list[Cell]:
    """Return the cells of these seeds, judged on validation images."""
    return [replace(cell, seed=seed, split=design.split) for seed in seeds]
