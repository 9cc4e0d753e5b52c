"""What a user sees while cells run: a bar with the time left on a terminal, a line per cell elsewhere."""

from __future__ import annotations

import sys
import time
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


class Silent:
    """A listener that shows nothing."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None: ...

    def cell_ended(self, result: Result) -> None: ...


class Progress:
    """A listener that shows progress on stderr and hands every result on."""

    def __init__(self, total: int, on_result: Callable[[Result], None]) -> None:
        self.total, self.done, self.failed = total, 0, 0
        self.on_result = on_result
        self.began = time.monotonic()
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
        self.began = time.monotonic()
        if self.bar:
            self.bar.update(self.task, description=escape(cell.label))

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None:
        if self.bar:
            state = f"epoch {row['epoch']:.0f}/{cell.train.epochs}, accuracy {row['val_accuracy']:.3f}"
            self.bar.update(self.task, description=escape(f"{cell.label}: {state}"))

    def cell_ended(self, result: Result) -> None:
        self.done += 1
        self.failed += result.status == "failed"
        line = self._line(result)
        if self.bar:
            self.bar.update(self.task, completed=self.done)
            if result.status == "failed":
                self.bar.console.print(escape(line))
        else:
            print(line, file=sys.stderr, flush=True)
        self.on_result(result)

    def _line(self, result: Result) -> str:
        seconds = time.monotonic() - self.began
        accuracy = f" accuracy {result.metrics['accuracy']:.3f}" if "accuracy" in result.metrics else ""
        reason = f": {result.reason.splitlines()[0]}" if result.reason else ""
        return f"[{self.done}/{self.total}] {result.cell.label} {result.status}{accuracy} ({seconds:.1f} s){reason}"
