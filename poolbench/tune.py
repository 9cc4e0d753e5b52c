"""Tune hyperparameters with Optuna: one study per comparison group, judged on validation images only.

    tuning/<group>/journal.log          Optuna's journal
    tuning/<group>/cells, invocations   a ledger of the trials, each a cell with split "validation"
    tuning/<group>/best.json            the winner so far

Every group gets the same budget and starts from its default, so that comparisons of tuned poolings are fair. The test
images are used once, by the run with the winner.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from poolbench.core import Cell, MissingData, Result, TrainConfig, UsageError, derive_seed
from poolbench.files import storage, write_json
from poolbench.runner.ledger import Ledger

if TYPE_CHECKING:
    import optuna

BATCH_SIZES = (32, 64, 128, 256)
RETRY = "again for trial"  # attribute of a queued trial: the number of the trial that it repeats


@dataclass(frozen=True)
class Parameters:
    """The hyperparameters that are tuned; fields of the TrainConfig."""

    learning_rate: float
    weight_decay: float
    batch_size: int

    def applied(self, train: TrainConfig) -> TrainConfig:
        """Return the training with these hyperparameters."""
        return replace(train, **asdict(self))


@dataclass(frozen=True)
class Winner:
    """The best trial of a study: its hyperparameters, validation accuracy, and the number of trials."""

    parameters: Parameters
    accuracy: float
    trials: int


def study_folder(out: Path, cell: Cell) -> Path:
    """Return the folder of the study for the cell's comparison group."""
    return out / "tuning" / cell.group


def tuning_ledgers(out: Path) -> list[Ledger]:
    """Return the ledgers of all studies in a work folder."""
    return [Ledger(path.parent) for path in sorted(out.glob("tuning/*/study.json"))]


def groups_of(cells: Sequence[Cell]) -> list[Cell]:
    """Return one cell per comparison group, the one with the lowest seed."""
    chosen: dict[str, Cell] = {}
    for cell in cells:
        if cell.group not in chosen or cell.seed < chosen[cell.group].seed:
            chosen[cell.group] = cell
    return list(chosen.values())


def read_winner(out: Path, cell: Cell) -> Winner:
    """Return the winner for the cell's group; raise UsageError where there is no study yet."""
    path = study_folder(out, cell) / "best.json"
    if not path.exists():
        raise UsageError(
            f"no tuning result for {replace(cell, seed=0).label.rpartition(' ')[0]}; run 'poolbench tune "
            f"{cell.benchmark} --trials N' with the same preset and selectors first"
        )
    content = json.loads(path.read_text())
    return Winner(Parameters(**content["parameters"]), content["accuracy"], content["trials"])


def tuned(out: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with the winning hyperparameters of their groups; raise UsageError for a group without any."""
    winners = {cell.group: read_winner(out, cell) for cell in groups_of(cells)}
    return [replace(cell, train=winners[cell.group].parameters.applied(cell.train)) for cell in cells]


def tune(cell: Cell, trials: int, out: Path, run_trial: Callable[[Cell, Ledger], Result]) -> Winner:
    """Bring the study of the cell's group to ``trials`` completed trials and return its winner.

    ``run_trial`` executes a cell into the study's ledger. A study continues where it stopped: a trial that was
    running when its process was killed is marked as failed and repeated. Raises UsageError if another process tunes
    the group or no trial gave an accuracy, MissingData if the data set is missing.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder = study_folder(out, cell)
    ledger = Ledger(folder).create()
    try:
        with FileLock(folder / "lock", is_singleton=True).acquire(blocking=False), storage(folder):
            write_json(folder / "study.json", {"cell": cell.config()})
            study = _open_study(folder, cell)
            while (count := _settled(study)) < trials:
                trial = study.ask()
                candidate = _candidate(trial, cell)
                result = run_trial(candidate, ledger)
                if result.status == "finished":
                    study.tell(trial, result.metrics["accuracy"])
                elif result.status == "failed":
                    study.tell(trial, state=optuna.trial.TrialState.FAIL)
                elif result.status == "skipped":
                    raise MissingData(result.reason)
                else:
                    raise UsageError(f"trial {count} is {result.status}; try again")
            return _write_winner(study, folder)
    except Timeout as error:
        raise UsageError(f"another process is tuning {cell.label}; wait for it or choose another --out") from error


def _open_study(folder: Path, cell: Cell) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    journal = folder / "journal.log"
    _drop_torn_line(journal)
    storage_ = JournalStorage(JournalFileBackend(str(journal)))
    study = optuna.create_study(study_name=cell.group, storage=storage_, direction="maximize", load_if_exists=True)
    # Seeded by the number of trials: a sampler with a constant seed would repeat its first proposals.
    study.sampler = optuna.samplers.TPESampler(seed=derive_seed(len(study.trials), cell.group) % 2**32)
    if not study.trials:
        study.enqueue_trial(asdict(_default(cell)))
    for trial in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):
        # Queued before it is marked as failed: a kill in between repeats a trial but loses none.
        study.enqueue_trial(trial.params or asdict(_default(cell)), user_attrs={RETRY: trial.number})
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
    return study


def _drop_torn_line(journal: Path) -> None:
    """Remove an incomplete last line, left by a killed process, from the journal; Optuna cannot read past it."""
    if not journal.exists():
        return
    content = journal.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        with open(journal, "r+b") as file:
            file.truncate(len(whole))


def _default(cell: Cell) -> Parameters:
    """Return the hyperparameters of the cell, within the range of the search."""
    train = cell.train
    return Parameters(train.learning_rate, train.weight_decay or 1e-7, train.batch_size)


def _candidate(trial: optuna.Trial, cell: Cell) -> Cell:
    """Return the cell of a trial: learning rate within a factor 30 of the default, weight decay, and batch size."""
    rate = cell.train.learning_rate
    sizes = sorted({*BATCH_SIZES, cell.train.batch_size})
    chosen = Parameters(
        trial.suggest_float("learning_rate", rate / 30, rate * 30, log=True),
        trial.suggest_float("weight_decay", 1e-7, 1e-2, log=True),
        trial.suggest_categorical("batch_size", sizes),
    )
    return replace(cell, split="validation", train=chosen.applied(cell.train))


def _settled(study: optuna.Study) -> int:
    """Return the number of completed trials: finished or failed, without those that were interrupted and repeated."""
    retried = {trial.user_attrs[RETRY] for trial in study.trials if RETRY in trial.user_attrs}
    return sum(trial.state.is_finished() and trial.number not in retried for trial in study.trials)


def _write_winner(study: optuna.Study, folder: Path) -> Winner:
    try:
        best = study.best_trial
    except ValueError as error:
        raise UsageError("no trial gave an accuracy; 'poolbench status' shows why they failed") from error
    winner = Winner(Parameters(**best.params), float(best.value or 0.0), len(study.trials))
    write_json(folder / "best.json", asdict(winner))
    return winner
