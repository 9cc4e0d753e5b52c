"""The contract of every head, then each against its definition."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from poolbench.core import UsageError
from poolbench.pooling import create_head, list_heads
from poolbench.pooling.heads import Head
from poolbench.registry import heads


def made(name: str, channels: int = 3, size: tuple[int, int] = (4, 5)) -> Head:
    torch.manual_seed(0)
    return create_head(name, channels, size=size).double().eval()


def maps(*shape: int, seed: int = 1) -> Tensor:
    # Positive, as behind a ReLU: gem is defined there.
    return torch.rand(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) + 0.1


@pytest.mark.parametrize("name", list_heads())
def test_output_size_dtype_and_repetition(name: str) -> None:
    head, x = made(name), maps(2, 3, 4, 5)
    out = head(x)
    assert out.shape == (2, 3 * head.feature_multiplier)
    assert out.dtype == torch.float64
    assert torch.equal(out, head(x))
    torch.testing.assert_close(head(x.contiguous(memory_format=torch.channels_last)), out)


@pytest.mark.parametrize("name", list_heads())
def test_gradients(name: str) -> None:
    head = made(name, channels=2, size=(3, 3))
    x = maps(1, 2, 3, 3).requires_grad_()
    assert torch.autograd.gradcheck(head, (x,))
    head(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())
    assert bool(list(head.parameters())) == bool(heads.entry(name).facts.get("learnable", False))


@pytest.mark.parametrize("name", list_heads())
def test_constants_stay(name: str) -> None:
    head = made(name)
    out = head(torch.full((1, 3, 4, 5), 0.7, dtype=torch.float64))
    torch.testing.assert_close(out, torch.full_like(out, 0.7))


@pytest.mark.parametrize("name", sorted(set(list_heads()) - {"flatten"}))
def test_invariance_to_circular_shifts(name: str) -> None:
    head, x = made(name), maps(2, 3, 4, 5)
    torch.testing.assert_close(head(torch.roll(x, (1, 3), dims=(-2, -1))), head(x))


def test_no_two_heads_are_the_same() -> None:
    x = maps(1, 3, 4, 5)
    outputs = {name: made(name)(x) for name in list_heads()}
    for first, second in itertools.combinations(outputs, 2):
        assert not torch.equal(outputs[first], outputs[second]), (first, second)


def test_gem_runs_from_the_mean_to_the_maximum() -> None:
    x = maps(2, 3, 4, 5)
    for p, expected, tolerance in ((1.0, x.mean(dim=(-2, -1)), 1e-12), (2000.0, x.amax(dim=(-2, -1)), 2e-3)):
        out = create_head("gem", 3, p=p).double()(x)
        torch.testing.assert_close(out, expected, rtol=tolerance, atol=0)


def test_gem_against_a_double_loop() -> None:
    x = maps(2, 2, 3, 4)
    out = made("gem", channels=2, size=(3, 4))(x)
    for i, c in itertools.product(range(2), range(2)):
        total = sum(float(x[i, c, y, z]) ** 3 for y in range(3) for z in range(4))
        assert float(out[i, c].detach()) == pytest.approx((total / 12) ** (1 / 3), rel=1e-12)


def test_gem_is_finite_in_half_precision_and_on_zeros() -> None:
    head = create_head("gem", 3, p=30.0)
    x = torch.zeros(1, 3, 4, 4, requires_grad=True)
    head(x).sum().backward()
    assert head.p.grad is not None
    assert torch.isfinite(head.p.grad)
    assert torch.isfinite(head((maps(1, 3, 4, 4) * 1000).half())).all()


def test_flatten_needs_a_size() -> None:
    with pytest.raises(UsageError, match="needs the size"):
        create_head("flatten", 3)
