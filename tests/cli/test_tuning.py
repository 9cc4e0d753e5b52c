"""tune as a user runs it: several processes, kills, wrong input, and the run with the winners."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolbench.runner.ledger import Ledger
from poolbench.tune.record import records

Run = Callable[..., Any]
SELECTION = ("global_pooling", "--preset", "smoke", "--head", "gem", "--where", "variant=corrected", "--device", "cpu")
TUNE = ("tune", *SELECTION, "--epochs", "2", "--no-mlflow")


def start(folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
    with open(folder / "log", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "poolbench.cli", *arguments],
            cwd=folder, stdout=log, stderr=log, env={**os.environ, "OMP_NUM_THREADS": "1"}, start_new_session=True,
        )  # fmt: skip


def cells(folder: Path) -> list[Path]:
    return list(folder.glob("poolbench-out/tuning/*/cells/*/result.json"))


def wait_for(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 240
    while len(cells(folder)) < count:
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.end_to_end
def test_two_killed_tuners_go_on_and_every_trial_counts_once(tmp_path: Path, poolbench: Run) -> None:
    tuners = [start(tmp_path, *TUNE, "--trials", "6") for _ in range(2)]
    wait_for(tmp_path, 4)
    for tuner in tuners:
        tuner.send_signal(signal.SIGKILL)
    for tuner in tuners:
        tuner.wait()
    assert not records(tmp_path / "poolbench-out") or len(records(tmp_path / "poolbench-out")[0].trials) < 6
    before = {path: path.stat().st_mtime_ns for path in cells(tmp_path)}
    tuners = [start(tmp_path, *TUNE, "--trials", "6") for _ in range(2)]
    assert [tuner.wait(timeout=400) for tuner in tuners] == [0, 0], (tmp_path / "log").read_text()
    (record,) = records(tmp_path / "poolbench-out")
    assert len(record.trials) == 6
    assert record.best is not None
    # What had finished was not run again, and no cell ran twice.
    assert all(path.stat().st_mtime_ns == written for path, written in before.items())
    ledger = Ledger(tmp_path / "poolbench-out" / "tuning" / record.id)
    attempts = Counter(
        path.parent.name
        for path in ledger.folder.glob("cells/*/events.jsonl")
        for line in path.read_text().splitlines()
        if '"started"' in line
    )
    results = {result.cell.id: result for result in ledger.results()}
    assert {result.status for result in results.values()} == {"finished"}
    assert all(attempts[path.parent.name] == 1 for path in before)
    # The values of the study are those of its cells.
    for trial in record.trials:
        own = [
            result.metrics["accuracy"]
            for result in results.values()
            if result.cell.train.learning_rate == trial.parameters["learning_rate"]
            and result.cell.seed in record.design.trial_seeds
            and result.cell.head.options["p"] == trial.parameters["head.p"]
        ]
        assert set(trial.values["accuracy"]) <= set(own)
    done = poolbench("run", *SELECTION, "--epochs", "2", "--tuned", "--no-mlflow", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    (result,) = Ledger(tmp_path / "poolbench-out").results()
    assert record.tuned is not None
    assert result.cell.group == record.tuned.group
    assert result.cell.split == "test"


@pytest.mark.slow
@pytest.mark.end_to_end
def test_jobs_share_a_study_and_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    tuner = start(tmp_path, *TUNE, "--trials", "5", "--jobs", "2")
    wait_for(tmp_path, 3)
    # As a terminal does: to all processes, and again at once.
    os.killpg(tuner.pid, signal.SIGINT)
    time.sleep(0.05)
    os.killpg(tuner.pid, signal.SIGINT)
    # A shell reports both as 130. Python ends by the signal if it came while a string was executed, as in namedtuple().
    assert tuner.wait(timeout=120) in (130, -signal.SIGINT)
    assert b"Traceback" not in (tmp_path / "log").read_bytes()
    tuner = start(tmp_path, *TUNE, "--trials", "5", "--jobs", "2")
    assert tuner.wait(timeout=400) == 0, (tmp_path / "log").read_text()
    (record,) = records(tmp_path / "poolbench-out")
    assert len(record.trials) == 5


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("all", "--trials", "2"), "tune takes one benchmark, not all"),
        (("global_pooling", "--trials", "2", "--objective", "accuray"), "did you mean 'accuracy'"),
        (("global_pooling", "--trials", "2", "--limit", "cost_flops"), "a limit is METRIC=NUMBER"),
        (("global_pooling", "--trials", "2", "--limit", "flops=1"), "unknown limit"),
        (("global_pooling", "--trials", "2", "--timeout", "soon"), "a time like 45s, 20m or 2h"),
        (("global_pooling", "--trials", "2", "--trial-seeds", "1"), "--trial-seeds"),
        (("global_pooling", "--trials", "2", "--storage", "postgres"), "--storage is no URL"),
        (("depth_ablation", "--trials", "2"), "its seeds are folds"),
        (("global_pooling", "--trials", "2", "--objective", ","), "at least one objective"),
        (("global_pooling", "--trials", "2", "--limit", "cost_flops=nan"), "finite"),
        (("global_pooling",), "--trials"),
    ],
)
def test_wrong_input_is_one_line(poolbench: Run, arguments: tuple[str, ...], line: str) -> None:
    done = poolbench("tune", *arguments, "--preset", "smoke")
    assert done.returncode == 2
    assert line in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
