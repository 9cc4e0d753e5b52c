"""The bar of a run on terminals of several widths, and its lines where there is none."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.cells import cell_len
from rich.console import Console

from poolbench.cli import progress
from poolbench.cli.progress import Progress, cells_bar
from poolbench.core import Cell, Result
from poolbench.runner.pace import Pace
from poolbench.runner.standing import Standing

LONG = "epoch 3/8, accuracy 0.912: shift_robustness fashion_mnist_sample vgg_like max_aps avg shifted hidden=16 " * 3
LABELS = {"long": LONG, "wide": "畳み込み" * 60, "markup": "[bold]x[/bold] [/] " * 20, "short": "x"}


@pytest.mark.parametrize("width", [80, 100, 150])
@pytest.mark.parametrize("label", LABELS.values(), ids=LABELS)
@pytest.mark.parametrize("count", [(3, 28), (9_999, 10_000)], ids=str)
def test_a_bar_is_one_line_with_all_numbers(
    width: int, label: str, count: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.time, "monotonic", lambda: 1000.0)
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    bar = cells_bar(console)
    bar.add_task(label, completed=count[0], total=count[1], end=1000.0 + 754)
    with console.capture() as captured:
        console.print(bar.get_renderable())
    (line,) = captured.get().splitlines()
    assert cell_len(line) <= width
    assert f"{count[0]}/{count[1]}" in line
    assert re.search(r" (0:00:00|-:--:--) +left 0:12:34 ", line)
    assert ("…" in line) == (label != "x")
    assert label[:10] in line


def test_a_line_says_what_is_left(
    cell_of: Callable[..., Cell], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    cells = [cell_of(seed=seed) for seed in range(4)]
    said: list[Standing] = []
    results: list[Result] = []
    with Progress(Pace(1), results.append, said.append) as shown:
        shown.expect([[cell] for cell in cells])
        for cell in cells:
            shown.cell_started(cell)
            shown.cell_ended(Result(cell, "finished", 0.0, 60.0, facts={"seconds_fit": 50.0, "seconds_measure": 10.0}))
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("]")[0] for line in lines[-1:]] == ["[4/4"]
    assert re.match(r"\[1/4, about (2|3) min left\] ", lines[0])
    assert re.match(r"\[3/4, about \d\d s left\] ", lines[2])
    assert [result.cell for result in results] == cells
    assert (said[0].end, said[-1].done, said[-1].total) == (None, 4, 4)


def test_a_terminal_is_not_told_what_to_do_by_a_label(
    cell_of: Callable[..., Cell], capsys: pytest.CaptureFixture[str]
) -> None:
    cell = cell_of(variant="a\x1b[2Jb")
    with Progress(Pace(1), lambda _: None, lambda _: None) as shown:
        shown.expect([[cell]])
        shown.cell_started(cell)
        shown.cell_ended(Result(cell, "failed", 0.0, 60.0, reason="\x1b]0;title\x07\nmore"))
    (line,) = capsys.readouterr().err.splitlines()
    assert "a\\x1b[2Jb" in line
    assert line.endswith(r": \x1b]0;title\x07")


def test_a_failure_without_a_reason_is_a_line_too(cell_of: Callable[..., Cell]) -> None:
    assert Result(cell_of(), "failed").brief == "no reason is known"
    assert Result(cell_of(), "failed", reason="one\ntwo").brief == "one"
