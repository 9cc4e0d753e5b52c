"""bisect from end to end: a planted drop is found, an interrupted search goes on, misuse is refused."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import click
import pytest
from click.testing import CliRunner, Result
from filelock import FileLock

from poolbench.bisect.runs import SOURCES, selectors
from poolbench.cli.options import selection_options
from poolbench.runner.plan import Selection

Cli = Callable[..., Result]

# The drop shows only where all three packages are those of the commit.
PLUGIN = '''
"""A task that takes milliseconds and measures what the packages say."""

import os
import time

import poolbench
import poolbench_tasks
import poolbench_tracking
from poolbench.core import Measurement, Metric, TrainConfig
from poolbench.registry import benchmarks, datasets
from poolbench.task import Benchmark, Grid


@datasets.register("grey")
def grey(location, device):
    """Black and grey images."""
    import torch  # here, because 'plan' loads plugins and needs no torch
    from poolbench.data import Split, images_dataset

    labels = torch.arange(40) % 2
    images = torch.full((40, 1, 12, 12), 200, dtype=torch.uint8) * labels[:, None, None, None].to(torch.uint8)
    split = Split(images, labels)
    return images_dataset("grey", ("black", "grey"), split, split, "made here")


def measure(cell, options, model, data):
    if cell.seed:
        time.sleep(float(os.environ.get("SLOW", "0")))
    drop = min(getattr(package, "DROP", 0.0) for package in (poolbench, poolbench_tasks, poolbench_tracking))
    return Measurement({"accuracy": 0.9 + cell.seed / 1000 - drop})


@benchmarks.register("steady")
def steady():
    """Does it run?"""
    train = TrainConfig(epochs=1, batch_size=20)
    grid = Grid(("grey",), ("simple_conv",), ("max",), ("avg",), train, model={"width": 2, "hidden": 2})
    accuracy = Metric("accuracy", "accuracy", True, 0.01, gated=True)
    return Benchmark(
        "steady", "Steady", "Does it run?", "Grey.", (accuracy,), {"smoke": (grid,)}, {"smoke": 2},
        measure,
    )
'''
SELECTION = ("steady", "--preset", "smoke", "--plugin", "steady.py", "--repo", "repo", "--device", "cpu", "--jobs", "1")


def git(folder: Path, *arguments: str) -> str:
    settings = ("user.name=Ann", "user.email=ann@example.org", "commit.gpgsign=false", "core.hooksPath=/dev/null")
    options = [part for setting in settings for part in ("-c", setting)]
    done = subprocess.run(["git", "-C", str(folder), *options, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def commit(repo: Path, subject: str) -> str:
    git(repo, "add", "--all")
    git(repo, "commit", "--allow-empty", "--quiet", "--message", subject)
    return git(repo, "rev-parse", "HEAD")


class Repository(NamedTuple):
    """A folder with ``repo``, a checkout of the packages, and ``steady.py``; ``commits`` oldest first."""

    folder: Path
    commits: list[str]


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """Four commits: the packages, one with a drop, one that cannot run, and one that runs again."""
    folder = tmp_path_factory.mktemp("history")
    repo = folder / "repo"
    repo.mkdir()
    (folder / "steady.py").write_text(PLUGIN)
    for package, place in SOURCES.items():
        spec = find_spec(package)
        assert spec is not None
        assert spec.submodule_search_locations
        source = Path(spec.submodule_search_locations[0])
        shutil.copytree(source, repo / place / package, ignore=shutil.ignore_patterns("__pycache__"))
    git(repo, "init", "--quiet")
    commits = [commit(repo, "Packages")]
    for package, place in SOURCES.items():
        with open(repo / place / package / "__init__.py", "a") as file:
            file.write("DROP = 0.3\n")
    commits.append(commit(repo, "Plant a drop"))
    core = repo / "poolbench" / "core.py"
    content = core.read_text()
    core.write_text("raise ImportError('planted')")
    commits.append(commit(repo, "Cannot be imported"))
    core.write_text(content)
    commits.append(commit(repo, "Runs again"))
    return Repository(folder, commits)


def interrupted(command: list[str], folder: Path, line: str) -> int:
    """Start a command, send Ctrl-C when it has said ``line``, and return its exit code."""
    child = subprocess.Popen(command, cwd=folder, env={**os.environ, "SLOW": "300"}, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    for said in child.stderr:
        if line in said:
            child.send_signal(signal.SIGINT)
            break
    else:
        pytest.fail(f"it ended without '{line}'")
    child.communicate(timeout=120)
    return child.returncode


@pytest.mark.slow
def test_a_planted_drop_is_found_after_an_interruption(history: Repository) -> None:
    folder, commits = history
    command = [sys.executable, "-m", "poolbench.cli", "bisect", commits[0], "HEAD", *SELECTION]
    assert interrupted(command, folder, "[1/2") == 130
    first = folder / "poolbench-out" / "bisect" / commits[0]
    assert len(list(first.glob("cells/*/result.json"))) == 1
    assert len(git(folder / "repo", "worktree", "list").splitlines()) == 1

    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "2 cells, 1 done before, 1 to run" in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "first bad commit:"
    assert lines[1].split()[0] == commits[1]
    assert lines[1].endswith(" Ann: Plant a drop")
    assert lines[2:] == [
        "moved:",
        "  steady pool=max accuracy: 0.9005 -> 0.6005",
        "4 of 4 commits tested, GOOD and BAD included",
    ]
    assert f"{commits[2][:10]} is passed over: ImportError: planted" in done.stderr
    assert len(git(folder / "repo", "worktree", "list").splitlines()) == 1
    assert not list((folder / "poolbench-out" / "bisect" / "trees").iterdir())

    # All of it was run before.
    same = subprocess.run(
        [*command[:4], commits[1], commits[3], *SELECTION], cwd=folder, capture_output=True, text=True, check=False
    )
    assert same.returncode == 3, same.stderr
    assert same.stdout == "not reproducible: GOOD and BAD do not differ by more than chance (1 group compared)\n"
    assert "to run" not in same.stderr


def test_no_cell_is_one_line(history: Repository, cli: Cli, tmp_path: Path) -> None:
    repo = str(history.folder / "repo")
    done = cli("bisect", "HEAD~3", "HEAD", "global_pooling", "--where", "variant=nope", "--repo", repo)
    assert done.exit_code == 2
    said = done.stderr.splitlines()
    assert said[-1].startswith(f"poolbench: GOOD {history.commits[0][:10]} gives no results: no cell is left")
    assert len(said) == 2
    assert not list((tmp_path / "poolbench-out" / "bisect" / "trees").iterdir())


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """The current folder as a git repository with two empty commits and a branch beside the second."""
    git(tmp_path, "init", "--quiet", "--initial-branch", "main")
    commit(tmp_path, "One")
    git(tmp_path, "branch", "side")
    commit(tmp_path, "Two")
    git(tmp_path, "checkout", "--quiet", "side")
    commit(tmp_path, "Aside")
    commit(tmp_path, "Further aside")
    git(tmp_path, "checkout", "--quiet", "main")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["HEAD~1", "HEAD", "--repo", "/"], "'/' is not a git checkout (fatal: not a git repository"),
        (["HEAD~1", "HEAD", "--repo", "nowhere"], "'nowhere' is not a git checkout"),
        (["HEAD~1", "mian"], "unknown revision 'mian' in '.'"),
        (["HEAD~2", "HEAD"], "unknown revision 'HEAD~2' in '.'"),
        (["main", "HEAD"], "GOOD and BAD are the same commit"),
        (["HEAD", "HEAD~1"], "is no ancestor of BAD"),
        (["side", "HEAD"], "is no ancestor of BAD"),
        (["HEAD~1", "HEAD", "--out", "/proc/nowhere"], "cannot write to '/proc/nowhere/bisect'"),
        (["HEAD~1", "HEAD"], "gives no results: it has no package poolbench"),
        (["HEAD~1"], "Missing argument 'BAD'"),
    ],
)
def test_a_wrong_turn_is_one_line_and_exit_code_2(small: Path, cli: Cli, arguments: list[str], message: str) -> None:
    done = cli("bisect", *arguments)
    assert done.exit_code == 2, done.output
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("testing ")]
    assert line.startswith("poolbench: ")
    assert message in line
    assert len(git(small, "worktree", "list").splitlines()) == 1


def test_one_process_bisects_in_a_work_folder_and_removes_what_a_killed_one_left(small: Path, cli: Cli) -> None:
    trees = small / "poolbench-out" / "bisect" / "trees"
    left = trees / git(small, "rev-parse", "HEAD~1")
    git(small, "worktree", "add", "--detach", str(left), "HEAD~1")
    (trees / "half-made").mkdir()
    with FileLock(trees.parent / "lock"):
        assert "another process bisects in 'poolbench-out'" in cli("bisect", "HEAD~1", "HEAD").stderr
    assert left.exists()
    assert "it has no package poolbench" in cli("bisect", "HEAD~1", "HEAD").stderr
    assert not list(trees.iterdir())
    assert len(git(small, "worktree", "list").splitlines()) == 1


def test_a_good_commit_beside_the_first_parents_is_refused(small: Path, cli: Cli) -> None:
    git(small, "merge", "--quiet", "--no-ff", "--message", "Merge", "side")
    assert "is no ancestor of BAD" in cli("bisect", "side~1", "HEAD").stderr


def test_selectors_ask_for_the_same_selection() -> None:
    found: list[Selection] = []

    @click.command()
    @click.argument("names", nargs=-1)
    @selection_options
    def command(selection: Selection) -> None:
        found.append(selection)

    typed = textwrap.dedent("""
        global_pooling training_budget --preset smoke --pool gem_local:p=4,eps=1e-3,max --head all --arch timm:resnet18
        --dataset grey --seeds 0,2-4 --train optimizer=sgd,augment=shift+flip,shuffle=false --train weight_decay=1e-4
        --epochs 3 --where variant=corrected --where pool.p=4
    """).split()
    for arguments in (typed, ["all"], ["all", "--train", "augment=none"]):
        CliRunner().invoke(command, arguments, catch_exceptions=False)
        CliRunner().invoke(command, selectors(found[-1]), catch_exceptions=False)
        assert found[-2] == found[-1]
