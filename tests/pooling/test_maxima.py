"""Maxima computed by slices against max_pool2d: equal values and equal gradients, ties included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.pooling.lowpass import DenseMax, dense_max
from poolbench.pooling.windows import window_max

Maximum = Callable[[Tensor], Tensor]
SHAPES = [(2, 3, 8, 6), (1, 1, 2, 2), (3, 2, 2, 10), (2, 16, 6, 6)]


def stride_one(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=1)


def stride_two(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, ceil_mode=True)


def halved(x: Tensor) -> Tensor:
    return window_max(x, 2)


PAIRS = [(DenseMax.apply, stride_one), (dense_max, stride_one), (halved, stride_two)]


def images(shape: tuple[int, ...], memory_format: torch.memory_format) -> Tensor:
    """Return few different values, so that nearly every window has a tie, and a border of -inf as from padding."""
    x = torch.randint(0, 3, shape, generator=torch.Generator().manual_seed(0)).double()
    x[..., -1] = -float("inf")
    return x.contiguous(memory_format=memory_format).requires_grad_()


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("found", "expected"), PAIRS)
def test_values_and_gradients_are_those_of_max_pool2d(
    found: Maximum, expected: Maximum, shape: tuple[int, ...], memory_format: torch.memory_format
) -> None:
    x = images(shape, memory_format)
    wanted = expected(x)
    # Whole numbers: sums of up to four of them are exact.
    gradient = torch.randint(1, 1000, wanted.shape, generator=torch.Generator().manual_seed(1)).double()
    (wanted_gradient,) = torch.autograd.grad(wanted, x, gradient)
    out = found(x)
    assert torch.equal(out, wanted)
    assert torch.equal(torch.autograd.grad(out, x, gradient)[0], wanted_gradient)
    # Without a gradient another implementation may run.
    assert torch.equal(found(x.detach()), wanted)
    with torch.no_grad():
        assert torch.equal(found(x), wanted)


@pytest.mark.parametrize("maximum", [dense_max, halved])
def test_the_gradient_of_ties_goes_to_the_first_in_row_major_order(maximum: Maximum) -> None:
    x = torch.tensor([[[[1.0, 5.0], [5.0, 5.0]]]], requires_grad=True)
    maximum(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[[[0, 1], [0, 0]]]]


@pytest.mark.parametrize("size", [(5, 4), (4, 5), (7, 7), (1, 1)])
def test_odd_maps_keep_their_last_row_and_column(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    assert torch.equal(window_max(x, 2), stride_two(x))
    with torch.no_grad():
        assert torch.equal(window_max(x, 2), stride_two(x))


@pytest.mark.parametrize(("found", "expected"), [(dense_max, stride_one), (halved, stride_two)])
def test_vmap_gives_the_same_values_and_gradients(found: Maximum, expected: Maximum) -> None:
    # Ties: inside vmap a tensor does not say that it requires a gradient.
    x = torch.randint(0, 3, (4, 2, 3, 6, 6), generator=torch.Generator().manual_seed(0)).float().requires_grad_()
    out = torch.func.vmap(found)(x)
    wanted = expected(x.flatten(0, 1)).unflatten(0, (4, 2))
    assert torch.equal(out, wanted)
    gradients = [torch.autograd.grad(part.square().sum(), x)[0] for part in (out, wanted)]
    torch.testing.assert_close(*gradients)
    with torch.no_grad():
        assert torch.equal(torch.func.vmap(found)(x), wanted)


@pytest.mark.parametrize(("found", "expected"), PAIRS)
def test_tangents_follow_the_maxima(found: Maximum, expected: Maximum) -> None:
    x = images((2, 3, 8, 6), torch.contiguous_format)
    tangent = torch.randint(1, 1000, x.shape, generator=torch.Generator().manual_seed(1)).double()
    out, moved = torch.func.jvp(found, (x.detach(),), (tangent,))
    # The tangent and the gradient are one linear map: <gradient, J tangent> = <J^T gradient, tangent>.
    wanted = expected(x)
    gradient = torch.randint(1, 1000, out.shape, generator=torch.Generator().manual_seed(2)).double()
    (back,) = torch.autograd.grad(wanted, x, gradient)
    assert torch.equal(out, wanted)
    assert float((gradient * moved).sum()) == float((back * tangent).sum())
