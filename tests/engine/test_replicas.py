"""Replicas: each ends where its single run ends, whatever the network, and none feels another's fate."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from poolbench.core import CHOICES, Cell, Component, TrainConfig
from poolbench.data import Dataset, Split, images_dataset, to_pixels
from poolbench.engine import build_model
from poolbench.engine.loop import Training
from poolbench.engine.networks import OneNetwork
from poolbench.engine.replicas import Stack, can_stack, stack_limit
from poolbench.registry import architectures, heads, pools

SEEDS = (0, 1, 2)
EPOCHS = 5  # of four steps each


def dataset(size: int) -> Dataset:
    generator = torch.Generator().manual_seed(0)

    def split(n: int) -> Split:
        labels = torch.arange(n) % 3
        pixels = torch.randint(0, 160, (n, 1, size, size), generator=generator)
        pixels[:, :, 4:8, 4:8] += (labels * 40).view(-1, 1, 1, 1)
        return Split(pixels.to(torch.uint8), labels)

    return images_dataset("squares", ("a", "b", "c"), split(60), split(20), "made here")


SMALL, LARGE = dataset(16), dataset(32)
CELL = Cell(
    "b", Component("squares"), Component("fashion_convnet", {"width": 4}), Component("max"), Component("avg"),
    "plain", 0,
    TrainConfig(EPOCHS, batch_size=16, learning_rate=3e-3, augment=("flip", "rotation", "shift")),
)  # fmt: skip


def built(cell: Cell, data: Dataset, dtype: torch.dtype) -> nn.Module:
    return build_model(cell, data, "cpu").to(dtype)


def stacked(cell: Cell, data: Dataset, dtype: torch.dtype) -> tuple[list[nn.Module], list[dict[str, float]]]:
    """Train the cell's replicas as one; return the networks and the rows of the last epoch."""
    models = [built(replace(cell, seed=seed), data, dtype) for seed in SEEDS]
    stack = Stack(models)
    training = Training(stack, data, cell.train, SEEDS)
    for _ in range(cell.train.epochs):
        rows = training.run_epoch()
    stack.close()
    return models, rows


def single(cell: Cell, data: Dataset, dtype: torch.dtype) -> tuple[nn.Module, dict[str, float]]:
    model = built(cell, data, dtype)
    training = Training(OneNetwork(model), data, cell.train, [cell.seed])
    for _ in range(cell.train.epochs):
        (row,) = training.run_epoch()
    return model, row


def differences(cell: Cell, data: Dataset, dtype: torch.dtype) -> list[float]:
    """Return for each seed the largest difference of a weight or statistic between replica and single run."""
    found = []
    for seed, model, row in zip(SEEDS, *stacked(cell, data, dtype), strict=True):
        alone, expected = single(replace(cell, seed=seed), data, dtype)
        states = model.state_dict(), alone.state_dict()
        found.append(max(float((states[0][name] - states[1][name]).abs().max()) for name in states[0]))
        if dtype == torch.float64:
            assert row == pytest.approx(expected, rel=1e-5, abs=1e-7)
        assert not model.training
    return found


@pytest.mark.parametrize("name", architectures.names())
def test_replicas_of_every_architecture_are_its_single_runs(name: str) -> None:
    data = SMALL if name in ("fashion_convnet", "simple_conv", "shape_net", "all_convolutional") else LARGE
    model: dict[str, float] = {"width": 4}
    if name == "strided_net":
        model["dropout"] = 0.0
    # Adam divides by the size of a gradient: where that is zero but for rounding (a bias before BatchNorm), the
    # step is rounding alone. SGD leaves it small.
    train = replace(CELL.train, optimizer="sgd", learning_rate=1e-2)
    if name == "resnet50":
        # So narrow and deep, it makes 1e-3 of 1e-15 within 20 steps, on its own too; four show what there is to show.
        train = replace(train, epochs=1, learning_rate=1e-3)
    cell = replace(
        CELL,
        architecture=Component(name, model),
        pool=Component("decimate" if "res" in name else "max"),
        train=train,
    )
    assert max(differences(cell, data, torch.float64)) < 1e-9


@pytest.mark.parametrize("name", pools.names())
def test_every_pool_can_be_stacked(name: str) -> None:
    assert can_stack(build_model(replace(CELL, pool=Component(name)), SMALL, "cpu"), to_pixels(SMALL.test.images[:4]))


# Random pools draw other numbers in a stack.
@pytest.mark.parametrize("name", [name for name in pools.names() if not pools.facts(name)["random"]])
def test_replicas_of_every_pool_are_its_single_runs(name: str) -> None:
    assert max(differences(replace(CELL, pool=Component(name)), SMALL, torch.float64)) < 1e-9


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("name", heads.names())
def test_replicas_of_every_head_are_its_single_runs(name: str) -> None:
    assert max(differences(replace(CELL, head=Component(name)), SMALL, torch.float64)) < 1e-9


@pytest.mark.parametrize("name", CHOICES["optimizer"])
def test_replicas_with_every_optimiser_are_its_single_runs(name: str) -> None:
    train = replace(CELL.train, optimizer=name, weight_decay=0.1, schedule="one_cycle", label_smoothing=0.1)
    assert max(differences(replace(CELL, train=train), SMALL, torch.float64)) < 1e-9


def test_in_float32_replicas_stay_close() -> None:
    assert max(differences(CELL, SMALL, torch.float32)) < 1e-4


def test_replicas_differ_from_each_other() -> None:
    models, rows = stacked(CELL, SMALL, torch.float64)
    weights = [next(model.parameters()) for model in models]
    assert not torch.equal(weights[0], weights[1])
    assert len({row["train_loss"] for row in rows}) == len(SEEDS)


@pytest.mark.parametrize("pool", ["max", "stochastic"])
def test_dropout_and_random_pools_draw_for_each_replica(pool: str) -> None:
    cell = replace(CELL, architecture=Component("strided_net", {"width": 4, "dropout": 0.5}), pool=Component(pool))
    models = [built(cell, LARGE, torch.float32) for _ in SEEDS]
    pixels = to_pixels(LARGE.test.images[:8])
    logits = Stack(models).logits(pixels.expand(len(SEEDS), *pixels.shape))
    # Equal weights and images: what differs is drawn.
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[1], logits[2])


def test_one_that_diverges_leaves_the_others_alone() -> None:
    models = [built(replace(CELL, seed=seed), SMALL, torch.float64) for seed in SEEDS]
    with torch.no_grad():
        next(models[1].parameters()).fill_(float("nan"))
    stack = Stack(models)
    training = Training(stack, SMALL, CELL.train, SEEDS)
    for _ in range(EPOCHS):
        rows = training.run_epoch()
    stack.close()
    assert [math.isfinite(row["train_loss"]) for row in rows] == [True, False, True]
    for index in (0, 2):
        alone, _ = single(replace(CELL, seed=SEEDS[index]), SMALL, torch.float64)
        for mine, expected in zip(models[index].parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine, expected, rtol=0, atol=1e-9)


def test_a_replica_goes_on_alone_and_a_single_run_in_a_stack() -> None:
    """States are those of single networks, so whoever stopped together may go on apart."""
    cell = replace(CELL, architecture=Component("all_convolutional", {"width": 4}))
    config = replace(CELL.train, optimizer="sgd")
    models = [built(replace(cell, seed=seed), SMALL, torch.float64) for seed in SEEDS]
    together = Training(Stack(models), SMALL, config, SEEDS)
    together.run_epoch()
    state = together.states()[1]
    alone_model = built(cell, SMALL, torch.float64)
    alone = Training(OneNetwork(alone_model), SMALL, config, [1])
    alone.restore([state])
    again = Training(Stack([built(cell, SMALL, torch.float64) for _ in SEEDS]), SMALL, config, SEEDS)
    again.restore(together.states())
    rows = together.run_epoch()
    assert again.run_epoch() == rows
    assert alone.run_epoch()[0] == pytest.approx(rows[1], rel=1e-6)
    state = together.states()[1]["model"]
    assert all(
        torch.allclose(value, state[name], rtol=0, atol=1e-9) for name, value in alone_model.state_dict().items()
    )


def test_a_part_of_a_stack_is_stored_without_the_rest() -> None:
    models = [built(replace(CELL, seed=seed), SMALL, torch.float64) for seed in SEEDS]
    training = Training(Stack(models), SMALL, CELL.train, SEEDS)
    training.run_epoch()
    tensors: list[Tensor] = list(training.states()[0]["model"].values())
    tensors += [value for own in training.states()[0]["optimizer"].values() for value in own.values()]
    assert all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in tensors)


class Brightest(nn.Module):
    """Control flow that depends on values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


def test_what_vmap_cannot_do_is_known_beforehand() -> None:
    model = build_model(replace(CELL, architecture=Component("simple_conv")), SMALL, "cpu")
    model.append(Brightest())  # type: ignore[operator]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    pixels = to_pixels(SMALL.test.images[:4])
    assert not can_stack(model, pixels)
    assert stack_limit(model, pixels, most=8) == 1
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.training


def test_trying_changes_neither_statistics_nor_the_random_stream() -> None:
    cell = replace(CELL, architecture=Component("strided_net", {"width": 4}))
    model = build_model(cell, LARGE, "cpu")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random = torch.get_rng_state()
    assert stack_limit(model, to_pixels(LARGE.test.images[:4]), most=8) == 8
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
