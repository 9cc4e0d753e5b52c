"""The gallery: the page names every figure of every task and its pictures exist; the script draws from a real run."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image

from poolbench.core import UsageError
from poolbench.registry import benchmarks
from poolbench.task import Benchmark

DOCS = Path(__file__).parent.parent / "docs"
LIMIT = 3_000_000
"""Bytes of all pictures."""


def sections(text: str) -> dict[str, str]:
    """The text of each second-level heading."""
    parts = re.split(r"^## ", text, flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0]: part for part in parts}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = DOCS / "make_gallery.py"
    spec = importlib.util.spec_from_file_location("make_gallery", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", benchmarks.names())
def test_the_page_names_every_figure_and_its_pictures_exist(name: str) -> None:
    section = sections((DOCS / "gallery.md").read_text())[name]
    assert f"poolbench run {name} " in section
    benchmark: Benchmark = benchmarks.get(name)()
    for figure in benchmark.figures:
        pictures = [suffix for suffix, drawn in (("", figure.draw_summary), ("-cell", figure.draw_cell)) if drawn]
        assert section.count(f"### {figure.name}: {figure.title}") == len(pictures)
        for suffix in pictures:
            link = f"figures/{name}-{figure.name}{suffix}.webp"
            assert f"]({link})" in section
            with Image.open(DOCS / link) as picture:
                assert min(picture.size) > 100


def test_every_picture_is_shown_and_all_are_small() -> None:
    pages = "".join(page.read_text() for page in DOCS.glob("*.md"))
    files = list((DOCS / "figures").iterdir())
    assert files
    assert not [file.name for file in files if f"](figures/{file.name})" not in pages]
    assert sum(file.stat().st_size for file in files) < LIMIT
    assert all(file.stat().st_size < 200_000 for file in files)


def test_the_script_draws_what_a_run_has_and_names_the_rest(
    script: ModuleType,
    tmp_path: Path,
    poolbench: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(script, "SIZE", 48)
    monkeypatch.setattr(script, "POOLS", ("max",))
    selected = ("--preset", "smoke", "--seeds", "0", "--head", "avg", "--device", "cpu", "--jobs", "1", "--no-mlflow")
    done = poolbench("run", "global_pooling", *selected, "--out", "work")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "docs" / "pictures"
    out.mkdir(parents=True)
    for old in ("gone_task-accuracy.webp", "kept.txt"):
        (out / old).write_text("old")
    page = script.make_gallery(tmp_path / "work", out)
    assert page == tmp_path / "docs" / "gallery.md"
    found = sections(page.read_text())
    assert list(found) == [*benchmarks.names(), "inspect pools", "inspect model"]
    assert "](pictures/global_pooling-learning_curves.webp)" in found["global_pooling"]
    assert "There was no data for this figure." in found["rotation_variance"]
    assert "0 networks are shown; the preset has 32." in found["rotation_variance"]
    assert "![" not in found["rotation_variance"]
    assert "no data for rotation_variance-accuracy.webp" in capsys.readouterr().err
    links = set(re.findall(r"\]\(pictures/([^)]+)\)", page.read_text()))
    assert links == {file.name for file in out.iterdir()} - {"kept.txt"}
    assert "inspect-pools-step.png" in links
    for link in links:
        Image.open(BytesIO((out / link).read_bytes())).verify()


def test_results_on_other_data_sets_are_left_out(
    script: ModuleType, tiny: Benchmark, cells: list[Any], ledger: Any, run_cells: Callable[..., Any]
) -> None:
    run_cells(cells, ledger)
    with pytest.raises(UsageError, match="has no finished cells"):
        script.evidence(ledger.folder)


def test_a_folder_without_a_run_is_refused(script: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a work folder"):
        script.make_gallery(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
