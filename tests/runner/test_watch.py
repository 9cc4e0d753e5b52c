"""Looking at a ledger again and again: the same states as reading all of it, and finished cells are read once."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from poolbench.core import Cell
from poolbench.runner.ledger import Ledger
from poolbench.runner.standing import Standing, publish, withdraw
from poolbench.runner.watch import Watch


@pytest.fixture
def every(cells: list[Cell]) -> dict[str, Cell]:
    """A cell for each state."""
    variants = {"failed": "broken", "skipped": "absent"}
    return {
        status: replace(cell, variant=variants.get(status, status))
        for status, cell in zip(("finished", "failed", "skipped", "running"), cells, strict=True)
    }


def counted(watch: Watch) -> dict[str, int]:
    return dict(watch.look().counts.get("tiny", Counter()))


def begin(ledger: Ledger, cell: Cell, epochs: int) -> None:
    record = ledger.record(cell.id)
    record.begin(cell, {"environment": {}})
    for epoch in range(1, epochs + 1):
        record.append("epoch", epoch=epoch, train_loss=1.0, val_accuracy=0.5, val_loss=1.0)


def test_states_are_those_of_the_ledger(ledger: Ledger, every: dict[str, Cell], run_cells: Callable[..., Any]) -> None:
    watch = Watch(ledger)
    assert watch.look().is_over
    run_cells([every["finished"], every["failed"], every["skipped"]], ledger)
    begin(ledger, every["running"], 1)
    states = Counter(result.status for result in ledger.results())
    assert counted(watch) == states == {"finished": 1, "failed": 1, "skipped": 1, "pending": 1}
    assert watch.look().is_over
    with ledger.record(every["running"].id).lock:
        view = watch.look()
        assert not view.is_over
        assert view.counts["tiny"] == Counter(result.status for result in ledger.results())
        assert [(cell.label, cell.epoch, cell.epochs) for cell in view.cells] == [(every["running"].label, 1, 2)]
        begin(ledger, every["running"], 2)
        assert watch.look().cells[0].epoch == 2


def test_a_failed_cell_that_runs_again_is_running(
    ledger: Ledger, every: dict[str, Cell], run_cells: Callable[..., Any]
) -> None:
    watch = Watch(ledger)
    run_cells([every["failed"]], ledger)
    assert counted(watch) == {"failed": 1}
    with ledger.record(every["failed"].id).lock:
        begin(ledger, every["failed"], 1)
        assert counted(watch) == {"running": 1}


def test_what_has_ended_is_read_once(
    ledger: Ledger, every: dict[str, Cell], run_cells: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(ledger)
    run_cells([every["finished"], every["failed"]], ledger)
    before = counted(watch)
    (ledger.record(every["finished"].id).folder / "config.json").write_text("no more")
    monkeypatch.setattr("poolbench.runner.watch.read_attempt", lambda folder: pytest.fail("a log was read again"))
    assert counted(watch) == before == {"finished": 1, "failed": 1}


def test_half_written_cells_and_commands_are_passed_over(ledger: Ledger, every: dict[str, Cell]) -> None:
    (ledger.folder / "cells" / "empty").mkdir()
    (ledger.folder / "cells" / "torn").mkdir()
    (ledger.folder / "cells" / "torn" / "config.json").write_text('{"benchm')
    (ledger.folder / "invocations" / "torn.json").write_text('{"comm')
    assert Watch(ledger).look().is_over


def test_running_commands_have_their_standing(ledger: Ledger) -> None:
    watch = Watch(ledger)
    standing = Standing(3, 10, 1, 1e9)
    with ledger.open_invocation("poolbench run tiny", "quick") as invocation:
        assert watch.look().commands == [("poolbench run tiny", None)]
        publish(invocation, standing)
        assert watch.look().commands == [("poolbench run tiny", standing)]
    assert watch.look().is_over
    withdraw(invocation)
    assert not list(ledger.folder.glob("invocations/*.progress"))


def test_a_killed_command_is_not_running(ledger: Ledger) -> None:
    invocation = ledger.open_invocation("poolbench run tiny", "quick")
    publish(invocation, Standing(3, 10, 0, None))
    invocation.lock.release(force=True)
    assert json.loads(invocation.path.read_text())["ended"] is None
    assert Watch(ledger).look().is_over
