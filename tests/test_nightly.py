"""The nightly workflow: it parses, its shell does, and the history of nights survives on its branch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml

from poolbench.analysis.history import COLUMNS
from poolbench_tracking.history import History

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / ".ci" / "history"


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def history(clone: Path, action: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHON": sys.executable}
    command = ["bash", str(SCRIPT), action, "history"]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, check=False)


def run_night(clone: Path, name: str) -> None:
    text = {column: name for column, kind in COLUMNS.items() if kind == "str"}
    History(clone / "history").append(pd.DataFrame([{**text, "seed": 0, "value": 0.5, "learned": True}]))


@pytest.fixture
def clones(tmp_path: Path) -> tuple[Path, Path]:
    """Two clones of a repository with one commit on main, as two nights have them."""
    git(tmp_path, "init", "--bare", "server")
    git(tmp_path, "init", "source")
    git(tmp_path / "source", "commit", "--allow-empty", "-m", "first")
    git(tmp_path / "source", "push", "../server", "HEAD:main")
    for name in ("one", "two"):
        git(tmp_path, "clone", "--quiet", "--branch", "main", "server", name)
    return tmp_path / "one", tmp_path / "two"


def test_nights_follow_each_other_on_a_branch_of_one_commit(clones: tuple[Path, Path]) -> None:
    one, two = clones
    for clone, name in ((one, "1"), (two, "2"), (one, "3")):
        done = history(clone, "open")
        assert done.returncode == 0, done.stderr
        run_night(clone, name)
        done = history(clone, "keep")
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert History(one / "history").read()["night"].tolist() == ["1", "2", "3"]
    server = one.parent / "server"
    assert git(server, "rev-list", "--count", "poolbench-history") == "1"
    assert git(server, "ls-tree", "--name-only", "poolbench-history") == "history.parquet"
    assert git(server, "rev-list", "--count", "main") == "1"
    assert git(one, "status", "--porcelain") == "?? history/"


@pytest.mark.parametrize("first", [True, False])
def test_a_night_that_was_pushed_meanwhile_is_not_lost(clones: tuple[Path, Path], first: bool) -> None:
    one, two = clones
    if not first:
        run_night(one, "0")
        history(one, "keep")
    for clone, name in ((one, "1"), (two, "2")):
        assert history(clone, "open").returncode == 0
        run_night(clone, name)
    assert history(one, "keep").returncode == 0
    done = history(two, "keep")
    assert (done.returncode, "once more" in done.stdout) == (0, True), done.stderr
    assert history(one, "open").returncode == 0
    assert History(one / "history").read()["night"].tolist() == (["1", "2"] if first else ["0", "1", "2"])


def test_a_file_that_git_cannot_store_does_not_delete_the_branch(clones: tuple[Path, Path]) -> None:
    one, two = clones
    run_night(one, "1")
    assert history(one, "keep").returncode == 0
    assert history(two, "open").returncode == 0
    (two / "history" / "history.parquet").unlink()
    (two / "history" / "history.parquet").mkdir()
    assert history(two, "keep").returncode != 0
    assert git(one.parent / "server", "rev-list", "--count", "poolbench-history") == "1"


def test_a_gate_without_history_keeps_nothing_and_an_unreachable_server_is_no_empty_history(
    clones: tuple[Path, Path],
) -> None:
    one, _ = clones
    done = history(one, "keep")
    assert (done.returncode, "no history to keep" in done.stdout) == (0, True)
    git(one, "remote", "set-url", "origin", "../nowhere")
    assert history(one, "open").returncode not in (0, 2)
    run_night(one, "1")
    assert history(one, "keep").returncode != 0
    assert history(one, "close").returncode == 2


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / ".github" / "workflows").glob("*.yml")))
def test_workflows_parse_and_so_does_their_shell(name: str) -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / name).read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    scripts = [step["run"] for step in steps if "run" in step]
    assert scripts
    for script in [*scripts, SCRIPT.read_text()]:
        done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")
