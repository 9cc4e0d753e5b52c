"""decide and claims as a user runs them: seeds are added, rulings are printed, wrong usage is refused in one line."""

from __future__ import annotations

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
