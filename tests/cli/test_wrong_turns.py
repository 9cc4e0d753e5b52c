"""Every wrong command is refused in one line with exit code 2."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import Result

from poolbench.cli import main

Cli = Callable[..., Result]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "globalpooling"], "did you mean 'global_pooling'"),
        (["run", "all", "--preset", "quik"], "did you mean 'quick'"),
        (["run", "all", "--pool", "maks"], "did you mean 'max'"),
        (["run", "all", "--arch", "vgg_lik"], "did you mean 'vgg_like'"),
        (["plan", "all", "--arch", "timm:resnet81"], "unknown timm model 'resnet81'; did you mean 'resnet18'?"),
        (["run", "all", "--arch", "timm:resnet81"], "unknown timm model 'resnet81'; did you mean 'resnet18'?"),
        (["run", "all", "--seeds", "5-1"], "runs upwards"),
        (["run", "all", "--epochs", "0"], "0 is not in the range x>=1"),
        (["run", "all", "--jobs", "0"], "0 is not in the range 1<=x<=1024"),
        (["run", "all", "--preset", "smoke", "--device", "cuda:77"], "CUDA devices"),
        (["run", "all", "--preset", "smoke", "--device", "tpu"], "unknown device 'tpu'"),
        (["run", "all", "--preset", "smoke", "--out", "/proc/nowhere"], "cannot write to"),
        *(
            ([*command.split()], "Missing option '--out'")
            for command in (
                "evaluate timm:resnet18 --data .",
                "advise timm:resnet18 --data .",
                "inspect pools",
                "inspect model x",
            )
        ),
        (["run", "all", "--tuned"], "no tuning result"),
        (["run"], "Missing argument"),
        (["run", "--help-me"], "No such option '--help-me'"),
        (["fly"], "No such command 'fly'"),
        (["--fly"], "No such option '--fly'"),
        (["list", "things"], "'things' is not one of"),
        (["status"], "is not a work folder"),
        (["report"], "is not a work folder"),
        (["sync"], "is not a work folder"),
        (["ui"], "is not a work folder"),
        (["tune", "global_pooling"], "Missing option '--trials'"),
        (["regress", "--baseline", "nowhere"], "is not a work folder"),
        (["plan", "all", "--pool", "gem_local:q=4"], "unknown gem_local option 'q'"),
        (
            ["plan", "all", "--pool", "gem_local:p=four"],
            "option 'p' of pool 'gem_local' is of type float (default 3.0)",
        ),
        (["plan", "all", "--pool", "max,p=4"], "options follow the name and a colon, like max:p=4; got 'max,p=4'"),
        (["plan", "all", "--pool", "p=4,max"], "options follow the name and a colon, like NAME:p=4"),
        (["plan", "all", "--head", "gem:power=4"], "unknown gem option 'power'"),
        (["plan", "all", "--dataset", "mnist_sample:normalize=unti"], "'mnist_sample' is one of standard, unit"),
        (["plan", "all", "--arch", "vgg_like:widht=8"], "did you mean 'width'?"),
        (["plan", "all", "--train", "optimzer=sgd"], "did you mean 'optimizer'?"),
        (["plan", "all", "--train", "optimizer=rms"], "optimizer is one of adam, adamw, sgd, got 'rms'"),
        (["plan", "all", "--train", "learning_rate=fast"], "'learning_rate' is of type float, got 'fast'"),
        (["plan", "all", "--train", "sgd"], "a training option is NAME=VALUE"),
        (["plan", "all", "--train", "epochs=3", "--epochs", "4"], "--epochs 4 contradicts --train epochs=3"),
        (
            ["run", "shift_robustness", "--preset", "smoke", "--dataset", "mnist_sample,colour_shapes"],
            "dataset 'colour_shapes' does not fit shift_robustness: it has no option canvas, samples",
        ),
        (["plan", "all", "--plugin", "nowhere.py"], "there is no file 'nowhere.py'"),
        (["plan", "all", "--plugin", "no_such_module"], "'no_such_module' cannot be imported"),
    ],
)
def test_a_wrong_turn_is_one_line_and_exit_code_2(cli: Cli, arguments: list[str], message: str) -> None:
    done = cli(*arguments)
    assert done.exit_code == 2, done.output
    lines = done.stderr.splitlines()
    assert sum(line.startswith("poolbench: ") for line in lines) == 1
    assert lines[-1].startswith("poolbench: ")
    assert message in lines[-1]
    assert "Traceback" not in done.output


def commands_with(option: str, group: click.Group = main, *above: str) -> Iterator[tuple[str, ...]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_with(option, command, *above, name)
        elif any(option in parameter.opts for parameter in command.params):
            yield (*above, name)


@pytest.mark.parametrize("command", tuple(commands_with("--out")), ids=" ".join)
def test_a_folder_without_a_name_is_refused(cli: Cli, tmp_path: Path, command: tuple[str, ...]) -> None:
    done = cli(*command, "--out", "")
    assert done.exit_code == 2, done.output
    assert done.stderr.splitlines()[-1].startswith("poolbench: --out is empty")
    assert not list(tmp_path.iterdir())


def test_every_command_that_names_or_reads_cells_takes_plugins(cli: Cli) -> None:
    for command in ("list", "plan", "run", "status", "report", "sync", "tune", "regress", "bisect"):
        needed = {"plan": ["all"], "run": ["all"], "tune": ["all"], "bisect": ["HEAD~1", "HEAD"]}.get(command, [])
        done = cli(command, *needed, "--plugin", "nowhere.py")
        assert (done.exit_code, done.stderr) == (
            2,
            "poolbench: there is no file 'nowhere.py'; give package.module or a .py file\n",
        )


def test_a_baseline_without_results_is_one_line(tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "poolbench-out" / "cells").mkdir(parents=True)
    assert "cannot read results" in cli("regress", "--baseline", "nowhere").stderr
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    done = cli("regress", "--baseline", ".")
    assert done.exit_code == 2
    assert "lacks the columns benchmark" in done.stderr


def test_help_names_the_exit_codes(cli: Cli) -> None:
    assert "3 data missing" in " ".join(cli("--help").stdout.split())
    assert "poolbench, version" in cli("--version").stdout
