"""tune: search hyperparameters on validation images."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from poolbench.cli.options import command_line, say, say_left_out, selection_options
from poolbench.cli.work import Tracking, Work, sigterm_interrupts, work_options
from poolbench.core import Cell, Result
from poolbench.runner.plan import Selection, plan

if TYPE_CHECKING:
    from poolbench.runner.attempt import Settings
    from poolbench.runner.ledger import Invocation, Ledger


@click.command("tune")
@click.argument("names", metavar="BENCHMARK")
@selection_options
@click.option("--trials", type=click.IntRange(min=1), required=True, help="Trials per comparison group, in all.")
@work_options
def tune_command(selection: Selection, trials: int, work: Work) -> None:
    """Tune learning rate, weight decay and batch size of each comparison group on validation images.

    The same command continues a study; 'run --tuned' uses the winners.
    """
    from poolbench.runner.environment import resolve_device
    from poolbench.runner.ledger import Ledger
    from poolbench.tune import groups_of, tune, tuning_ledgers

    groups = groups_of(plan(selection))
    Ledger(work.out).create()
    settings = work.settings(resolve_device(work.device))
    tracking = work.tracking()
    with sigterm_interrupts():
        for number, cell in enumerate(groups, start=1):
            say(f"[{number}/{len(groups)}] {cell.label}")
            with _trials(settings, tracking, selection.preset) as run_trial:
                winner = tune(cell, trials, work.out, run_trial)
            best = winner.parameters
            chosen = (
                f"learning_rate={best.learning_rate:.4g} weight_decay={best.weight_decay:.4g} "
                f"batch_size={best.batch_size}"
            )
            click.echo(f"{replace(cell, seed=0).label}: {chosen} -> validation accuracy {winner.accuracy:.4f}")
    say_left_out(*tuning_ledgers(work.out))


@contextmanager
def _trials(settings: Settings, tracking: Tracking, preset: str) -> Iterator[Callable[[Cell, Ledger], Result]]:
    """Yield the function that executes one trial into the ledger of a study.

    The first trial opens an invocation, which is closed and written to MLflow at the end.
    """
    from poolbench.runner.execute import Silent, execute

    opened: dict[Ledger, Invocation] = {}

    def run_trial(cell: Cell, ledger: Ledger) -> Result:
        if ledger not in opened:
            opened[ledger] = stack.enter_context(ledger.open_invocation(command_line(), preset))
        invocation = opened[ledger]
        began = time.monotonic()
        execute([cell], ledger, replace(settings, invocation=invocation.id), Silent())
        result = ledger.result(cell)
        tracking.project(invocation, result)
        train = cell.train
        say(
            f"  lr={train.learning_rate:.3g} wd={train.weight_decay:.3g} batch={train.batch_size}: "
            f"{result.metrics.get('accuracy', float('nan')):.4f} {result.status} ({time.monotonic() - began:.1f} s)"
        )
        return result

    try:
        with ExitStack() as stack:
            yield run_trial
    finally:
        for ledger in opened:
            tracking.sync(ledger)
