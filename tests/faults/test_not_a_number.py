"""Metrics that are not numbers: such cells are finished, shown as missing, and never win."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from poolbench import registry
from poolbench.core import Cell, Measurement, Metric
from poolbench.plugins import import_code
from poolbench.runner.ledger import Ledger
from poolbench.search import Interval
from poolbench.task import Benchmark

disturbed = import_code(str(Path(__file__).with_name("_disturbed.py")))
NAN = float("nan")
RUN = ("run", "tiny", "--preset", "smoke", "--jobs", "1", "--no-mlflow", "--out", "OUT")


@pytest.fixture
def measured(tiny: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Cell], float]], None]:
    """Let the accuracy of a cell be what a function says; its whole table is NaN where that is."""

    def use(accuracy: Callable[[Cell], float]) -> None:
        def measure(cell: Cell, *arguments: Any) -> Measurement:
            value = accuracy(cell)
            table = pd.DataFrame({"layer": ["a", "b"], "V": [value, value]})
            return Measurement({"accuracy": value, "score": value}, {"layers": table})

        changed = replace(
            tiny,
            measure=measure,
            metrics=(
                Metric("accuracy", "accuracy", True, 0.01, gated=True), *tiny.metrics[1:],
                Metric("score", "score", True, 0.01),
            ),
            search={"learning_rate": Interval(1e-4, 1e-1, log=True)},
        )  # fmt: skip
        monkeypatch.setitem(registry.benchmarks._entries, "tiny", registry.Entry("tiny", lambda: changed))
        # Its networks give one answer, and would not count as learned.
        monkeypatch.setattr("poolbench.measures.classification.commonest_share", lambda decisions: 0.5)

    return use


def afresh(work: Any) -> None:
    """Begin with an empty work folder, a baseline and a history of numbers beside it."""
    shutil.rmtree(work.out)


@pytest.mark.parametrize("broken", ["one seed", "one group", "all"])
def test_every_command_goes_on(work: Any, measured: Callable[..., None], broken: str) -> None:
    afresh(work)
    measured(lambda cell: 0.9 - cell.seed / 100)
    for command in (RUN, ("baseline", "accept", "BASE", "--out", "OUT")):
        done = work.run(*command)
        assert done.exit_code == 0, (done.output, done.exception)
    afresh(work)
    hit = {
        "one seed": lambda cell: cell.pool.name == "avg" and cell.seed == 0,
        "one group": lambda cell: cell.pool.name == "avg",
        "all": lambda cell: True,
    }[broken]
    measured(lambda cell: NAN if hit(cell) else 0.9 - cell.seed / 100)
    done = work.run(*RUN)
    assert done.exit_code == 0, (done.output, done.exception)
    results = Ledger(work.out).results()
    assert [result.status for result in results] == ["finished"] * 4
    rows = list(csv.DictReader(io.StringIO((work.out / "report" / "results.csv").read_text())))
    shown = {row["cell"] for row in rows if row["metric"] == "accuracy"}
    assert shown == {one.cell.id for one in results if not hit(one.cell)}
    text = (work.out / "report" / "report.md").read_text()
    assert "nan" not in text.lower().replace("nano", "")
    commands = {
        "claims": (0,), "status": (0,), "report": (0,), "doctor": (0,),
        "decide tiny --preset smoke --budget 1s --jobs 1 --no-mlflow": (0, 2),
        "regress --no-confirm --history HISTORY --baseline BASE": (3,),
        "baseline accept BASE": (0, 2),
    }  # fmt: skip
    for line, codes in commands.items():
        done = work.run(*line.split(), "--out", "OUT")
        assert done.exception is None or isinstance(done.exception, SystemExit), (line, repr(done.exception))
        assert done.exit_code in codes, (line, done.output)
        assert "Traceback" not in done.output
        assert "nan" not in done.stdout.lower().replace("nano", ""), (line, done.stdout)
        if line.startswith("regress"):
            lost = 1 if broken == "one seed" else 2
            assert f"accuracy has no value for {lost} of 2 seeds" in done.stdout


def test_sync_leaves_out_what_is_not_a_number(work: Any, measured: Callable[..., None]) -> None:
    mlflow = pytest.importorskip("mlflow")
    for name in ("cells", "tuning", "invocations"):
        shutil.rmtree(work.out / name)
    disturbed.empty_store(work.out)
    measured(lambda cell: NAN if cell.pool.name == "avg" else 0.9)

    def projected() -> Any:
        for command in (RUN, ("sync", "--out", "OUT")):
            done = work.run(*command)
            assert done.exit_code == 0, (done.output, done.exception)
        client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{work.out}/mlflow.db")
        runs = client.search_runs([client.get_experiment_by_name("tiny").experiment_id])
        kinds = [(run.data.tags["poolbench.kind"], run.data.params.get("pool")) for run in runs]
        shown = ["accuracy" in run.data.metrics for run in runs]
        return sorted(zip(kinds, [run.info.status for run in runs], shown, strict=True), key=str)

    found = disturbed.forked(projected)
    assert len(found) == 6, found
    assert {status for _, status, _ in found} == {"FINISHED"}
    assert {shown for (kind, pool), _, shown in found if pool == "avg"} == {False}
    assert {shown for (kind, pool), _, shown in found if pool == "max"} == {True}, found


def test_a_tuning_never_chooses_what_is_not_a_number(work: Any, measured: Callable[..., None]) -> None:
    """The objective is NaN above a learning rate; what is left is judged as ever."""
    afresh(work)
    limit = 1e-3
    measured(lambda cell: NAN if cell.train.learning_rate > limit else 0.9 + cell.train.learning_rate)
    tune = ("tune", "tiny", "--preset", "smoke", "--pool", "max", "--trials", "8", "--trial-seeds", "2", "--no-mlflow",
            "--objective", "score", "--out", "OUT")  # fmt: skip
    done = work.run(*tune)
    assert done.exit_code == 0, done.output
    (path,) = work.out.glob("tuning/*/study.json")
    study = json.loads(path.read_text())
    above = [trial for trial in study["trials"] if trial["parameters"]["learning_rate"] > limit]
    assert 0 < len(above) < 8
    assert {(trial["state"], trial["reason"]) for trial in above} == {("infeasible", "score is nan")}
    assert study["best"]["learning_rate"] <= limit
    assert all(one["parameters"]["learning_rate"] <= limit for one in study["confirmed"])
    # Nothing else: the study ends without a winner, and says why.
    afresh(work)
    measured(lambda cell: NAN)
    done = work.run(*tune)
    assert done.exit_code == 2, done.output
    assert "no trial was feasible: score is nan" in done.stderr
    (path,) = work.out.glob("tuning/*/study.json")
    assert json.loads(path.read_text())["best"] is None
    assert work.run("report", "--no-mlflow", "--out", "OUT").exit_code == 0
