"""The fast ways give the slow ways' numbers from fewer passes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolbench.bench.shift import bench_consistency, bench_map


def test_both_ways_agree() -> None:
    found = bench_map("cpu", canvas=64, repeats=1)
    assert found.slow_passes == 64 * 64
    assert found.passes < found.slow_passes / 3
    assert found.difference < 1e-5
    assert found.times == pytest.approx(found.slow_seconds / found.seconds)
    assert 0 < found.forward_share < 1
    consistency = bench_consistency("cpu", images=2, repeats=1)
    assert consistency.slow_passes == 2 * 1024
    assert consistency.fewer_passes > 40
    assert consistency.difference <= 1e-6


def test_the_command_prints_and_stores(tmp_path: Path, poolbench: Callable[..., Any]) -> None:
    small = ["--canvas", "48", "--images", "1"]
    done = poolbench("bench", "shift", *small, "--device", "cpu", "--json", "shift.json")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 4
    stored = json.loads((tmp_path / "shift.json").read_text())
    assert [row["measure"] for row in stored["shift"]] == ["map 48x48", "consistency of resnet20"]
