"""plan and run by shards, in one folder and in two that are merged: the same as one run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from click.testing import Result

from poolbench.core import COST_METRICS

Cli = Callable[..., Result]
CHOSEN = ("global_pooling", "--preset", "smoke", "--pool", "max", "--train", "train_images=60,epochs=1")
SMALL = (*CHOSEN, "--seeds", "0-1")
RUN = ("run", *SMALL, "--device", "cpu", "--jobs", "1")


def rows(folder: Path) -> pd.DataFrame:
    """Return the rows of a report without measured times and memory, in a fixed order."""
    frame = pd.read_csv(folder / "report" / "results.csv", dtype=str)
    frame = frame[~frame["metric"].isin([metric.name for metric in COST_METRICS])]
    return frame.sort_values(["cell", "metric"], ignore_index=True)


def test_shards_of_a_plan_are_parts_of_it(cli: Cli) -> None:
    whole = cli("plan", "all", "--preset", "smoke").stdout.splitlines()
    parts = [cli("plan", "all", "--preset", "smoke", "--shard", f"{i}/3").stdout.splitlines() for i in (1, 2, 3)]
    assert sorted(line for part in parts for line in part) == sorted(whole)
    assert all(parts)


@pytest.mark.parametrize("command", ["plan", "run"])
@pytest.mark.parametrize("text", ["0/2", "3/2", "half"])
def test_another_shard_is_one_line(cli: Cli, command: str, text: str) -> None:
    done = cli(command, *SMALL, "--shard", text)
    assert done.exit_code == 2
    assert done.stderr == f"poolbench: a shard is I/N with I from 1 to N, like 3/10, got '{text}'\n"


def test_shards_in_two_folders_are_merged_to_what_one_run_gives(tmp_path: Path, cli: Cli) -> None:
    whole = cli(*RUN, "--no-mlflow", "--out", "whole")
    assert whole.exit_code == 0, whole.stderr
    for index in (1, 2):
        done = cli(*RUN, "--shard", f"{index}/2", "--out", f"part{index}")
        assert done.exit_code == 0, done.stderr
        assert re.search(r"\d+ cells? of (an)?other shards? ha(s|ve) not ended", done.stderr)
        assert done.stdout == ""
        assert not (tmp_path / f"part{index}" / "report").exists()
    done = cli("merge", "part1", "part2", "--out", "merged")
    assert (done.exit_code, done.stdout) == (0, "merged\n")
    assert cli("status", "--out", "merged").stdout == cli("status", "--out", "whole").stdout
    assert cli("plan", *SMALL, "--out", "merged").stdout == cli("plan", *SMALL, "--out", "whole").stdout
    rulings = [cli("claims", *CHOSEN, "--out", folder).stdout for folder in ("merged", "whole")]
    # But for the time that more seeds would take.
    assert len({re.sub(r", [\d.]+ (s|min|h)$", "", text, flags=re.MULTILINE) for text in rulings}) == 1
    count = len(list((tmp_path / "whole" / "cells").iterdir()))
    assert f"{count} runs of seeds are new" in cli("sync", "--out", "merged").stderr
    assert cli("report", "--out", "merged").exit_code == 0
    pd.testing.assert_frame_equal(rows(tmp_path / "merged"), rows(tmp_path / "whole"))
    assert "0 to run" in cli(*RUN, "--no-mlflow", "--out", "merged").stderr


@pytest.mark.slow
@pytest.mark.end_to_end
def test_shards_that_run_side_by_side_in_one_folder_leave_one_whole_report(tmp_path: Path, cli: Cli) -> None:
    arguments = [sys.executable, "-m", "poolbench.cli", *RUN, "--out", "shared"]
    shards = [
        subprocess.Popen(
            [*arguments, "--shard", f"{index}/2"], cwd=tmp_path, env=os.environ, stderr=subprocess.PIPE, text=True
        )
        for index in (1, 2)
    ]
    said = [shard.communicate(timeout=500)[1] for shard in shards]
    assert [shard.returncode for shard in shards] == [0, 0], said
    # Whoever was last has written it, both if they ended at once.
    assert sum("not ended" in text for text in said) < 2
    cells = {path.name for path in (tmp_path / "shared" / "cells").iterdir()}
    assert {line.split()[0] for line in cli("plan", *SMALL).stdout.splitlines()} == cells
    assert set(rows(tmp_path / "shared")["cell"]) == cells
    assert "0 runs of seeds are new" in cli("sync", "--out", "shared").stderr


def test_merge_refuses_what_is_no_work_folder(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "empty").mkdir()
    done = cli("merge", "empty", "--out", "out")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "'empty' is not a work folder" in done.stderr
    (tmp_path / "out" / "cells").mkdir(parents=True)
    done = cli("merge", "out", "--out", "out")
    assert done.exit_code == 2
    assert "'out' is the --out itself" in done.stderr
