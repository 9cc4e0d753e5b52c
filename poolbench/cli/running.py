"""run: execute the cells that are not finished, then write the report."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from poolbench.cli.executors import Executors, executor_options
from poolbench.cli.options import (
    FAILED,
    INTERRUPTED,
    NO_DATA,
    OK,
    USAGE,
    command_line,
    say,
    say_left_out,
    selection_options,
    shard_option,
)
from poolbench.cli.rulings import rulings_text
from poolbench.cli.work import Tracking, Work, sigterm_interrupts, work_options, write_report
from poolbench.core import Cell, Result
from poolbench.runner.cell_record import ASIDE
from poolbench.runner.plan import Selection, plan, protocol
from poolbench.runner.shard import Shard

if TYPE_CHECKING:
    from poolbench.cli.progress import Progress
    from poolbench.runner.invocation import Invocation
    from poolbench.runner.ledger import Ledger


@click.command("run")
@click.argument("names", nargs=-1, required=True)
@selection_options
@shard_option
@work_options
@click.option("--retry-failed", is_flag=True, help="Run failed cells again.")
@click.option("--tuned", is_flag=True, help="Train with the winners of 'poolbench tune'.")
@executor_options
@click.option(
    "--replicas",
    type=click.IntRange(min=1),
    help="Maximum number of seeds trained as one stacked network (default: as many as fit on a GPU, 1 on a CPU).",
)
@click.option("--deterministic", is_flag=True, help="Only GPU kernels with reproducible bits.")
def run_command(
    selection: Selection,
    shard: Shard,
    work: Work,
    retry_failed: bool,
    tuned: bool,
    executors: Executors,
    replicas: int | None,
    deterministic: bool,
) -> None:
    """Run benchmarks (names, or all): execute every cell that is not finished, then write the report.

    With --shard, the shard that ends last writes MLflow and the report.
    """
    from poolbench.runner.cell import replica_groups
    from poolbench.runner.ledger import Ledger
    from poolbench.tune.record import tuned as with_winners

    planned = plan(selection)
    cells = shard.of(planned)  # before the winners: shards must not depend on what a folder holds
    if tuned:
        planned, cells = with_winners(work.out, planned), with_winners(work.out, cells)
    ledger = Ledger(work.out).create()
    before = [ledger.result(cell) for cell in cells]
    todo = _to_run(before, ledger, retry_failed)
    tracking, interrupted, invocation = work.tracking(), False, None
    if todo:
        try:
            with (
                executors.open(work.device) as executor,
                open_invocation(ledger, tracking, selection.preset, executor.places, before) as (invocation, progress),
            ):
                settings = work.settings(
                    executor.device, replicas=replicas, deterministic=deterministic, invocation=invocation.id
                )
                progress.expect(replica_groups(todo, settings))
                executor.execute(todo, ledger, settings, progress)
        except KeyboardInterrupt:
            interrupted = True
            say("interrupted; finished cells are kept, the same command continues")
    results = [ledger.result(cell) for cell in cells]
    summarise(results)
    executors.say_what_nodes_need(results)
    if waited_for := _not_ended(ledger, set(planned) - set(cells)):
        _say_who_reports(waited_for)
    else:
        _report(ledger, tracking, planned, selection, invocation)
    sys.exit(INTERRUPTED if interrupted else exit_code(results))


def _report(
    ledger: Ledger, tracking: Tracking, cells: Sequence[Cell], selection: Selection, invocation: Invocation | None
) -> None:
    """Bring MLflow and the report up to date if something was executed, print the rulings and the report's path."""
    report = ledger.folder / "report" / "report.html"
    if _close_abandoned(ledger) or invocation or not report.exists():
        tracking.sync(ledger)
        write_report(ledger, tracking, invocation)
    say_left_out(ledger)
    if any(ledger.result(cell).status == "finished" for cell in cells):
        _say_rulings(ledger, cells, selection)
    click.echo(str(report))


def _not_ended(ledger: Ledger, cells: Iterable[Cell]) -> int:
    """Return how many of the cells are neither finished nor failed nor skipped, and can be executed."""
    open_ = ("pending", "running", "damaged")
    return sum(ledger.result(cell).status in open_ and not ledger.record(cell.id).is_blocked() for cell in cells)


def _say_who_reports(waited_for: int) -> None:
    cells = "1 cell of another shard has" if waited_for == 1 else f"{waited_for} cells of other shards have"
    say(f"{cells} not ended: the last shard in this folder writes MLflow and the report, or 'sync' and 'report' do")


def _to_run(before: Sequence[Result], ledger: Ledger, retry_failed: bool) -> list[Cell]:
    """Return the cells to execute; say how many they are, and which are damaged or cannot be executed."""
    todo = [result for result in before if _is_to_run(result, retry_failed)]
    cells = []
    for result in todo:
        if ledger.record(result.cell.id).is_blocked():
            say_not_executed(result.cell, ledger)
            continue
        if result.status == "damaged":
            say(
                f"damaged: {result.cell.label}: {result.reason}; it is executed again, its files are moved to "
                f"'{ledger.folder / ASIDE}'"
            )
        cells.append(result.cell)
    say(f"{len(before)} cells, {len(before) - len(todo)} done before, {len(cells)} to run")
    return cells


def say_not_executed(cell: Cell, ledger: Ledger) -> None:
    """Say that what is in the place of a cell's folder cannot be used."""
    folder = ledger.record(cell.id).folder
    say(
        f"not executed: {cell.label}: '{folder}' is not a folder that this user may change; make it readable and "
        "writable, or remove it if it is a link"
    )


def _is_to_run(result: Result, retry_failed: bool) -> bool:
    """Failed cells are retried only on request, or if the failure was an input error."""
    if result.status == "failed":
        return retry_failed or not result.traceback
    return result.status != "finished"


@contextmanager
def open_invocation(
    ledger: Ledger, tracking: Tracking, preset: str, places: int, earlier: Sequence[Result] = ()
) -> Iterator[tuple[Invocation, Progress]]:
    """Record a command that executes cells in ``places`` at once, show its progress, and end it cleanly on SIGTERM.

    ``earlier`` results tell how long cells take.
    """
    from poolbench.cli.progress import Progress
    from poolbench.runner.pace import Pace
    from poolbench.runner.standing import publish, withdraw

    with sigterm_interrupts(), ledger.open_invocation(command_line(), preset) as invocation:
        listeners = partial(tracking.project, invocation), partial(publish, invocation)
        try:
            with Progress(Pace(places, earlier), *listeners) as progress:
                yield invocation, progress
        finally:
            withdraw(invocation)
        invocation.outcome = "failed" if progress.failed else "finished"


def _close_abandoned(ledger: Ledger) -> int:
    """Close the invocations whose process was killed; return how many there were."""
    from poolbench.runner.standing import withdraw

    abandoned = [i for i in ledger.invocations() if i.content["ended"] is None and not i.is_running()]
    for invocation in abandoned:
        invocation.close("interrupted")
        withdraw(invocation)
    return len(abandoned)


def exit_code(results: Sequence[Result]) -> int:
    """Return the exit code of a command that ran the cells of these results."""
    if any(result.status == "failed" for result in results):
        # A failure without a traceback was an input error.
        return FAILED if any(result.traceback for result in results) else USAGE
    if any(result.status == "skipped" for result in results):
        return NO_DATA
    return OK if all(result.status == "finished" for result in results) else FAILED


def summarise(results: Sequence[Result]) -> None:
    """Say how many cells ended in which way, why some failed, and how to fetch missing data."""
    counts = {status: sum(r.status == status for r in results) for status in ("finished", "failed", "skipped")}
    counts["not run"] = len(results) - sum(counts.values())
    say(", ".join(f"{count} {status}" for status, count in counts.items() if count or status == "finished"))
    for result in results:
        if result.status == "failed":
            say(f"failed: {result.cell.label}: {result.brief}")
    missing = {result.cell.dataset.name: result for result in results if result.status == "skipped"}
    for result in missing.values():
        say(f"skipped, no data: {result.reason}")
    if missing:
        say(f"to fetch it: {command_line('--download')}")
    if any(result.traceback for result in results):
        say("tracebacks are in the report; --retry-failed runs failed cells again")


def _say_rulings(ledger: Ledger, cells: Sequence[Cell], selection: Selection) -> None:
    """Say what the results say about each claim, and what more seeds could still decide."""
    from poolbench.decide import expected, outlooks, questions
    from poolbench.runner.workers import slots

    found = outlooks(ledger, questions(cells, protocol(selection)), len(slots("cpu", None, 1)))
    for line in rulings_text(found):
        say(line)
    if undecided := [one for one in found if one.is_open]:
        reached = expected(found, 600.0)
        say(
            f"open: {len(undecided)}; 'poolbench decide' with the same selectors and --budget 10m is expected to "
            f"decide {len(reached)} of them"
        )
