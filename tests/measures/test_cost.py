"""Costs against counts by hand, and what measuring must leave unchanged."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from poolbench.core import COST_METRICS
from poolbench.measures import cost as cost_module
from poolbench.measures.cost import measure_cost


def test_operations_and_parameters_by_hand() -> None:
    cost = measure_cost(nn.Conv2d(3, 8, 3, padding=1), torch.rand(2, 3, 10, 10), repeats=2)
    assert cost.parameters == 8 * 3 * 9 + 8
    assert cost.flops == 2 * (2 * 8 * 10 * 10) * (3 * 9)
    assert measure_cost(nn.MaxPool2d(2), torch.rand(2, 3, 10, 10), repeats=2).flops == 0


def test_memory_by_hand() -> None:
    x = torch.rand(4, 8, 32, 32)
    size = x.numel() * 4 / 1e6
    # The output is held while the gradient of the input is computed.
    assert abs(measure_cost(nn.Tanh(), x, repeats=1).peak_mb - 2 * size) < 0.1 * size
    deep = measure_cost(nn.Sequential(*(nn.Tanh() for _ in range(10))), x, repeats=1).peak_mb
    assert 10 * size <= deep <= 13 * size


def test_times_are_medians_after_two_warm_up_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(nn.Module):
        """A pass takes 1 s in eval mode and 10 s in training mode; the first timed pass takes three times as long."""

        def __init__(self) -> None:
            super().__init__()
            self.now, self.passes = 0.0, {True: 0, False: 0}

        def forward(self, x: Tensor) -> Tensor:
            count = self.passes[self.training] = self.passes[self.training] + 1
            # In eval mode the operations are counted in one pass more, before.
            first_timed = count == (3 if self.training else 4)
            self.now += (10.0 if self.training else 1.0) * (3 if first_timed else 1)
            return x * 2

    clock = Clock()
    monkeypatch.setattr(cost_module.time, "perf_counter", lambda: clock.now)
    found = measure_cost(clock, torch.rand(2, 1, 4, 4), repeats=3)
    assert found.forward_ms == 1000
    assert found.train_ms == 10_000
    assert clock.passes[False] == 1 + 2 + 3


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


def test_operations_of_a_resnet18_by_the_counter_of_torch_and_by_hand() -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.resnet18().eval()
    x = torch.rand(2, 3, 64, 64)
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        model(x)
    multiplications: list[int] = []

    def count(module: nn.Module, inputs: tuple[Tensor, ...], out: Tensor) -> None:
        if isinstance(module, nn.Conv2d | nn.Linear):
            # Each output is a sum over as many products as its weights.
            multiplications.append(out.numel() * module.weight[0].numel())

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    with torch.no_grad():
        model(x)
    for hook in hooks:
        hook.remove()
    found = measure_cost(model, x, repeats=1).flops
    assert found == counter.get_total_flops() == 2 * sum(multiplications)
