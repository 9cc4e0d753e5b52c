"""doctor: what is wrong in a work folder, and what is left after --fix."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
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
    partial = folder.folder / "report" / ".report.html.12ab34cd.tmp"
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
        "1 file that killed processes began to write",
    ):
        assert [line for line in lines if line.startswith(start)], start
    mended = cli("doctor", "--fix")
    assert (mended.exit_code, mended.stdout.count("  mended: ")) == (0, 6)
    assert cli("doctor").stdout == ""
    assert {folder.result(cell).status for cell in cells[:2]} == {"pending"}
    assert folder.result(cells[2]).status == "finished"
    kept = {path.name for path in folder.folder.glob("damaged/*/*")}
    assert {"weights.pt", "torn.json", "mlflow.db", partial.name} <= kept


def test_a_cell_that_runs_and_a_file_that_is_being_written_are_left_alone(
    cli: Cli, folder: Ledger, cells: list[Cell]
) -> None:
    record = folder.record(cells[0].id)
    (record.folder / "arrays.npz").write_bytes(b"damaged")
    partial = record.folder / ".weights.pt.99ff00aa.tmp"
    partial.write_bytes(b"half")
    with FileLock(record.lock.lock_file):  # as another process has it
        done = cli("doctor", "--fix")
    assert (done.exit_code, done.stderr) == (1, "1 left\n")
    assert "not mended: a process is executing it; try again later" in done.stdout
    assert (record.folder / "arrays.npz").exists()
    assert partial.exists()


def test_a_store_that_is_in_use_is_not_touched(cli: Cli, folder: Ledger) -> None:
    path = folder.folder / "mlflow.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE alembic_version (version TEXT)")
        database.execute("INSERT INTO alembic_version VALUES ('1')")
        database.commit()
        database.execute("BEGIN EXCLUSIVE")
        done = cli("doctor", "--fix")
        assert (done.exit_code, path.exists()) == (1, True)
        assert "cannot be checked: database is locked" in done.stdout
    assert cli("doctor").stdout == ""


def test_what_a_killed_writer_left_half_done_is_undone_by_the_database(cli: Cli, folder: Ledger) -> None:
    path = folder.folder / "mlflow.db"
    script = """
import os, sqlite3, sys
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("PRAGMA cache_size=1")
database.execute("CREATE TABLE alembic_version (version TEXT)")
database.execute("INSERT INTO alembic_version VALUES (1)")
database.execute("BEGIN")
for _ in range(2000):
    database.execute("INSERT INTO alembic_version VALUES (?)", ("x" * 500,))
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert path.with_name("mlflow.db-journal").stat().st_size
    done = cli("doctor", "--fix")
    assert (done.exit_code, done.stdout) == (0, "")
    with closing(sqlite3.connect(path)) as database:
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)


@pytest.mark.parametrize("line", [b'{"op_code": 99}\n', b'{"op_code": 4, "study_id": 0}\n', b"[1]\n", b"\xff\n"])
def test_a_journal_that_optuna_cannot_read_is_moved_away(cli: Cli, folder: Ledger, line: bytes) -> None:
    journal = folder.folder / "tuning" / "journal.log"
    journal.parent.mkdir()
    journal.write_bytes(line)
    assert "the journal of the studies: it holds no studies" in cli("doctor").stdout
    assert cli("doctor", "--fix").exit_code == 0
    (kept,) = folder.folder.glob("damaged/*/journal.log")
    assert kept.read_bytes() == line


def test_links_are_left_alone(cli: Cli, folder: Ledger, cells: list[Cell], tmp_path: Path) -> None:
    record = folder.record(cells[0].id)
    elsewhere = tmp_path / "elsewhere"
    record.folder.rename(elsewhere)
    record.folder.symlink_to(elsewhere)
    (elsewhere / "arrays.npz").write_bytes(b"damaged")
    (folder.folder / "cells" / "file").write_text("no folder")
    before = sorted(path.name for path in elsewhere.iterdir())
    done = cli("doctor", "--fix")
    assert (done.exit_code, done.stdout.count("is no folder, or a link")) == (1, 2)
    assert sorted(path.name for path in elsewhere.iterdir()) == before


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


def test_a_stranger_does_not_tell_the_terminal_what_to_do(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "poolbench-out"
    for name in ("cells", "invocations"):
        (out / name).mkdir(parents=True)
    content = {"command": "run \x1b[2J\x1b]0;title\x07", "preset": "quick", "started": 1.0, "ended": None}
    (out / "invocations" / "one.json").write_text(json.dumps(content))
    done = cli("doctor")
    assert done.exit_code == 1
    assert r"run \x1b[2J\x1b]0;title\x07" in done.stdout
    assert all(line.isprintable() for line in done.output.splitlines())
