"""tune: search hyperparameters on validation images."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from poolbench.cli.deciding import duration
from poolbench.cli.options import (
    INTERRUPTED,
    MOST_JOBS,
    OK,
    USAGE,
    command_line,
    say,
    say_left_out,
    selection_options,
    tell,
)
from poolbench.cli.rulings import time_text
from poolbench.cli.work import Tracking, Work, sigterm_interrupts, work_options
from poolbench.core import Scalar, UsageError
from poolbench.registry import heads, pools
from poolbench.runner.plan import Selection, chosen_benchmarks, plan

if TYPE_CHECKING:
    from poolbench.tune.record import StudyRecord, Trial


def _objectives(ctx: click.Context, option: click.Parameter, value: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _limits(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> dict[str, float]:
    limits = {}
    for text in values:
        name, _, value = text.partition("=")
        try:
            limits[name] = float(value)
        except ValueError:
            raise UsageError(f"a limit is METRIC=NUMBER, like cost_forward_ms=2.5, got '{text}'") from None
    return limits


@click.command("tune")
@click.argument("names", metavar="BENCHMARK")
@selection_options
@click.option("--trials", type=click.IntRange(min=1), required=True, help="Trials per comparison group, in all.")
@click.option("--timeout", metavar="TIME", callback=duration, help="Time of the cells of each group, like 20m or 2h.")
@click.option("--trial-seeds", type=click.IntRange(2, 100), default=3, show_default=True, help="Seeds of every trial.")
@click.option(
    "--objective",
    "objectives",
    metavar="METRIC,...",
    default="accuracy",
    show_default=True,
    callback=_objectives,
    help="What to optimise; several give a Pareto front.",
)
@click.option(
    "--limit",
    "limits",
    metavar="METRIC=NUMBER",
    multiple=True,
    callback=_limits,
    help="Worst value of a metric that a winner may have, like cost_forward_ms=2.5. Repeatable.",
)
@click.option("--storage", metavar="URL", help="Database of Optuna's studies (default: a file in the work folder).")
@click.option("--jobs", type=click.IntRange(1, MOST_JOBS), default=1, show_default=True, help="Processes.")
@work_options
def tune_command(
    selection: Selection,
    trials: int,
    timeout: float | None,
    trial_seeds: int,
    objectives: Sequence[str],
    limits: dict[str, float],
    storage: str | None,
    jobs: int,
    work: Work,
) -> None:
    """Tune the hyperparameters of each comparison group on validation images, with the same budget for each.

    What is tuned is declared by the benchmark, the pool and the head. The same command goes on with a study, also
    beside another that is running. 'run --tuned' trains with the winners and judges them on the test images.
    """
    from poolbench.runner.environment import resolve_device
    from poolbench.runner.ledger import Ledger
    from poolbench.runner.workers import slots
    from poolbench.tune.design import Budget, Design
    from poolbench.tune.processes import helping
    from poolbench.tune.tuner import Plan, groups_of, tune

    if selection.names == ("all",):
        raise UsageError("tune takes one benchmark, not all; 'poolbench list benchmarks' shows them")
    (benchmark,) = chosen_benchmarks(selection.names)
    design = Design(objectives, limits, trial_seeds)
    design.check(benchmark)
    wanted = Plan(groups_of(plan(selection)), design, Budget(trials, timeout), work.out, storage)
    ledger = Ledger(work.out).create()
    settings = work.settings(resolve_device(work.device))
    devices = slots(settings.device, jobs, 1)
    tracking = work.tracking()
    groups = f"{len(wanted.cells)} group{'s' if len(wanted.cells) != 1 else ''}"
    say(f"{groups}, {trials} trials each, {trial_seeds} seeds per trial")
    interrupted, found = False, []
    with sigterm_interrupts(), ledger.open_invocation(command_line(), selection.preset) as invocation:
        attempt = replace(settings, invocation=invocation.id, device=devices[0])
        try:
            with helping(wanted, attempt, Lines(), devices[1:]):
                found = tune(wanted, attempt, TrackedLines(tracking))
        except KeyboardInterrupt:
            interrupted = True
            invocation.outcome = "interrupted"
            say("interrupted; finished trials are kept, the same command continues")
    tracking.sync(ledger)
    say_left_out(ledger)
    sys.exit(INTERRUPTED if interrupted else USAGE if any(record.failure for record in found) else OK)


class Lines:
    """Prints a line per trial to stderr, and the result of each study to stdout."""

    def trial_ended(self, record: StudyRecord, trial: Trial) -> None:
        done = f"[{len(record.trials)}/{record.budget.trials}]"
        values = ", ".join(f"{name} {sum(seeds) / len(seeds):.4f}" for name, seeds in trial.values.items())
        state = {"complete": "", "pruned": " (stopped early)", "infeasible": f" infeasible: {trial.reason}"}
        chosen = " ".join(f"{name}={_short(value)}" for name, value in trial.parameters.items())
        say(f"{done} {_operators(record)}: {values}{state[trial.state]} {chosen} ({time_text(trial.seconds)})")

    def study_ended(self, record: StudyRecord) -> None:
        if record.failure:
            say(f"{_operators(record)}: {record.failure}")
        spent = f"{len(record.trials)} trials in {time_text(record.seconds)}"
        for one in record.confirmed:
            values = " ".join(f"{name} {one.mean(name):.4f}" for name in record.design.objectives)
            chosen = " ".join(f"{name}={_short(value)}" for name, value in one.parameters.items())
            tell(f"{_operators(record)}: {record.role(one)}: {values} {chosen} ({spent})")


class TrackedLines(Lines):
    """Also writes each trial to MLflow, so that it is to be seen while the command runs."""

    def __init__(self, tracking: Tracking) -> None:
        self.tracking = tracking

    def trial_ended(self, record: StudyRecord, trial: Trial) -> None:
        super().trial_ended(record, trial)
        self.tracking.attempt(lambda sink: sink.project_study(record), None)


def _operators(record: StudyRecord) -> str:
    cell = record.cell
    return f"{cell.variant} {cell.architecture.name} {pools.written(cell.pool)} {heads.written(cell.head)}"


def _short(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
