"""The record of a study: what was tried, what it gave, which hyperparameters won. Written by tuners, read by all else.

It is a copy of what Optuna's storage and the ledger hold, so that reports need neither.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from poolbench.core import Cell, UsageError
from poolbench.files import DamagedFile, read_file, reading, write_json
from poolbench.registry import benchmarks
from poolbench.runner.left_out import KnownNames
from poolbench.task import Benchmark
from poolbench.tune.checks import check_study
from poolbench.tune.design import Budget, Design
from poolbench.tune.space import Parameters, applied

NAME = "study.json"
JOURNAL = "journal.log"
"""The file of Optuna's storage, beside the folders of the studies."""
State = Literal["complete", "pruned", "infeasible"]


@dataclass(frozen=True)
class Trial:
    """One proposal: its hyperparameters, its state, {metric: one value per seed}, and seconds of its cells.

    ``infeasible``: a network that cannot be built or that fails, or a limit that is exceeded, see ``reason``.
    A ``pruned`` trial has values for its first seeds only. ``started`` and ``ended`` are seconds since 1970.
    """

    number: int
    state: State
    parameters: Parameters
    values: Mapping[str, Sequence[float]]
    seconds: float
    started: float
    ended: float
    reason: str = ""

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the seeds that ran; raise KeyError without any."""
        return fmean(self.values[metric])


@dataclass(frozen=True)
class Confirmation:
    """Hyperparameters with {metric: one value per fresh seed}, in the order of the seeds.

    ``trial`` is the number of the trial that proposed them.
    """

    trial: int
    is_default: bool
    parameters: Parameters
    values: Mapping[str, Sequence[float]]

    def mean(self, metric: str) -> float:
        """Return the mean of a metric over the fresh seeds."""
        return fmean(self.values[metric])


@dataclass(frozen=True)
class StudyRecord:
    """A study: a cell of its group with the default hyperparameters, its design, its budget, and what came out.

    ``distributions`` are the ranges that were searched, as Optuna writes them.

    ``confirmed`` holds the default and the best trial, or the Pareto front, on fresh seeds, without those that fail
    there; it is empty while the study is going on. ``failure`` says why it ended without a feasible trial. ``best`` are
    the hyperparameters that ``run --tuned`` uses: None while it is going on, where it has several objectives, and after
    a failure. ``confirmation_seconds`` is what the cells of the confirmation took.
    """

    id: str
    cell: Cell
    design: Design
    distributions: Mapping[str, str]
    budget: Budget
    trials: Sequence[Trial] = ()
    confirmed: Sequence[Confirmation] = ()
    best: Parameters | None = None
    confirmation_seconds: float = 0.0
    failure: str = ""

    @property
    def is_ended(self) -> bool:
        """Whether the budget was spent and the best trials were confirmed, or there were none."""
        return bool(self.confirmed or self.failure)

    @property
    def default(self) -> Confirmation | None:
        """The default on fresh seeds; None while the study is going on, and where it cannot be trained."""
        return next((one for one in self.confirmed if one.is_default), None)

    @property
    def seconds(self) -> float:
        """The seconds of all cells of its trials."""
        return sum(trial.seconds for trial in self.trials)

    def role(self, one: Confirmation) -> str:
        """Return what confirmed hyperparameters are: "default", "winner" or the number of their trial."""
        if one.parameters == self.best:
            return "default, the winner" if one.is_default else "winner"
        return "default" if one.is_default else f"trial {one.trial}"

    @cached_property
    def tuned(self) -> Cell | None:
        """The cell with the hyperparameters of the winner, judged on test images; None without a winner."""
        return None if self.best is None else applied(self.cell, self.best)

    def write(self, folder: Path) -> None:
        """Write the record into the folder of the study."""
        content = {**asdict(self), "cell": self.cell.config(), "design": self.design.config()}
        write_json(folder / NAME, content)

    @classmethod
    def read(cls, folder: Path) -> StudyRecord:
        """Read the record in the folder of a study; raise DamagedFile if it is none."""
        path = folder / NAME
        with reading(path):
            content = read_file(path)
        try:
            return cls._from(json.loads(content))
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            raise DamagedFile(path, f"it holds no study ({type(error).__name__})") from error

    @classmethod
    def _from(cls, content: Mapping[str, Any]) -> StudyRecord:
        check_study(content)
        record = cls(
            **{
                **content,
                "cell": Cell.from_config(content["cell"]),
                "design": Design.from_config(content["design"]),
                "budget": Budget(**content["budget"]),
                "trials": [Trial(**trial) for trial in content["trials"]],
                "confirmed": [Confirmation(**one) for one in content["confirmed"]],
            }
        )
        if not record.distributions.keys() <= record.cell.fields.keys():
            raise KeyError("what was searched is no field of the cell")
        if record.tuned is not None:
            Cell.from_config(record.tuned.config())  # as strict as with a cell of a stranger
        return record

    @property
    def unregistered(self) -> str:
        """What of the study is registered nowhere: its plugin, or the version of poolbench, is not there."""
        missing = KnownNames().missing(self.cell)
        if not missing:
            benchmark: Benchmark = benchmarks.get(self.cell.benchmark)()
            named = {metric.name for metric in benchmark.metrics}
            missing = [("objective", name) for name in self.design.objectives if name not in named]
        return ", ".join(f"no {field} '{name}'" for field, name in missing)


def records(out: Path, damaged: Callable[[str], None] = lambda line: None) -> list[StudyRecord]:
    """Return the records of all studies in a work folder, in the order of their first trials.

    A damaged one is left out; ``damaged`` is called with the line that says so.
    """
    found = []
    for path in sorted(out.glob(f"tuning/*/{NAME}")):
        try:
            found.append(StudyRecord.read(path.parent))
        except DamagedFile as error:
            damaged(str(error))
    return sorted(found, key=lambda record: (record.trials[0].started if record.trials else float("inf"), record.id))


def tuned(out: Path, cells: Sequence[Cell]) -> list[Cell]:
    """Return the cells with the winning hyperparameters of their groups.

    Where a group has several studies, the one that began last. Raises UsageError for a group without a winner.
    """
    lines: list[str] = []
    winners = {record.cell.group: record.best for record in records(out, lines.append) if record.best is not None}
    for cell in cells:
        if cell.group not in winners:
            raise UsageError(
                f"no tuning result for {replace(cell, seed=0).label.rpartition(' ')[0]}; run 'poolbench tune "
                f"{cell.benchmark} --trials N' with the same preset and selectors to its end first"
                + "".join(f" ({line})" for line in lines)
            )
    return [applied(cell, winners[cell.group]) for cell in cells]
