"""The end of a study: its best proposals against the default on fresh seeds, and the winner."""

from __future__ import annotations

from dataclasses import replace

from poolbench.registry import benchmarks
from poolbench.task import Benchmark
from poolbench.tune.design import CONFIRMATION_SEEDS, FIRST_CONFIRMATION_SEED
from poolbench.tune.record import Confirmation, StudyRecord
from poolbench.tune.space import Parameters, applied
from poolbench.tune.study import Study
from poolbench.tune.trial import Infeasible, Outcome, RunCells, seeded

SEEDS = range(FIRST_CONFIRMATION_SEED, FIRST_CONFIRMATION_SEED + CONFIRMATION_SEEDS)


def confirm(study: Study, run: RunCells) -> StudyRecord:
    """Return the record of a study whose budget is spent: its best proposals on fresh seeds, and the winner.

    The best of a search looks better than it is, because it was chosen on the seeds where it was lucky. With one
    objective the winner is the best trial or the default, whichever is better on the fresh seeds. With several, the
    trials of the Pareto front are confirmed and none is chosen. Without a feasible trial the record says why.
    """
    record, found, seconds = study.record(), [], 0.0
    if not any(trial.state == "complete" for trial in record.trials):
        reasons = sorted({trial.reason for trial in record.trials})
        return replace(record, failure=f"no trial was feasible: {'; '.join(reasons)}")
    for candidate in _candidates(study, record):
        outcome = _on_fresh_seeds(study, candidate.parameters, run)
        seconds += outcome.seconds
        if not outcome.reason:
            found.append(replace(candidate, values=outcome.values))
    if not found:
        return replace(record, failure="neither the default nor the best trials could be trained on fresh seeds")
    record = replace(record, confirmed=found, confirmation_seconds=seconds)
    return replace(record, best=_winner(study, record)) if study.design.is_single else record


def _candidates(study: Study, record: StudyRecord) -> list[Confirmation]:
    """Return the default and the best trials, without values."""
    default = dict(study.space.default)
    tried = next((trial.number for trial in record.trials if dict(trial.parameters) == default), 0)
    front = [study.optuna.best_trial] if study.design.is_single else study.optuna.best_trials
    best = [Confirmation(trial.number, False, trial.params, {}) for trial in front if trial.params != default]
    return [Confirmation(tried, True, default, {}), *best]


def _on_fresh_seeds(study: Study, parameters: Parameters, run: RunCells) -> Outcome:
    outcome = Outcome()
    try:
        for result in run(seeded(applied(study.cell, parameters), study.design, SEEDS)):
            outcome.add(result, study.design)
    except Infeasible as error:
        outcome.reason = str(error)
    return outcome


def _winner(study: Study, record: StudyRecord) -> Parameters:
    """Return the confirmed hyperparameters with the best mean among those that keep the limits.

    If none does, the best trial of the search, which kept them on its own seeds.
    """
    benchmark: Benchmark = benchmarks.get(study.cell.benchmark)()
    (objective,) = study.design.objectives
    sign = benchmark.metric(objective).sign
    kept = [one for one in record.confirmed if all(excess <= 0 for excess in study.excess(one.values).values())]
    if not kept:
        return dict(study.optuna.best_trial.params)
    return max(kept, key=lambda one: sign * one.mean(objective)).parameters
