"""Executing cells: once each, failures apart, and a real process killed in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from poolbench import registry
from poolbench.core import COST_METRICS, Cell, DataLocation, Measurement, UsageError
from poolbench.engine import build_model
from poolbench.files import StorageError
from poolbench.runner.attempt import Settings
from poolbench.runner.environment import resolve_device
from poolbench.runner.execute import execute
from poolbench.runner.ledger import Ledger

Run = Callable[..., Any]


def test_cells_run_once(ledger: Ledger, cells: list[Cell], run_cells: Run) -> None:
    log = run_cells(cells, ledger)
    assert log.started == [cell.id for cell in cells]
    assert log.epochs == 8
    assert [result.status for result in log.results] == ["finished"] * 4
    again = run_cells(cells, ledger)
    assert again.started == []
    assert [result.metrics["accuracy"] for result in again.results] == [1.0, 0.99, 1.0, 0.99]


def test_a_result_carries_what_it_depends_on(ledger: Ledger, cells: list[Cell], run_cells: Run) -> None:
    result = run_cells(cells[:1], ledger, "the invocation").results[0]
    costs = {metric.name for metric in COST_METRICS}
    assert set(result.metrics) == {"accuracy", "odd", "train_loss", *costs}
    assert result.facts["invocation"] == "the invocation"
    assert result.facts["environment"]["torch"] == torch.__version__.partition("+")[0]
    assert result.facts["environment"]["device"] == "cpu"
    assert result.facts["data"]["name"] == "tiny"
    assert result.facts["chance"] == 0.5
    assert 0.5 <= result.facts["commonest"] <= 1
    assert "learned" not in result.facts  # judged in analysis, in comparison with other networks
    state = weights(ledger, cells[0])
    own = [p for name, p in state.items() if name.startswith("network.")]
    assert result.metrics["cost_parameters"] == sum(p.numel() for p in own)
    assert all(result.metrics[name] > 0 for name in costs)
    assert ledger.record(cells[0].id).table("layers")["V"].tolist() == [0.5, 0.25]


def weights(ledger: Ledger, cell: Cell) -> dict[str, torch.Tensor]:
    content = (ledger.record(cell.id).folder / "weights.pt").read_bytes()
    state: dict[str, torch.Tensor] = torch.load(BytesIO(content), weights_only=True)
    return state


def test_paired_cells_see_the_same_data_and_start(ledger: Ledger, cells: list[Cell], run_cells: Run) -> None:
    run_cells(cells, ledger)
    by_seed: dict[int, set[float]] = {}
    for cell in cells:
        by_seed.setdefault(cell.seed, set()).add(ledger.result(cell).facts["data"]["digest"])
    assert len(set.union(*by_seed.values())) == 1  # type: ignore[arg-type]


def test_one_failed_cell_does_not_stop_the_others(ledger: Ledger, cells: list[Cell], run_cells: Run) -> None:
    broken = replace(cells[0], variant="broken")
    log = run_cells([broken, cells[1]], ledger)
    assert [result.status for result in log.results] == ["failed", "finished"]
    assert log.results[0].reason == "RuntimeError: broken on purpose"
    assert "in measure_tiny" in log.results[0].traceback
    assert log.results[0].metrics == {}
    assert not (ledger.record(broken.id).folder / "result.json").exists()


def test_every_cell_stores_its_answers(ledger: Ledger, cells: list[Cell], run_cells: Run) -> None:
    run_cells(cells[:1], ledger)
    result, record = ledger.result(cells[0]), ledger.record(cells[0].id)
    data = registry.benchmarks.get("tiny")().load(cells[0], DataLocation("data"), "cpu")
    model = build_model(cells[0], data, "cpu")
    model.load_state_dict(weights(ledger, cells[0]))
    with torch.no_grad():
        decided = model.eval()(data.test.images / 255).argmax(1)
    table = record.table("answers")
    assert table["label"].tolist() == data.test.labels.tolist()
    assert table["decision"].tolist() == decided.tolist()
    assert table["correct"].tolist() == (decided == data.test.labels).long().tolist()
    assert table["correct"].mean() == pytest.approx(result.history[-1]["val_accuracy"])
    assert result.facts["commonest"] == max(decided.bincount().tolist()) / 40


def test_the_table_of_answers_belongs_to_the_runner(
    ledger: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, run_cells: Run
) -> None:
    benchmark = registry.benchmarks.get("tiny")()

    def measure(*arguments: Any) -> Measurement:
        return Measurement({"accuracy": 1.0}, {"answers": pd.DataFrame({"correct": [1]})})

    entry = replace(registry.benchmarks._entries["tiny"], target=lambda: replace(benchmark, measure=measure))
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", entry)
    (result,) = run_cells(cells[:1], ledger).results
    assert result.status == "failed"
    assert "table 'answers' belongs to the runner: rename the one that tiny measures" in result.reason


def test_training_images_are_at_most_those_that_tuning_leaves(
    ledger: Ledger, cells: list[Cell], run_cells: Run
) -> None:
    """Of 40 images 8 are held out."""
    everything = replace(cells[0], train=replace(cells[0].train, train_images=40))
    tuned = replace(everything, split="validation")
    plain = replace(cells[0], split="validation")
    results = run_cells([everything, tuned, plain], ledger).results
    assert [result.status for result in results] == ["finished"] * 3
    assert all(torch.equal(weights(ledger, tuned)[name], value) for name, value in weights(ledger, plain).items())


def test_missing_data_skips_with_its_reason(ledger: Ledger, cells: list[Cell], run_cells: Run) -> None:
    log = run_cells([replace(cells[0], variant="absent"), cells[1]], ledger)
    assert [result.status for result in log.results] == ["skipped", "finished"]
    assert log.results[0].reason == "tiny is not in data; --download fetches it"


def test_a_cell_in_other_hands_is_passed_over_and_taken_up_when_they_die(
    ledger: Ledger, cells: list[Cell], run_cells: Run
) -> None:
    record = ledger.record(cells[0].id)
    record.folder.mkdir(parents=True)
    script = (
        "import sys, time, filelock as f; lock = f.FileLock(sys.argv[1]); lock.acquire(); print(1, flush=True); "
        "time.sleep(600)"
    )
    holder = subprocess.Popen([sys.executable, "-c", script, str(record.folder / "lock")], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    holder.stdout.readline()
    # The second cell is finished before the first one's holder is killed.
    killer = threading.Timer(1.5, holder.kill)
    killer.start()
    try:
        log = run_cells(cells[:2], ledger)
    finally:
        killer.join()
        holder.communicate()
    assert log.started == [cells[1].id, cells[0].id]
    assert [result.status for result in log.results] == ["finished", "finished"]


def test_damaged_data_is_one_line_and_stops_no_other_cell(
    ledger: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, run_cells: Run
) -> None:
    from poolbench import registry

    entry = registry.benchmarks._entries["tiny"]
    benchmark = entry.target()

    def damaged_for_max(cell: Cell, *arguments: Any) -> Any:
        if cell.pool.name == "max":
            raise UsageError("the file x is damaged")
        return benchmark.load(cell, *arguments)

    broken = replace(benchmark, load=damaged_for_max)
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", replace(entry, target=lambda: broken))
    log = run_cells(cells, ledger)
    assert [result.status for result in log.results] == ["failed", "failed", "finished", "finished"]
    assert (log.results[0].reason, log.results[0].traceback) == ("the file x is damaged", "")


def test_a_disk_that_fills_up_stops_the_run_and_keeps_the_rest(
    ledger: Ledger, cells: list[Cell], monkeypatch: pytest.MonkeyPatch, run_cells: Run
) -> None:
    run_cells(cells[:1], ledger)
    real, calls = os.fsync, iter(range(100))

    def full_after_a_while(descriptor: int) -> None:
        if next(calls) >= 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full_after_a_while)
        with pytest.raises(StorageError, match="No space left"):
            run_cells(cells, ledger)
    assert [ledger.result(cell).status for cell in cells] == ["finished", "pending", "pending", "pending"]
    run_cells(cells, ledger)
    assert [ledger.result(cell).status for cell in cells] == ["finished"] * 4


@pytest.mark.parametrize(
    ("name", "message"),
    [("gpu", "unknown device 'gpu'"), ("cpu:1", "unknown device"), ("cuda:99", "torch sees .* CUDA devices")],
)
def test_devices_that_are_not_there(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve_device(name)
    assert resolve_device("cpu") == "cpu"


def started(out: Path) -> list[Path]:
    return list(out.glob("cells/*/events.jsonl"))


def test_a_killed_process_loses_only_the_cell_in_work(tmp_path: Path, poolbench: Run) -> None:
    """kill -9 after an epoch of the second cell; the same command goes on and ends as if nothing had been."""
    selection = ["shift_robustness", "--preset", "smoke", "--arch", "shape_net", "--pool", "max", "--epochs", "4"]
    selection += ["--device", "cpu", "--jobs", "1"]
    command = ["run", *selection, "--no-mlflow"]
    process = subprocess.Popen(
        [sys.executable, "-m", "poolbench.cli", *command], cwd=tmp_path, stderr=subprocess.DEVNULL
    )
    out = tmp_path / "poolbench-out"
    deadline = time.monotonic() + 120
    try:
        while time.monotonic() < deadline:
            running = [path for path in started(out) if not (path.parent / "result.json").exists()]
            if len(started(out)) >= 2 and any('"epoch"' in path.read_text() for path in running):
                break
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}
    assert kept, "the first cell was finished before the kill"
    assert len(kept) < 4, "the kill came too late to test anything"

    assert poolbench(*command).returncode == 0
    finished = {path.parent.name: path.stat().st_mtime_ns for path in out.glob("cells/*/result.json")}
    assert len(finished) == 4
    assert all(finished[cell] == stamp for cell, stamp in kept.items())

    undisturbed = poolbench("run", *selection, "--no-mlflow", "--out", "undisturbed")
    assert undisturbed.returncode == 0
    for cell in finished:
        paths = [tmp_path / folder / "cells" / cell / "result.json" for folder in ("poolbench-out", "undisturbed")]
        first, second = (json.loads(path.read_text())["metrics"] for path in paths)
        timed = {"cost_forward_ms", "cost_train_ms"}
        assert {k: v for k, v in first.items() if k not in timed} == {k: v for k, v in second.items() if k not in timed}


def test_an_interrupt_ends_cleanly_and_the_same_command_continues(tmp_path: Path, poolbench: Run) -> None:
    command = [
        "run",
        "shift_robustness",
        "--preset",
        "smoke",
        "--pool",
        "max",
        "--arch",
        "shape_net",
        "--device",
        "cpu",
        "--jobs",
        "1",
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "poolbench.cli", *command, "--epochs", "30"],
        cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    out = tmp_path / "poolbench-out"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not any('"epoch"' in path.read_text() for path in started(out)):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted" in errors
    assert "Traceback" not in errors
    assert (out / "report" / "report.html").exists()
    outcome = [json.loads(path.read_text())["outcome"] for path in out.glob("invocations/*.json")]
    assert outcome == ["interrupted"]


def test_settings_do_not_change_a_cell(ledger: Ledger, cells: list[Cell], tmp_path: Path, run_cells: Run) -> None:
    other = Ledger(tmp_path / "other").create()
    run_cells(cells[:1], ledger, "one")
    execute(cells[:1], other, Settings(DataLocation("elsewhere", True), "cpu", "two"), run_cells([], ledger))
    first, second = weights(ledger, cells[0]), weights(other, cells[0])
    assert all(torch.equal(first[key], second[key]) for key in first)


def measured_by(monkeypatch: pytest.MonkeyPatch, measure: Callable[..., Any]) -> None:
    """Give the tiny benchmark another measure."""
    entry = registry.benchmarks._entries["tiny"]
    benchmark = replace(entry.target(), measure=measure)
    monkeypatch.setitem(registry.benchmarks._entries, "tiny", replace(entry, target=lambda: benchmark))


def test_an_undeclared_metric_fails_the_cell(
    ledger: Ledger, cells: list[Cell], run_cells: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured_by(monkeypatch, lambda *arguments: Measurement({"accuracy": 1.0, "acuracy": 1.0}))
    (result,) = run_cells(cells[:1], ledger).results
    assert result.status == "failed"
    assert "unknown metric 'acuracy'; did you mean 'accuracy'?" in result.reason
    assert "declare it in the metrics of tiny" in result.reason
    assert result.traceback


def test_an_input_error_of_a_network_has_no_traceback(
    ledger: Ledger, cells: list[Cell], run_cells: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> Measurement:
        raise UsageError("k is at least 1, got 0")

    measured_by(monkeypatch, refuse)
    (result,) = run_cells(cells[:1], ledger).results
    assert (result.status, result.reason, result.traceback) == ("failed", "k is at least 1, got 0", "")
