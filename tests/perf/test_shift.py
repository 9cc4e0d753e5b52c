"""The exact measures give the brute-force numbers from fewer passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]


def test_both_ways_agree(load_script: Load) -> None:
    script = load_script("shift")
    found = script.bench_map("cpu", canvas=64, repeats=1)
    assert found.slow_passes == 64 * 64
    assert found.passes < found.slow_passes / 3
    assert found.difference < 1e-5
    assert found.times == pytest.approx(found.slow_seconds / found.seconds)
    assert 0 < found.forward_share < 1
    consistency = script.bench_consistency("cpu", images=2, repeats=1)
    assert consistency.slow_passes == 2 * 1024
    assert consistency.fewer_passes > 40
    assert consistency.difference <= 1e-6


def test_the_script_prints_and_stores(load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "shift.json"
    load_script("shift").main(["--canvas", "48", "--images", "1", "--device", "cpu", "--json", str(file)])
    assert len(capsys.readouterr().out.splitlines()) == 4
    stored = json.loads(file.read_text())
    assert [row["measure"] for row in stored["shift"]] == ["map 48x48", "consistency of resnet20"]
