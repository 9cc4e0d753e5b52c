"""What only a GPU can show: equal samples and close results on both devices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from poolbench.core import CHOICES, Cell, Component, DataLocation, TrainConfig
from poolbench.data import to_pixels
from poolbench.data.shapes import sample_shapes, shapes
from poolbench.engine import build_model
from poolbench.engine.checkpoint import Checkpoint, pack, unpack
from poolbench.engine.loop import Training
from poolbench.engine.networks import OneNetwork
from poolbench.engine.replicas import Stack, stack_limit
from poolbench.geometry import turns
from poolbench.runner.attempt import Settings
from poolbench.runner.cell import run_cells
from poolbench.runner.execute import execute
from poolbench.runner.gpu import gpu_state
from poolbench.runner.ledger import Ledger
from poolbench.runner.plan import Selection, plan

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_shapes_are_drawn_alike() -> None:
    on_cpu, on_gpu = (sample_shapes(100, 64, torch.Generator().manual_seed(0), device) for device in ("cpu", "cuda"))
    assert torch.equal(on_cpu[0], on_gpu[0].cpu())
    assert torch.equal(on_cpu[1], on_gpu[1].cpu())


def test_rotations_agree() -> None:
    x = torch.rand(3, 1, 28, 28)
    torch.testing.assert_close(turns(x.cuda(), [37.0])[0].cpu(), turns(x, [37.0])[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["shift_robustness", "global_pooling", "rotation_variance"])
def test_a_cell_of_every_task_runs_and_agrees(name: str, tmp_path: Path, run_cells: Callable[..., Any]) -> None:
    cell = plan(Selection((name,), "smoke", seeds=(0,)))[-1]
    cell = replace(cell, train=replace(cell.train, epochs=1))
    results = []
    for device in ("cpu", "cuda"):
        ledger = Ledger(tmp_path / device).create()
        execute([cell], ledger, Settings(DataLocation("data"), device), run_cells([], ledger))
        results.append(ledger.result(cell))
    assert [result.status for result in results] == ["finished", "finished"], results[1].traceback
    assert results[0].facts["data"]["digest"] == results[1].facts["data"]["digest"]
    assert results[1].metrics["train_loss"] == pytest.approx(results[0].metrics["train_loss"], rel=0.02)


CELL = Cell(
    "shift_robustness", Component("shapes", {"canvas": 48, "samples": 128, "test_samples": 64}),
    Component("shape_net", {"num_pooling": 1, "width": 8}), Component("max"), Component("avg"), "default", 3,
    TrainConfig(epochs=3, batch_size=32, augment=("flip", "rotation", "shift")),
)  # fmt: skip
SEEDS = (3, 4, 5)


def training(seeds: tuple[int, ...], config: TrainConfig = CELL.train, dtype: torch.dtype = torch.float32) -> Training:
    data = shapes(DataLocation("data"), "cuda", canvas=48, samples=128, test_samples=64)
    models = [build_model(replace(CELL, seed=seed), data, "cuda").to(dtype) for seed in seeds]
    return Training(Stack(models) if len(models) > 1 else OneNetwork(models[0]), data, config, seeds)


@pytest.mark.parametrize("optimizer", CHOICES["optimizer"])
def test_replicas_are_their_single_runs(optimizer: str) -> None:
    config = replace(CELL.train, optimizer=optimizer)
    together = training(SEEDS, config, torch.float64)
    for _ in range(3):
        together.run_epoch()
    for seed, state in zip(SEEDS, together.networks.states(), strict=True):
        alone = training((seed,), config, torch.float64)
        for _ in range(3):
            alone.run_epoch()
        (expected,) = alone.networks.states()
        for name, value in state.items():
            torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-9)


def test_as_many_replicas_as_fit() -> None:
    data = shapes(DataLocation("data"), "cuda", canvas=48, samples=128, test_samples=64)
    model = build_model(CELL, data, "cuda")
    pixels = to_pixels(data.test.images)
    assert stack_limit(model, pixels, most=8) == 8
    free, _ = torch.cuda.mem_get_info()
    occupied = torch.empty(int(free * 0.9), dtype=torch.uint8, device="cuda")
    assert stack_limit(model, pixels, most=10**9) < free // pixels.nbytes
    del occupied


def test_deterministic_cells_repeat_and_resume_bit_for_bit(tmp_path: Path) -> None:
    settings = Settings(DataLocation("data"), "cuda", replicas=3, deterministic=True, checkpoint_seconds=0)
    cells = [replace(CELL, seed=seed) for seed in SEEDS]

    def states(folder: str, stop_after: int | None = None) -> list[bytes]:
        ledger = Ledger(tmp_path / folder).create()
        records = [ledger.record(cell.id) for cell in cells]

        def stop(cell: Cell, row: dict[str, float]) -> None:
            if row["epoch"] == stop_after:
                raise KeyboardInterrupt

        if stop_after is not None:
            with pytest.raises(KeyboardInterrupt):
                run_cells(cells, records, settings, stop)
        run_cells(cells, records, settings, lambda cell, row: None)
        results = [ledger.result(cell) for cell in cells]
        assert [result.status for result in results] == ["finished"] * 3, results[0].traceback
        return [(record.folder / "weights.pt").read_bytes() for record in records]

    try:
        first = states("first")
        assert states("second") == first
        assert states("interrupted", stop_after=2) == first
    finally:
        torch.use_deterministic_algorithms(False)


def test_checkpoints_hold_the_stream_of_the_device() -> None:
    config = replace(CELL.train, epochs=2)
    whole = training((3,), config)
    whole.run_epoch()
    content = pack(Checkpoint(whole.states()[0], [], 0.0), CELL.id, "cuda")
    again = training((3,), config)
    again.restore([unpack(content, CELL.id, "cuda").state])
    assert torch.equal(again.states()[0]["noise"][1], whole.states()[0]["noise"][1])
    assert again.run_epoch()[0] == pytest.approx(whole.run_epoch()[0], rel=1e-4)


@pytest.mark.skipif(
    not torch.cuda.is_available() or not torch.cuda.is_bf16_supported(False), reason="needs a GPU with bfloat16"
)
@pytest.mark.parametrize("seeds", [(3,), SEEDS])
def test_bfloat16_learns_about_as_well(seeds: tuple[int, ...]) -> None:
    config = replace(CELL.train, epochs=5, learning_rate=1e-2)
    exact, half = (training(seeds, replace(config, precision=name)) for name in ("float32", "bfloat16"))
    for _ in range(config.epochs):
        rows = [exact.run_epoch()[0], half.run_epoch()[0]]
    assert rows[1]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=0.2)
    assert {parameter.dtype for parameter in half.networks.parameters} == {torch.float32}


def test_the_peak_of_memory_is_that_since_the_last_reading() -> None:
    gpu_state("cuda")
    block = torch.zeros(50_000_000, dtype=torch.uint8, device="cuda")
    del block
    assert gpu_state("cuda")["gpu_memory_mb"] >= 50
    assert gpu_state("cuda")["gpu_memory_mb"] < 50
