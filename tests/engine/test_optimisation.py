"""Optimisers and learning rates against torch's own and against hand-worked values."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from poolbench.core import CHOICES, TrainConfig
from poolbench.engine.optimisation import build_optimizer, learning_rate

STEPS = 40


def rates(schedule: str, steps: int = STEPS) -> list[float]:
    config = TrainConfig(epochs=1, learning_rate=0.8, schedule=schedule)
    return [learning_rate(config, step, steps) for step in range(steps)]


def torch_rates(schedule: str) -> list[float]:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.8)
    kinds = torch.optim.lr_scheduler
    scheduler: kinds.LRScheduler
    if schedule == "step":
        scheduler = kinds.MultiStepLR(optimizer, [20, 30], gamma=0.1)
    elif schedule == "cosine":
        scheduler = kinds.CosineAnnealingLR(optimizer, STEPS)
    else:
        scheduler = kinds.OneCycleLR(optimizer, 0.8, total_steps=STEPS, cycle_momentum=False)
    found = []
    for _ in range(STEPS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize("schedule", ["step", "cosine", "one_cycle"])
def test_schedules_are_those_of_torch(schedule: str) -> None:
    assert rates(schedule) == pytest.approx(torch_rates(schedule), rel=1e-9)


def test_a_constant_rate_is_constant() -> None:
    assert set(rates("constant")) == {0.8}


def test_cosine_by_hand() -> None:
    assert rates("cosine", 4) == pytest.approx([0.8, 0.4 * (1 + math.sqrt(0.5)), 0.4, 0.4 * (1 - math.sqrt(0.5))])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_short_trainings_have_rates_above_nothing(steps: int) -> None:
    assert all(0 < rate <= 0.8 for schedule in ("step", "cosine", "one_cycle") for rate in rates(schedule, steps))


def gradient_step(optimizer: torch.optim.Optimizer, parameters: list[Tensor]) -> None:
    for step in (1.0, -0.3, 0.5):
        for parameter in parameters:
            parameter.grad = step * torch.ones_like(parameter)
        optimizer.step()


def test_sgd_is_nesterovs_with_decay_by_hand() -> None:
    weight = torch.full((1, 1), 2.0, requires_grad=True)
    config = TrainConfig(epochs=1, optimizer="sgd", learning_rate=0.1, weight_decay=0.01)
    gradient_step(build_optimizer(config, [weight]), [weight])
    expected, velocity = 2.0, 0.0
    for step in (1.0, -0.3, 0.5):
        gradient = step + 0.01 * expected
        velocity = 0.9 * velocity + gradient
        expected -= 0.1 * (gradient + 0.9 * velocity)
    assert weight.item() == pytest.approx(expected, rel=1e-6)


def test_adamw_decays_apart_from_the_gradient_and_adam_within_it() -> None:
    def moved(optimizer: str) -> float:
        weight = torch.full((1, 1), 2.0, requires_grad=True)
        config = TrainConfig(epochs=1, optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
        weight.grad = torch.ones_like(weight)
        build_optimizer(config, [weight]).step()
        return weight.item()

    # The first step of Adam is the rate, whatever the size of the gradient.
    assert moved("adam") == pytest.approx(2 - 0.1)
    assert moved("adamw") == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1)


@pytest.mark.parametrize("name", CHOICES["optimizer"])
def test_decay_spares_vectors_and_stacked_vectors(name: str) -> None:
    config = TrainConfig(epochs=1, optimizer=name, learning_rate=0.1, weight_decay=0.5)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(config, model.parameters()).step()
    assert [bool((p < 1).all()) for p in model.parameters()] == [True, False, False, False]
    stacked = [torch.ones(5, *p.shape, requires_grad=True) for p in model.parameters()]
    for parameter in stacked:
        parameter.grad = torch.zeros_like(parameter)
    build_optimizer(config, stacked, exempt_dim=2).step()
    assert [bool((p < 1).all()) for p in stacked] == [True, False, False, False]
