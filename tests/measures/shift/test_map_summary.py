"""Parts and statistics of canvas maps, by hand."""

from __future__ import annotations

from math import sqrt

import pytest
import torch
from torch import Tensor, nn

from poolbench.architectures import create_model
from poolbench.measures import shift


def shape_net(num_pooling: int, pool: str = "max", size: int = 96, dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(3)
    model = create_model("shape_net", (1, size, size), 2, pool, "avg", "zeros", num_pooling=num_pooling)
    return model.to(dtype).eval()


def square(half: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.ones(1, 2 * half + 1, 2 * half + 1, dtype=dtype)


@pytest.mark.parametrize(("num_pooling", "distinct"), [(0, 1), (1, 4), (2, 16)])
def test_the_interior_of_a_map_has_one_value_per_phase(num_pooling: int, distinct: int) -> None:
    found = shift.canvas_map(shape_net(num_pooling), square(2), torch.zeros(1, 96, 96, dtype=torch.float64))[..., 0]
    parts = shift.decompose(found, 2**num_pooling)
    assert parts is not None
    assert len(torch.unique((parts.phases * 1e9).round())) == distinct
    assert parts.noise_deviation < 1e-9
    total = parts.level + parts.phase + parts.boundary + parts.noise
    torch.testing.assert_close(total, found, rtol=0, atol=1e-12)
    inside = parts.boundary[parts.margin : -parts.margin, parts.margin : -parts.margin]
    assert float(inside.abs().max()) == 0
    assert float(parts.boundary[parts.margin - 1].abs().max()) > 1e-6


def test_map_parts_by_hand() -> None:
    period = torch.tensor([[1.0, 3.0], [-2.0, 6.0]], dtype=torch.float64)
    logits = period.repeat(5, 5)
    logits[0, 4] += 7
    logits[9, 2] -= 1
    parts = shift.decompose(logits, 2)
    assert parts is not None
    assert parts.margin == 1
    assert torch.equal(parts.phases, period)
    assert parts.level == 2
    assert parts.phase_range == 8
    assert parts.phase_deviation == pytest.approx(sqrt((1 + 1 + 16 + 16) / 4))
    assert parts.boundary_deviation == pytest.approx(sqrt((49 + 1) / 100))
    assert parts.noise_deviation == 0
    assert shift.decompose(torch.arange(100.0).view(10, 10) ** 2, 2) is None


def test_margins_of_odd_depth_keep_the_phases_in_their_place() -> None:
    period = torch.arange(9, dtype=torch.float64).view(3, 3)
    logits = period.repeat(6, 6)
    for margin in range(4):
        noisy = logits.clone()
        if margin:
            noisy[margin - 1] += 5
        parts = shift.decompose(noisy, 3)
        assert parts is not None
        assert parts.margin == margin == shift.interior_margin(noisy, 3)
        assert torch.equal(parts.phases, period)


def test_map_statistics_by_hand() -> None:
    logits = torch.tensor([[0.0, 0.0, 0.0, 9.0], [0.0, -1.0, -2.0, 0.0], [0.0, -1.5, -4.0, 0.0], [3.0, 0.0, 0.0, 0.0]])
    found = shift.map_statistics(logits[..., None])
    assert found.flips == pytest.approx(2 / 16)
    probability = torch.sigmoid(logits.double())
    mean = float(probability.sum()) / 16
    assert found.deviation == pytest.approx(sqrt(sum((float(p) - mean) ** 2 for p in probability.flatten()) / 16))
    assert found.range == pytest.approx(float(torch.sigmoid(torch.tensor(9.0)) - torch.sigmoid(torch.tensor(-4.0))))


def test_log_odds_are_those_of_the_probabilities() -> None:
    outputs = torch.randn(5, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    probability = outputs.softmax(dim=-1)
    for target in range(3):
        expected = (probability[..., target] / (1 - probability[..., target])).log()
        torch.testing.assert_close(shift.log_odds(outputs, target), expected)
    assert torch.equal(shift.log_odds(outputs[..., :1], 0), -shift.log_odds(outputs[..., :1], 1))
    decisions = outputs.argmax(dim=-1).flatten().tolist()
    most = max(decisions.count(c) for c in range(3))
    assert shift.map_statistics(outputs, 2).flips == pytest.approx(1 - most / 20)
