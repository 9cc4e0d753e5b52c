"""run and what follows it: from end to end once, then missing data, failures, no MLflow, left-out cells."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from click.testing import Result

from poolbench.cli.baselines import known_metrics

Cli = Callable[..., Result]
SMALL = ("global_pooling", "--preset", "smoke", "--seeds", "0", "--head", "avg", "--device", "cpu", "--jobs", "1")


@pytest.mark.end_to_end
@pytest.mark.timeout(1800)
def test_run_all_smoke_end_to_end_then_nothing_to_do(tmp_path: Path, poolbench: Callable[..., Any], cli: Cli) -> None:
    first = poolbench("run", "all", "--preset", "smoke", "--device", "cpu", timeout=1500)
    assert first.returncode == 0, first.stderr
    report = tmp_path / first.stdout.strip()
    assert report.read_text().startswith("<!doctype html>")
    cells = list((tmp_path / "poolbench-out").glob("cells/*/result.json"))
    assert f"{len(cells)} finished" in first.stderr
    assert len(cells) == 28
    with sqlite3.connect(tmp_path / "poolbench-out" / "mlflow.db") as database:
        query = (
            "select count(*), count(distinct t.value) from runs r join tags t on r.run_uuid = t.run_uuid "
            "where t.key = 'poolbench.cell' and r.status = 'FINISHED'"
        )
        assert database.execute(query).fetchone() == (28, 28)
        assert database.execute("select count(*) from runs where status = 'RUNNING'").fetchone() == (0,)

    values = pd.read_csv(report.parent / "results.csv").dropna(subset="value")
    for name, metrics in known_metrics().items():
        for metric in metrics:
            of_metric = values[(values["benchmark"] == name) & (values["metric"] == metric.name)]["value"]
            assert of_metric.between(*metric.bounds).all(), metric.name

    stamp = report.stat().st_mtime_ns
    second = poolbench("run", "all", "--preset", "smoke", "--device", "cpu")
    assert second.returncode == 0
    assert "28 done before, 0 to run" in second.stderr
    assert report.stat().st_mtime_ns == stamp

    status = cli("status")
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:]] == [
        ["depth_ablation", "4"], ["global_pooling", "8"], ["rotation_variance", "4"], ["shift_robustness", "8"],
        ["training_budget", "4"],
    ]  # fmt: skip
    assert cli("plan", "all", "--preset", "smoke").stdout.count("finished") == 28

    regress = cli("regress", "--baseline", "poolbench-out/report")
    assert regress.exit_code == 0, regress.stdout
    assert (tmp_path / "poolbench-out" / "regress" / "junit.xml").exists()

    (tmp_path / "poolbench-out" / "mlflow.db").unlink()
    assert "28 runs of seeds are new" in poolbench("sync").stderr
    assert "0 runs of seeds are new" in poolbench("sync").stderr


def test_missing_data_is_skipped_with_the_command_that_fetches_it(cli: Cli) -> None:
    done = cli("run", *SMALL, "--dataset", "fashion_mnist", "--no-mlflow")
    assert done.exit_code == 3, done.stderr
    assert "0 finished, 2 skipped" in done.stderr
    command = done.stderr.partition("to fetch it: poolbench ")[2].splitlines()[0].split()
    assert command == ["run", *SMALL, "--dataset", "fashion_mnist", "--no-mlflow", "--download"]


def test_a_run_without_mlflow_is_caught_up_by_sync(tmp_path: Path, cli: Cli) -> None:
    done = cli("run", *SMALL, MLFLOW_TRACKING_URI="http://127.0.0.1:9")
    assert done.exit_code == 0, done.stderr
    assert done.stderr.count("going on without MLflow") == 1
    assert not (tmp_path / "poolbench-out" / "mlflow.db").exists()
    assert "2 runs of seeds are new" in cli("sync").stderr


def test_a_failed_cell_is_reported_and_retried_on_demand(tmp_path: Path, cli: Cli) -> None:
    command = ("run", *SMALL, "--no-mlflow")
    assert cli(*command).exit_code == 0
    # Plant a failure: the ledger of a finished cell is turned into that of a failed one.
    cell = next((tmp_path / "poolbench-out").glob("cells/*/result.json")).parent
    (cell / "result.json").unlink()
    with open(cell / "events.jsonl", "a") as file:
        file.write(json.dumps({"event": "failed", "time": 1e9, "reason": "Boom: planted", "traceback": "T"}) + "\n")
    again = cli(*command)
    assert again.exit_code == 1
    assert "2 done before, 0 to run" in again.stderr
    assert "Boom: planted" in again.stderr
    assert "Boom: planted" in cli("status").stdout
    retried = cli(*command, "--retry-failed")
    assert retried.exit_code == 0
    assert "1 to run" in retried.stderr


def test_a_damaged_data_file_is_one_line(tmp_path: Path, cli: Cli) -> None:
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"):
        (raw / f"{name}-ubyte").write_bytes(b"\x00\x00\x08\x01broken")
    selection = ("rotation_variance", "--preset", "smoke", "--dataset", "mnist")
    done = cli("run", *selection, "--no-mlflow", "--device", "cpu", "--jobs", "1")
    assert done.exit_code == 2, done.stderr
    assert "MNIST" in done.stderr
    assert "Traceback" not in done.stderr


def test_training_options_reach_the_training(tmp_path: Path, cli: Cli) -> None:
    done = cli("run", *SMALL, "--no-mlflow", "--train", "epochs=2,schedule=cosine", "--pool", "gem_local:p=4")
    assert done.exit_code == 0, done.stderr
    folders = [path.parent for path in (tmp_path / "poolbench-out").glob("cells/*/result.json")]
    assert len(folders) == 2
    for folder in folders:
        config = json.loads((folder / "config.json").read_text())
        assert (config["train"]["epochs"], config["train"]["schedule"]) == (2, "cosine")
        assert config["pool"] == {"name": "gem_local", "options": {"eps": 1e-06, "p": 4.0}}
        assert (folder / "events.jsonl").read_text().count(
            '"epoch"'
        ) == 2 * 2  # as the name of the event and its number
