"""The cost of the rotation measure, relative to the forward passes of the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from poolbench.bench.rotation import BARE, FULL, bench_rotation


def test_times_are_relative_to_bare_forward_passes() -> None:
    rows = {row.what: row for row in bench_rotation("cpu", images=20, angles=4, repeats=1)}
    assert rows[BARE].ratio == 1
    assert rows[FULL].ratio == pytest.approx(rows[FULL].seconds / rows[BARE].seconds)
    assert rows[FULL].ratio > 1


def test_the_command_prints_a_table_and_stores_it(tmp_path: Path, poolbench: Callable[..., Any]) -> None:
    done = poolbench(
        "bench", "rotation", "--images", "20", "--angles", "4", "--repeats", "1", "--device", "cpu", "--json", "r.json"
    )
    assert done.returncode == 0, done.stderr
    assert BARE in done.stdout
    stored = json.loads((tmp_path / "r.json").read_text())
    assert [row["what"] for row in stored["rotation"]][:2] == [BARE, FULL]
    assert stored["rotation"][0]["images"] == 20
