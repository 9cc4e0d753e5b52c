"""doctor: what is wrong in a work folder, and what is left after --fix."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from filelock import FileLock

from poolbench.core import Cell
from poolbench.runner.ledger import Ledger

Cli = Callable[..., Result]


@pytest.fixture
def folder(cells: list[Cell], run_cells: Callable[..., Any], tmp_path: Path) -> Ledger:
    ledger = Ledger(tmp_path / "poolbench-out").create()
    with ledger.open_invocation("poolbench run tiny", "smoke") as invocation:
        run_cells(cells[:3], ledger, invocation.id)
    return ledger


def test_a_good_folder(cli: Cli, folder: Ledger) -> None:
    done = cli("doctor")
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "nothing is wrong\n")


def test_each_thing_that_is_wrong_is_told_and_mended(cli: Cli, folder: Ledger, cells: list[Cell]) -> None:
    weights = folder.record(cells[0].id).folder / "weights.pt"
    weights.write_bytes(bytes(reversed(weights.read_bytes())))
    (folder.record(cells[1].id).folder / "config.json").write_text("[")
    killed = folder.open_invocation("poolbench run tiny", "smoke")
    killed.lock.release()
    (folder.folder / "invocations" / "torn.json").write_text('{"command": "poolb')
    with sqlite3.connect(folder.folder / "mlflow.db") as database:
        database.execute("CREATE TABLE issues (id INTEGER)")
    database.close()
    partial = folder.folder / "report" / ".report.html.12ab.tmp"
    partial.parent.mkdir()
    partial.write_bytes(b"half")
    os.utime(partial, (time.time() - 7200,) * 2)
    done = cli("doctor")
    assert done.exit_code == 1
    lines = done.stdout.splitlines()
    assert len(lines) == 12
    for start in (
        f"cell {cells[0].id} ({cells[0].label}): weights.pt: its content has changed",
        f"cell {cells[1].id}: config.json: it has 1 bytes",
        f"command {killed.id} (poolbench run tiny) was killed",
        "command torn: it holds no command",
        "the MLflow store",
        "1 partial files of killed processes",
    ):
        assert [line for line in lines if line.startswith(start)], start
    mended = cli("doctor", "--fix")
    assert (mended.exit_code, mended.stdout.count("  mended: ")) == (0, 6)
    assert cli("doctor").stdout == ""
    assert {folder.result(cell).status for cell in cells[:2]} == {"pending"}
    assert folder.result(cells[2]).status == "finished"
    kept = {path.name for path in folder.folder.glob("damaged/*/*")}
    assert {"weights.pt", "torn.json", "mlflow.db"} <= kept


def test_a_cell_that_runs_and_a_file_that_is_being_written_are_left_alone(
    cli: Cli, folder: Ledger, cells: list[Cell]
) -> None:
    record = folder.record(cells[0].id)
    (record.folder / "arrays.npz").write_bytes(b"damaged")
    (record.folder / ".weights.pt.99ff.tmp").write_bytes(b"half")
    with FileLock(record.lock.lock_file):  # as another process has it
        cli("doctor", "--fix")
    assert (record.folder / "arrays.npz").exists()
    assert (record.folder / ".weights.pt.99ff.tmp").exists()


def test_what_only_a_user_can_mend_is_left(cli: Cli, folder: Ledger, cells: list[Cell], tmp_path: Path) -> None:
    record = folder.record(cells[3].id)
    record.begin(cells[3], {})
    (record.folder / "config.json").write_text("")
    (tmp_path / "history").mkdir()
    (tmp_path / "history" / "history.parquet").write_bytes(b"PAR1 torn")
    done = cli("doctor", "--fix", "--history", "history")
    assert done.exit_code == 1
    assert done.stdout.count("  to do: ") == 2
    assert done.stderr == "2 left\n"
