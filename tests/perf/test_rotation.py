"""The cost of the rotation measure, relative to the forward passes of the same run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Load = Callable[[str], ModuleType]


def test_times_are_relative_to_bare_forward_passes(load_script: Load) -> None:
    script = load_script("rotation")
    rows = {row.what: row for row in script.bench_rotation("cpu", images=20, angles=4, repeats=1)}
    assert rows[script.BARE].ratio == 1
    assert rows[script.FULL].ratio == pytest.approx(rows[script.FULL].seconds / rows[script.BARE].seconds)


def test_the_script_prints_a_table_and_stores_it(
    load_script: Load, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script, file = load_script("rotation"), tmp_path / "rotation.json"
    small = ["--images", "20", "--angles", "4", "--repeats", "1"]
    script.main([*small, "--device", "cpu", "--json", str(file)])
    assert script.BARE in capsys.readouterr().out
    stored = json.loads(file.read_text())
    assert [row["what"] for row in stored["rotation"]][:2] == [script.BARE, script.FULL]
    assert stored["rotation"][0]["images"] == 20
