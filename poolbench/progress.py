"""What a user sees while cells run: a bar with the time left on a terminal, a line per cell elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import TracebackType

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from poolbench.core import Cell, Result


@contextmanager
def counting(what: str) -> Iterator[Callable[[int], None]]:
    """Yield a function that adds to a count on stderr; nothing is shown where stderr is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.completed:,.0f}"), TextColumn(what), TimeElapsedColumn())
    with Bar(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield partial(bar.advance, task)


class Progress:
    """A listener that shows progress on stderr and hands every result on."""

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
        # Taken out and put in again: the latest comes last.
        self.running.pop(cell, None)
        state = f"epoch {row['epoch']:.0f}/{cell.train.epochs}, accuracy {row['val_accuracy']:.3f}"
        self.running[cell] = f"{cell.label}: {state}"
        self._show()

    def _show(self) -> None:
        """Describe the cell that moved last, and count those beside it."""
        if self.bar and self.running:
            beside = f" (+{len(self.running) - 1})" if len(self.running) > 1 else ""
            self.bar.update(self.task, description=escape([*self.running.values()][-1] + beside))

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
