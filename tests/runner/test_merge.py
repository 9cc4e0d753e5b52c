"""Merging ledgers: which cell wins, what is refused, what a killed merge leaves, and that sources stay as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from filelock import FileLock

from poolbench.core import Cell, Measurement, UsageError
from poolbench.runner import merge as merging
from poolbench.runner.ledger import Ledger
from poolbench.runner.merge import merge

Make = Callable[[str], Ledger]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a function that creates the ledger of a name."""
    return lambda name: Ledger(tmp_path / name).create()


def begin(ledger: Ledger, cell: Cell, epochs: int = 0, checkpoint: bytes = b"") -> None:
    record = ledger.record(cell.id)
    record.begin(cell, {"invocation": ledger.folder.name})
    for epoch in range(1, epochs + 1):
        record.append("epoch", epoch=epoch, val_accuracy=epoch / 10)
    if checkpoint:
        record.save_checkpoint(checkpoint)


def finish(
    ledger: Ledger, cell: Cell, accuracy: float = 0.5, rows: tuple[int, ...] = (1, 2), cost: float = 1.0
) -> None:
    begin(ledger, cell, 2)
    metrics = {"accuracy": accuracy, "odd": float("nan"), "cost_forward_ms": cost}
    measured = Measurement(metrics, {"layers": pd.DataFrame({"V": rows})})
    ledger.record(cell.id).finish(measured, {"by": ledger.folder.name}, b"weights")


def files(ledger: Ledger) -> dict[str, bytes]:
    """Return {path: content} of all files of a ledger but its locks."""
    return {
        str(path.relative_to(ledger.folder)): path.read_bytes()
        for path in ledger.folder.rglob("*")
        if path.is_file() and not path.name.endswith("lock")
    }


def test_cells_and_invocations_of_all_folders_are_brought_together(make: Make, cells: list[Cell]) -> None:
    one, two, out = make("one"), make("two"), make("out")
    for ledger, cell in ((one, cells[0]), (two, cells[1])):
        with ledger.open_invocation("poolbench run tiny", "quick"):
            finish(ledger, cell)
    begin(two, cells[2], 3, b"state")
    before = [files(ledger) for ledger in (one, two)]
    assert [merge(ledger, out).copied for ledger in (one, two)] == [1, 2]
    assert files(out) == before[0] | before[1]
    assert [files(ledger) for ledger in (one, two)] == before
    assert {r.cell: r for r in out.results()} == {r.cell: r for ledger in (one, two) for r in ledger.results()}
    assert out.record(cells[2].id).checkpoint() == b"state"
    assert [invocation.id for invocation in out.invocations()] == [
        invocation.id for ledger in (one, two) for invocation in ledger.invocations()
    ]
    again = [merge(ledger, out) for ledger in (one, two)]
    assert [(found.copied, found.kept) for found in again] == [(0, 1), (0, 2)]
    assert files(out) == before[0] | before[1]


@pytest.mark.parametrize("finished_first", [True, False])
def test_a_finished_cell_wins(make: Make, cells: list[Cell], finished_first: bool) -> None:
    one, two, out = make("one"), make("two"), make("out")
    finish(one, cells[0])
    begin(two, cells[0], 9, b"state")
    for ledger in (one, two) if finished_first else (two, one):
        merge(ledger, out)
    assert files(out) == files(one)


def test_of_two_unfinished_cells_the_one_with_more_epochs_wins(make: Make, cells: list[Cell]) -> None:
    one, two, out = make("one"), make("two"), make("out")
    begin(one, cells[0], 2, b"two epochs")
    begin(two, cells[0], 3, b"three epochs")
    assert [merge(ledger, out).copied for ledger in (one, two, one)] == [1, 1, 0]
    assert out.record(cells[0].id).checkpoint() == b"three epochs"
    # A resumed attempt is as far as its checkpoint, whatever was logged before.
    two.record(cells[0].id).resume(cells[0], 1, {})
    assert two.record(cells[0].id).progress == 1


def test_equal_results_are_fine_whatever_their_times(make: Make, cells: list[Cell]) -> None:
    one, two, out = make("one"), make("two"), make("out")
    finish(one, cells[0], cost=1.0)
    finish(two, cells[0], cost=2.0)
    found = [merge(ledger, out) for ledger in (one, two)]
    assert [(one.copied, one.kept, one.differing) for one in found] == [(1, 0, []), (0, 1, [])]
    assert files(out) == files(one)


def test_a_different_result_is_said_and_the_first_stays(make: Make, cells: list[Cell]) -> None:
    one, two, out = make("one"), make("two"), make("out")
    finish(one, cells[0], 0.5)
    finish(one, cells[1])
    finish(two, cells[0], 0.75)
    finish(two, cells[1], rows=(1, 3))
    finish(two, cells[2])
    merge(one, out)
    found = merge(two, out)
    assert sorted(found.differing) == sorted(
        [
            f"{cells[0].label}: accuracy is 0.75 and 0.5 (by 0.25) in '{two.folder}' and '{out.folder}'",
            f"{cells[1].label}: table layers differs in '{two.folder}' and '{out.folder}'",
        ]
    )
    assert found.copied == 1
    assert out.result(cells[0]).metrics["accuracy"] == 0.5


def test_running_cells_are_left_out_until_they_have_ended(make: Make, cells: list[Cell]) -> None:
    one, two, out = make("one"), make("two"), make("out")
    begin(one, cells[0], 1, b"state")
    finish(one, cells[1])
    # Another lock object stands for another process.
    with FileLock(one.record(cells[0].id).folder / "lock"), one.open_invocation("poolbench run tiny", "quick"):
        found = merge(one, out)
        assert found.running == [f"{cells[0].label}: is running in '{one.folder}'"]
        assert found.copied == 1
        assert not out.invocations()
    # Nor is one replaced that runs in the target.
    assert merge(one, out).copied == 1
    finish(two, cells[0])
    with FileLock(out.record(cells[0].id).folder / "lock"):
        assert merge(two, out).running == [f"{cells[0].label}: is running in '{out.folder}'"]
    assert out.result(cells[0]).status == "pending"
    assert merge(two, out).copied == 1
    assert out.result(cells[0]).status == "finished"


def test_a_folder_without_a_cell_is_none(make: Make, cells: list[Cell]) -> None:
    one, out = make("one"), make("out")
    begin(one, cells[0])
    # What a launcher leaves that was killed as soon as it held the lock.
    out.record(cells[0].id).folder.mkdir()
    assert merge(one, out).copied == 1
    assert files(out) == files(one)


def test_two_merges_into_one_folder_do_not_meet(make: Make, cells: list[Cell]) -> None:
    one, out = make("one"), make("out")
    finish(one, cells[0])
    with merging._alone(out), pytest.raises(UsageError, match="another merge writes to"):
        merge(one, out)


@pytest.mark.parametrize("calls", range(1, 26))
def test_a_killed_merge_is_completed_by_the_next(
    make: Make, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    one, out = make("one"), make("out")
    finish(one, cells[0])
    begin(one, cells[1], 1, b"state")
    begin(out, cells[0], 1, b"older")
    left = [calls]

    def mortal(action: Callable[..., Any]) -> Callable[..., Any]:
        def act(*arguments: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt  # as near to a kill as a test in one process comes
            return action(*arguments)

        return act

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", mortal(shutil.copy2))
        patch.setattr(merging.os, "rename", mortal(merging.os.rename))
        try:
            merge(one, out)
            killed = False
        except KeyboardInterrupt:
            killed = True
    assert killed or calls > 15
    assert not killed or calls < 25
    # What is finished is whole.
    assert not [cell for cell in cells[:2] if out.record(cell.id).damage(weights=True)]
    merge(one, out)
    assert files(out) == files(one)


def test_cells_that_this_version_cannot_read_travel_too(
    make: Make, cells: list[Cell], unseal: Callable[..., None]
) -> None:
    one, two, out = make("one"), make("two"), make("out")
    for ledger, accuracy in ((one, 0.5), (two, 0.25)):
        finish(ledger, cells[0], accuracy)
        config = ledger.record(cells[0].id).folder / "config.json"
        config.write_text(json.dumps({**cells[0].config(), "unheard_of": 1}))
        unseal(ledger.record(cells[0].id))
    assert merge(one, out).copied == 1
    assert merge(two, out).differing[0].startswith(f"{cells[0].id}: accuracy is 0.25 and 0.5")
    assert out.left_out() == one.left_out()


def test_damaged_cells_are_left_out_and_replaced(
    cells: list[Cell], tmp_path: Path, run_cells: Callable[..., Any]
) -> None:
    one, two = (Ledger(tmp_path / name).create() for name in ("one", "two"))
    for ledger in (one, two):
        run_cells(cells[:2], ledger)
    (one.record(cells[0].id).folder / "weights.pt").write_bytes(b"damaged")
    (two.record(cells[1].id).folder / "arrays.npz").write_bytes(b"damaged")
    merged = merge(one, two)
    assert merged.copied == 1
    assert [line for line in merged.damaged if "weights.pt: it has 7 bytes" in line and "'" in line]
    assert {two.result(cell).status for cell in cells[:2]} == {"finished"}
    assert not two.record(cells[1].id).damage(weights=True)
    (kept,) = (tmp_path / "two" / "damaged").iterdir()
    assert (kept / "arrays.npz").read_bytes() == b"damaged"


def test_links_in_a_strangers_folder_are_not_followed(
    cells: list[Cell], tmp_path: Path, run_cells: Callable[..., Any]
) -> None:
    one, two = (Ledger(tmp_path / name).create() for name in ("one", "two"))
    run_cells(cells[:2], one)
    secret = tmp_path / "secret.txt"
    secret.write_text("secret")
    (one.record(cells[0].id).folder / "notes.txt").symlink_to(secret)
    elsewhere = tmp_path / "elsewhere"
    one.record(cells[1].id).folder.rename(elsewhere)
    one.record(cells[1].id).folder.symlink_to(elsewhere)
    merged = merge(one, two)
    # A cell without one of its files would be damaged in the target.
    assert (merged.copied, len(merged.damaged)) == (0, 2)
    assert merge(two, one).copied == 0
    assert not [path for path in two.folder.rglob("*") if path.is_symlink() or path.name == "notes.txt"]
