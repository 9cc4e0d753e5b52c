"""status: what has become of the cells of a work folder, once or until nothing runs any more."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from poolbench.cli.options import existing, out_option, plugin_option, printable, say, tell
from poolbench.cli.rulings import time_text
from poolbench.core import Status

if TYPE_CHECKING:
    from poolbench.runner.ledger import Ledger
    from poolbench.runner.watch import View

STATUSES: tuple[Status, ...] = ("finished", "running", "failed", "skipped", "damaged", "pending")
WATCHED: tuple[Status, ...] = tuple(status for status in STATUSES if status != "damaged")
"""A watch reads no files of finished cells, so it cannot tell which are damaged."""
SECONDS = 5.0


@click.command("status")
@plugin_option()
@out_option
@click.option(
    "--watch", "seconds", is_flag=False, flag_value=SECONDS, type=click.FloatRange(min=0.1), metavar="[SECONDS]",
    help="Show counts, running cells and the time left every few seconds (default: 5), until nothing runs any more.",
)  # fmt: skip
def status_command(out: Path, seconds: float | None) -> None:
    """Count the cells of a work folder by benchmark and status, and say why some failed."""
    ledger = existing(out)
    if seconds is not None:
        try:
            _watch(ledger, seconds)
        except KeyboardInterrupt:
            click.echo()  # only looking has ended: what runs goes on
        return
    results, left_out = ledger.survey()
    names = sorted({result.cell.benchmark for result in results})
    counts = {name: [r.status for r in results if r.cell.benchmark == name] for name in names}
    for line in _table({name: {s: found.count(s) for s in STATUSES} for name, found in counts.items()}, STATUSES):
        tell(line)
    for result in results:
        if result.status in ("failed", "skipped"):
            tell(f"{result.status}: {result.cell.label}: {result.brief}")
    for line in left_out:
        say(line)


def _table(counts: Mapping[str, Mapping[Status, int]], statuses: tuple[Status, ...]) -> Iterator[str]:
    yield f"{'benchmark':<20}" + "".join(f"{status:>10}" for status in statuses)
    for name, found in counts.items():
        yield f"{printable(name):<20}" + "".join(f"{found.get(status, 0):>10}" for status in statuses)


def _watch(ledger: Ledger, seconds: float) -> None:
    """Show the state of a ledger every few seconds until nothing runs: drawn anew on a terminal, else line by line."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from poolbench.runner.watch import Watch

    watch, console = Watch(ledger), Console(highlight=False)
    if not console.is_terminal:
        while True:
            view = watch.look()
            click.echo("\n".join([time.strftime("%Y-%m-%d %H:%M:%S"), *view_lines(view), ""]))
            if view.is_over:
                return
            time.sleep(seconds)
    with Live(console=console, auto_refresh=False) as live:
        while True:
            view = watch.look()
            # Cut rather than wrapped, so that nothing jumps.
            text = Text("\n".join(view_lines(view)), no_wrap=True, overflow="ellipsis")
            live.update(text, refresh=True)
            if view.is_over:
                return
            time.sleep(seconds)


def view_lines(view: View) -> Iterator[str]:
    """Yield the counts, a line per running cell, and a line per running command with what is left of it."""
    yield from _table(view.counts, WATCHED)
    for cell in view.cells:
        yield printable(f"epoch {cell.epoch}/{cell.epochs}: {cell.label}")
    for command, standing in view.commands:
        if standing is None:
            yield printable(f"just started: {command}")
            continue
        failed = f", {standing.failed} failed" if standing.failed else ""
        left = "" if standing.end is None else f", about {time_text(max(0.0, standing.end - time.time()))} left"
        yield printable(f"{standing.done} of {standing.total} cells{failed}{left}: {command}")
    if view.is_over:
        yield "nothing is running"
