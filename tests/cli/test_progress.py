"""Progress where stderr is not a terminal."""

from __future__ import annotations

import pytest

from poolbench.cli import progress
from poolbench.cli.progress import counting


def shown(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return [line.partition(" (")[0] for line in capsys.readouterr().err.splitlines()]


def test_a_count_is_a_line_per_tenth(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 1e9)
    with counting("passes") as show:
        for done in range(1, 2001):
            show(done, 2000)
    assert shown(capsys) == [f"{done:,} of 2,000 passes" for done in range(200, 2001, 200)]


def test_a_slow_count_is_a_line_every_few_seconds(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 4.0, 11.0, 15.0, 30.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    with counting("passes") as show:
        for done in (1, 2, 3, 4):
            show(done, 1000)
    assert shown(capsys) == ["2 of 1,000 passes", "4 of 1,000 passes"]


def test_a_new_total_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with counting("passes") as show:
        show(50, 100)
        show(60, 1000)
        show(200, 1000)
    assert shown(capsys) == [
        "50 of 100 passes",
        "1,000 passes are needed instead of 100",
        "200 of 1,000 passes",
    ]
