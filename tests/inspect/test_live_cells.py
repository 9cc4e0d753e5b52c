"""Scenes from cells of a work folder: which are taken, how they are named, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from poolbench.core import Cell, Component, DataLocation, TrainConfig, UsageError
from poolbench.inspect.live_cells import cell_scenes, names_of, report_scenes
from poolbench.registry import architectures, datasets, heads, pools
from poolbench.runner.ledger import Ledger

HERE = DataLocation("")


def shape_cell(pool: str = "max", head: str = "avg", seed: int = 0, **changes: Any) -> Cell:
    """A cell of the shift task that trains in a second."""
    cell = Cell(
        "shift_robustness",
        datasets.resolve("shapes", {"canvas": 32, "samples": 512, "test_samples": 40}),
        architectures.resolve("shape_net", {"num_pooling": 1}),
        pools.resolve(pool),
        heads.resolve(head),
        "default",
        seed,
        TrainConfig(epochs=3, batch_size=32, learning_rate=2e-2),
        measure={"images": 0, "reach": 1, "average": 2, "objects": 4, "few": 4},
        version=4,
    )
    return replace(cell, **changes)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> tuple[Ledger, dict[str, Cell]]:
    """A work folder with finished cells: two pools, one of them with two seeds, a mask, and a residual network."""
    from poolbench.runner.attempt import Settings
    from poolbench.runner.execute import execute

    class Silent:
        def cell_started(self, cell: Cell) -> None: ...
        def epoch_ended(self, cell: Cell, row: dict[str, float]) -> None: ...
        def cell_ended(self, result: Any) -> None: ...

    masked = TrainConfig(epochs=1, batch_size=32, mask="disc")
    cells = {
        "max": shape_cell(),
        "max again": shape_cell(seed=1),
        "blur": shape_cell("max_blur3"),
        "masked": shape_cell(train=masked),
        "residual": shape_cell(
            architecture=architectures.resolve("resnet20", {"width": 2}), train=TrainConfig(epochs=1, batch_size=256)
        ),
    }
    ledger = Ledger(tmp_path_factory.mktemp("work")).create()
    execute(list(cells.values()), ledger, Settings(HERE, "cpu", ""), Silent())
    assert {result.status for result in ledger.results()} == {"finished"}
    return ledger, cells


Work = tuple[Ledger, dict[str, Cell]]


def test_cells_are_named_by_starts_of_their_ids(work: Work) -> None:
    ledger, cells = work
    (scene,) = cell_scenes(ledger, [cells["blur"].id, cells["max"].id[:10], cells["max"].id], HERE)
    assert (scene.title, scene.canvas, scene.classes) == ("shapes", (1, 32, 32), ("rectangle", "circle"))
    assert [(network.name, network.head, network.images) for network in scene.networks] == [
        ("max_blur3", "", 40),
        ("max", "", 40),
    ]
    for network, name in zip(scene.networks, ("blur", "max"), strict=True):
        assert network.accuracy == ledger.result(cells[name]).metrics["accuracy"]
        assert network.detail.startswith(f"cell {cells[name].id}: shift_robustness shapes shape_net")


def test_networks_of_one_name_are_told_apart_by_what_differs(work: Work) -> None:
    ledger, cells = work
    (scene,) = cell_scenes(ledger, [cells["max"].id, cells["max again"].id], HERE)
    assert [network.name for network in scene.networks] == ["max, seed=0", "max, seed=1"]


def test_names_of_pools_and_heads() -> None:
    both = [shape_cell(pool, head) for pool in ("max", "avg") for head in ("avg", "max")]
    assert names_of(both) == [("max", "avg"), ("max", "max"), ("avg", "avg"), ("avg", "max")]
    assert names_of([shape_cell(head="avg"), shape_cell(head="gem")]) == [("avg", ""), ("gem", "")]
    deep = shape_cell(architecture=Component("shape_net", {"num_pooling": 2, "width": 3}))
    assert names_of([shape_cell(), deep]) == [("max, num_pooling=1", ""), ("max, num_pooling=2", "")]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("residual", r"a page cannot evaluate network.block1_1 \(Block\).*; of this folder would do, for example: "),
        ("masked", "it was trained with mask=disc, which a page does not apply; of this folder would do"),
    ],
)
def test_a_cell_that_a_page_cannot_show_is_refused(work: Work, name: str, message: str) -> None:
    ledger, cells = work
    with pytest.raises(UsageError, match=message) as refused:
        cell_scenes(ledger, [cells["max"].id, cells[name].id], HERE)
    text = str(refused.value)
    assert text.startswith(f"cell {cells[name].id}: ")
    suggested = text.partition("for example: ")[2]
    assert cells["blur"].id in suggested
    assert (cells["max"].id in suggested) + (cells["max again"].id in suggested) == 1
    assert cells["residual"].id not in suggested
    assert "\n" not in text


def test_unknown_and_ambiguous_starts_are_refused(work: Work) -> None:
    ledger, _ = work
    with pytest.raises(UsageError, match="has no cell 'nothing' \\(it has 5 finished cells, like "):
        cell_scenes(ledger, ["nothing"], HERE)
    with pytest.raises(UsageError, match="the id of a cell is empty"):
        cell_scenes(ledger, [""], HERE)


def test_a_cell_that_did_not_finish_is_refused(tiny: object, cells: list[Cell], ledger: Ledger) -> None:
    record = ledger.record(cells[0].id)
    record.begin(cells[0], {})
    record.append("failed", reason="broken", traceback="")
    with pytest.raises(UsageError, match=rf"cell {cells[0].id} is failed, not finished; run its command again"):
        cell_scenes(ledger, [cells[0].id], HERE)


def test_damaged_weights_are_one_line(work: Work, tmp_path: Path) -> None:
    import shutil

    ledger, cells = work
    shutil.copytree(ledger.folder, tmp_path / "copy")
    copy = Ledger(tmp_path / "copy")
    (copy.record(cells["max"].id).folder / "weights.pt").write_bytes(b"no weights")
    with pytest.raises(UsageError, match=rf"cell {cells['max'].id} is damaged \(weights.pt: it has 10 bytes"):
        cell_scenes(copy, [cells["max"].id], HERE)


def test_the_page_beside_a_report_has_the_first_seed_of_comparable_cells(work: Work) -> None:
    ledger, cells = work
    (scene,) = report_scenes(ledger)
    found = sorted((network.name, network.detail.split()[1]) for network in scene.networks)
    # The masked and the residual network stand alone.
    assert found == [("max", f"{cells['max'].id}:"), ("max_blur3", f"{cells['blur'].id}:")]


def test_cells_that_do_not_suit_give_no_page(
    tiny: object, cells: list[Cell], ledger: Ledger, run_cells: Callable[..., object]
) -> None:
    run_cells(cells, ledger)
    assert report_scenes(ledger) == []
