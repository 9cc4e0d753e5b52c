"""decide and claims: seeds for the claims that are not decided yet, and the rulings so far."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.executors import Executors, executor_options
from poolbench.cli.options import (
    INTERRUPTED,
    existing,
    out_option,
    plugin_option,
    say,
    say_left_out,
    selection_options,
)
from poolbench.cli.rulings import rulings_text, seeds_text, time_text
from poolbench.cli.running import exit_code, open_invocation, say_not_executed, summarise
from poolbench.cli.work import Work, work_options, write_report
from poolbench.core import Cell, UsageError
from poolbench.runner.plan import Selection, plan, protocol

if TYPE_CHECKING:
    from poolbench.decide import Outlook, Question
    from poolbench.runner.ledger import Ledger

ENDED = ("finished", "failed", "skipped")
UNITS = {"s": 1, "m": 60, "h": 3600}


def duration(ctx: click.Context, option: click.Parameter, value: str | None) -> float | None:
    """Return the seconds of "45s", "20m" or "2h"; raise UsageError for anything else."""
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,9})?)([smh])", value.strip(), re.ASCII)
    if not match or float(match[1]) == 0:
        raise UsageError(f"a budget is a time like 45s, 20m or 2h, got '{value}'")
    return float(match[1]) * UNITS[match[2]]


def _claims(ctx: click.Context, option: click.Parameter, values: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(part.strip() for value in values for part in value.split(",") if part.strip()))


claims_option = click.option(
    "--claims", "wanted", metavar="NAME,...", multiple=True, callback=_claims, help="Only these claims. Repeatable."
)


@click.command("decide")
@click.argument("names", nargs=-1)
@selection_options
@work_options
@claims_option
@click.option("--budget", metavar="TIME", callback=duration, help="Stop after this time, like 45s, 20m or 2h.")
@click.option("--max-seeds", type=click.IntRange(min=1), help="At most this many seeds per comparison group.")
@executor_options
def decide_command(
    selection: Selection,
    work: Work,
    wanted: Sequence[str],
    budget: float | None,
    max_seeds: int | None,
    executors: Executors,
) -> None:
    """Add seeds where they are expected to decide claims (all, or of the benchmarks named) at the lowest cost.

    Stops when all is decided or a limit is reached (default: --budget 20m). The same command goes on later.
    """
    from poolbench.decide import Limits, decide, expected, outlooks
    from poolbench.runner.cell import replica_groups
    from poolbench.runner.ledger import Ledger

    if budget is None and max_seeds is None:
        budget = 20.0 * UNITS["m"]
    asked = _asked(selection, wanted)
    ledger = Ledger(work.out).create()
    tracking = work.tracking()
    interrupted, opened = False, None
    with executors.open(work.device) as executor:
        before = outlooks(ledger, asked, executor.places)
        _say_expectation(before, expected(before, budget), budget)
        try:
            with open_invocation(ledger, tracking, selection.preset, executor.places) as (opened, progress):
                settings = work.settings(executor.device, invocation=opened.id)

                def run(cells: Sequence[Cell]) -> None:
                    progress.expect(replica_groups(cells, settings))
                    executor.execute(cells, ledger, settings, progress)

                after = decide(ledger, before, Limits(budget, max_seeds), run, executor.places)
        except KeyboardInterrupt:
            interrupted = True
            after = outlooks(ledger, asked, executor.places)
            say("interrupted; finished cells are kept, the same command continues")
    tracking.sync(ledger)
    report = write_report(ledger, tracking, opened)
    say_left_out(ledger)
    _say_passed_over(after, ledger)
    groups = {cell.group for question in asked for cell in question.cells}
    tried = [result for result in ledger.results() if result.cell.group in groups and result.status in ENDED]
    summarise(tried)
    executors.say_what_nodes_need(tried)
    click.echo("\n".join([*rulings_text(after, before), str(report)]))
    sys.exit(INTERRUPTED if interrupted else exit_code(tried))


def _say_passed_over(found: Sequence[Outlook], ledger: Ledger) -> None:
    """Say which cells of the seeds so far cannot be executed; their seeds were passed over."""
    cells = {cell.id: cell for one in found for seed in range(one.seeds + 1) for cell in one.question.with_seed(seed)}
    for cell in cells.values():
        if ledger.record(cell.id).is_blocked():
            say_not_executed(cell, ledger)


@click.command("claims")
@click.argument("names", nargs=-1)
@selection_options
@plugin_option()
@claims_option
@out_option
def claims_command(selection: Selection, wanted: Sequence[str], out: Path) -> None:
    """Print the ruling on each claim that a preset can judge, with the effect and what would decide it."""
    from poolbench.decide import outlooks

    ledger = existing(out)
    asked = _asked(selection, wanted)
    for line in rulings_text(outlooks(ledger, asked)):
        click.echo(line)
    say_left_out(ledger)


def _asked(selection: Selection, wanted: Sequence[str]) -> list[Question]:
    """Return the claims that the selected groups can judge; raise UsageError where there are none."""
    from poolbench.decide import questions

    if selection.seeds is not None:
        raise UsageError(
            "claims are judged on all seeds there are; without --seeds, decide takes --max-seeds and --budget"
        )
    names = selection.names or ("all",)
    found = questions(plan(replace(selection, names=names, seeds=(0,))), protocol(selection), wanted)
    if not found:
        raise UsageError("no claim compares the selected cells; 'poolbench list' shows what there is")
    return found


def _say_expectation(found: Sequence[Outlook], reached: Sequence[Outlook], budget: float | None) -> None:
    undecided = [one for one in found if one.is_open]
    decided = sum(one.further == 0 for one in found)
    say(f"{len(found)} claim{'s' if len(found) != 1 else ''}: {decided} decided, {len(undecided)} open")
    if not undecided:
        return
    if all(one.seconds is None for one in undecided):
        say("no cell has run yet, so there is no estimate; the first seeds give one")
        return
    spent = time_text(sum(one.cost for one in reached))
    within = "" if budget is None else f" within {time_text(budget)}"
    say(f"expected to be decided{within}: {len(reached)} of {len(undecided)}, in {spent}")
    for one in reached:
        say(f"  {one.question.claim.name}: {seeds_text(one)}")
