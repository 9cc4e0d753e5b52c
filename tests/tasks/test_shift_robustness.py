"""The task's measure on untrained networks: what must come out whatever the weights."""

from __future__ import annotations

from dataclasses import replace

import pytest

from poolbench.core import NO_COMPONENT, Cell, Component, DataLocation, Measurement, TrainConfig
from poolbench.data import load_dataset
from poolbench.engine import build_model
from poolbench.runner.plan import Selection, plan
from poolbench_tasks.shift_robustness import ShiftOptions
from poolbench_tasks.shift_robustness.measure import measure

PIXELS = Cell(
    benchmark="shift_robustness",
    dataset=Component("fashion_mnist_sample", {"pad": 2}),
    architecture=Component("vgg_like", {"width": 4, "hidden": 8}),
    pool=Component("aps"),
    head=Component("avg"),
    variant="plain",
    seed=0,
    train=TrainConfig(epochs=1),
    padding_mode="circular",
    measure={"images": 12, "reach": 1, "average": 2, "few": 4},
)
SHAPES = replace(
    PIXELS,
    dataset=Component("shapes", {"canvas": 64, "samples": 64, "test_samples": 50}),
    architecture=Component("shape_net", {"num_pooling": 1}),
    pool=Component("max"),
    padding_mode="zeros",
    measure={"objects": 16, "few": 4},
)


def measured(cell: Cell) -> Measurement:
    data = load_dataset(cell.dataset, DataLocation("."), "cpu")
    return measure(cell, ShiftOptions(**cell.measure), build_model(cell, data, "cpu"), data)  # type: ignore[arg-type]


def test_adaptive_polyphase_sampling_with_circular_padding_keeps_every_decision() -> None:
    found = measured(PIXELS)
    for name in ("consistency", "exact_consistency", "averaged_consistency", "consistency_corrected"):
        assert found.metrics[name] == 1, name
    assert found.metrics["flip_rate"] == 0
    assert found.metrics["mean_absolute_change"] < 1e-5
    assert found.metrics["worst_accuracy"] == found.metrics["mean_shifted_accuracy"]
    conditions = found.tables["conditions"]
    assert list(zip(conditions["precision"], conditions["averaging"], strict=True)) == [
        ("float32", "none"),
        ("float32", "phases"),
        ("bfloat16", "none"),
        ("bfloat16", "phases"),
    ]


def test_zero_padding_leaves_the_stated_grid_alone() -> None:
    found = measured(replace(PIXELS, pool=Component("max"), padding_mode="zeros"))
    assert "exact_consistency" not in found.metrics
    assert 0 < found.metrics["consistency"] <= 1
    assert found.metrics["mean_absolute_change"] > 0


@pytest.mark.parametrize("num_pooling", [0, 1, 2])
def test_aliasing_is_what_pooling_adds(num_pooling: int) -> None:
    pool = NO_COMPONENT if num_pooling == 0 else Component("max")
    found = measured(replace(SHAPES, pool=pool, architecture=Component("shape_net", {"num_pooling": num_pooling})))
    assert found.metrics["square_noise"] < 1e-5
    assert found.metrics["square_boundary"] > 0
    assert found.arrays["map_phases"].shape == (2**num_pooling,) * 2
    assert found.metrics["exact_consistency"] == found.metrics["consistency"]
    if num_pooling:
        assert found.metrics["aliasing"] > 1e-4
    else:
        assert found.metrics["aliasing"] == 0


def test_a_pool_that_sees_the_whole_map_gets_the_grid() -> None:
    found = measured(replace(SHAPES, pool=Component("ideal_lowpass")))
    assert "exact_consistency" not in found.metrics
    assert "aliasing" not in found.metrics
    assert 0 < found.metrics["consistency"] <= 1
    assert found.arrays["map"].shape == (64, 64)


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_every_grid_says_how_much_is_measured(preset: str) -> None:
    cells = plan(Selection(("shift_robustness",), preset, seeds=(0,)))
    for cell in cells:
        options = ShiftOptions(**cell.measure)  # type: ignore[arg-type]
        count = options.objects if cell.dataset.name == "shapes" else options.images
        assert count >= options.few > 0, cell.label
        assert count >= 250 or preset == "smoke", cell.label
