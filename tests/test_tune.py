"""Tuning: the budget is kept, the test images stay unseen, a killed study goes on."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from poolbench.core import Cell, Component, DataLocation, Result, UsageError
from poolbench.runner.attempt import Settings
from poolbench.runner.execute import execute
from poolbench.runner.ledger import Ledger
from poolbench.tune import _drop_torn_line, groups_of, read_winner, study_folder, tune, tuned, tuning_ledgers

Run = Callable[..., Any]


@pytest.fixture
def trial(run_cells: Run) -> Callable[[Cell, Ledger], Result]:
    def run(cell: Cell, ledger: Ledger) -> Result:
        execute([cell], ledger, Settings(DataLocation("data"), "cpu"), run_cells([], ledger))
        return ledger.result(cell)

    return run


def test_a_study_keeps_its_budget_and_its_winner(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    winner = tune(cells[0], 3, tmp_path, trial)
    assert winner.trials == 3
    assert set(asdict(winner.parameters)) == {"learning_rate", "weight_decay", "batch_size"}
    results = Ledger(study_folder(tmp_path, cells[0])).results()
    assert len(results) == 3
    assert winner.accuracy == max(result.metrics["accuracy"] for result in results)
    assert read_winner(tmp_path, cells[0]) == winner
    again = tune(cells[0], 3, tmp_path, trial)
    assert again == winner
    assert tune(cells[0], 5, tmp_path, trial).trials == 5


def test_the_first_trial_is_the_default(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    winner = tune(cells[0], 1, tmp_path, trial)
    assert winner.parameters.learning_rate == cells[0].train.learning_rate
    assert winner.parameters.batch_size == cells[0].train.batch_size


def test_trials_are_judged_on_validation_images(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    seen: list[Cell] = []

    def watching(cell: Cell, ledger: Ledger) -> Result:
        seen.append(cell)
        result: Result = trial(cell, ledger)
        return result

    tune(cells[0], 2, tmp_path, watching)
    assert {cell.split for cell in seen} == {"validation"}
    assert cells[0].id not in {cell.id for cell in seen}
    # The task's measure, which sees the test split, would have given 1.0 - seed / 100 and a table.
    record = Ledger(study_folder(tmp_path, cells[0])).record(seen[0].id)
    assert not (record.folder / "layers.parquet").exists()


def test_a_failed_trial_counts_and_does_not_win(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    calls: list[int] = []

    def failing_first(cell: Cell, ledger: Ledger) -> Result:
        calls.append(1)
        result: Result = trial(replace(cell, pool=Component("no such pool")) if len(calls) == 1 else cell, ledger)
        return result

    winner = tune(cells[0], 2, tmp_path, failing_first)
    assert len(calls) == 2
    assert winner.accuracy > 0


def test_no_accuracy_at_all_is_said(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    with pytest.raises(UsageError, match="no trial gave an accuracy"):
        tune(cells[0], 1, tmp_path, lambda cell, ledger: trial(replace(cell, pool=Component("no such pool")), ledger))


def test_groups_are_tuned_once_for_all_seeds(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    groups = groups_of(cells)
    assert [(cell.pool.name, cell.seed) for cell in groups] == [("max", 0), ("avg", 0)]
    with pytest.raises(UsageError, match=r"no tuning result for tiny .*; run 'poolbench tune tiny --trials N'"):
        tuned(tmp_path, cells)
    for cell in groups:
        tune(cell, 2, tmp_path, trial)
    chosen = tuned(tmp_path, cells)
    assert [(cell.pool.name, cell.seed) for cell in chosen] == [(cell.pool.name, cell.seed) for cell in cells]
    winner = read_winner(tmp_path, cells[0])
    assert chosen[0].train.learning_rate == chosen[1].train.learning_rate == winner.parameters.learning_rate
    assert {cell.split for cell in chosen} == {"test"}
    assert len(tuning_ledgers(tmp_path)) == 2


def test_a_trial_cut_short_is_tried_again_with_its_parameters(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    seen: list[Cell] = []

    def dies_in_the_second(cell: Cell, ledger: Ledger) -> Result:
        seen.append(cell)
        if len(seen) == 2:
            raise KeyboardInterrupt
        result: Result = trial(cell, ledger)
        return result

    with pytest.raises(KeyboardInterrupt):
        tune(cells[0], 3, tmp_path, dies_in_the_second)
    winner = tune(cells[0], 3, tmp_path, dies_in_the_second)
    assert seen[2].train == seen[1].train
    assert len(seen) == 4  # three that count, one cut short
    assert winner.trials == 4


def test_a_resumed_study_does_not_repeat_its_proposals(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    for budget in (2, 3, 4):
        tune(cells[0], budget, tmp_path, trial)
    rates = [result.cell.train.learning_rate for result in Ledger(study_folder(tmp_path, cells[0])).results()]
    assert len(set(rates)) == 4


def test_a_torn_journal_line_is_dropped(tmp_path: Path, cells: list[Cell], trial: Run) -> None:
    tune(cells[0], 1, tmp_path, trial)
    journal = study_folder(tmp_path, cells[0]) / "journal.log"
    whole = journal.read_bytes()
    journal.write_bytes(whole + b'{"op_code": 4, "wor')
    assert tune(cells[0], 2, tmp_path, trial).trials == 2
    assert journal.read_bytes().startswith(whole)
    _drop_torn_line(tmp_path / "absent.log")


def test_validation_images_are_held_out_of_training(cells: list[Cell], tiny: Any) -> None:
    data = tiny.load(cells[0], DataLocation("data"), "cpu")
    inside = data.for_tuning(0.2)
    assert len(inside.train) + len(inside.test) == len(data.train)
    assert len(inside.test) == 8
    assert torch.bincount(inside.test.labels).tolist() == [4, 4]


@pytest.mark.end_to_end
def test_a_killed_tuning_process_is_continued(tmp_path: Path, poolbench: Run) -> None:
    selection = ["global_pooling", "--preset", "smoke", "--head", "avg", "--device", "cpu"]
    command = ["tune", *selection, "--trials", "4", "--epochs", "3", "--no-mlflow"]
    process = subprocess.Popen(
        [sys.executable, "-m", "poolbench.cli", *command],
        cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    out = tmp_path / "poolbench-out"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(out.glob("tuning/*/cells/*/events.jsonl"))) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = len(list(out.glob("tuning/*/cells/*/result.json")))
    assert before >= 1
    done = poolbench(*command)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("tuning/*/cells/*/result.json"))) == 8  # two variants of four trials
    for path in out.glob("tuning/*/best.json"):
        assert 0 < json.loads(path.read_text())["accuracy"] <= 1
    done = poolbench("run", *selection, "--epochs", "3", "--tuned", "--no-mlflow", "--seeds", "0")
    assert done.returncode == 0, done.stderr
    assert "2 finished" in done.stderr
