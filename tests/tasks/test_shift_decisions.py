"""Aliasing over objects and the table of decisions: brute force, and which columns come from which images."""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from poolbench.core import Cell, Component, DataLocation, Measurement, TrainConfig, derive_seed
from poolbench.data import Dataset, load_dataset, to_pixels
from poolbench.data.shapes import sample_morphs
from poolbench.engine import build_model
from poolbench.measures.classification import predictions
from poolbench.registry import benchmarks
from poolbench_tasks.shift_robustness import ShiftOptions
from poolbench_tasks.shift_robustness import measure as measure_module
from poolbench_tasks.shift_robustness.measure import MEANS, measure

# A trained shape_net with two layers of max pooling (canvas 64, 250 batches of 64, seed 3), accuracy 1.
TRAINED: dict[str, list[float]] = {
    "conv1.weight": [
        0.301, 0.385, 0.524, -0.182, 0.708, -0.536, -0.015, -0.463, -0.172, -0.171, -0.177, 0.1, 0.596, -0.145,
        -0.412, -0.532, 0.257, 0.339, -0.18, -0.167, -0.143, 0.099, 0.285, 0.296, -0.377, -0.122, -0.058,
    ],
    "conv1.bias": [-0.151, -0.501, 0.061],
    "conv2.weight": [
        -0.264, 0.008, 0.219, -0.013, 0.162, -0.386, 0.168, -0.204, 0.116, 0.12, 0.146, 0.625, 0.341, -0.214, -0.088,
        0.391, 0.199, -0.415, -0.185, -0.34, -0.249, 0.089, -0.36, -0.296, -0.065, -0.218, -0.021, -0.006, 0.067,
        -0.189, 0.022, -0.308, -0.072, -0.01, 0.037, 0.067, 0.025, 0.3, 0.312, 0.135, -0.007, 0.405, 0.378, -0.041,
        -0.089, -0.215, -0.311, -0.083, -0.13, -0.262, -0.282, 0.128, -0.332, -0.246, -0.006, -0.079, -0.01, -0.189,
        -0.179, -0.163, -0.093, -0.062, -0.099, 0.032, -0.092, 0.035, 0.009, -0.095, -0.115, -0.145, -0.065, -0.07,
        0.092, 0.076, -0.006, -0.106, -0.148, -0.09, -0.133, -0.076, -0.133,
    ],
    "conv2.bias": [-0.227, -0.389, 0.016],
    "conv3.weight": [
        0.552, 0.697, 0.642, 0.603, 0.427, 0.49, 0.569, 0.362, 0.635, 0.578, 0.579, 0.395, 0.603, 0.476, 0.539, 0.54,
        0.464, 0.418, 0.011, 0.108, 0.017, 0.008, 0.085, -0.01, -0.08, -0.183, -0.177,
    ],
    "conv3.bias": [-1.927],
}  # fmt: skip
SHAPES = Cell(
    benchmark="shift_robustness",
    dataset=Component("shapes", {"canvas": 64, "samples": 64, "test_samples": 100}),
    architecture=Component("shape_net", {"num_pooling": 2}),
    pool=Component("max"),
    head=Component("avg"),
    variant="plain",
    seed=3,
    train=TrainConfig(epochs=1),
    measure={"objects": 24, "few": 4},
)
IMAGES = replace(
    SHAPES,
    dataset=Component("fashion_mnist_sample", {"pad": 2}),
    architecture=Component("vgg_like", {"width": 2, "hidden": 8}),
    padding_mode="circular",
    measure={"images": 10, "few": 4},
)


def loaded(cell: Cell) -> tuple[Dataset, nn.Module, ShiftOptions]:
    data = load_dataset(cell.dataset, DataLocation("."), "cpu")
    return data, build_model(cell, data, "cpu"), ShiftOptions(**cell.measure)  # type: ignore[arg-type]


def trained() -> tuple[Dataset, nn.Module, ShiftOptions]:
    data, model, options = loaded(SHAPES)
    state = model.state_dict()
    for name, values in TRAINED.items():
        state[f"network.{name}"].copy_(torch.tensor(values).view_as(state[f"network.{name}"]))
    return data, model, options


def measured(cell: Cell) -> Measurement:
    data, model, options = loaded(cell)
    return measure(cell, options, model, data)


def test_aliasing_is_measured_over_objects_where_one_square_shows_none() -> None:
    data, model, options = trained()
    found = measure(SHAPES, options, model, data)
    assert found.metrics["accuracy"] == 1
    assert found.metrics["square_aliasing"] == 0
    assert found.metrics["aliasing"] > 0.05


def test_aliasing_against_double_loops() -> None:
    data, model, options = trained()
    found = measure(SHAPES, options, model, data)
    pixels, _ = measure_module._objects(options, data)
    logits: list[list[float]] = []
    for image in pixels:
        with torch.no_grad():
            answers = [
                float(model(torch.roll(image[None], (dy, dx), dims=(-2, -1)))) for dy in range(4) for dx in range(4)
            ]
        logits.append(answers)
    scale = statistics.pstdev(itertools.chain.from_iterable(logits))
    each = [statistics.pstdev(answers) / scale for answers in logits]
    assert found.tables["decisions"]["aliasing"].tolist() == pytest.approx(each, rel=1e-4, abs=1e-6)
    expected = (sum(value**2 for value in each) / len(each)) ** 0.5
    assert found.metrics["aliasing"] == pytest.approx(expected, rel=1e-4)


def test_consistency_between_the_shapes_against_double_loops() -> None:
    data, model, options = trained()
    found = measure(SHAPES, options, model, data)
    generator = torch.Generator().manual_seed(derive_seed(0, "measured morphs"))
    size = data.in_shape[1]
    pixels = to_pixels(sample_morphs(options.objects, size, generator, "cpu", measure_module._margin(size)))
    each = []
    for image in pixels:
        moved = [torch.roll(image[None], (dy, dx), dims=(-2, -1)) for dy in range(4) for dx in range(4)]
        with torch.no_grad():
            answers = [bool(model(one) > 0) for one in moved]
        share = sum(answers) / len(answers)
        each.append(share**2 + (1 - share) ** 2)
    assert found.tables["decisions"]["morph_consistency"].tolist() == pytest.approx(each)
    assert found.metrics["morph_consistency"] == pytest.approx(sum(each) / len(each))


def centred(model: nn.Module, pixels: torch.Tensor) -> None:
    """Move the mean logits to 0: an untrained network decides for one class, a centred one for several."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    with torch.no_grad():
        last.bias.sub_(model.eval()(pixels).mean(dim=0))


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_decisions_against_a_loop_over_shifts(padding_mode: str) -> None:
    cell = replace(IMAGES, padding_mode=padding_mode)
    data, model, options = loaded(cell)
    pixels, labels = measure_module._images(options, data, "none")
    centred(model, to_pixels(data.test.images[:200]))
    found = measure(cell, options, model, data)
    grid = list(itertools.product((-1, 0, 1), (-1, 0, 1)))
    every = list(itertools.product(range(16), range(16))) if padding_mode == "circular" else grid
    table = found.tables["decisions"]
    assert len(table) == 10
    for index, (image, label) in enumerate(zip(pixels, labels.tolist(), strict=True)):

        def decided(shifts: list[tuple[int, int]], image: torch.Tensor = image) -> list[int]:
            with torch.no_grad():
                return [int(predictions(model(torch.roll(image[None], s, dims=(-2, -1))))) for s in shifts]

        all_decisions, grid_decisions = decided(every), decided(grid)
        row = table.iloc[index]
        for name, votes in (("consistency", all_decisions), ("grid_consistency", grid_decisions)):
            shares = [votes.count(c) / len(votes) for c in set(votes)]
            assert row[name] == pytest.approx(sum(share**2 for share in shares)), (index, name)
        assert row["correct"] == (decided([(0, 0)])[0] == label)
        assert row["worst"] == (set(all_decisions) == {label})
        assert row["grid_worst"] == (set(grid_decisions) == {label})
        assert row["mean_correct"] == pytest.approx(all_decisions.count(label) / len(all_decisions))
    assert table["grid_consistency"].min() < 1
    assert ("exact_consistency" in found.metrics) == (padding_mode == "circular")


@pytest.mark.parametrize("cell", [SHAPES, IMAGES, replace(IMAGES, padding_mode="zeros")])
def test_every_column_of_a_table_comes_from_the_same_images(cell: Cell) -> None:
    found = measured(cell)
    table = found.tables["decisions"]
    count = int(max(cell.measure.get("objects") or 0, cell.measure.get("images") or 0))  # type: ignore[call-overload]
    assert len(table) == count
    assert not table.isna().any(axis=None)
    for metric, column in MEANS.items():
        assert found.metrics[metric] == pytest.approx(table[column].mean()), metric
    assert found.metrics["worst_accuracy"] <= found.metrics["subset_accuracy"]
    assert found.metrics["grid_worst_accuracy"] <= found.metrics["subset_accuracy"]
    assert found.metrics["worst_accuracy"] <= found.metrics["grid_worst_accuracy"]
    assert (table["worst"] <= table["correct"]).all()
    conditions = found.tables["conditions"].set_index(["precision", "averaging"])
    assert conditions["images"].to_dict() == {
        (precision, averaging): count if precision == "float32" else 4
        for precision in ("float32", "bfloat16")
        for averaging in ("none", "phases")
    }
    assert conditions["consistency"]["float32", "none"] == pytest.approx(table["grid_consistency"].mean())
    assert conditions["consistency"]["float32", "phases"] == pytest.approx(table["averaged_consistency"].mean())
    assert found.metrics["averaged_consistency"] == pytest.approx(table["averaged_consistency"].mean())


def test_seeds_are_measured_on_the_same_objects() -> None:
    data, _, options = loaded(SHAPES)
    other, _, _ = loaded(replace(SHAPES, seed=0, architecture=Component("shape_net", {"num_pooling": 0})))
    (first, labels), (second, _) = (measure_module._objects(options, found) for found in (data, other))
    assert torch.equal(first, second)
    assert set(labels.tolist()) == {0, 1}


@pytest.mark.parametrize("cell", [SHAPES, IMAGES])
def test_every_metric_is_declared(cell: Cell) -> None:
    benchmark: Any = benchmarks.get("shift_robustness")()
    assert set(measured(cell).metrics) <= {metric.name for metric in benchmark.metrics}
