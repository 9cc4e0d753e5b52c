"""The command line as a user meets it: from end to end once, and every wrong turn in one line."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Poolbench = Callable[..., Any]


@pytest.mark.end_to_end
def test_run_all_smoke_end_to_end_then_nothing_to_do(tmp_path: Path, poolbench: Poolbench) -> None:
    first = poolbench("run", "all", "--preset", "smoke", "--device", "cpu")
    assert first.returncode == 0, first.stderr
    report = tmp_path / first.stdout.strip()
    assert report.read_text().startswith("<!doctype html>")
    cells = list((tmp_path / "poolbench-out").glob("cells/*/result.json"))
    assert f"{len(cells)} finished" in first.stderr
    assert len(cells) == 20
    with sqlite3.connect(tmp_path / "poolbench-out" / "mlflow.db") as database:
        query = (
            "select count(*), count(distinct t.value) from runs r join tags t on r.run_uuid = t.run_uuid "
            "where t.key = 'poolbench.cell' and r.status = 'FINISHED'"
        )
        assert database.execute(query).fetchone() == (20, 20)
        assert database.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)

    stamp = report.stat().st_mtime_ns
    second = poolbench("run", "all", "--preset", "smoke", "--device", "cpu")
    assert second.returncode == 0
    assert "20 done before, 0 to run" in second.stderr
    assert report.stat().st_mtime_ns == stamp

    status = poolbench("status")
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:]] == [
        ["global_pooling", "8"], ["rotation_variance", "4"], ["shift_robustness", "8"],
    ]  # fmt: skip
    assert poolbench("plan", "all", "--preset", "smoke").stdout.count("finished") == 20

    regress = poolbench("regress", "--baseline", "poolbench-out/report")
    assert regress.returncode == 0, regress.stdout
    assert (tmp_path / "poolbench-out" / "regress" / "junit.xml").exists()

    (tmp_path / "poolbench-out" / "mlflow.db").unlink()
    assert "20 runs written" in poolbench("sync").stderr
    assert "0 runs written" in poolbench("sync").stderr


def test_missing_data_is_skipped_with_the_command_that_fetches_it(poolbench: Poolbench) -> None:
    done = poolbench(
        "run", "global_pooling", "--dataset", "fashion_mnist", "--preset", "smoke", "--seeds", "0", "--head", "avg",
        "--no-mlflow", "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "0 finished, 2 skipped" in done.stderr
    command = done.stderr.partition("to fetch it: poolbench ")[2].splitlines()[0].split()
    assert command[-1] == "--download"
    assert command[:4] == ["run", "global_pooling", "--dataset", "fashion_mnist"]
    assert "Traceback" not in done.stderr


def test_a_run_without_mlflow_is_caught_up_by_sync(tmp_path: Path, poolbench: Poolbench) -> None:
    command = ("global_pooling", "--preset", "smoke", "--seeds", "0", "--head", "avg", "--device", "cpu")
    done = poolbench("run", *command, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.returncode == 0, done.stderr
    assert "going on without MLflow" in done.stderr
    assert not (tmp_path / "poolbench-out" / "mlflow.db").exists()
    assert "2 runs written" in poolbench("sync").stderr


def test_a_failed_cell_is_reported_and_retried_on_demand(tmp_path: Path, poolbench: Poolbench) -> None:
    command = (
        "run", "global_pooling", "--preset", "smoke", "--seeds", "0", "--head", "avg", "--no-mlflow", "--device", "cpu",
    )  # fmt: skip
    assert poolbench(*command).returncode == 0
    # Plant a failure: the ledger of a finished cell is turned into that of a failed one.
    cell = next((tmp_path / "poolbench-out").glob("cells/*/result.json")).parent
    (cell / "result.json").unlink()
    with open(cell / "events.jsonl", "a") as file:
        file.write(json.dumps({"event": "failed", "time": 1e9, "reason": "Boom: planted", "traceback": "T"}) + "\n")
    again = poolbench(*command)
    assert again.returncode == 1
    assert "2 done before, 0 to run" in again.stderr
    assert "Boom: planted" in again.stderr
    assert "Boom: planted" in poolbench("status").stdout
    retried = poolbench(*command, "--retry-failed")
    assert retried.returncode == 0
    assert "1 to run" in retried.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "globalpooling"], "did you mean 'global_pooling'"),
        (["run", "all", "--preset", "quik"], "did you mean 'quick'"),
        (["run", "all", "--pool", "maks"], "did you mean 'max'"),
        (["run", "all", "--arch", "vgg_lik"], "did you mean 'vgg_like'"),
        (["run", "all", "--seeds", "5-1"], "runs upwards"),
        (["run", "all", "--epochs", "0"], "0 is not in the range x>=1"),
        (["run", "all", "--jobs", "0"], "0 is not in the range x>=1"),
        (["run", "all", "--preset", "smoke", "--device", "cuda:77"], "CUDA devices"),
        (["run", "all", "--preset", "smoke", "--device", "tpu"], "unknown device 'tpu'"),
        (["run", "all", "--preset", "smoke", "--out", "/proc/nowhere"], "cannot write to"),
        (["run", "all", "--tuned"], "no tuning result"),
        (["run"], "Missing argument"),
        (["fly"], "No such command 'fly'"),
        (["list", "things"], "'things' is not one of"),
        (["status"], "is no work folder"),
        (["report"], "is no work folder"),
        (["sync"], "is no work folder"),
        (["ui"], "is no work folder"),
        (["tune", "global_pooling"], "Missing option '--trials'"),
        (["regress", "--baseline", "nowhere"], "is no work folder"),
    ],
)
def test_a_wrong_turn_is_one_line_and_exit_code_2(poolbench: Poolbench, arguments: list[str], message: str) -> None:
    done = poolbench(*arguments)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("poolbench: ")]
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr


def test_a_damaged_data_file_is_one_line(tmp_path: Path, poolbench: Poolbench) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\x00\x00\x08\x01broken")
    done = poolbench(
        "run", "rotation_variance", "--preset", "smoke", "--dataset", "mnist", "--no-mlflow", "--device", "cpu"
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert "MNIST" in done.stderr


def test_a_data_set_that_does_not_fit_a_task_is_one_line(poolbench: Poolbench) -> None:
    command = ("run", "shift_robustness", "--preset", "smoke", "--seeds", "0", "--pool", "max", "--no-mlflow")
    done = poolbench(*command, "--dataset", "mnist_sample", "--device", "cpu")
    assert done.returncode == 2, done.stderr
    assert "data set 'mnist_sample' does not fit this task: it has no option canvas, samples" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_baseline_without_results_is_one_line(tmp_path: Path, poolbench: Poolbench) -> None:
    (tmp_path / "poolbench-out" / "cells").mkdir(parents=True)
    assert "cannot read results" in poolbench("regress", "--baseline", "nowhere").stderr
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    done = poolbench("regress", "--baseline", ".")
    assert done.returncode == 2
    assert "lacks the columns benchmark" in done.stderr


def test_help_names_the_exit_codes(poolbench: Poolbench) -> None:
    assert "3 data missing" in " ".join(poolbench("--help").stdout.split())
    assert "poolbench, version" in poolbench("--version").stdout
