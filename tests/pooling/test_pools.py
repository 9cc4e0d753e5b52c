"""The contract of every local pool, then each against its definition."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.pooling import create_pool, list_pools
from poolbench.pooling.padding import PADDING_MODES, PaddingMode
from poolbench.registry import pools

# Pools that keep a constant map constant whatever the padding does at the border.
KEEPS_CONSTANTS = {"max", "avg", "decimate"}
# Their border sees the padding; a mode that continues the image keeps a constant.
KEEPS_CONSTANTS_IF_CONTINUED = KEEPS_CONSTANTS | {"blur3", "max_blur3"}


def made(name: str, channels: int = 3, stride: int = 2, padding_mode: PaddingMode = "zeros") -> nn.Module:
    torch.manual_seed(0)
    return create_pool(name, channels, stride=stride, padding_mode=padding_mode).double().eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize("size", [(8, 8), (9, 7), (6, 11)])
@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("name", list_pools())
def test_output_size(name: str, mode: PaddingMode, size: tuple[int, int], stride: int) -> None:
    out = made(name, stride=stride, padding_mode=mode)(images(2, 3, *size))
    assert out.shape == (2, 3, -(-size[0] // stride), -(-size[1] // stride))


@pytest.mark.parametrize("name", list_pools())
def test_gradients(name: str) -> None:
    pool = made(name, channels=2)
    x = images(1, 2, 5, 4).requires_grad_()
    assert torch.autograd.gradcheck(pool, (x,))
    pool(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in pool.parameters())
    assert bool(list(pool.parameters())) == bool(pools.entry(name).facts.get("learnable", False))


@pytest.mark.parametrize("name", list_pools())
def test_dtype_memory_format_and_repetition(name: str) -> None:
    pool = made(name)
    x = images(2, 3, 8, 8)
    out = pool(x)
    assert out.dtype == torch.float64
    assert torch.equal(out, pool(x))
    torch.testing.assert_close(pool(x.contiguous(memory_format=torch.channels_last)), out)
    assert pool.float()(x.float()).dtype == torch.float32


@pytest.mark.parametrize("name", list_pools())
def test_circular_padding_is_periodic(name: str) -> None:
    pool = made(name, padding_mode="circular")
    x = images(1, 3, 8, 12)
    moved = pool(torch.roll(x, (2, -4), dims=(-2, -1)))
    torch.testing.assert_close(moved, torch.roll(pool(x), (1, -2), dims=(-2, -1)))


@pytest.mark.parametrize("mode", PADDING_MODES)
@pytest.mark.parametrize("name", sorted(KEEPS_CONSTANTS_IF_CONTINUED))
def test_constants_stay(name: str, mode: PaddingMode) -> None:
    if mode == "zeros" and name not in KEEPS_CONSTANTS:
        pytest.skip("zero padding darkens the border, as published")
    x = torch.full((1, 3, 7, 8), -2.5, dtype=torch.float64)
    torch.testing.assert_close(made(name, padding_mode=mode)(x), torch.full((1, 3, 4, 4), -2.5, dtype=torch.float64))


def test_no_two_pools_are_the_same() -> None:
    x = images(1, 3, 8, 8)
    outputs = {name: made(name)(x) for name in list_pools()}
    for first, second in itertools.combinations(outputs, 2):
        assert not torch.equal(outputs[first], outputs[second]), (first, second)


def test_max_and_avg_are_those_of_torch_on_whole_windows() -> None:
    x = images(2, 3, 8, 6)
    torch.testing.assert_close(made("max")(x), F.max_pool2d(x, 2))
    torch.testing.assert_close(made("avg")(x), F.avg_pool2d(x, 2))


def test_an_incomplete_window_takes_the_values_it_has() -> None:
    x = torch.tensor([[1.0, 2.0, -5.0], [3.0, 4.0, -6.0], [-7.0, -8.0, -9.0]], dtype=torch.float64)[None, None]
    assert made("max", channels=1)(x).flatten().tolist() == [4, -5, -7, -9]
    assert made("avg", channels=1)(x).flatten().tolist() == [2.5, -5.5, -7.5, -9]


def test_decimate_behind_a_convolution_is_the_strided_convolution() -> None:
    x = images(2, 3, 9, 8)
    weight = images(5, 3, 3, 3, seed=2)
    dense = F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(made("decimate", channels=5)(dense), F.conv2d(x, weight, padding=1, stride=2))


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_blur_against_a_double_loop(stride: int) -> None:
    x = images(1, 1, 5, 6)
    taps = [0.25, 0.5, 0.25]
    rows, columns = -(-5 // stride), -(-6 // stride)
    expected = torch.zeros(rows, columns, dtype=torch.float64)
    for i, j in itertools.product(range(rows), range(columns)):
        for a, b in itertools.product(range(3), range(3)):
            y, z = i * stride + a - 1, j * stride + b - 1
            if 0 <= y < 5 and 0 <= z < 6:
                expected[i, j] += taps[a] * taps[b] * x[0, 0, y, z]
    torch.testing.assert_close(made("blur3", channels=1, stride=stride)(x)[0, 0], expected)


def test_blur_with_stride_is_blur_then_decimation() -> None:
    x = images(2, 3, 9, 8)
    for mode in PADDING_MODES:
        dense = made("blur3", stride=1, padding_mode=mode)(x)
        torch.testing.assert_close(made("blur3", padding_mode=mode)(x), dense[..., ::2, ::2])


def test_max_blur_is_a_dense_maximum_then_blur() -> None:
    x = images(1, 2, 6, 6)
    dense = torch.empty_like(x)
    for i, j in itertools.product(range(6), range(6)):
        dense[..., i, j] = x[..., i : i + 2, j : j + 2].amax(dim=(-2, -1))
    torch.testing.assert_close(made("max_blur3", channels=2)(x), made("blur3", channels=2)(dense))


def test_bad_arguments_are_answered() -> None:
    with pytest.raises(UsageError, match="did you mean 'max'"):
        create_pool("maxx", 3)
    with pytest.raises(UsageError, match="unknown padding_mode 'mirror'"):
        create_pool("max", 3, padding_mode="mirror")  # type: ignore[arg-type]
