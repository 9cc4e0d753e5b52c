"""Plugins of the command line: loaded before names are looked up, in workers, too; without them cells are left out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

Cli = Callable[..., Result]

PLUGIN = '''
"""A pool, and a task that is the package's own in small."""

from dataclasses import replace

import poolbench_tasks.global_pooling
from poolbench.pooling import Pool
from poolbench.registry import benchmarks, pools


@pools.register("mine", reference="here", shift_equivariant=False, learnable=False, random=False)
class Mine(Pool):
    """A scaled mean."""

    def __init__(self, channels, stride=2, padding_mode="zeros", scale: float = 1.0):
        super().__init__()
        self.stride, self.scale = stride, scale

    def forward(self, x):
        return self.scale * x.unfold(2, self.stride, self.stride).unfold(3, self.stride, self.stride).mean((-2, -1))


@benchmarks.register("brighter_half")
def brighter_half():
    """Does it run?"""
    benchmark = benchmarks.get("global_pooling")()
    return replace(benchmark, name="brighter_half", claims=())
'''
SMALL = ("--preset", "smoke", "--seeds", "0", "--head", "avg", "--where", "variant=corrected")
RUN = ("--device", "cpu", "--no-mlflow", "--train", "epochs=1")


@pytest.fixture(autouse=True)
def plugin(tmp_path: Path, forget_plugins: Callable[[], None]) -> Path:
    file = tmp_path / "my_plugin.py"
    file.write_text(PLUGIN)
    return file


def test_a_plugin_is_listed_and_planned(cli: Cli, forget_plugins: Callable[[], None]) -> None:
    listed = cli("list", "--plugin", "my_plugin.py").stdout
    assert "brighter_half" in listed
    assert "options: scale: float = 1.0" in listed
    forget_plugins()
    assert "brighter_half" not in cli("list").stdout
    done = cli("plan", "brighter_half", *SMALL, "--pool", "mine:scale=2", "--plugin", "my_plugin.py")
    assert done.exit_code == 0, done.stderr
    assert "mine" in done.stdout
    assert "pool.scale=2.0" in done.stdout
    forget_plugins()
    done = cli("plan", "brighter_half", *SMALL)
    assert (done.exit_code, "unknown benchmark 'brighter_half'" in done.stderr) == (2, True)


@pytest.mark.slow
def test_cells_of_a_missing_plugin_are_left_out_by_every_command(
    tmp_path: Path, cli: Cli, forget_plugins: Callable[[], None]
) -> None:
    done = cli("run", "brighter_half", *SMALL, *RUN, "--pool", "mine,max", "--plugin", "my_plugin.py", "--jobs", "2")
    assert done.exit_code == 0, done.stderr
    assert "left out" not in done.stderr
    done = cli("run", "global_pooling", *SMALL, *RUN, "--pool", "mine:scale=2,max", "--plugin", "my_plugin.py")
    assert done.exit_code == 0, done.stderr
    complete = cli("status", "--plugin", "my_plugin.py")
    assert [line.split()[:2] for line in complete.stdout.splitlines()[1:]] == [
        ["brighter_half", "2"],
        ["global_pooling", "2"],
    ]
    out = tmp_path / "poolbench-out"
    assert "brighter_half" in (out / "report" / "results.csv").read_text()
    forget_plugins()

    lines = [
        "1 cell of 'global_pooling' is left out (no pool 'mine'): give --plugin my_plugin.py",
        "2 cells of 'brighter_half' are left out: give --plugin my_plugin.py",
    ]
    status = cli("status")
    assert [line.split()[:2] for line in status.stdout.splitlines()[1:]] == [["global_pooling", "1"]]
    assert sorted(status.stderr.splitlines()) == lines
    report = cli("report", "--no-mlflow")
    assert sorted(report.stderr.splitlines()) == lines
    results = (out / "report" / "results.csv").read_text()
    assert "global_pooling" in results
    assert "brighter_half" not in results
    assert "mine" not in results
    for name in ("report.html", "report.md"):
        assert "give --plugin my_plugin.py" in (out / "report" / name).read_text()
    for arguments in (
        ("sync",),
        ("regress", "--baseline", "poolbench-out/report"),
        ("run", "global_pooling", *SMALL, *RUN, "--pool", "max"),
    ):
        done = cli(*arguments)
        assert done.exit_code == 0, done.stderr
        assert [line for line in sorted(done.stderr.splitlines()) if "left out" in line] == lines
    assert "1 runs of seeds are new" in cli("sync", "--tracking-uri", "sqlite:///other.db").stderr

    again = cli("run", "brighter_half", *SMALL, *RUN, "--pool", "mine,max", "--plugin", "my_plugin.py")
    assert "2 done before, 0 to run" in again.stderr
    assert "left out" not in again.stderr


def test_no_command_loads_code_that_a_work_folder_names(
    tmp_path: Path, cli: Cli, plugin: Path, forget_plugins: Callable[[], None]
) -> None:
    done = cli("run", "brighter_half", *SMALL, *RUN, "--pool", "mine", "--plugin", "my_plugin.py")
    assert done.exit_code == 0, done.stderr
    (cell,) = (tmp_path / "poolbench-out").glob("cells/*/events.jsonl")
    assert json.loads(cell.read_text().splitlines()[0])["plugins"] == ["my_plugin.py"]
    forget_plugins()
    plugin.write_text("open('loaded', 'w').close()\n")
    for arguments in (("status",), ("report", "--no-mlflow"), ("sync",), ("list",), ("plan", "global_pooling")):
        assert cli(*arguments).exit_code == 0
    assert not (tmp_path / "loaded").exists()
