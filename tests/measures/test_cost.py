"""Costs against hand counts, and what measuring must leave alone."""

from __future__ import annotations

import torch
from torch import nn

from poolbench.core import COST_METRICS
from poolbench.measures.cost import measure_cost


def test_operations_and_parameters_by_hand() -> None:
    cost = measure_cost(nn.Conv2d(3, 8, 3, padding=1), torch.rand(2, 3, 10, 10), repeats=2)
    assert cost.parameters == 8 * 3 * 9 + 8
    assert cost.flops == 2 * (2 * 8 * 10 * 10) * (3 * 9)
    assert measure_cost(nn.MaxPool2d(2), torch.rand(2, 3, 10, 10), repeats=2).flops == 0


def test_memory_by_hand() -> None:
    x = torch.rand(4, 8, 32, 32)
    size = x.numel() * 4 / 1e6
    # The output stays until the gradient of the input is made beside it.
    assert (
        measure_cost(nn.Tanh(), x, repeats=1).peak_mb == torch.tensor(2 * size).item()
        or abs(measure_cost(nn.Tanh(), x, repeats=1).peak_mb - 2 * size) < 0.1 * size
    )
    deep = measure_cost(nn.Sequential(*(nn.Tanh() for _ in range(10))), x, repeats=1).peak_mb
    assert 10 * size <= deep <= 13 * size


def test_more_work_takes_more_time() -> None:
    small, large = (measure_cost(nn.Conv2d(8, 8, 3), torch.rand(1, 8, side, side), repeats=5) for side in (8, 256))
    assert large.forward_ms > small.forward_ms > 0
    assert large.train_ms > small.train_ms > 0


def test_the_module_stays_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    weight = model.get_submodule("0").weight
    assert isinstance(weight, nn.Parameter)
    weight.grad = torch.ones_like(weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure_cost(model, torch.rand(4, 1, 8, 8), repeats=2)
    assert not model.training
    assert torch.equal(weight.grad, torch.ones_like(weight))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_metrics_are_those_of_the_cells() -> None:
    cost = measure_cost(nn.Conv2d(1, 1, 1), torch.rand(1, 1, 4, 4), repeats=1)
    assert list(cost.as_metrics()) == [metric.name for metric in COST_METRICS]
