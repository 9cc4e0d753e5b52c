"""Progress on stderr: a bar with the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from rich.table import Column
from rich.text import Text

from poolbench.cli.options import printable, say
from poolbench.cli.rulings import time_text
from poolbench.core import Cell, Result
from poolbench.runner.pace import Pace
from poolbench.runner.standing import Standing

PARTS = 10  # elsewhere than on a terminal, one line per tenth of the work
LINE_SECONDS = 10.0  # and at least one line in this time
ESTIMATE_SECONDS = 1.0  # between two estimates of the time left; one takes 10 ms with 10,000 cells
PUBLISH_SECONDS = 2.0


@contextmanager
def counting(what: str) -> Iterator[Callable[[int, int], None]]:
    """Yield the function ``show(done, total)`` that shows a count of ``what``; ``total`` may change."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines(what).show
        return
    columns = (BarColumn(20), TextColumn("{task.completed:,.0f} of {task.total:,.0f}"), TextColumn(what))
    bar = Bar(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=console, transient=True)
    task = bar.add_task("", total=0)

    def show(done: int, total: int) -> None:
        # Started here, so that lines printed before the first count are not mixed with the bar.
        bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield show
    finally:
        bar.stop()


class _Lines:
    """Prints a line per tenth of the work, one every ``LINE_SECONDS``, and one when the total changes."""

    def __init__(self, what: str) -> None:
        self.what = what
        self.part, self.total = 0, 0
        self.began = self.last = time.monotonic()

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        part = PARTS * done // max(total, 1)
        if self.total and total != self.total:
            say(f"{total:,} {self.what} are needed instead of {self.total:,}")
        elif part == self.part and now - self.last < LINE_SECONDS:
            return
        else:
            spent = now - self.began
            left = f", about {spent * (total - done) / done:.0f} s left" if 0 < done < total else ""
            say(f"{done:,} of {total:,} {self.what} ({spent:.0f} s{left})")
            self.last = now
        self.part, self.total = part, total


class LeftColumn(ProgressColumn):
    """The time until a task's field ``end`` (seconds of the monotonic clock, None while unknown)."""

    def render(self, task: Task) -> Text:
        end = task.fields["end"]
        left = "-:--:--" if end is None else str(timedelta(seconds=round(max(0.0, end - time.monotonic()))))
        return Text(f"left {left}", style="progress.remaining")


def cells_bar(console: Console) -> Bar:
    """Return a bar whose line fits the console: what is long at its end is cut."""
    whole, cut = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    return Bar(
        BarColumn(12, table_column=Column(min_width=12)),
        MofNCompleteColumn(table_column=whole),
        TimeElapsedColumn(table_column=whole.copy()),
        LeftColumn(table_column=whole.copy()),
        TextColumn("{task.description}", markup=False, table_column=cut),
        console=console,
        expand=True,
    )


class Progress:
    """A listener that shows the progress of an execution with the expected time left.

    ``on_result`` gets every result; ``publish`` every few seconds how far it is. ``pace`` is what expects the end.
    """

    def __init__(self, pace: Pace, on_result: Callable[[Result], None], publish: Callable[[Standing], None]) -> None:
        self.pace, self.on_result, self.publish = pace, on_result, publish
        self.total = self.done = self.failed = 0
        self.running: dict[Cell, str] = {}
        self._end: float | None = None
        self._published = self._estimated = -math.inf
        console = Console(stderr=True)
        self.bar: Bar | None = None
        if console.is_terminal:
            self.bar = cells_bar(console)
            self.task = self.bar.add_task("", total=0, end=None)

    def expect(self, parts: Sequence[Sequence[Cell]]) -> None:
        """Add parts, whose cells are executed together, to what is to come."""
        self.pace.expect(parts)
        self.total += sum(map(len, parts))
        self._show()

    def __enter__(self) -> Progress:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.bar:
            self.bar.stop()

    def cell_started(self, cell: Cell) -> None:
        self.pace.started(cell, time.monotonic())
        self.running[cell] = cell.label
        self._show()

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None:
        self.pace.epoch_ended(cell, int(row["epoch"]), time.monotonic())
        # Removed and added, so that the latest is last.
        self.running.pop(cell, None)
        state = f"epoch {row['epoch']:.0f}/{cell.train.epochs}, accuracy {row['val_accuracy']:.3f}"
        self.running[cell] = f"{state}: {cell.label}"
        self._show()

    def cell_ended(self, result: Result) -> None:
        self.pace.ended(result, time.monotonic())
        self.running.pop(result.cell, None)
        self.done += 1
        self.failed += result.status == "failed"
        self._show()
        line = self._line(result)
        if not self.bar:
            say(line)
        elif result.status == "failed":
            self.bar.console.print(escape(printable(line)))
        self.on_result(result)

    def _show(self) -> None:
        """Show the counts and the cell with the latest epoch, and count the other running cells."""
        now = time.monotonic()
        if now - self._estimated >= ESTIMATE_SECONDS or self.done == self.total:
            left = self.pace.left(now)
            self._end, self._estimated = None if left is None else now + left, now
        if now - self._published >= PUBLISH_SECONDS:
            self._published = now
            end = None if self._end is None else time.time() + self._end - now
            self.publish(Standing(self.done, self.total, self.failed, end))
        if self.bar:
            others = f"(+{len(self.running) - 1}) " if len(self.running) > 1 else ""
            shown = others + [*self.running.values()][-1] if self.running else ""
            described = printable(shown)
            self.bar.update(self.task, completed=self.done, total=self.total, end=self._end, description=described)

    def _line(self, result: Result) -> str:
        accuracy = f" accuracy {result.metrics['accuracy']:.3f}" if "accuracy" in result.metrics else ""
        seconds = f" ({result.ended - result.started:.1f} s)" if result.started and result.ended else ""
        reason = f": {result.brief}" if result.reason else ""
        left = ""
        if self._end is not None and self.done < self.total:
            left = f", about {time_text(max(0.0, self._end - time.monotonic()))} left"
        ending = f"{result.cell.label} {result.status}{accuracy}{seconds}{reason}"
        return f"[{self.done}/{self.total}{left}] {ending}"
