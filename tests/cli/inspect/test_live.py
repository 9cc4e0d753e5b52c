"""`poolbench inspect live` as a user types it: its page, its progress, and one line per mistake."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from poolbench.cli import main
from poolbench.cli.work import Tracking, write_report
from poolbench.core import Cell, TrainConfig
from poolbench.inspect import live
from poolbench.registry import architectures, datasets, heads, pools
from poolbench.runner.ledger import Ledger


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run ``cli("--out", "folder")`` in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: CliRunner().invoke(main, ["inspect", "live", *arguments], prog_name="poolbench")


@pytest.fixture
def finished(ledger: Ledger, run_cells: Callable[..., Any]) -> list[Cell]:
    """Two finished cells that differ in their pool."""
    cells = [
        Cell(
            "shift_robustness",
            datasets.resolve("shapes", {"canvas": 32, "samples": 512, "test_samples": 40}),
            architectures.resolve("shape_net", {"num_pooling": 1}),
            pools.resolve(pool),
            heads.resolve("avg"),
            "default",
            0,
            TrainConfig(epochs=3, batch_size=32, learning_rate=2e-2),
            measure={"images": 0, "reach": 1, "average": 2, "objects": 4, "few": 4},
            version=4,
        )
        for pool in ("max", "max_blur3")
    ]
    run_cells(cells, ledger)
    return cells


def names(page: Path) -> list[list[str]]:
    """The names of the networks of each scene of a page."""
    found = re.search(r'id="live-data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return [[network["name"] for network in scene["networks"]] for scene in json.loads(found[1])["scenes"]]


def test_own_networks_are_trained_and_the_page_is_printed(
    cli: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "POOLS", ("max", "avg"))
    shapes = live.recipes()[0]
    quick = live.Recipe("shapes", ("avg",), shapes.dataset, shapes.architecture, TrainConfig(epochs=1), 0.0)
    monkeypatch.setattr(live, "recipes", lambda: (quick,))
    done = cli("--out", "new/folder")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "new/folder/live.html\n"
    assert "2 of 2 epochs" in done.stderr
    assert names(tmp_path / "new" / "folder" / "live.html") == [["max", "avg"]]


def test_cells_of_a_work_folder(cli: Callable[..., Result], tmp_path: Path, finished: list[Cell]) -> None:
    done = cli(finished[1].id[:8], finished[0].id, "--work", "out")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == "live.html\n"
    assert names(tmp_path / "live.html") == [["max_blur3", "max"]]


def test_the_report_links_to_its_page(ledger: Ledger, finished: list[Cell]) -> None:
    path = write_report(ledger, Tracking(ledger.folder, None, wanted=False))
    assert names(path.with_name("live.html")) == [["max", "max_blur3"]]
    assert '<a href="live.html">' in path.read_text()


def test_a_report_without_a_page_names_the_command(
    ledger: Ledger, tiny: object, cells: list[Cell], run_cells: Callable[..., Any]
) -> None:
    run_cells(cells, ledger)
    path = write_report(ledger, Tracking(ledger.folder, None, wanted=False))
    assert not path.with_name("live.html").exists()
    assert "<code>poolbench inspect live</code>" in path.read_text()
    assert "live.html" not in path.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["0123"], "'poolbench-out' is not a work folder"),
        (["0123", "--work", "nowhere"], "'nowhere' is not a work folder"),
        (["--work", "nowhere"], "--work names the work folder of CELLs; give the ids of some, or leave it out"),
        (["--out", "/proc/nowhere"], "cannot write to '/proc/nowhere'"),
        (["--canvas", "3"], "No such option '--canvas'"),
    ],
)
def test_mistakes_are_one_line(cli: Callable[..., Result], arguments: list[str], message: str) -> None:
    done = cli(*arguments)
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_an_unknown_cell_is_one_line(cli: Callable[..., Result], finished: list[Cell]) -> None:
    done = cli("zzz", "--work", "out")
    assert done.exit_code == 2
    assert done.stderr.startswith("poolbench: 'out' has no cell 'zzz' (it has 2 finished cells")
    assert len(done.stderr.splitlines()) == 1
