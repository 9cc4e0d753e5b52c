"""Every local pool against an independent implementation of its definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from math import comb, cos, exp, pi, sqrt
from statistics import fmean, median
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from poolbench.pooling import create_pool
from poolbench.pooling.padding import PADDING_MODES

Values = Sequence[float]


def made(name: str, channels: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    return create_pool(name, channels, **options).double().eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def by_windows(x: Tensor, stride: int, f: Callable[[Values], float]) -> Tensor:
    """Return f of the values of each window of stride x stride, cropped at the border of the map."""
    b, c, h, w = x.shape
    out = torch.empty(b, c, -(-h // stride), -(-w // stride), dtype=x.dtype)
    for n, k, i, j in itertools.product(*map(range, out.shape)):
        rows, columns = range(i * stride, min(h, (i + 1) * stride)), range(j * stride, min(w, (j + 1) * stride))
        out[n, k, i, j] = f([float(x[n, k, y, z]) for y in rows for z in columns])
    return out


def soft_mean(values: Values) -> float:
    return sum(v * exp(v) for v in values) / sum(exp(v) for v in values)


def cubic_mean(values: Values) -> float:
    return float(fmean(max(v, 1e-6) ** 3 for v in values) ** (1 / 3))


def root_mean_square(values: Values) -> float:
    return sqrt(fmean(v * v for v in values))


def expected_draw(values: Values) -> float:
    positive = [max(v, 0.0) for v in values]
    return sum(v * v for v in positive) / sum(positive) if sum(positive) else 0.0


@pytest.mark.parametrize("stride", [2, 3])
@pytest.mark.parametrize(
    ("name", "definition"),
    [
        ("max", max),
        ("avg", fmean),
        ("median", median),
        ("l2", root_mean_square),
        ("gem_local", cubic_mean),
        ("mixed", lambda values: (max(values) + fmean(values)) / 2),
        ("softpool", soft_mean),
        ("stochastic", expected_draw),
        ("decimate", lambda values: values[0]),
    ],
)
def test_windows_against_a_double_loop(name: str, definition: Callable[[Values], float], stride: int) -> None:
    x = images(2, 2, 5, 7)
    torch.testing.assert_close(made(name, stride=stride)(x), by_windows(x, stride, definition))


def test_an_incomplete_window_is_cropped() -> None:
    x = torch.tensor([[1.0, 2.0, -5.0], [3.0, 4.0, -6.0], [-7.0, -8.0, -9.0]], dtype=torch.float64)[None, None]
    assert made("max")(x).flatten().tolist() == [4, -5, -7, -9]
    assert made("avg")(x).flatten().tolist() == [2.5, -5.5, -7.5, -9]
    assert made("median")(x).flatten().tolist() == [2.5, -5.5, -7.5, -9]


def test_avg_is_a_blur_of_two_taps() -> None:
    x = images(2, 1, 8, 6)
    two_taps = torch.full((1, 1, 2, 2), 0.25, dtype=torch.float64)
    torch.testing.assert_close(made("avg")(x), F.conv2d(x, two_taps, stride=2))


def test_max_and_avg_are_those_of_torch_on_whole_windows() -> None:
    x = images(2, 3, 8, 6)
    torch.testing.assert_close(made("max")(x), F.max_pool2d(x, 2))
    torch.testing.assert_close(made("max3")(x), F.max_pool2d(x, 3, 2, padding=1))
    torch.testing.assert_close(made("avg")(x), F.avg_pool2d(x, 2))


def test_max3_against_a_double_loop() -> None:
    x = images(1, 1, 5, 7)
    out = made("max3", padding_mode="circular")(x)
    for i, j in itertools.product(range(3), range(4)):
        around = itertools.product(range(-1, 2), range(-1, 2))
        assert out[0, 0, i, j] == max(x[0, 0, (2 * i + a) % 5, (2 * j + b) % 7] for a, b in around)


def test_gem_runs_from_the_mean_to_the_maximum() -> None:
    x = images(2, 3, 5, 4).abs() + 0.1
    torch.testing.assert_close(made("gem_local", p=1.0)(x), made("avg")(x))
    torch.testing.assert_close(made("gem_local", p=2000.0)(x), made("max")(x), rtol=1e-3, atol=0)


def test_gem_is_finite_for_large_powers_and_half_precision() -> None:
    x = (images(1, 3, 4, 4).abs() * 1000).half().requires_grad_()
    pool = create_pool("gem_local", 3, p=50.0)
    out = pool(x)
    out.float().sum().backward()
    assert torch.isfinite(out).all()
    assert all(torch.isfinite(p.grad).all() for p in pool.parameters() if p.grad is not None)


def test_mixed_runs_from_the_mean_to_the_maximum() -> None:
    x = images(2, 3, 5, 4)
    assert torch.equal(made("mixed", a=1.0)(x), made("max")(x))
    assert torch.equal(made("mixed", a=0.0)(x), made("avg")(x))


@pytest.mark.parametrize("stride", [2, 3])
def test_gated_against_a_double_loop(stride: int) -> None:
    x, pool = images(2, 2, 2 * stride, 3 * stride), made("gated", 2, stride=stride)
    mask = pool.weight.flatten().tolist()

    def definition(values: Values) -> float:
        gate = 1 / (1 + exp(-sum(w * v for w, v in zip(mask, values, strict=True))))
        return gate * max(values) + (1 - gate) * fmean(values)

    torch.testing.assert_close(pool(x), by_windows(x, stride, definition))


@pytest.mark.parametrize("mode", ["zeros", "circular"])
def test_lip_against_a_double_loop(mode: str) -> None:
    x, pool = images(1, 2, 4, 5), made("lip", 2, padding_mode=mode)
    weight, bias = pool.gate.weight[:, :, 0, 0].tolist(), pool.gate.bias.tolist()
    out = pool(x)
    for c, i, j in itertools.product(range(2), range(2), range(3)):
        above = below = 0.0
        for y, z in itertools.product(range(2 * i - 1, 2 * i + 2), range(2 * j - 1, 2 * j + 2)):
            if mode == "zeros" and not (0 <= y < 4 and 0 <= z < 5):
                continue
            y, z = y % 4, z % 5
            logit = bias[c] + sum(weight[c][k] * float(x[0, k, y, z]) for k in range(2))
            importance = exp(12 / (1 + exp(-logit)))
            above, below = above + importance * float(x[0, c, y, z]), below + importance
        assert float(out[0, c, i, j].detach()) == pytest.approx(above / below, rel=1e-12)


def test_lip_with_a_gate_of_zero_is_the_mean_of_overlapping_windows() -> None:
    x, pool = images(2, 3, 5, 4), made("lip")
    for parameter in pool.parameters():
        torch.nn.init.zeros_(parameter)
    expected = F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
    torch.testing.assert_close(pool(x), expected)


def test_softpool_is_per_channel_and_does_not_overflow() -> None:
    x = images(1, 2, 4, 4)
    assert torch.equal(made("softpool")(x)[:, :1], made("softpool")(x[:, :1]))
    torch.testing.assert_close(made("softpool")(x * 1e4), made("max")(x * 1e4))


def test_stochastic_draws_in_proportion() -> None:
    window = torch.tensor([[1.0, 0.0], [-3.0, 3.0]])
    pool = create_pool("stochastic", 1).train()
    torch.manual_seed(0)
    draws = pool(window.expand(4000, 1, 2, 2)).flatten()
    assert set(draws.tolist()) == {1.0, 3.0}
    # 3/4, within four standard deviations.
    assert abs(float((draws == 3).double().mean()) - 0.75) < 4 * sqrt(0.75 * 0.25 / 4000)


def test_stochastic_gives_zero_where_nothing_is_positive() -> None:
    x = torch.tensor([[-1.0, -2.0], [-3.0, 0.0]])[None, None].requires_grad_()
    for training in (True, False):
        out = create_pool("stochastic", 1).train(training)(x)
        (gradient,) = torch.autograd.grad(out.sum(), x)
        assert out.tolist() == [[[[0]]]]
        assert torch.isfinite(gradient).all()


def test_l2_has_a_finite_gradient_at_zero() -> None:
    x = torch.zeros(1, 1, 2, 2, requires_grad=True)
    (gradient,) = torch.autograd.grad(create_pool("l2", 1)(x).sum(), x)
    assert gradient.flatten().tolist() == [0, 0, 0, 0]


def test_dwt_is_twice_the_mean() -> None:
    x = images(2, 3, 8, 12)
    haar = torch.full((3, 1, 2, 2), 0.5, dtype=torch.float64)
    once = F.conv2d(x, haar, stride=2, groups=3)
    torch.testing.assert_close(made("dwt")(x), 2 * made("avg")(x))
    torch.testing.assert_close(made("dwt")(x), once)
    torch.testing.assert_close(made("dwt", stride=4)(x), F.conv2d(once, haar, stride=2, groups=3))


def test_decimate_behind_a_convolution_is_the_strided_convolution() -> None:
    x = images(2, 3, 9, 8)
    weight = images(5, 3, 3, 3, seed=2)
    dense = F.conv2d(x, weight, padding=1)
    torch.testing.assert_close(made("decimate")(dense), F.conv2d(x, weight, padding=1, stride=2))


@pytest.mark.parametrize("mode", PADDING_MODES)
def test_strided_conv_is_that_of_torch(mode: str) -> None:
    x, pool = images(2, 3, 9, 8), made("strided_conv", padding_mode=mode)
    reference = torch.nn.Conv2d(3, 3, 3, stride=2, padding=1, padding_mode=mode).double()
    reference.load_state_dict(pool.state_dict())
    torch.testing.assert_close(pool(x), reference(x))


def test_space_to_depth_is_a_convolution_of_the_window() -> None:
    x, pool = images(2, 2, 6, 9), made("space_to_depth", 2, stride=3)
    weight = pool.conv.weight.view(2, 2, 3, 3)
    torch.testing.assert_close(pool(x), F.conv2d(x, weight, pool.conv.bias, stride=3))


def test_dense_returns_its_input_and_keeps_its_stride() -> None:
    x, pool = images(2, 2, 5, 5), made("dense", stride=3)
    assert pool(x) is x
    assert pool.stride == 3


def binomials(size: int) -> list[float]:
    return [comb(size - 1, i) / 2 ** (size - 1) for i in range(size)]


@pytest.mark.parametrize("size", [3, 5, 7])
def test_blur_kernels_are_outer_products(size: int) -> None:
    row = torch.tensor(binomials(size), dtype=torch.float64)
    kernel = made(f"blur{size}", 2).kernel
    assert torch.equal(kernel, torch.outer(row, row).expand(2, 1, size, size))


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_blur_against_a_double_loop(size: int, stride: int) -> None:
    x, taps, reach = images(1, 1, 5, 6), binomials(size), size // 2
    rows, columns = -(-5 // stride), -(-6 // stride)
    reflected, circular = torch.zeros(2, rows, columns, dtype=torch.float64)
    for i, j, a, b in itertools.product(range(rows), range(columns), range(size), range(size)):
        y, z = i * stride + a - reach, j * stride + b - reach
        circular[i, j] += taps[a] * taps[b] * x[0, 0, y % 5, z % 6]
        inside = x[0, 0, 4 - abs(4 - abs(y)), 5 - abs(5 - abs(z))]
        reflected[i, j] += taps[a] * taps[b] * inside
    torch.testing.assert_close(made(f"blur{size}", 1, stride=stride)(x)[0, 0], reflected)
    torch.testing.assert_close(made(f"blur{size}", 1, stride=stride, padding_mode="circular")(x)[0, 0], circular)


@pytest.mark.parametrize("size", [3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
def test_blur_in_a_zero_padded_network_is_that_of_timm(size: int, stride: int) -> None:
    from timm.layers.blur_pool import BlurPool2d

    x = images(2, 3, 9, 8)
    published = BlurPool2d(3, filt_size=size, stride=stride, pad_mode="reflect").double()
    torch.testing.assert_close(made(f"blur{size}", stride=stride)(x), published(x))
    if size != 7:
        dense = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-float("inf")), 2, stride=1)
        torch.testing.assert_close(made(f"max_blur{size}", stride=stride)(x), published(dense))


LOWPASS = ["blur3", "blur5", "blur7", "max_blur3", "max_blur5", "aps_blur3", "max_aps_blur3", "area"]


@pytest.mark.parametrize("name", LOWPASS)
@pytest.mark.parametrize("size", [(2, 2), (2, 8), (4, 2), (8, 8)])
def test_a_constant_stays_constant_in_a_corner(name: str, size: tuple[int, int]) -> None:
    # Where a filter of zeros would leave 9/16 of it, also on maps not larger than the padding.
    out = made(name)(torch.ones(1, 3, *size, dtype=torch.float64))
    torch.testing.assert_close(out, torch.ones_like(out))


@pytest.mark.parametrize("name", ["blur3", "blur5", "blur7", "max_blur3", "max_blur5"])
def test_blur_with_stride_is_blur_then_decimation(name: str) -> None:
    x = images(2, 3, 9, 8)
    for mode, stride in itertools.product(PADDING_MODES, (2, 3)):
        dense = made(name, stride=1, padding_mode=mode)(x)
        out = made(name, stride=stride, padding_mode=mode)(x)
        torch.testing.assert_close(out, dense[..., ::stride, ::stride])


@pytest.mark.parametrize("size", [3, 5])
def test_max_blur_is_a_maximum_with_stride_1_then_blur(size: int) -> None:
    x = images(1, 2, 6, 6)
    dense = torch.empty_like(x)
    for i, j in itertools.product(range(6), range(6)):
        dense[..., i, j] = x[..., i : i + 2, j : j + 2].amax(dim=(-2, -1))
    torch.testing.assert_close(made(f"max_blur{size}", 2)(x), made(f"blur{size}", 2)(dense))


def frequencies(n: int) -> range:
    """Return the integers strictly between -n/2 and n/2."""
    return range(-((n - 1) // 2), (n - 1) // 2 + 1)


@pytest.mark.parametrize(("size", "stride"), [((6, 8), 2), ((5, 7), 2), ((6, 9), 3), ((7, 4), 3), ((2, 2), 2)])
def test_ideal_lowpass_against_a_sum_of_waves(size: tuple[int, int], stride: int) -> None:
    x = images(1, 2, *size)
    (h, w), (rows, columns) = size, (-(-size[0] // stride), -(-size[1] // stride))
    expected = torch.zeros(1, 2, rows, columns, dtype=torch.float64)
    # The sum of the kept waves for each pair of pixels is a kernel of cosines centred on the output pixel.
    for i, j, y, z in itertools.product(range(rows), range(columns), range(h), range(w)):
        kernel = sum(
            cos(2 * pi * (k * (i / rows - y / h) + m * (j / columns - z / w)))
            for k in frequencies(rows)
            for m in frequencies(columns)
        )
        expected[..., i, j] += kernel * x[..., y, z] / (h * w)
    torch.testing.assert_close(made("ideal_lowpass", stride=stride)(x), expected)


@pytest.mark.parametrize(("size", "stride"), [((12, 16), 2), ((11, 13), 2), ((12, 15), 3)])
def test_ideal_lowpass_samples_slow_waves_and_drops_fast_ones(size: tuple[int, int], stride: int) -> None:
    coarse = [-(-n // stride) for n in size]
    pool = made("ideal_lowpass", stride=stride)

    def wave(k: int, m: int, rows: int, columns: int) -> Tensor:
        y, z = torch.arange(rows, dtype=torch.float64) / rows, torch.arange(columns, dtype=torch.float64) / columns
        return torch.cos(2 * pi * (k * y[:, None] + m * z) + 0.7)[None, None]

    for k, m in itertools.product(range(size[0] // 2), range(-(size[1] // 2) + 1, size[1] // 2)):
        kept = k in frequencies(coarse[0]) and m in frequencies(coarse[1])
        expected = wave(k, m, coarse[0], coarse[1]) * kept
        torch.testing.assert_close(pool(wave(k, m, *size)), expected, rtol=0, atol=1e-12)


def test_ideal_lowpass_keeps_the_mean() -> None:
    for size, stride in itertools.product([(8, 8), (7, 9), (2, 2), (1, 1)], [2, 3]):
        x = images(2, 3, *size)
        out = made("ideal_lowpass", stride=stride)(x)
        torch.testing.assert_close(out.mean(dim=(-2, -1)), x.mean(dim=(-2, -1)))


def test_area_is_a_triangle_of_four_taps() -> None:
    x = images(1, 1, 8, 12)
    taps = torch.tensor([0.125, 0.375, 0.375, 0.125], dtype=torch.float64)
    wrapped = torch.nn.functional.pad(x, (1, 2, 1, 2), mode="circular")
    expected = F.conv2d(wrapped, torch.outer(taps, taps)[None, None], stride=2)[..., :4, :6]
    torch.testing.assert_close(made("area", 1, padding_mode="circular")(x), expected)
    torch.testing.assert_close(made("area", 1)(x)[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1])
