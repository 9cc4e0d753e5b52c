"""Results as frames: what has a row, and what a CSV file gives back."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from pathlib import Path

import pandas as pd
import pytest

from poolbench.analysis.frames import COLUMNS, read_results, results_frame, summary_rows, varying_fields
from poolbench.core import Metric, Result, UsageError

Finished = Callable[..., Result]


def test_undefined_metrics_have_no_row(finished: Finished) -> None:
    frame = results_frame([finished("max", 0, 0.5, metrics={"kappa": nan, "range": inf})])
    assert sorted(frame["metric"]) == ["accuracy", "loss"]


def test_a_frame_of_nothing_has_its_columns() -> None:
    frame = results_frame([])
    assert list(frame.columns) == list(COLUMNS)
    assert varying_fields(frame) == ["pool"]


def test_csv_gives_back_equal_bits(finished: Finished, tmp_path: Path) -> None:
    # Thirds and sevenths have no short decimal form.
    values = [seed / 7 + 1 / 3e5 for seed in range(200)]
    frame = results_frame([finished("max", seed, value) for seed, value in enumerate(values)])
    frame.to_csv(tmp_path / "results.csv", index=False)
    again = read_results(str(tmp_path / "results.csv"))
    assert again["value"].tolist() == frame["value"].tolist()
    assert again["group"].tolist() == frame["group"].tolist()


def test_files_that_are_no_results(tmp_path: Path) -> None:
    path = tmp_path / "results.csv"
    with pytest.raises(UsageError, match="cannot read results"):
        read_results(str(path))
    path.write_text("benchmark,metric\na,b\n")
    with pytest.raises(UsageError, match="lacks the columns dataset"):
        read_results(str(path))


def test_fields_that_others_determine_are_left_out(finished: Finished) -> None:
    results = [
        finished(pool, 0, 0.5, dataset=dataset, model={"width": width})
        for dataset, width in (("a", 8), ("b", 16))
        for pool in ("max", "avg")
    ]
    assert varying_fields(results_frame(results)) == ["dataset", "pool"]
    assert varying_fields(results_frame(results[:1])) == ["pool"]


def test_summary_rows(finished: Finished) -> None:
    accuracies = (0.8, 0.9, 1.0, 0.9, 1.0)
    results = [finished("max", seed, value, learned=seed > 0) for seed, value in enumerate(accuracies)]
    results.append(finished("avg", 0, 0.5, metrics={"odd": nan}))
    results.append(finished("none", 0, 0.1, learned=False))
    rows = pd.DataFrame(summary_rows(results, [Metric("accuracy", "accuracy"), Metric("odd", "odd")]))
    assert rows["pool"].tolist() == ["max", "avg", "none"]
    assert rows["metric"].tolist() == ["accuracy", "accuracy", "accuracy"]
    assert rows["n"].tolist() == [4, 1, 0]
    # .9, 1.0, .9 and 1.0: s / sqrt 4 = .02887, and four seeds reach 7.668 of it: .2214.
    assert rows.loc[0, ["mean", "low", "high"]].tolist() == pytest.approx([0.95, 0.7286, 1.1714], abs=1e-4)
    # One seed gives no interval, none gives no mean.
    assert rows.loc[1, "mean"] == 0.5
    assert rows.loc[[1, 2], ["low", "high"]].isna().all(axis=None)
    assert pd.isna(rows.loc[2, "mean"])
    assert rows["learned"].tolist() == pytest.approx([4 / 5, 1.0, 0.0])


def test_networks_of_older_files_have_learned(finished: Finished, tmp_path: Path) -> None:
    frame = results_frame([finished("max", 0, 0.5, learned=False)])
    frame.drop(columns="learned").to_csv(tmp_path / "results.csv", index=False)
    assert read_results(str(tmp_path / "results.csv"))["learned"].all()
