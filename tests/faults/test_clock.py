"""A clock that is set back by a day while a command runs: the order stays, no duration is negative, nothing crashes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from poolbench.core import Cell, DataLocation
from poolbench.plugins import import_code
from poolbench.runner.attempt import Settings
from poolbench.runner.execute import execute
from poolbench.runner.ledger import Ledger

disturbed = import_code(str(Path(__file__).with_name("_disturbed.py")))
DAY = 86_400.0
RUN = ("run", "tiny", "--preset", "smoke", "--jobs", "1", "--out", "OUT")


@pytest.fixture
def set_back(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return the function after which the n-th reading of the clock, and all later ones, are a day earlier."""
    real = time.time

    def after(readings: int) -> None:
        count = iter(range(10**9))
        monkeypatch.setattr(time, "time", lambda: real() - (DAY if next(count) >= readings else 0.0))

    return after


class Restarting:
    """A listener that interrupts the cell at the end of its second epoch; the first left a checkpoint."""

    def cell_started(self, cell: Cell) -> None: ...

    def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    def cell_ended(self, result: Any) -> None: ...


def in_order(result: Any) -> None:
    assert result.status == "finished"
    assert [row["epoch"] for row in result.history] == [1, 2]
    times = [result.started, *(row["time"] for row in result.history), result.ended]
    assert times == sorted(times)
    assert times[-1] - times[0] < DAY / 2


@pytest.mark.parametrize("readings", range(6))
def test_within_an_attempt(
    cells: list[Cell], ledger: Ledger, run_cells: Callable[..., Any], set_back: Callable[[int], None], readings: int
) -> None:
    set_back(readings)
    run_cells(cells[:1], ledger)
    in_order(ledger.result(cells[0]))


def test_between_an_interrupted_attempt_and_the_next(
    cells: list[Cell], ledger: Ledger, run_cells: Callable[..., Any], set_back: Callable[[int], None]
) -> None:
    with pytest.raises(KeyboardInterrupt):
        execute(cells[:1], ledger, Settings(DataLocation("data"), "cpu", checkpoint_seconds=0.0), Restarting())
    set_back(0)
    run_cells(cells[:1], ledger)
    result = ledger.result(cells[0])
    assert result.facts["resumed_after"] == 1
    in_order(result)


def mlflow_durations(out: Path) -> Iterator[tuple[str, int, dict[str, float]]]:
    """Yield the name, the milliseconds and the metrics of each run."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
    experiments = [one.experiment_id for one in client.search_experiments()]
    for run in client.search_runs(experiments, max_results=1000):
        yield run.info.run_name, run.info.end_time - run.info.start_time, run.data.metrics
        for key in run.data.metrics:
            if key.startswith("train/"):
                points = client.get_metric_history(run.info.run_id, key)
                assert [point.step for point in points] == sorted(point.step for point in points)
                assert [point.timestamp for point in points] == sorted(point.timestamp for point in points)


@pytest.mark.parametrize("readings", [1, 7])
def test_reports_and_mlflow_show_no_negative_time(work: Any, set_back: Callable[[int], None], readings: int) -> None:
    set_back(readings)
    done = work.run(*RUN)
    assert done.exit_code == 0, (done.output, done.exception)
    assert not re.search(r"\(-\d", done.output)
    found = list(mlflow_durations(work.out))
    assert len(found) > 8
    assert all(milliseconds >= 0 for _, milliseconds, _ in found), found
    assert all(metrics.get("seconds", 0.0) >= 0 for _, _, metrics in found)
    for name in ("report.md", "report.html"):
        assert not re.search(r"(?<![\w.-])[-\u2212]\d+(\.\d+)? ?(s|min|h)\b", (work.out / "report" / name).read_text())
    assert work.run("status", "--out", "OUT").exit_code == 0
    assert work.run("doctor", "--out", "OUT").exit_code == 0


def test_a_repeated_failure_is_another_attempt(
    cells: list[Cell], ledger: Ledger, tiny: Any, monkeypatch: pytest.MonkeyPatch, set_back: Callable[[int], None],
    run_cells: Callable[..., Any],
) -> None:  # fmt: skip
    """Attempts are told apart in MLflow by when they ended, also while the clock is behind."""
    from dataclasses import replace

    from poolbench import registry

    def broken(*arguments: Any) -> Any:
        raise RuntimeError("broken on purpose")

    with monkeypatch.context() as patch:
        entry = registry.Entry("tiny", lambda: replace(tiny, measure=broken))
        patch.setitem(registry.benchmarks._entries, "tiny", entry)
        ended = []
        run_cells(cells[:1], ledger)
        ended.append(ledger.result(cells[0]).ended)
        set_back(0)
        run_cells(cells[:1], ledger)
        ended.append(ledger.result(cells[0]).ended)
    run_cells(cells[:1], ledger)
    ended.append(ledger.result(cells[0]).ended)
    assert ended == sorted(set(ended))
