"""Progress on stderr: a bar with the remaining time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from poolbench.core import Cell, Result

PARTS = 10  # elsewhere than on a terminal, one line per tenth of the work
LINE_SECONDS = 10.0  # and at least one line in this time


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
            print(f"{total:,} {self.what} are needed instead of {self.total:,}", file=sys.stderr, flush=True)
        elif part == self.part and now - self.last < LINE_SECONDS:
            return
        else:
            spent = now - self.began
            left = f", about {spent * (total - done) / done:.0f} s left" if 0 < done < total else ""
            print(f"{done:,} of {total:,} {self.what} ({spent:.0f} s{left})", file=sys.stderr, flush=True)
            self.last = now
        self.part, self.total = part, total


class Progress:
    """A listener that shows the progress of an execution and passes every result to ``on_result``."""

    def __init__(self, total: int, on_result: Callable[[Result], None]) -> None:
        self.total, self.done, self.failed = total, 0, 0
        self.on_result = on_result
        self.running: dict[Cell, str] = {}
        console = Console(stderr=True)
        self.bar: Bar | None = None
        if console.is_terminal:
            columns = (
                BarColumn(20),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self.bar = Bar(*columns, TextColumn("{task.description}"), console=console, speed_estimate_period=120)
            self.task = self.bar.add_task("", total=total)

    def expect(self, more: int) -> None:
        """Add cells to the total."""
        self.total += more
        if self.bar:
            self.bar.update(self.task, total=self.total)

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
        self.running[cell] = cell.label
        self._show()

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None:
        # Removed and added, so that the latest is last.
        self.running.pop(cell, None)
        state = f"epoch {row['epoch']:.0f}/{cell.train.epochs}, accuracy {row['val_accuracy']:.3f}"
        self.running[cell] = f"{cell.label}: {state}"
        self._show()

    def _show(self) -> None:
        """Describe the cell with the latest epoch, and count the other running cells."""
        if self.bar and self.running:
            others = f" (+{len(self.running) - 1})" if len(self.running) > 1 else ""
            self.bar.update(self.task, description=escape([*self.running.values()][-1] + others))

    def cell_ended(self, result: Result) -> None:
        self.running.pop(result.cell, None)
        self.done += 1
        self.failed += result.status == "failed"
        line = self._line(result)
        if self.bar:
            self.bar.update(self.task, completed=self.done)
            if result.status == "failed":
                self.bar.console.print(escape(line))
            self._show()
        else:
            print(line, file=sys.stderr, flush=True)
        self.on_result(result)

    def _line(self, result: Result) -> str:
        accuracy = f" accuracy {result.metrics['accuracy']:.3f}" if "accuracy" in result.metrics else ""
        seconds = f" ({result.ended - result.started:.1f} s)" if result.started and result.ended else ""
        reason = f": {result.reason.splitlines()[0]}" if result.reason else ""
        return f"[{self.done}/{self.total}] {result.cell.label} {result.status}{accuracy}{seconds}{reason}"
