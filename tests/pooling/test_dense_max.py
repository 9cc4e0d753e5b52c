"""The dense maximum by slices against torch's max_pool2d: equal values and equal gradients, ties included."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.pooling.lowpass import DenseMax, dense_max

SHAPES = [(2, 3, 7, 5), (1, 1, 2, 2), (3, 2, 2, 9), (2, 16, 6, 6)]


def images(shape: tuple[int, ...], memory_format: torch.memory_format) -> Tensor:
    """Few values, so that nearly every window has a tie; zeros as behind a ReLU, and the border that padding makes."""
    x = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(0)).double()
    x[..., -1] = -float("inf")
    return x.contiguous(memory_format=memory_format).requires_grad_()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("maximum", [DenseMax.apply, dense_max])
def test_values_and_gradients_are_those_of_max_pool2d(
    maximum: type[DenseMax], shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    x = images(shape, memory_format)
    expected = F.max_pool2d(x, 2, stride=1)
    # Whole numbers: sums of up to four of them are exact.
    gradient = torch.randint(1, 1000, expected.shape, generator=torch.Generator().manual_seed(1)).double()
    (wanted,) = torch.autograd.grad(expected, x, gradient)
    found = maximum(x)  # type: ignore[operator]
    assert torch.equal(found, expected)
    assert torch.equal(torch.autograd.grad(found, x, gradient)[0], wanted)


def test_the_gradient_of_ties_goes_to_the_first_by_rows() -> None:
    x = torch.tensor([[[[1.0, 5.0], [5.0, 5.0]]]], requires_grad=True)
    dense_max(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[0, 1], [0, 0]]]]


def test_vmap_takes_it() -> None:
    x = torch.rand(4, 2, 3, 6, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    found = torch.func.vmap(dense_max)(x)
    expected = F.max_pool2d(x.flatten(0, 1), 2, stride=1).unflatten(0, (4, 2))
    assert torch.equal(found, expected)
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (found, expected)]
    torch.testing.assert_close(*gradients)
