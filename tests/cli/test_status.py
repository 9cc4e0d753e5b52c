"""status --watch: what it prints, and when it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from poolbench.cli import status
from poolbench.cli.status import view_lines
from poolbench.runner.ledger import Ledger
from poolbench.runner.standing import Standing, publish
from poolbench.runner.watch import RunningCell, View

Cli = Callable[..., Result]


def test_a_view_is_a_table_and_a_line_for_each_thing_that_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.time, "time", lambda: 1000.0)
    cells = [RunningCell("tiny max seed=0", 3, 8)]
    commands = [("poolbench run tiny", Standing(4, 28, 1, 1754.0)), ("poolbench run all", None)]
    assert list(view_lines(View({"tiny": Counter(finished=3, failed=1, running=1)}, cells, commands))) == [
        "benchmark             finished   running    failed   skipped   pending",
        "tiny                         3         1         1         0         0",
        "epoch 3/8: tiny max seed=0",
        "4 of 28 cells, 1 failed, about 13 min left: poolbench run tiny",
        "just started: poolbench run all",
    ]


def test_names_do_not_tell_a_terminal_what_to_do() -> None:
    cells = [RunningCell("tiny \x1b[2J", 3, 8)]
    commands = [("poolbench \x07", None), ("\x1b[2J", Standing(0, 1, 0, None))]
    assert all(line.isprintable() for line in view_lines(View({"tiny\x1b[2J": Counter()}, cells, commands)))


def test_it_ends_by_itself_when_the_command_has_ended(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    invocation = Ledger(tmp_path / "poolbench-out").create().open_invocation("poolbench run tiny", "quick")
    publish(invocation, Standing(1, 2, 0, None))
    paused: list[float] = []

    def end_after_two(seconds: float) -> None:
        paused.append(seconds)
        if len(paused) == 2:
            invocation.close("finished")

    monkeypatch.setattr(status.time, "sleep", end_after_two)
    done = cli("status", "--watch")
    assert done.exit_code == 0, done.stderr
    blocks = done.stdout.strip().split("\n\n")
    assert paused == [5.0, 5.0]
    assert [block.splitlines()[-1] for block in blocks] == ["1 of 2 cells: poolbench run tiny"] * 2 + [
        "nothing is running"
    ]


def test_ctrl_c_only_ends_the_looking(tmp_path: Path) -> None:
    with Ledger(tmp_path / "out").create().open_invocation("poolbench run tiny", "quick"):
        watching = subprocess.Popen(
            [sys.executable, "-m", "poolbench.cli", "status", "--watch", "0.2", "--out", str(tmp_path / "out")],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert watching.stdout is not None
        watching.stdout.readline()
        time.sleep(0.1)
        watching.send_signal(signal.SIGINT)
        _, errors = watching.communicate(timeout=60)
    assert (watching.returncode, errors) == (0, "")


@pytest.mark.parametrize("given", ["0", "-1", "soon"])
def test_a_wrong_time_is_one_line(cli: Cli, tmp_path: Path, given: str) -> None:
    Ledger(tmp_path / "poolbench-out").create()
    refused = cli("status", "--watch", given)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1)
