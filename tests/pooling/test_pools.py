"""The contract of every local pool."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor, nn

from poolbench.core import UsageError
from poolbench.engine.build import initialise
from poolbench.pooling import create_pool, list_pools
from poolbench.pooling.padding import PADDING_MODES, PaddingMode
from poolbench.registry import pools

# No subsampling at all.
KEEPS_SIZE = {"dense"}
# Their components must be of equal size: other sides raise.
NEEDS_DIVISIBLE_SIDES = {"aps", "aps_blur3", "lps"}
# Other strides raise.
NEEDS_POWERS_OF_TWO = {"dwt"}
# Their choice in eval mode is hard: no gradient gets through it.
LEARNS_IN_TRAINING_ONLY = {"lps"}
# Pools that keep a constant map constant whatever the padding does at the border.
KEEPS_CONSTANTS = {
    *("max", "max3", "avg", "median", "decimate", "dense", "mixed", "gated", "softpool", "lip"),
    *("ideal_lowpass", "area", "aps", "lps"),
}
# These keep a positive constant: they see magnitudes, or the positive part only.
KEEPS_POSITIVE_CONSTANTS = {"l2", "gem_local", "stochastic"}
# Their border sees the padding; a mode that continues the image keeps a constant.
KEEPS_CONSTANTS_IF_CONTINUED = {"blur3", "blur5", "blur7", "max_blur3", "max_blur5", "aps_blur3"}
# dwt doubles, the other two learn what to do.
CHANGES_CONSTANTS = {"dwt", "strided_conv", "space_to_depth"}

by_name = pytest.mark.parametrize("name", list_pools())
by_mode = pytest.mark.parametrize("mode", PADDING_MODES)


def made(name: str, channels: int = 3, stride: int = 2, padding_mode: PaddingMode = "zeros") -> nn.Module:
    torch.manual_seed(0)
    return create_pool(name, channels, stride=stride, padding_mode=padding_mode).double().eval()


def images(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def strides(name: str) -> list[int]:
    return [2, 4] if name in NEEDS_POWERS_OF_TWO else [2, 3]


def takes(name: str, size: tuple[int, int], stride: int) -> bool:
    return name not in NEEDS_DIVISIBLE_SIDES or not (size[0] % stride or size[1] % stride)


@by_mode
@by_name
def test_output_size(name: str, mode: PaddingMode) -> None:
    for stride, size in itertools.product(strides(name), [(8, 8), (9, 7), (6, 12), (6, 11)]):
        pool, x = made(name, stride=stride, padding_mode=mode), images(2, 3, *size)
        if not takes(name, size, stride):
            with pytest.raises(UsageError, match=f"pool '{name}' .* stride {stride} divides, got {size[0]}x{size[1]}"):
                pool(x)
            continue
        expected = size if name in KEEPS_SIZE else (-(-size[0] // stride), -(-size[1] // stride))
        assert pool(x).shape == (2, 3, *expected), (stride, size)


@by_mode
@by_name
def test_maps_smaller_than_the_padding(name: str, mode: PaddingMode) -> None:
    for size, channels, training in itertools.product([(1, 1), (1, 3), (2, 2)], [1, 3], [False, True]):
        pool = made(name, channels=channels, padding_mode=mode).train(training)
        if takes(name, size, 2):
            out = pool(images(2, channels, *size))
            assert torch.isfinite(out).all()
            assert name in KEEPS_SIZE or out.shape == (2, channels, 1, -(-size[1] // 2))


@by_mode
@by_name
def test_gradients(name: str, mode: PaddingMode) -> None:
    pool = made(name, channels=2, padding_mode=mode)
    x = images(1, 2, *((6, 4) if name in NEEDS_DIVISIBLE_SIDES else (5, 4))).requires_grad_()
    parameters = {} if name in LEARNS_IN_TRAINING_ONLY else dict(pool.named_parameters())

    def apply(x: Tensor, *values: Tensor) -> Tensor:
        out: Tensor = torch.func.functional_call(pool, dict(zip(parameters, values, strict=True)), (x,))
        return out

    assert torch.autograd.gradcheck(apply, (x, *parameters.values()))


@by_name
@pytest.mark.parametrize("training", [True, False])
def test_every_parameter_learns(name: str, training: bool) -> None:
    if not training and name in LEARNS_IN_TRAINING_ONLY:
        pytest.skip("chooses in eval mode")
    pool = made(name).train(training)
    x = images(4, 3, 8, 8).requires_grad_()
    pool(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    for path, parameter in pool.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.abs().sum() > 1e-9, path


@by_name
def test_dtype_device_memory_format_and_repetition(name: str) -> None:
    pool = made(name)
    x = images(2, 3, 8, 8)
    out = pool(x)
    assert out.dtype == torch.float64
    assert torch.equal(out, pool(x))
    torch.testing.assert_close(pool(x.contiguous(memory_format=torch.channels_last)), out)
    assert pool.float()(x.float()).dtype == torch.float32
    torch.testing.assert_close(pool(x.float()), out.float())
    if name not in NEEDS_DIVISIBLE_SIDES:  # which look at values to choose
        assert pool.to("meta")(x.float().to("meta")).device.type == "meta"


@by_name
@pytest.mark.parametrize("training", [True, False])
def test_half_precision(name: str, training: bool) -> None:
    pool = made(name).float().train(training)
    for x in (images(2, 3, 8, 8).float(), images(2, 3, 8, 8).bfloat16(), torch.zeros(2, 3, 8, 8).bfloat16()):
        x.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16):
            out = pool(x)
        out.float().square().sum().backward()
        assert x.grad is not None
        assert torch.isfinite(out).all()
        assert torch.isfinite(x.grad).all()
        assert all(torch.isfinite(p.grad).all() for p in pool.parameters() if p.grad is not None)


@by_name
def test_facts(name: str) -> None:
    facts = pools.entry(name).facts
    assert set(facts) == {"reference", "shift_equivariant", "learnable", "random"}
    pool, x = made(name), images(4, 3, 12, 12)
    assert bool(list(pool.parameters())) == facts["learnable"]
    pool.train()
    assert torch.equal(pool(x), pool(x)) != facts["random"]


def is_roll(x: Tensor, y: Tensor) -> bool:
    """Say whether y (b, c, h, w) is a circular shift of x, each image by its own."""
    rolls = itertools.product(range(x.shape[-2]), range(x.shape[-1]))
    close = [torch.isclose(torch.roll(x, by, (-2, -1)), y, 1e-9, 1e-12).flatten(1).all(1) for by in rolls]
    return bool(torch.stack(close).any(0).all())


@by_name
def test_equivariance_to_all_shifts_is_as_stated(name: str) -> None:
    for stride in strides(name)[:1] if name in NEEDS_POWERS_OF_TWO else strides(name):
        pool, x = made(name, stride=stride, padding_mode="circular"), images(4, 3, 6, 12)
        out = pool(x)
        follows = [is_roll(out, pool(torch.roll(x, by, (-2, -1)))) for by in itertools.product(range(6), range(12))]
        assert all(follows) == pools.entry(name).facts["shift_equivariant"]


@by_name
def test_circular_padding_is_periodic(name: str) -> None:
    for stride in strides(name):
        pool, x = made(name, stride=stride, padding_mode="circular"), images(2, 3, 12, 24)
        moved = pool(torch.roll(x, (stride, -2 * stride), dims=(-2, -1)))
        steps = (stride, -2 * stride) if name in KEEPS_SIZE else (1, -2)
        torch.testing.assert_close(moved, torch.roll(pool(x), steps, dims=(-2, -1)))


@by_mode
@by_name
def test_constants(name: str, mode: PaddingMode) -> None:
    value = 0.7 if name in KEEPS_POSITIVE_CONSTANTS else -2.5
    x = torch.full((1, 3, *((6, 8) if name in NEEDS_DIVISIBLE_SIDES else (7, 8))), value, dtype=torch.float64)
    out = made(name, padding_mode=mode)(x)
    darkens = mode == "zeros" and name in KEEPS_CONSTANTS_IF_CONTINUED  # as published
    if darkens or name in CHANGES_CONSTANTS:
        assert not torch.allclose(out, torch.full_like(out, value))
    else:
        assert name in KEEPS_CONSTANTS | KEEPS_POSITIVE_CONSTANTS | KEEPS_CONSTANTS_IF_CONTINUED
        torch.testing.assert_close(out, torch.full_like(out, value))


@by_mode
def test_no_two_pools_are_the_same(mode: PaddingMode) -> None:
    x = images(8, 3, 12, 12)
    outputs = {name: made(name, padding_mode=mode)(x) for name in list_pools()}
    for first, second in itertools.combinations(outputs, 2):
        assert not torch.equal(outputs[first], outputs[second]), (first, second)


@by_name
def test_parameters_follow_from_the_seed_and_the_path(name: str) -> None:
    torch.manual_seed(1)
    first = create_pool(name, 3)
    torch.manual_seed(2)
    second = create_pool(name, 3)
    for pool in (first, second):
        initialise(pool, 7)
    for path, parameter in first.named_parameters():
        assert torch.equal(parameter, second.get_parameter(path)), path


def test_bad_arguments_are_answered() -> None:
    with pytest.raises(UsageError, match="did you mean 'max'"):
        create_pool("maxx", 3)
    with pytest.raises(UsageError, match="unknown padding_mode 'mirror'"):
        create_pool("max", 3, padding_mode="mirror")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="stride is a power of 2, got 3"):
        create_pool("dwt", 3, stride=3)
    for name, option in (("mixed", "a"), ("gem_local", "p"), ("lps", "temperature")):
        with pytest.raises(UsageError, match=r"got -1\.5"):
            create_pool(name, 3, **{option: -1.5})  # type: ignore[arg-type]
