"""regress and baseline through the command line: a small benchmark whose measure is changed between nights."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import Result

from poolbench import registry
from poolbench.core import Cell, Measurement, Metric
from poolbench.data import Dataset
from poolbench.runner.environment import environment
from poolbench.task import Benchmark, NoOptions

Cli = Callable[..., Result]
Change = Callable[[float, float], None]
OPTIONS = ("tiny", "--preset", "quick", "--jobs", "1", "--device", "cpu", "--no-mlflow", "--epochs", "1")
BASE = ("--baseline", "baseline")


@pytest.fixture
def change(tiny: Benchmark, monkeypatch: pytest.MonkeyPatch) -> Change:
    """Make nights differ from the baseline: ``change(drop, noise)`` lowers the accuracy of pool "avg" by ``drop``."""

    def changed(drop: float, noise: float) -> None:
        def measure(cell: Cell, options: NoOptions, model: torch.nn.Module, data: Dataset) -> Measurement:
            luck = np.random.default_rng([cell.seed, 1 if noise else 0]).normal(0, noise or 0.03)
            level = 0.8 + np.random.default_rng(cell.seed).normal(0, 0.03) + (luck if noise else 0.0)
            return Measurement({"accuracy": float(level - (drop if cell.pool.name == "avg" else 0))})

        # Not declared as a share of the few test images: the numbers are made up.
        metrics = (Metric("accuracy", "accuracy", True, 0.02, gated=True), Metric("train_loss", "loss"))
        benchmark = replace(tiny, measure=measure, metrics=metrics)
        monkeypatch.setitem(registry.benchmarks._entries, "tiny", registry.Entry("tiny", lambda: benchmark))

    # These networks hardly train. Their accuracies are made up, and all of them count as learned.
    monkeypatch.setattr("poolbench.measures.classification.commonest_share", lambda decisions: 0.5)
    changed(0.0, 0.0)
    return changed


@pytest.fixture
def baseline(cli: Cli, change: Change) -> None:
    """A baseline with six seeds and six reserve seeds per group, and a repetition on another machine."""
    for seeds in ("0-5", "1000-1005"):
        assert cli("run", *OPTIONS, "--seeds", seeds, "--out", "first").exit_code == 0
    change(0.0, 0.003)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poolbench.runner.attempt.environment", lambda device: {**environment(device), "threads": 99})
        assert cli("run", *OPTIONS, "--seeds", "0-5", "--out", "again").exit_code == 0
    change(0.0, 0.0)
    done = cli("baseline", "accept", "baseline", "--out", "first", "--repeat", "again")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == "baseline/results.csv\n"


def night(cli: Cli, name: str, seeds: str = "0-5") -> None:
    assert cli("run", *OPTIONS, "--seeds", seeds, "--out", name).exit_code == 0


@pytest.mark.usefixtures("baseline")
def test_an_unchanged_night_is_identical(cli: Cli, tmp_path: Path) -> None:
    night(cli, "n1")
    done = cli("regress", *BASE, "--out", "n1")
    assert done.exit_code == 0
    assert "2 groups: 2 identical." in done.stdout
    assert "0 of 2 groups changed bits in the baseline's environment." in done.stdout
    assert cli("regress", *BASE, "--out", "n1", "--identical").exit_code == 0
    # An edited number is found, whatever else the file says.
    path = tmp_path / "baseline" / "results.csv"
    frame = pd.read_csv(path)
    row = frame[(frame["metric"] == "accuracy") & (frame["seed"] == 0) & (frame["pool"] == "avg")].index[0]
    frame.loc[row, "value"] += 1e-9
    frame.to_csv(path, index=False)
    assert "1 of 2 groups changed bits" in cli("regress", *BASE, "--out", "n1").stdout
    assert cli("regress", *BASE, "--out", "n1").exit_code == 0
    assert cli("regress", *BASE, "--out", "n1", "--identical").exit_code == 1


@pytest.mark.usefixtures("baseline")
def test_a_drop_is_confirmed_on_reserve_seeds(cli: Cli, change: Change, tmp_path: Path) -> None:
    change(0.03, 0.003)
    night(cli, "n1")
    done = cli("regress", *BASE, "--out", "n1", "--jobs", "1", "--device", "cpu")
    assert done.exit_code == 1, done.output
    assert "1 suspicious groups: 6 cells with reserve seeds, 6 to run" in done.stderr
    assert "2 groups: 1 regressed, 1 fine." in done.stdout
    assert "2 of 2 groups changed bits" in done.stdout
    assert "confirmed on 6 reserve seeds" in done.stdout
    verdict = json.loads((tmp_path / "n1" / "regress" / "verdict.json").read_text())
    assert (verdict["exit_code"], verdict["regressed"]) == (1, ["tiny pool=avg"])
    suite = ElementTree.parse(tmp_path / "n1" / "regress" / "junit.xml").getroot().find("testsuite")
    assert suite is not None
    assert suite.get("failures") == "1"
    # The confirmation has a ledger of its own: a second time nothing runs, and the night has its seeds only.
    again = cli("regress", *BASE, "--out", "n1", "--jobs", "1", "--device", "cpu")
    assert again.stdout == done.stdout
    assert "6 cells with reserve seeds, 0 to run" in again.stderr
    # Without a confirmation the night decides alone.
    alone = cli("regress", *BASE, "--out", "n1", "--no-confirm")
    assert alone.exit_code == 1
    assert "confirmed" not in alone.stdout


@pytest.mark.usefixtures("baseline")
def test_what_is_not_confirmed_is_no_alarm(cli: Cli, change: Change) -> None:
    change(0.03, 0.003)
    night(cli, "n1")
    change(0.0, 0.003)
    done = cli("regress", *BASE, "--out", "n1", "--jobs", "1", "--device", "cpu")
    assert done.exit_code == 0, done.stdout
    assert "suspicious, not confirmed on 6 reserve seeds" in done.stdout


@pytest.mark.usefixtures("baseline")
def test_nights_make_a_history_that_shows_when_it_began(cli: Cli, change: Change, tmp_path: Path) -> None:
    for number in range(4):
        change(0.0, 0.003)
        night(cli, f"n{number}")
        assert cli("regress", *BASE, "--out", f"n{number}", "--history", "nights").exit_code == 0
    change(0.03, 0.003)
    night(cli, "n4")
    bad = cli("regress", *BASE, "--out", "n4", "--history", "nights", "--jobs", "1", "--device", "cpu")
    assert bad.exit_code == 1
    assert "## History" in bad.stdout
    assert "1 group regressed" in bad.stdout
    history = pd.read_parquet(tmp_path / "nights" / "history.parquet")
    # The nights may end in the same second, and are then one.
    assert set(history["verdict"]) >= {"fine", "regressed"}
    assert set(history["seed"]) == set(range(6))
    assert (tmp_path / "n4" / "regress" / "history.html").read_text().lower().startswith("<!doctype html>")
    rows = len(history)
    cli("regress", *BASE, "--out", "n4", "--history", "nights", "--jobs", "1", "--device", "cpu")
    assert len(pd.read_parquet(tmp_path / "nights" / "history.parquet")) == rows


@pytest.mark.usefixtures("baseline")
def test_a_step_from_the_recent_nights_is_seen_where_the_baseline_is_passed(cli: Cli, change: Change) -> None:
    # Since the baseline it has improved by .04; of that, .03 is lost again.
    for number in range(2):
        change(-0.04, 0.003)
        night(cli, f"n{number}")
        assert "improved" in cli("regress", *BASE, "--out", f"n{number}", "--history", "nights").stdout
    change(-0.01, 0.003)
    night(cli, "n2")
    without = cli("regress", *BASE, "--out", "n2", "--no-confirm")
    assert without.exit_code == 0
    found = cli("regress", *BASE, "--out", "n2", "--history", "nights", "--no-confirm")
    assert found.exit_code == 1
    assert "compared with the last good nights" in found.stdout


@pytest.mark.usefixtures("baseline")
def test_an_accepted_level_is_not_compared_with_the_nights_before_it(
    cli: Cli, change: Change, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compared = (*BASE, "--history", "nights", "--no-confirm")
    change(0.0, 0.003)
    night(cli, "n0")
    assert cli("regress", *compared, "--out", "n0").exit_code == 0
    change(0.1, 0.003)
    night(cli, "n1")
    assert cli("regress", *compared, "--out", "n1").exit_code == 1
    time.sleep(1.1)  # nights are told apart by the second
    night(cli, "n2")
    accepted = cli("baseline", "accept", "baseline", "--out", "n2")
    assert accepted.exit_code == 0
    # Other bits, in another environment.
    patched = {**environment("cpu"), "threads": 7}
    monkeypatch.setattr("poolbench.runner.attempt.environment", lambda device: patched)
    for name in ("n3", "n4"):
        time.sleep(1.1)
        change(0.101, 0.0031)
        night(cli, name)
        done = cli("regress", *compared, "--out", name)
        assert done.exit_code == 0, done.stdout
    # It counts as a level like any other from then on.
    change(0.2, 0.0031)
    night(cli, "n5")
    assert cli("regress", *compared, "--out", "n5").exit_code == 1
    assert "accepted" not in cli("report", "--compare", "baseline/results.csv", "n3", "--out", "both").output


@pytest.mark.usefixtures("baseline")
def test_the_power_table_needs_no_night(cli: Cli, tmp_path: Path) -> None:
    done = cli("regress", *BASE, "--power")
    assert done.exit_code == 0
    assert "2 of 2 gated metrics see a drop of their own tolerance with power .9." in done.stdout
    assert "| tiny | pool=max | accuracy |" in done.stdout
    (tmp_path / "baseline" / "repeat.csv").unlink()
    without = cli("regress", *BASE, "--power")
    assert without.exit_code == 2
    assert "has no repeat.csv" in without.stderr


@pytest.mark.usefixtures("baseline")
def test_a_new_level_is_accepted_and_the_rest_is_kept(cli: Cli, change: Change, tmp_path: Path) -> None:
    change(0.03, 0.003)
    night(cli, "n1")
    done = cli("baseline", "accept", "baseline", "--out", "n1")
    assert done.exit_code == 0, done.output
    assert "0 groups are new, 0 are gone, 2 are in both:" in done.stderr
    assert "regressed: tiny pool=avg: accuracy" in done.stderr
    assert "1 moved, 1 others changed bits" in done.stderr
    assert "1 groups have fewer than 3 reserve seeds" in done.stderr
    frame = pd.read_csv(tmp_path / "baseline" / "results.csv")
    seeds = {pool: set(rows["seed"]) for pool, rows in frame.groupby("pool")}
    assert seeds == {"avg": set(range(6)), "max": {*range(6), *range(1000, 1006)}}
    assert set(pd.read_csv(tmp_path / "baseline" / "repeat.csv")["pool"]) == {"max"}
    # The accepted night is now the reference.
    assert "2 groups: 2 identical." in cli("regress", *BASE, "--out", "n1", "--no-confirm").stdout


@pytest.mark.usefixtures("baseline")
@pytest.mark.parametrize(
    ("damage", "code", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000] + b"\x00\xff\xfe"), 2, "cannot read results from"),
        (lambda path: path.unlink(), 2, "cannot read results from"),
        (lambda path: path.write_text(path.read_text().partition("\n")[0] + "\n"), 3, "has no results"),
        (
            lambda path: pd.read_csv(path).drop(columns="seed").to_csv(path, index=False),
            2,
            "it lacks the columns seed",
        ),
        (
            lambda path: pd.read_csv(path).assign(group="0123456789abcdef").to_csv(path, index=False),
            3,
            "none of the 1 groups of the baseline 'baseline' is in 'n1'",
        ),
    ],
    ids=["damaged", "absent", "empty", "no_seeds", "other_version"],
)
def test_a_baseline_that_cannot_be_used(
    cli: Cli, tmp_path: Path, damage: Callable[[Path], object], code: int, message: str
) -> None:
    night(cli, "n1", "0-1")
    damage(tmp_path / "baseline" / "results.csv")
    done = cli("regress", *BASE, "--out", "n1")
    assert done.exit_code == code, done.output
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("poolbench: ")
    assert message in lines[0]


@pytest.mark.usefixtures("baseline")
def test_half_a_night_is_missing_data(cli: Cli) -> None:
    night(cli, "n1", "0-2")
    done = cli("regress", *BASE, "--out", "n1")
    assert done.exit_code == 3
    assert "2 groups: 2 no data." in done.stdout
    assert "3 of 6 seeds are there" in done.stdout
    one = cli("run", *OPTIONS, "--seeds", "0-5", "--pool", "max", "--out", "n2")
    assert one.exit_code == 0
    done = cli("regress", *BASE, "--out", "n2")
    assert done.exit_code == 3
    assert "1 no data, 1 identical" in done.stdout
    assert "the group is absent" in done.stdout


def test_a_repetition_in_the_same_environment_is_refused(cli: Cli, change: Change) -> None:
    night(cli, "first", "0-2")
    done = cli("baseline", "accept", "baseline", "--out", "first", "--repeat", "first")
    assert done.exit_code == 2
    assert "ran in the same environment, where nothing differs" in done.stderr


@pytest.mark.usefixtures("baseline")
def test_a_failing_comparison_leaves_no_verdict_of_before(cli: Cli, tmp_path: Path) -> None:
    night(cli, "n1", "0-5")
    assert cli("regress", *BASE, "--out", "n1", "--no-confirm").exit_code == 0
    assert (tmp_path / "n1" / "regress" / "verdict.json").exists()
    (tmp_path / "baseline" / "results.csv").write_text("nothing")
    assert cli("regress", *BASE, "--out", "n1").exit_code == 2
    assert not (tmp_path / "n1" / "regress" / "verdict.json").exists()


@pytest.mark.usefixtures("baseline")
def test_an_empty_baseline_is_replaced_and_a_damaged_one_is_not(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "baseline" / "results.csv"
    whole = path.read_text()
    path.write_text(whole.partition("\n")[0] + "\n")
    assert cli("baseline", "accept", "baseline", "--out", "first").exit_code == 0
    assert path.read_text() == whole
    path.write_text(whole[:5000])
    done = cli("baseline", "accept", "baseline", "--out", "first")
    assert done.exit_code == 2
    assert "cannot read results from 'baseline/results.csv'" in done.stderr
    assert path.read_text() == whole[:5000]


@pytest.mark.usefixtures("baseline")
def test_a_history_that_cannot_be_written_is_said_before_the_confirmation(
    cli: Cli, change: Change, tmp_path: Path
) -> None:
    change(0.3, 0.003)
    night(cli, "n1")
    (tmp_path / "taken").write_text("a file")
    done = cli("regress", *BASE, "--out", "n1", "--history", "taken")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("poolbench: cannot write to 'taken': File exists; choose another folder with --history")
    assert not (tmp_path / "n1" / "confirmation").exists()


@pytest.mark.usefixtures("change")
def test_a_baseline_that_cannot_be_written_names_its_argument(cli: Cli, tmp_path: Path) -> None:
    night(cli, "n1", "0-1")
    (tmp_path / "file").write_text("a file")
    done = cli("baseline", "accept", "file", "--out", "n1")
    assert done.exit_code == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("poolbench: cannot write to 'file': ")
    assert "choose another folder with the argument FOLDER" in line


def test_a_night_without_results_is_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "n1" / "cells").mkdir(parents=True)
    assert cli("baseline", "accept", "baseline", "--out", "n1").exit_code == 3
    assert "has no finished cell" in cli("baseline", "accept", "baseline", "--out", "n1").stderr
