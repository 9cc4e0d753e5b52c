"""The table of models by consistency: what goes in, that changes by hand are found, that the page is the results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "consistency" / "table.py"


@pytest.fixture
def script() -> ModuleType:
    if not PATH.is_file():
        pytest.skip(f"the script is not here: {PATH}")
    spec = importlib.util.spec_from_file_location("consistency_table", PATH)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def evaluation(**changes: Any) -> dict[str, Any]:
    share = {"mean": 0.125, "low": 0.1, "high": 0.15, "n": 50}
    model = {"spec": "timm:net", "digest": "ab" * 32, "parameters": 2_500_000, "size": 32, "large": 37}
    steps = {"flips": share, "flipped": share, "change": share, "worst": share}
    return {
        "model": {**model, "preprocessing": "crops", "is_untrained": False, "weights": "/home/somebody/w.pt"},
        "data": {"folder": "/home/somebody/val", "digest": "cd" * 8, "images": 50, "classes": ["a", "b"]},
        "accuracy": share, "steps": [steps], "published": {"agreement": share, "scatter": 0.01},
        "exact": {"positions": 36, "consistency": share, "agreement": []}, "cost": {"flops": 3e9},
        "environment": {"poolbench": "1", "torch": "2"}, **changes,
    }  # fmt: skip


def test_the_page_shows_the_results(script: ModuleType) -> None:
    page = script.PAGE.read_text()
    assert script.rendered(script.read(), page) == page


def test_an_evaluation_becomes_a_row(script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "RESULTS", tmp_path / "results")
    given = tmp_path / "evaluation.json"
    given.write_text(json.dumps(evaluation()))
    stored = script.add(given, "drawn")
    assert stored == script.add(given, "drawn")
    # No folder of this machine goes into the repository.
    assert "somebody" not in stored.read_text()
    page = script.rendered(script.read(tmp_path / "results"), f"top\n{script.START}\nold\n{script.END}\nbottom\n")
    assert page.startswith("top\n")
    assert page.endswith("bottom\n")
    assert "old" not in page
    assert "| `timm:net` | 12.5 [10.0, 15.0] |" in page
    assert "### drawn: 50 images, 2 classes" in page
    stored.write_text(stored.read_text().replace("0.125", "0.100"))
    with pytest.raises(ValueError, match="it was changed"):
        script.read(tmp_path / "results")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"accuracy": None}, "no labels"),
        ({"model": {**evaluation()["model"], "is_untrained": True}}, "random"),
    ],
)
def test_what_ranks_nothing_is_refused(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    given = tmp_path / "evaluation.json"
    given.write_text(json.dumps(evaluation(**changes)))
    assert script.main(["add", "--data", "drawn", str(given)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
