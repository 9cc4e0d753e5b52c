"""report --compare: work folders, tables and commits of a history side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from poolbench.analysis.frames import results_frame
from poolbench.analysis.history import COLUMNS
from poolbench.core import Cell, Measurement
from poolbench.core import Result as CellResult
from poolbench.runner.ledger import Ledger
from poolbench_tracking.history import History

Cli = Callable[..., Result]
NOISE = (0.0, 0.002, -0.002, 0.001)


def table(cell_of: Callable[..., Cell], accuracy: float, noise: float = 0.0) -> pd.DataFrame:
    results = [
        CellResult(
            cell_of(head, seed, benchmark="global_pooling"),
            "finished",
            metrics={"accuracy": accuracy + 0.01 * seed + noise * NOISE[seed], "loss": 1.0},
        )
        for head in ("max", "avg")
        for seed in range(4)
    ]
    return results_frame(results)


def store_night(folder: Path, rows: pd.DataFrame, night: str, commit: str) -> None:
    rows = rows.assign(night=night, commit=commit, label="one", verdict="fine")
    text = {name: "x" for name, kind in COLUMNS.items() if kind == "str" and name not in rows}
    History(folder).append(rows.assign(**text)[list(COLUMNS)])


def test_two_tables(cli: Cli, cell_of: Callable[..., Cell], tmp_path: Path) -> None:
    table(cell_of, 0.8).to_csv(tmp_path / "a.csv", index=False)
    table(cell_of, 0.7, noise=1.0).to_csv(tmp_path / "b.csv", index=False)
    done = cli("report", "--compare", "a.csv", "b.csv", "--out", "here")
    assert done.exit_code == 0, done.stderr
    path = tmp_path / done.stdout.strip()
    assert path == tmp_path / "here" / "report" / "comparison.html"
    text = path.with_suffix(".md").read_text()
    assert "4 numbers are in both" in text
    assert "2 of them are equal for every seed; the others: worse: 2." in text


def test_a_work_folder_against_its_table(cli: Cli, cell_of: Callable[..., Cell], tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "work").create()
    for seed in range(4):
        cell = cell_of("max", seed, benchmark="global_pooling", dataset="mnist_sample", architecture="simple_conv")
        record = ledger.record(cell.id)
        record.begin(cell, {})
        record.finish(Measurement({"accuracy": 0.5 + 0.01 * seed, "loss": 1.0}), {"chance": 0.1}, b"")
    assert cli("report", "--no-mlflow", "--out", "work").exit_code == 0
    done = cli("report", "--compare", "work", "work/report/results.csv", "--out", "work")
    assert done.exit_code == 0, done.stderr
    assert "2 of them are equal for every seed." in (tmp_path / "work/report/comparison.md").read_text()


def test_two_commits_of_a_history(cli: Cli, cell_of: Callable[..., Cell], tmp_path: Path) -> None:
    nights = {
        "2026-01-01": ("aaaa11", 0.8, 0.0),
        "2026-01-02": ("aaaa11", 0.9, 0.0),
        "2026-01-03": ("bbbb22", 0.7, 1.0),
    }
    for night, (commit, accuracy, noise) in nights.items():
        store_night(tmp_path / "history", table(cell_of, accuracy, noise), night, commit)
    done = cli("report", "--compare", "aaaa", "bbbb", "--history", "history")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "poolbench-out/report/comparison.md").read_text()
    # The last night of the first commit.
    assert "0.915" in text
    assert "worse: 2" in text


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("a.csv", "absent"), "'absent' is neither a work folder nor a results.csv; for a commit, give --history"),
        (("a.csv", "aa", "--history", "history"), "'aa' is the start of several commits of the history: aa11, aa22"),
        (
            ("a.csv", "a.csv", "--export"),
            "--export belongs to the report of one work folder; leave it out with --compare",
        ),
        (("a.csv", "cccc", "--history", "history"), "no night of the history in 'history' ran commit 'cccc'"),
        (("a.csv", "empty"), "'empty' is not a work folder"),
        (("a.csv", "other.csv"), "have no group with the same seeds in common; nothing to compare"),
        (("a.csv", "broken.csv"), "cannot read results from 'broken.csv'"),
    ],
)
def test_wrong_usage_is_one_line(
    cli: Cli, cell_of: Callable[..., Cell], tmp_path: Path, arguments: tuple[str, ...], line: str
) -> None:
    table(cell_of, 0.8).to_csv(tmp_path / "a.csv", index=False)
    other = table(cell_of, 0.8)
    other.assign(head="gem").to_csv(tmp_path / "other.csv", index=False)
    (tmp_path / "broken.csv").write_text("no table")
    (tmp_path / "empty").mkdir()
    for commit in ("aa11", "aa22"):
        store_night(tmp_path / "history", table(cell_of, 0.8), commit, commit)
    refused = cli("report", "--compare", *arguments)
    assert (refused.exit_code, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
    assert line in refused.stderr
    assert not (tmp_path / "poolbench-out").exists()


def test_a_history_without_a_comparison_is_refused(cli: Cli) -> None:
    refused = cli("report", "--history", "history")
    assert (refused.exit_code, "--history belongs to --compare" in refused.stderr) == (2, True)
