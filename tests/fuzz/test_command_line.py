"""Hostile arguments of every command: a documented exit code and a line or two, never a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from poolbench.cli import main, results
from poolbench.core import UsageError
from poolbench.inspect import live
from poolbench.own_model import advise, evaluation
from poolbench.runner import execute

DOCUMENTED = {0, 2, 3}
"""Exit codes of commands that execute no cell."""


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands(main))
VALID = {
    "run": ["global_pooling", "--preset", "smoke", "--no-mlflow", "--device", "cpu"],
    "decide": ["global_pooling", "--preset", "smoke", "--no-mlflow", "--device", "cpu"],
    "claims": ["global_pooling", "--preset", "smoke", "--out", "work"],
    "plan": ["global_pooling", "--preset", "smoke"],
    "tune": ["global_pooling", "--preset", "smoke", "--trials", "1", "--no-mlflow", "--device", "cpu"],
    "status": ["--out", "work"],
    "report": ["--out", "work", "--no-mlflow"],
    "sync": ["--out", "work"],
    "ui": ["--out", "work"],
    "merge": ["work"],
    "regress": ["--out", "work", "--baseline", "base"],
    "accept": ["base", "--out", "work"],
    "issue": ["--out", "work"],
    "bisect": ["HEAD~1", "HEAD", "--repo", "work"],
    "shift-map": ["--model", "tiny_net:network", "--canvas", "32", "--device", "cpu"],
    "evaluate": ["tiny_net:network", "--data", "images", "--out", "answer", "--no-mlflow", "--device", "cpu"],
    "advise": ["tiny_net:network", "--data", "images", "--out", "answer", "--no-mlflow", "--device", "cpu"],
    "model": ["tiny_net:network", "--image", "images/a.png", "--out", "seen", "--no-mlflow", "--device", "cpu"],
    "pools": ["images/a.png", "--out", "pools", "--size", "48", "--pool", "max"],
}
"""Arguments with which a command succeeds, or would with results in the work folder."""


def _end(*arguments: Any, **options: Any) -> NoReturn:
    """Stand in for everything that computes."""
    raise UsageError("the arguments are fine")


@contextmanager
def _alone(*arguments: Any) -> Iterator[None]:
    """Stand in for the processes that help."""
    yield


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a work folder, an image and a network, in which nothing is trained and no program starts."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("place")
    for name in ("work/cells", "work/invocations", "images", "base"):
        (folder / name).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.effect_noise((64, 64), 50).convert("RGB").save(folder / "images" / f"{name}.png")
    (folder / "tiny_net.py").write_text(
        "from torch import nn\n"
        "def network():\n"
        "    return nn.Sequential(nn.Conv2d(3, 2, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.syspath_prepend(str(folder))
        patch.setattr(execute, "execute", _end)
        patch.setattr("poolbench.tune.tuner.tune", _end)
        patch.setattr("poolbench.tune.processes.helping", _alone)
        patch.setattr(live, "own_scenes", _end)
        patch.setattr(advise, "advise", _end)
        patch.setattr(evaluation, "evaluate", _end)
        patch.setattr(results, "_serve", _end)
        patch.setattr("poolbench.inspect.inspection.inspect_model", _end)
        patch.setattr("poolbench.shift_map.shift_map", _end)
        patch.setattr("poolbench_tracking.tracker_issue.GitHub.is_installed", False)
        yield folder


def check(result: Result, arguments: list[str]) -> None:
    assert result.exception is None or isinstance(result.exception, SystemExit), (arguments, result.exc_info)
    allowed = DOCUMENTED | ({1} if arguments[0] in ("sync", "ui") else set())  # a store that cannot be used
    assert result.exit_code in allowed, (arguments, result.exit_code, result.output)
    assert "Traceback" not in result.output, arguments
    if result.exit_code in (1, 2):
        refusals = [line for line in result.stderr.split("\n") if line.startswith("poolbench: ")]
        assert len(refusals) == 1, (arguments, result.stderr)
        assert result.stderr.endswith(f"{refusals[0]}\n"), (arguments, result.stderr)
        assert refusals[0].isprintable(), (arguments, result.stderr)


sizes = (st.integers(1, 100) | st.integers(10**6, 10**30)).map(str)


@st.composite
def wrong_turns(draw: st.DrawFn, path: tuple[str, ...], values: st.SearchStrategy[str]) -> list[str]:
    """Return the arguments of a command of which one to three are hostile."""
    command = COMMANDS[path]
    given_options = [option for option in command.params if isinstance(option, click.Option) and not option.is_flag]
    arguments = [*path, *VALID.get(path[-1], [])]
    for option in draw(st.lists(st.sampled_from(given_options), max_size=2)):
        own = values | sizes if isinstance(option.type, click.types.IntParamType) else values
        arguments += [option.opts[0], *(draw(own) for _ in range(option.nargs))]
    if draw(st.booleans()):
        arguments.insert(draw(st.integers(len(path), len(arguments))), draw(values))
    return arguments


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_hostile_arguments_are_refused_in_a_line(
    path: tuple[str, ...], place: Path, hostile: st.SearchStrategy[str]
) -> None:
    @settings(max_examples=max(5, settings().max_examples // 8))
    @given(wrong_turns(path, hostile))
    def run(arguments: list[str]) -> None:
        check(CliRunner().invoke(main, arguments, prog_name="poolbench"), arguments)

    run()
