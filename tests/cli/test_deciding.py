"""decide and claims as a user runs them: seeds are added, rulings are printed, wrong usage is refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from poolbench.cli.rulings import time_text

Cli = Callable[..., Result]
SMALL = ("global_pooling", "--preset", "smoke", "--claims", "gap_beats_gmp_small")


def test_decide_adds_seeds_in_pairs_and_the_next_call_goes_on(cli: Cli, tmp_path: Path) -> None:
    first = cli("decide", *SMALL, "--max-seeds", "4", "--no-mlflow", "--device", "cpu", "--jobs", "1")
    assert first.exit_code == 0, first.stderr
    assert "1 claim: 0 decided, 1 open" in first.stderr
    assert "no cell has run yet" in first.stderr
    assert len(list(tmp_path.glob("poolbench-out/cells/*/result.json"))) == 8
    ruling, report = first.stdout.splitlines()
    assert "gap_beats_gmp_small: accuracy " in ruling
    assert ruling.endswith(", n = 4")
    assert (tmp_path / report).read_text().startswith("<!doctype html>")
    again = cli("decide", *SMALL, "--max-seeds", "4", "--no-mlflow", "--device", "cpu")
    assert (again.exit_code, len(list(tmp_path.glob("poolbench-out/cells/*/result.json")))) == (0, 8)
    claims = cli("claims", *SMALL)
    assert claims.exit_code == 0
    assert claims.stdout.splitlines()[0].split(";")[0].removeprefix("undecided -> ") == ruling.split(" -> ")[-1]
    # A finished run says the same.
    done = cli("run", *SMALL[:3], "--where", "variant=corrected", "--seeds", "0-3", "--no-mlflow", "--device", "cpu")
    assert "gap_beats_gmp_small: accuracy" in done.stderr


def test_a_seed_whose_folder_cannot_be_used_is_passed_over(cli: Cli, tmp_path: Path) -> None:
    options = ("decide", *SMALL, "--no-mlflow", "--device", "cpu", "--jobs", "1")
    assert cli(*options, "--max-seeds", "1").exit_code == 0
    folder, _ = sorted((tmp_path / "poolbench-out/cells").iterdir())
    shutil.rmtree(folder)
    folder.write_text("in the way")
    found = cli(*options, "--max-seeds", "2")
    assert found.exit_code == 0, found.stderr
    assert f"'{folder.relative_to(tmp_path)}' is not a folder that this user may change" in found.stderr
    seeds = [json.loads(path.read_text())["seed"] for path in tmp_path.glob("poolbench-out/cells/*/config.json")]
    assert sorted(seeds) == [0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("decide", "--budget", "5x"), "a budget is a time like 45s, 20m or 2h, got '5x'"),
        (("decide", "--budget", "0m"), "a budget is a time like 45s, 20m or 2h, got '0m'"),
        (("decide", "--seeds", "0-3"), "claims are judged on all seeds there are"),
        (("decide", "--claims", "blur_keeps_decision"), "did you mean 'blur_keeps_decisions'"),
        (("decide", "global_pooling", "--head", "gem"), "no claim compares the selected cells"),
        (("claims",), "'poolbench-out' is not a work folder"),
    ],
)
def test_wrong_usage_is_one_line(cli: Cli, arguments: tuple[str, ...], line: str) -> None:
    refused = cli(*arguments)
    assert refused.exit_code == 2
    assert line in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.parametrize(("seconds", "text"), [(44.6, "45 s"), (100.0, "2 min"), (7200.0, "2.0 h")])
def test_times(seconds: float, text: str) -> None:
    assert time_text(seconds) == text
